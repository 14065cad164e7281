"""Standard deviation of a typical line's count by source of noise, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aimcard.models.card import Card
from aimcard.models.card_text import rows_of_text
from aimcard.models.errors import InputError
from aimcard.models.modes import Mode
from aimcard.models.noise import CountNoise
from aimcard.models.pcm import G_MAX_S, G_MIN_S
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile_noise import tile_noise
from aimcard.models.topology import tile_of
from aimcard.validation.typical import normal_codes, normal_pairs

VECTORS = 4


def typical_lines(rows: int, code_max: int, seed: int = 1) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Two lines of normal weights to 25 µS (2, rows) [S], and codes (vectors, rows) by distribution of the inputs."""
    rng = np.random.default_rng([seed, 83])
    g = np.concatenate(normal_pairs(rng, 1, rows, G_MIN_S, G_MAX_S))
    shape = (VECTORS, rows)
    codes = {
        "gaussian": normal_codes(rng, *shape, code_max, signed=False),
        "uniform": rng.integers(0, code_max + 1, shape),
        "sparse": np.where(rng.random(shape) < 0.1, rng.integers(1, code_max + 1, shape), 0),
    }
    return g, {name: x.astype(np.int64) for name, x in codes.items()}


def typical_columns(rows: int, code_max: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The same for two tied columns: G+ and G− of normal weights (2, rows) [S] each, and codes of either sign."""
    rng = np.random.default_rng([seed, 84])
    plus, minus = normal_pairs(rng, 2, rows, G_MIN_S, G_MAX_S)
    shape = (VECTORS, rows)
    uniform = rng.integers(-code_max, code_max + 1, shape)
    codes = {
        "gaussian": normal_codes(rng, *shape, code_max, signed=True),
        "uniform": uniform,
        "sparse": np.where(rng.random(shape) < 0.1, rng.permuted(uniform, axis=1), 0),
    }
    return plus, minus, {name: x.astype(np.int64) for name, x in codes.items()}


@dataclass(frozen=True)
class TypicalNoise:
    """by_inputs: every source's standard deviation by distribution of the inputs. idle: of the count of a tied column without
    inputs, which is read once and taken off every other; None for gated lines, whose digital side takes nothing off."""

    by_inputs: dict[str, CountNoise]
    idle: CountNoise | None = None


def typical_noise(card: Card, *, rows: int | None = None, mode: str | Mode | None = None, **how: Any) -> TypicalNoise:
    """The noise of typical lines in a PWM mode, the card's own by default; ``how`` and errors as for ``tile_noise``."""
    model = tile_of(card)
    rows = int(card.meta["rows"]) if rows is None else rows
    if rows < 1:
        raise InputError(f"rows: expected 1 or more; got {rows}")
    how["mode"] = mode
    if not isinstance(model, TiedTile):
        g, vectors = typical_lines(rows, model.code_max)
        return TypicalNoise({name: tile_noise(model, g, codes, **how) for name, codes in vectors.items()})
    plus, minus, vectors = typical_columns(rows, model.code_max)
    found = {name: tile_noise(model, plus, codes, minus, **how) for name, codes in vectors.items()}
    return TypicalNoise(found, tile_noise(model, plus, np.zeros((1, rows), np.int64), minus, **how))


def noise_table(card: Card, **options: Any) -> str:
    """``typical_noise`` as text, rms over lines and vectors [counts]."""
    noise = typical_noise(card, **options)
    found = noise.by_inputs
    names = list(next(iter(found.values())).sigma)
    rows = [("sigma of a count, by source", *found)]
    rows += [(name, *(_rms(noise.sigma[name]) for noise in found.values())) for name in names]
    rows += [("all sources", *(_rms(noise.total) for noise in found.values()))]
    if noise.idle is not None:
        rows += [("idle count, read once", *(_rms(noise.idle.total) for _ in found))]
    what = "bleed included" if noise.idle is None else "signed"
    rows += [(f"count ({what})", *(_rms(noise.count) for noise in found.values()))]
    return "\n".join(rows_of_text(rows, indent=""))


def _rms(values: torch.Tensor) -> str:
    return f"{float(values.square().mean().sqrt()):.3g}"
