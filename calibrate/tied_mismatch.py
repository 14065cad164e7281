"""From simulated chips to the few numbers of a tied card's spreads: read-outs alone, and single always-on cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from aimcard.calibrate.mismatch import CELL_WIDTHS_UM, regressed, ring_rates, thresholds
from aimcard.calibrate.tied_simulate import READOUT_A
from aimcard.models.card_parts import Spread
from aimcard.models.departure import log_current
from aimcard.models.mismatch import CELL_NAMES, TERMS
from aimcard.models.pcm import G_MAX_S
from aimcard.models.tied_mismatch import TIED_READOUT_NAMES
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.levels import V_COMMON_V
from aimcard.netlists.mismatch import mismatched
from aimcard.netlists.ngspice import run_many
from aimcard.netlists.technology import Technology
from aimcard.netlists.tied_cell_decks import tied_cell_arrays, tied_cell_deck
from aimcard.netlists.tied_readout import tied_static_deck

#: Line currents of the nominal read-out at whose regulator currents every chip's ring is run [A]: even in their logarithm, about.
TIED_RATE_CURRENTS_A = np.array([-170.0, -155.0, -130.0, -95.0, -50.0, 0.0, 50.0, 100.0, 150.0, 200.0]) * 1e-6
STATIC_POINTS = 75
#: Line current about which a departure's tilt and bend are taken [A]: the resting column's.
REFERENCE_A = 0.0
#: Regulator current above which it still works, in units of the nominal least.
LEAST_SHARE = 0.5
#: Conductance of the cells whose transistors are looked at [S]: near the largest, where the transistor takes most.
CELL_S = G_MAX_S


@dataclass(frozen=True, eq=False)
class TiedReadoutPopulation:
    """Read-outs alone, at equal regulator currents.

    current_a (points,): line current of the nominal read-out; clamp_v, mirror_a (chips, points): of each chip where its regulator
    carries what the nominal one does there, NaN outside its own curve. rate_current_a (currents,), rate_hz (chips, currents):
    likewise. bias_a (chips,): what the regulator carries at no line current. offset_count (chips,): counts gained at the start.
    Index 0 is the nominal read-out. threshold_v, sigma_v: as ``ReadoutPopulation``'s.
    """

    seeds: tuple[int, ...]
    current_a: np.ndarray
    clamp_v: np.ndarray
    mirror_a: np.ndarray
    rate_current_a: np.ndarray
    rate_hz: np.ndarray
    bias_a: np.ndarray
    offset_count: np.ndarray
    threshold_v: np.ndarray
    sigma_v: np.ndarray
    deck_hashes: tuple[str, ...]


def simulate_tied_readouts(
    bench: ColumnBench, seeds: Sequence[int], *, a_vt_v_um: float | None = None, jobs: int | None = None,
    cache_dir: str | Path | None = None, progress: bool = True,
) -> TiedReadoutPopulation:  # fmt: skip
    """Static curves and count rates of the nominal read-out and of the chips ``seeds``. Raises as ``run_many``."""
    drawn = [mismatched(bench.technology, s, a_vt_v_um=a_vt_v_um, part="readout") for s in seeds]
    chips: list[Technology] = [bench.technology, *drawn]
    least, most = READOUT_A
    decks = [
        tied_static_deck(
            t, bench.readout, corner=bench.corner, temperature_c=bench.temperature_c, v_common_v=V_COMMON_V,
            current_min_a=least, current_max_a=most, points=STATIC_POINTS,
        )
        for t in chips
    ]  # fmt: skip
    static = run_many(decks, jobs, cache_dir, "read-outs", progress)
    line, nominal = static[0].scale, static[0]["i(vreg)"]
    clamp, mirror = (np.stack([_at(nominal, w["i(vreg)"], w[name]) for w in static]) for name in ("v(bl)", "i(vmir)"))
    bias = np.array([np.interp(0.0, w.scale, w["i(vreg)"]) for w in static])
    at_a = np.tile(np.interp(TIED_RATE_CURRENTS_A, line, nominal), (len(chips), 1))
    at = int(np.searchsorted(TIED_RATE_CURRENTS_A, REFERENCE_A))
    rates, offsets, hashes = ring_rates(bench, chips, at_a, at, jobs, cache_dir, progress)
    return TiedReadoutPopulation(
        tuple(seeds), line, clamp, mirror, TIED_RATE_CURRENTS_A, rates, bias, offsets, *thresholds(decks[0], bench, drawn),
        (*(w.deck_hash for w in static), *hashes),
    )  # fmt: skip


def _at(wanted_a: np.ndarray, regulator_a: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A chip's curve at other regulator currents. A shifted bias leaves one end of them without a counterpart (NaN): at the low
    end the regulator has let go, which is no part of a smooth curve."""
    kept = regulator_a >= LEAST_SHARE * wanted_a[0]
    return CubicSpline(regulator_a[kept], values[kept], extrapolate=False)(wanted_a)


