"""Which tied columns are simulated: the gated ones' designs, with a second cell in every row and signs on the codes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from aimcard.calibrate.columns import (
    CODE_MAX,
    DISTRIBUTIONS,
    VARIANTS,
    Column,
    draw_codes,
    fit_columns,
    pair_conductances,
)
from aimcard.models.pcm import G_MAX_S, G_MIN_S
from aimcard.netlists.levels import V_READ_V

if TYPE_CHECKING:
    from aimcard.calibrate.plan import Options


@dataclass(frozen=True)
class PairColumn(Column):
    """A record of a tied column: conductance_s is G+, conductance_minus_s G−, (lines, rows) both; codes have signs."""

    conductance_minus_s: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    read_out: str = "south"


def _pair(c: Column, minus_s: np.ndarray, codes: np.ndarray, read_out: str) -> PairColumn:
    own = {f.name: getattr(c, f.name) for f in dataclasses.fields(Column)}
    return PairColumn(**{**own, "codes": codes}, conductance_minus_s=minus_s, read_out=read_out)


def tied_fit_columns(count: int, seed: int, w_range_um: tuple[float, float]) -> list[PairColumn]:
    """``count`` single columns, spread as ``fit_columns``: G− is drawn like G+, at its own level, and signs are drawn
    with a bias of their own, so that some columns carry large currents."""
    out = []
    for k, c in enumerate(fit_columns("ideal", count, seed, w_range_um)):
        rng = np.random.default_rng([seed, 31, k])
        minus = np.clip(rng.permuted(c.conductance_s, axis=1) * rng.uniform(0.3, 1.5), G_MIN_S, G_MAX_S)
        sign = np.where(rng.random(c.codes.shape) < rng.uniform(0.1, 0.9), 1, -1)
        out.append(_pair(c, minus, c.codes * sign, "south"))
    return out


#: Held-out vectors with the read-out, at most, and those that are run again for the floor: they cost twice the ideal clamp's.
OTA_VECTORS, OTA_FLOOR_VECTORS = 4, 1
#: Largest current [A] of a fitted column with a read-out: the regulator holds −170 to 200 µA, its bias being 200 µA.
OTA_PEAK_A = (-140e-6, 170e-6)


def tied_ota_fit_columns(count: int, seed: int, w_range_um: tuple[float, float], v_read_v: float) -> list[PairColumn]:
    """``count`` single columns with the read-out, spread as ``fit_columns``; G− as in ``tied_fit_columns``.

    The signs are drawn so that the window's first slot carries about a current drawn evenly from OTA_PEAK_A: mirror and
    oscillator then see all of their range.
    """
    out = []
    for k, c in enumerate(fit_columns("ota", count, seed, w_range_um)):
        rng = np.random.default_rng([seed, 41, k])
        minus = np.clip(rng.permuted(c.conductance_s, axis=1) * rng.uniform(0.3, 1.5), G_MIN_S, G_MAX_S)
        weight_a = v_read_v * (c.conductance_s - minus)[0] * (c.codes[0] > 0)
        share = np.clip(rng.uniform(*OTA_PEAK_A) / max(np.abs(weight_a).sum(), 1e-12), -0.9, 0.9)
        agrees = rng.random(c.codes.shape) < 0.5 * (1 + share)
        sign = np.where(agrees, 1, -1) * np.where(weight_a < 0, -1, 1)
        out.append(_pair(c, minus, c.codes * sign, "south"))
    return out


def draw_signed_codes(rng: np.random.Generator, distribution: str, vectors: int, rows: int) -> np.ndarray:
    """Codes (vectors, rows) of either sign: ``draw_codes`` with random signs, Gaussian ones in one phase."""
    if distribution == "gaussian":
        return np.clip(np.round(rng.normal(0, CODE_MAX / 3, (vectors, rows))), -CODE_MAX, CODE_MAX).astype(np.int64)
    return draw_codes(rng, distribution, vectors, rows) * rng.choice([-1, 1], (vectors, rows))


def tied_held_out_columns(
    columns: int, vectors: int, seed: int, distributions: dict[str, tuple[str, ...]], wire_scales: tuple[float, ...],
    w_range_um: tuple[float, float],
) -> list[PairColumn]:  # fmt: skip
    """Columns that no fit sees, with both clamps; every other one is read at its north end."""
    out = []
    for c in range(columns):
        share, g_max, position = VARIANTS[c % len(VARIANTS)]
        w = round(w_range_um[0] + share * (w_range_um[1] - w_range_um[0]), 6)
        rng = np.random.default_rng([seed, 37, c])
        g = pair_conductances(rng, g_max)
        for distribution in (d for d in DISTRIBUTIONS if d in distributions["ideal"]):
            codes = draw_signed_codes(rng, distribution, vectors, g.shape[1])
            scales = (1.0, *(wire_scales if distribution == "gaussian" else ()))
            which = [("ideal", s) for s in scales] + [("ota", 1.0)] * (distribution in distributions["ota"])
            for clamp, scale in which:
                out.append(
                    PairColumn(
                        f"{clamp}-{distribution}-{scale:g}x-{c}", "held_out", distribution, clamp, g[:1],
                        codes[:OTA_VECTORS] if clamp == "ota" else codes, w, position, scale, column=f"held{c}",
                        conductance_minus_s=g[1:], read_out=("south", "north")[c % 2],
                    )
                )  # fmt: skip
    return out


def tied_floor_columns(held_out: list[PairColumn], vectors: int) -> list[PairColumn]:
    """The first vectors of each clamp's first Gaussian column again, for a tighter run: the reference's own error."""
    found = []
    for clamp in dict.fromkeys(c.clamp for c in held_out):
        of = next(c for c in held_out if c.clamp == clamp and c.distribution == "gaussian" and c.wire_scale == 1)
        codes = of.codes[: vectors if clamp == "ideal" else min(vectors, OTA_FLOOR_VECTORS)]
        found.append(dataclasses.replace(of, name=f"floor-{of.name}", role="floor", codes=codes, of=of.name))
    return found


def tied_supply_column(held_out: list[PairColumn]) -> PairColumn:
    """The first vector of the first Gaussian column again, on its read-out and with all supply currents recorded."""
    first = next(c for c in held_out if c.distribution == "gaussian" and c.wire_scale == 1)
    name = f"supply-ota-gaussian-1x-{first.name.rsplit('-', 1)[-1]}"
    return dataclasses.replace(
        first, name=name, role="check", clamp="ota", codes=first.codes[:1], of=first.name, supply=True
    )  # fmt: skip


def tied_plan(options: Options) -> list[PairColumn]:
    """All tied columns that ``options`` (calibrate.plan.Options) asks for: fitted, held out, floor."""
    size = options.size
    held = tied_held_out_columns(
        options.held_out_columns or size.columns, size.vectors, options.seed, size.distributions, size.wire_scales,
        options.w_range_um,
    )  # fmt: skip
    floor = tied_floor_columns(held, size.floor_vectors) if size.floor_vectors else []
    floor.append(tied_supply_column(held))
    fitted = tied_fit_columns(size.fit_ideal, options.seed, options.w_range_um)
    fitted += tied_ota_fit_columns(size.fit_ota, options.seed + 1, options.w_range_um, V_READ_V)
    return fitted + held + floor
