"""Standard deviation of a typical line's count by source of noise, as a table."""

from __future__ import annotations

import numpy as np
import torch

from aimcard.models.card import Card
from aimcard.models.card_text import rows_of_text
from aimcard.models.checks import check_positive
from aimcard.models.errors import InputError
from aimcard.models.noise import CLOCK_JITTER_S, LOWEST_HZ, CountNoise, NoiseParameters, count_noise
from aimcard.models.tile import TileModel
from aimcard.validation.typical import normal_codes, normal_pairs

VECTORS = 4
G_MAX_S = 25e-6


def typical_lines(rows: int, code_max: int, seed: int = 1) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Two lines of normal weights to 25 µS (2, rows) [S], and codes (vectors, rows) by distribution of the inputs."""
    rng = np.random.default_rng([seed, 83])
    g = np.concatenate(normal_pairs(rng, 1, rows, 0.1e-6, G_MAX_S))
    shape = (VECTORS, rows)
    codes = {
        "gaussian": normal_codes(rng, *shape, code_max, signed=False),
        "uniform": rng.integers(0, code_max + 1, shape),
        "sparse": np.where(rng.random(shape) < 0.1, rng.integers(1, code_max + 1, shape), 0),
    }
    return g, {name: x.astype(np.int64) for name, x in codes.items()}


def typical_noise(
    card: Card, *, rows: int | None = None, jitter_s: float = CLOCK_JITTER_S, lowest_hz: float = LOWEST_HZ
) -> dict[str, CountNoise]:
    """Every source's standard deviation by distribution of the inputs. Raises CardError if the card has no noise."""
    model, parameters = TileModel(card), NoiseParameters.of(card)
    rows = int(card.meta["rows"]) if rows is None else rows
    if rows < 1:
        raise InputError(f"rows: expected 1 or more; got {rows}")
    check_positive("jitter_s", jitter_s, zero=True)
    g, vectors = typical_lines(rows, model.code_max)
    out = {}
    for name, codes in vectors.items():
        current = torch.from_numpy(model.respond(g, codes).current_a)
        out[name] = count_noise(
            parameters, torch.from_numpy(g), torch.from_numpy(codes), current,
            v_read_v=model.v_read_v, t_lsb_s=model.t_lsb_s, jitter_s=jitter_s, lowest_hz=lowest_hz,
        )  # fmt: skip
    return out


def noise_table(card: Card, **options) -> str:
    """``typical_noise`` as text, rms over lines and vectors [counts]."""
    found = typical_noise(card, **options)
    names = list(next(iter(found.values())).sigma)
    rows = [("sigma of a count, by source", *found)]
    rows += [(name, *(_rms(noise.sigma[name]) for noise in found.values())) for name in names]
    rows += [("all sources", *(_rms(noise.total) for noise in found.values()))]
    rows += [("count (bleed included)", *(_rms(noise.count) for noise in found.values()))]
    return "\n".join(rows_of_text(rows, indent=""))


def _rms(values: torch.Tensor) -> str:
    return f"{float(values.square().mean().sqrt()):.3g}"