def tied_readout_numbers(p: TiedReadoutPopulation) -> tuple[np.ndarray, dict[str, float]]:
    """The numbers of TIED_READOUT_NAMES of each chip, (chips, numbers), and what they leave of its curves: rms residuals in volts
    for the clamp, relative for mirror and rate."""
    columns, left = [p.bias_a[1:, None] - p.bias_a[0]], {}
    tables = {
        "clamp": (p.current_a, p.clamp_v[1:] - p.clamp_v[0]),
        "mirror": (p.current_a, np.log(p.mirror_a[1:] / p.mirror_a[0])),
        "rate": (p.rate_current_a, np.log(p.rate_hz[1:] / p.rate_hz[0])),
    }
    for name, (current, delta) in tables.items():
        x = log_current(float(p.bias_a[0]), REFERENCE_A, torch.from_numpy(np.array(current)), READOUT_A[0]).numpy()
        basis = np.vander(x, TERMS[name], increasing=True)
        known = np.isfinite(delta)
        fitted = np.stack([np.linalg.lstsq(basis[k], d[k], rcond=None)[0] for d, k in zip(delta, known, strict=True)])
        columns.append(fitted)
        left[name] = float(np.sqrt(np.mean((delta - fitted @ basis.T)[known] ** 2)))
    return np.column_stack([*columns, p.offset_count[1:] - p.offset_count[0]]), left


def tied_readout_spread(p: TiedReadoutPopulation) -> Spread:
    """Mean and covariance of the chips' numbers, by ``regressed``. Raises InputError for fewer than LEAST_CHIPS."""
    mean, covariance = regressed(tied_readout_numbers(p)[0], p.threshold_v, p.sigma_v)
    return Spread(
        "readout", tuple(TIED_READOUT_NAMES), tuple(TIED_READOUT_NAMES.values()), mean, covariance, len(p.threshold_v),
        {"i_idle_a": float(p.bias_a[0]), "i_ref_a": REFERENCE_A, "least_a": READOUT_A[0]},
        "shift of a column's bias, and departure of its clamp, mirror and count rate from the nominal tables at equal regulator "
        "current",
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class TiedCellPopulation:
    """Single always-on cells. threshold_v, r_on_ohm: (widths, cells); nominal_r_on_ohm: (widths,)."""

    w_select_um: np.ndarray
    threshold_v: np.ndarray
    r_on_ohm: np.ndarray
    nominal_r_on_ohm: np.ndarray
    deck_hashes: tuple[str, ...]


def simulate_tied_cells(
    bench: ColumnBench, seed: int, *, cells: int = 200, widths_um: np.ndarray = CELL_WIDTHS_UM, a_vt_v_um: float | None = None,
    cache_dir: str | Path | None = None,
) -> TiedCellPopulation:  # fmt: skip
    """``cells`` select transistors of each width, each with its own threshold, its source line down and up."""
    t, widths = mismatched(bench.technology, seed, a_vt_v_um=a_vt_v_um, part="cells"), np.asarray(widths_um)
    # The grid needs two column voltages; the first is the common mode.
    axes = (V_COMMON_V, V_COMMON_V + 1e-3, 2), (V_COMMON_V - bench.v_read_v, V_COMMON_V + bench.v_read_v, 2)
    each = [np.full(n, CELL_S) for n in (cells, 1)]
    chips = (t, bench.technology)
    decks = [tied_cell_deck(x, bench.corner, bench.temperature_c, g, widths, *axes) for x, g in zip(chips, each, strict=True)]
    waves = run_many(decks, 1, cache_dir, progress=False)
    r_on = []
    for w, g in zip(waves, each, strict=True):
        arrays = tied_cell_arrays(w, bench.technology.vdd_v, g, widths, *axes)
        down, up = (arrays["current_a"].reshape(len(widths), len(g), 2, 2)[:, :, k, 0] for k in (0, 1))
        r_on.append(2 * bench.v_read_v / (down - up) - 1 / CELL_S)
    names = [[f"s{j * cells + k}" for k in range(cells)] for j in range(len(widths))]
    shift = [[t.threshold_shift_v(n, float(w), t.l_min_um) for n in row] for row, w in zip(names, widths, strict=True)]
    return TiedCellPopulation(widths, np.array(shift), r_on[0], r_on[1][:, 0], tuple(w.deck_hash for w in waves))


def tied_cell_spread(p: TiedCellPopulation, a_vt_v_um: float, l_um: float, w_ref_um: float) -> Spread:
    """The law of thresholds, and what a threshold does to R_on, at the reference width."""
    at = int(np.argmin(np.abs(p.w_select_um - w_ref_um)))
    delta = p.threshold_v[at]
    on, on2 = np.linalg.lstsq(np.stack([delta, delta**2], 1), np.log(p.r_on_ohm[at] / p.nominal_r_on_ohm[at]), rcond=None)[0]
    return Spread(
        "cell", tuple(CELL_NAMES), tuple(CELL_NAMES.values()), np.zeros(1), np.array([[a_vt_v_um**2 / (w_ref_um * l_um)]]),
        delta.size, {"w_ref_um": w_ref_um, "on_per_v": on, "on_per_v2": on2},
        "threshold of a select transistor, sigma with 1/sqrt(W)",
    )  # fmt: skip
