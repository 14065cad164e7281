"""Whole lines of chips with drawn thresholds everywhere: what the card's population is judged on, and never fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aimcard.calibrate.columns import CODE_MAX, POSITIONS
from aimcard.calibrate.rings import held_on
from aimcard.models.pcm import G_MAX_S, G_MIN_S
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import LEAD_S, Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, column_deck, slot_currents
from aimcard.netlists.driver import default_driver, edges
from aimcard.netlists.mismatch import mismatched
from aimcard.netlists.ngspice import Waveforms, run_many
from aimcard.netlists.oscillator import phase_at
from aimcard.netlists.oscillator_decks import oscillator_drive_deck
from aimcard.netlists.technology import Technology

#: Input vectors of the line: half the rows on, all of them on, an eighth of them.
VECTORS = ("gaussian", "uniform", "sparse")
#: Least count rate of FreePDK45's chips with an idle line [1/s].
IDLE_RATE_HZ = 5e8


@dataclass(frozen=True, eq=False)
class TestLine:
    """One line's conductances (rows,) [S] and codes (vectors, rows), the same on every chip."""

    __test__ = False

    conductance_s: np.ndarray
    codes: np.ndarray
    w_select_um: float = 0.5
    position: float = POSITIONS[1]


def population_line(rows: int = 64, seed: int = 1, vectors: int = len(VECTORS), w_select_um: float = 0.5) -> TestLine:
    """The line of the comparison: conductances uniform over the PCM's range, input vectors of the first kinds of VECTORS."""
    rng = np.random.default_rng([seed, 71])
    g = rng.uniform(G_MIN_S, G_MAX_S, rows)
    gaussian = np.clip(np.round(rng.normal(0, CODE_MAX / 3, rows)), 0, CODE_MAX)
    uniform = rng.integers(0, CODE_MAX + 1, rows)
    sparse = np.where(rng.random(rows) < 1 / 8, uniform[::-1], 0)
    return TestLine(g, np.stack([gaussian, uniform, sparse])[:vectors].astype(np.int64), w_select_um)


@dataclass(frozen=True, eq=False)
class LinePopulation:
    """charge_c, phase_count: (chips, vectors); index 0 is the nominal chip, the others those of ``seeds``.

    phase_count is empty for an ideal clamp.
    """

    seeds: tuple[int, ...]
    charge_c: np.ndarray
    phase_count: np.ndarray
    deck_hashes: tuple[str, ...]


def chips_of(technology: Technology, seeds: Sequence[int], a_vt_v_um: float | None, part: str) -> dict[str, Technology]:
    """The nominal chip, first, and the chips ``seeds``, with mismatch in ``part`` (all, cells, readout), by the decks' names."""
    return {"nominal": technology} | {f"chip {s}": mismatched(technology, s, a_vt_v_um=a_vt_v_um, part=part) for s in seeds}


class ChipRun(NamedTuple):
    """One input vector (rows,) on one chip."""

    chip: Technology
    name: str
    codes: np.ndarray


def ring_phases(
    bench: ColumnBench, runs: Sequence[ChipRun], lines: Sequence[Waveforms], pulses: Pulses, idle_rate_hz: float,
    jobs: int | None, cache_dir: str | Path | None, progress: bool,
) -> tuple[list[float], tuple[str, ...]]:  # fmt: skip
    """Phases [counts] at the window's end of each run's ring under the regulator current that its line recorded, and the decks'
    hashes."""
    drives = [
        oscillator_drive_deck(
            r.chip, bench.readout, *held_on(w.time_s, w["i(vreg)"], idle_rate_hz), release_s=LEAD_S, name=f"ring {r.name}",
            corner=bench.corner, temperature_c=bench.temperature_c,
        )
        for r, w in zip(runs, lines, strict=True)
    ]  # fmt: skip
    rings = run_many(drives, jobs, cache_dir, "rings of chips", progress)
    level = bench.technology.vdd_v / 2
    phases = [float(phase_at(w, [pulses.stop_s], released_s=LEAD_S, level_v=level)[0]) for w in rings]
    return phases, tuple(w.deck_hash for w in rings)


def simulate_lines(
    bench: ColumnBench, line: TestLine, seeds: Sequence[int], *, clamp: str = "ota", part: str = "all",
    a_vt_v_um: float | None = None, idle_rate_hz: float = IDLE_RATE_HZ, jobs: int | None = None,
    cache_dir: str | Path | None = None, progress: bool = True,
) -> LinePopulation:  # fmt: skip
    """The line on the nominal chip and on the chips ``seeds``, with mismatch in ``part`` (all, cells, readout).

    clamp "ota": column, then ring; "ideal": the column's charge alone. idle_rate_hz: least count rate of the chips, as in
    `simulate_columns`. Raises as ``run_many``.
    """
    t_lsb_s, delay_s = bench.readout.t_lsb_s, default_driver(bench.technology).edge_delay_s
    driver = edges(bench.technology, bench.corner, bench.temperature_c, t_lsb_s=t_lsb_s, cache_dir=cache_dir)
    pulses = Pulses(t_lsb_s, delay_s=delay_s, edge=driver.edge[POSITIONS.index(line.position)])
    chips = chips_of(bench.technology, seeds, a_vt_v_um, part)
    runs = [ChipRun(t, f"{name} v{v}", x) for name, t in chips.items() for v, x in enumerate(line.codes)]
    columns = run_many(
        [
            column_deck(
                replace(bench, technology=t), name, conductance_s=line.conductance_s, codes=x,
                cell=CellDesign(line.w_select_um), wire=Wire(), pulses=pulses, clamp=clamp,
            )
            for t, name, x in runs
        ],
        jobs, cache_dir, "chips", progress,
    )  # fmt: skip
    shape = (len(chips), len(line.codes))
    charge = [slot_currents(w, pulses)["current_a"].sum() * pulses.t_lsb_s for w in columns]
    hashes = tuple(w.deck_hash for w in columns)
    if clamp == "ideal":
        return LinePopulation(tuple(seeds), np.reshape(charge, shape), np.zeros((len(chips), 0)), hashes)
    phase, ring_hashes = ring_phases(bench, runs, columns, pulses, idle_rate_hz, jobs, cache_dir, progress)
    return LinePopulation(
        tuple(seeds), np.reshape(charge, shape), np.reshape(phase, shape), hashes + ring_hashes
    )
