"""From simulated chips to the few numbers of a card's spreads: read-outs alone, and single cells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from aimcard.models.card_parts import Spread
from aimcard.models.departure import log_current
from aimcard.models.errors import InputError, SimulationError
from aimcard.models.mismatch import CELL_NAMES, READOUT_NAMES, TERMS
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.cell_decks import cell_population, cell_population_deck
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.mismatch import MismatchedTechnology, mismatched
from aimcard.netlists.ngspice import Deck, Waveforms, run_many
from aimcard.netlists.oscillator import COUNTS_PER_PERIOD, edge_times_s
from aimcard.netlists.oscillator_decks import RELEASE_AT_S, oscillator_rate, oscillator_rate_deck
from aimcard.netlists.readout_decks import readout_static, readout_static_deck
from aimcard.netlists.technology import Technology

#: Line currents at which each chip's ring is run [A]; the static curves have many more.
RATE_CURRENTS_A = np.array([0.0, 4.0, 11.0, 22.0, 38.0, 60.0, 100.0, 170.0, 280.0, 450.0]) * 1e-6
STATIC_MAX_A, STATIC_POINTS = 450e-6, 46
#: Line current about which a departure's tilt and bend are taken [A].
REFERENCE_A = 60e-6
#: Both the nominal ring and the chips' run at steps of twice the reference set's: only their ratio is used.
STEP_FACTOR = 2
PERIODS = 8
#: Fewest chips that a regression on 18 thresholds takes.
LEAST_CHIPS = 40
#: Select widths over which σ(R_on) and the leakage are simulated [µm].
CELL_WIDTHS_UM = np.array([0.09, 0.2, 0.3, 0.5])


@dataclass(frozen=True, eq=False)
class ReadoutPopulation:
    """Read-outs alone. current_a (points,); clamp_v, mirror_a (chips, points); rate_current_a (currents,), rate_hz
    (chips, currents); offset_count (chips,): counts gained at the start. Index 0 is the nominal read-out.

    threshold_v (drawn chips, transistors), sigma_v (transistors,): what was drawn, without the nominal chip; the like transistors
    of the five stages are one entry, their mean.
    """

    seeds: tuple[int, ...]
    current_a: np.ndarray
    clamp_v: np.ndarray
    mirror_a: np.ndarray
    rate_current_a: np.ndarray
    rate_hz: np.ndarray
    offset_count: np.ndarray
    i_idle_a: float
    threshold_v: np.ndarray
    sigma_v: np.ndarray
    deck_hashes: tuple[str, ...]


def thresholds(static: Deck, bench: ColumnBench, chips: Sequence[MismatchedTechnology]) -> tuple[np.ndarray, np.ndarray]:
    """Shifts (chips, transistors) and their sigma (transistors,) [V], of the transistors that a static current passes.

    static: the nominal read-out's deck, with a ring's stand-in as load.
    """
    nominal = static.text + oscillator_rate_deck(bench.technology, bench.readout, 1e-5).text
    kinds = {model: kind for kind, model in bench.technology.models.items()}
    sizes: dict[str, tuple[float, float, int, str, str]] = {}
    for name, model, w, length, m in re.findall(
        r"^M(\w+) \S+ \S+ \S+ \S+ (\S+) W=(\S+)u L=(\S+)u .*?(?: m=(\d+))?$", nominal, re.MULTILINE
    ):
        if not re.fullmatch(r"osc(sn|h\w|r[ud]\d)", name):  # a load's stand-in; the reset
            sizes[name] = (float(w), float(length), int(m or 1), *kinds[model])
    groups: dict[str, list[str]] = {}
    for name in sizes:
        groups.setdefault(re.sub(r"^(osc[a-z]+)\d$", r"\1", name), []).append(name)
    shift = [[np.mean([t.threshold_shift_v(n, *sizes[n]) for n in names]) for names in groups.values()] for t in chips]
    sigma = [chips[0].sigma_v(*sizes[names[0]]) / np.sqrt(len(names)) for names in groups.values()]
    return np.array(shift), np.array(sigma)


def simulate_readouts(
    bench: ColumnBench, seeds: Sequence[int], *, a_vt_v_um: float | None = None, jobs: int | None = None,
    cache_dir: str | Path | None = None, progress: bool = True,
) -> ReadoutPopulation:  # fmt: skip
    """Static curves and count rates of the nominal read-out and of the chips ``seeds``. Raises as ``run_many``."""
    where = {"corner": bench.corner, "temperature_c": bench.temperature_c}
    drawn = [mismatched(bench.technology, s, a_vt_v_um=a_vt_v_um, part="readout") for s in seeds]
    chips: list[Technology] = [bench.technology, *drawn]
    static = run_many(
        [
            readout_static_deck(
                t, bench.readout, **where, read_v=bench.v_read_v, current_max_a=STATIC_MAX_A, points=STATIC_POINTS
            )
            for t in chips
        ],
        jobs, cache_dir, "read-outs", progress,
    )  # fmt: skip
    curves = [readout_static(w) for w in static]
    currents = np.stack([np.interp(RATE_CURRENTS_A, c.current_a, c.regulator_a) for c in curves])
    at = int(np.searchsorted(RATE_CURRENTS_A, REFERENCE_A))
    rates, offsets, hashes = ring_rates(bench, chips, currents, at, jobs, cache_dir, progress)
    return ReadoutPopulation(
        tuple(seeds),
        curves[0].current_a,
        np.stack([c.clamp_v for c in curves]),
        np.stack([c.mirror_a for c in curves]),
        RATE_CURRENTS_A,
        rates,
        offsets,
        float(curves[0].regulator_a[0]),
        *thresholds(readout_static_deck(bench.technology, bench.readout), bench, drawn),
        (*(w.deck_hash for w in static), *hashes),
    )


def ring_rates(
    bench: ColumnBench, chips: Sequence[Technology], currents_a: np.ndarray, at: int, jobs: int | None,
    cache_dir: str | Path | None, progress: bool, step_factor: float = STEP_FACTOR,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:  # fmt: skip
    """Count rates [Hz] of each chip's ring at its regulator currents (chips, currents) [A], the counts gained at the start with
    current number ``at``, (chips,), and the decks' hashes. step_factor: of the time steps, in units of the reference set's."""
    runs = [(t, float(i)) for t, row in zip(chips, currents_a, strict=True) for i in row]
    how = (jobs, cache_dir, progress, step_factor)
    rings = _rings(bench, runs, PERIODS, *how)
    # A slow chip's ring turns fewer times than the design's gain promises.
    vdd = bench.technology.vdd_v
    slow = [k for k, w in enumerate(rings) if edge_times_s(w, vdd / 2).size < 6 * COUNTS_PER_PERIOD + 1]
    for k, w in zip(slow, _rings(bench, [runs[k] for k in slow], 4 * PERIODS, *how), strict=True):
        rings[k] = w
    rates = np.array([oscillator_rate(w, i, vdd).rate_hz for w, (_, i) in zip(rings, runs, strict=True)])
    rates = rates.reshape(currents_a.shape)
    offsets = [
        start_offset(edge_times_s(w, vdd / 2), rate)
        for w, rate in zip(rings[at :: currents_a.shape[1]], rates[:, at], strict=True)
    ]
    return rates, np.array(offsets), tuple(w.deck_hash for w in rings)


def _rings(
    bench: ColumnBench, runs: list[tuple[Technology, float]], periods: int, jobs: int | None,
    cache_dir: str | Path | None, progress: bool, step_factor: float,
) -> list[Waveforms]:  # fmt: skip
    decks = [
        oscillator_rate_deck(
            t, bench.readout, i, corner=bench.corner, temperature_c=bench.temperature_c, periods=periods,
            step_s=step_factor * bench.readout.ring_step_s,
        )
        for t, i in runs
    ]  # fmt: skip
    return run_many(decks, jobs, cache_dir, "rings", progress and bool(decks))


def start_offset(edges_s: np.ndarray, rate_hz: float) -> float:
    """Counts that the start gains over a ring that had run at its steady rate from the release on."""
    edges = edges_s[edges_s > RELEASE_AT_S]
    first = 2 * COUNTS_PER_PERIOD
    if edges.size < first + COUNTS_PER_PERIOD:
        raise SimulationError(f"oscillator: expected 3 periods after the release; got {edges.size} edges")
    k = np.arange(first, first + COUNTS_PER_PERIOD)
    return float(np.mean(k + 1 - rate_hz * (edges[k] - RELEASE_AT_S)))


def readout_numbers(p: ReadoutPopulation) -> tuple[np.ndarray, dict[str, float]]:
    """The numbers of READOUT_NAMES of each chip, (chips, numbers), and what they leave: rms residuals of each
    table, in volts for the clamp, relative for the others."""
    columns, left = [], {}
    tables = {
        "clamp": (p.current_a, p.clamp_v[1:] - p.clamp_v[0]),
        "mirror": (p.current_a, np.log(p.mirror_a[1:] / p.mirror_a[0])),
        "rate": (p.rate_current_a, np.log(p.rate_hz[1:] / p.rate_hz[0])),
    }
    for name, (current, delta) in tables.items():
        basis = _basis(p, current, TERMS[name])
        fitted = np.linalg.lstsq(basis, delta.T, rcond=None)[0]
        columns.append(fitted.T)
        left[name] = float(np.sqrt(np.mean((delta.T - basis @ fitted) ** 2)))
    return np.column_stack([*columns, p.offset_count[1:] - p.offset_count[0]]), left


def _basis(p: ReadoutPopulation, current_a: np.ndarray, terms: int) -> np.ndarray:
    x = log_current(p.i_idle_a, REFERENCE_A, torch.from_numpy(np.array(current_a))).numpy()
    return np.vander(x, terms, increasing=True)


def readout_spread(p: ReadoutPopulation) -> Spread:
    """Mean and covariance of the chips' numbers.

    By ``regressed``. Raises InputError for fewer than LEAST_CHIPS.
    """
    mean, covariance = regressed(readout_numbers(p)[0], p.threshold_v, p.sigma_v)
    return Spread(
        "readout", tuple(READOUT_NAMES), tuple(READOUT_NAMES.values()), mean, covariance, len(p.threshold_v),
        {"i_idle_a": p.i_idle_a, "i_ref_a": REFERENCE_A},
        "departure of a line's clamp, mirror and count rate from the nominal tables",
    )  # fmt: skip


def regressed(numbers: np.ndarray, threshold_v: np.ndarray, sigma_v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (numbers,) and covariance (numbers, numbers) of chips' numbers (chips, numbers).

    The numbers are regressed on the thresholds (chips, transistors) that were drawn, whose true sigma (transistors,) is known:
    covariance Bᵀ·diag(σ²)·B plus that of the residuals, mean at zero shift. What the drawn sample happens to be (σ of 60 samples
    is off by 9 %) then hardly matters. Raises InputError for fewer than LEAST_CHIPS.
    """
    n, k = threshold_v.shape
    if n < LEAST_CHIPS:
        raise InputError(f"chips: expected {LEAST_CHIPS} or more; got {n}")
    basis = np.column_stack([threshold_v, np.ones(n)])
    found = np.linalg.lstsq(basis, numbers, rcond=None)[0]
    left = numbers - basis @ found
    slope, mean = found[:-1], found[-1]
    covariance = (slope * sigma_v[:, None] ** 2).T @ slope + left.T @ left / (n - k - 1)
    return mean, 0.5 * (covariance + covariance.T)


@dataclass(frozen=True, eq=False)
class CellPopulation:
    """Single cells at the read voltage. threshold_v, r_on_ohm, leak_a: (widths, cells); nominal_*: (widths,)."""

    w_select_um: np.ndarray
    threshold_v: np.ndarray
    r_on_ohm: np.ndarray
    leak_a: np.ndarray
    nominal_r_on_ohm: np.ndarray
    nominal_leak_a: np.ndarray
    deck_hashes: tuple[str, ...]


def simulate_cells(
    bench: ColumnBench, seed: int, *, cells: int = 200, widths_um: np.ndarray = CELL_WIDTHS_UM, a_vt_v_um: float | None = None,
    cache_dir: str | Path | None = None,
) -> CellPopulation:  # fmt: skip
    """``cells`` select transistors of each width, each with its own threshold, conducting and idle."""
    t = mismatched(bench.technology, seed, a_vt_v_um=a_vt_v_um, part="cells")
    args = (bench.corner, bench.temperature_c, bench.v_read_v, np.asarray(widths_um))
    drawn = [cell_population_deck(t, CellDesign(), *args, cells=cells, conducting=on) for on in (True, False)]
    plain = [cell_population_deck(bench.technology, CellDesign(), *args, cells=1, conducting=on) for on in (True, False)]
    waves = run_many([*drawn, *plain], 1, cache_dir, progress=False)
    shape = (len(widths_um), cells)
    on, off, on0, off0 = (
        cell_population(w, bench.v_read_v, conducting=k % 2 == 0).reshape(n)
        for k, (w, n) in enumerate(zip(waves, (shape, shape, -1, -1), strict=True))
    )
    shift = [
        [t.threshold_shift_v(f"s{j * cells + k}", float(w), t.l_min_um) for k in range(cells)] for j, w in enumerate(widths_um)
    ]
    return CellPopulation(np.asarray(widths_um), np.array(shift), on, off, on0, off0, tuple(w.deck_hash for w in waves))


def cell_spread(p: CellPopulation, a_vt_v_um: float, l_um: float, w_ref_um: float) -> Spread:
    """The law of thresholds, and what a threshold does to R_on and leakage, at the reference width."""
    at = int(np.argmin(np.abs(p.w_select_um - w_ref_um)))
    delta = p.threshold_v[at]
    basis = np.stack([delta, delta * delta], axis=1)
    on, on2 = np.linalg.lstsq(basis, np.log(p.r_on_ohm[at] / p.nominal_r_on_ohm[at]), rcond=None)[0]
    leak, leak2 = np.linalg.lstsq(basis, np.log(p.leak_a[at] / p.nominal_leak_a[at]), rcond=None)[0]
    constants = {"w_ref_um": w_ref_um, "on_per_v": on, "on_per_v2": on2, "leak_per_v": leak, "leak_per_v2": leak2}
    return Spread(
        "cell", tuple(CELL_NAMES), tuple(CELL_NAMES.values()), np.zeros(1), np.array([[a_vt_v_um**2 / (w_ref_um * l_um)]]),
        delta.size, constants, "threshold of a select transistor, sigma with 1/sqrt(W)",
    )  # fmt: skip
