"""Whole columns of tied chips with drawn thresholds everywhere: what the card's population is judged on, and never fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aimcard.calibrate.chips import IDLE_RATE_HZ, ChipRun, chips_of, ring_phases
from aimcard.calibrate.columns import CODE_MAX, POSITIONS
from aimcard.calibrate.mismatch import ring_rates
from aimcard.models.pcm import G_MAX_S, G_MIN_S
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import LEAD_S, Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, slot_currents
from aimcard.netlists.ngspice import run_many
from aimcard.netlists.source_edges import source_lines
from aimcard.netlists.tied import tied_column_deck
from aimcard.netlists.tied_driver import default_tied_driver

#: Input vectors of the column: normal codes of either sign; codes with all weights' signs, and against them.
TIED_VECTORS = ("gaussian", "positive", "negative")


@dataclass(frozen=True, eq=False)
class PairLine:
    """One column's conductances (2, rows) [S], plus and minus, and codes (vectors, rows), the same on every chip."""

    conductance_s: np.ndarray
    codes: np.ndarray
    w_select_um: float = 0.5
    position: float = POSITIONS[1]


def tied_population_line(rows: int = 64, seed: int = 1, vectors: int = len(TIED_VECTORS), w_select_um: float = 0.5) -> PairLine:
    """The column of the comparison: conductances uniform over the PCM's range, input vectors of the first of TIED_VECTORS."""
    rng = np.random.default_rng([seed, 72])
    g = rng.uniform(G_MIN_S, G_MAX_S, (2, rows))
    gaussian = np.clip(np.round(rng.normal(0, CODE_MAX / 3, rows)), -CODE_MAX, CODE_MAX)
    positive, negative = rng.integers(0, CODE_MAX + 1, (2, rows)) * np.sign(g[0] - g[1])
    return PairLine(g, np.stack([gaussian, positive, -negative])[:vectors].astype(np.int64), w_select_um)


@dataclass(frozen=True, eq=False)
class TiedLinePopulation:
    """charge_c, phase_count: (chips, vectors); rest_a, rest_count: (chips,), current and counts of the resting column. Index 0 is
    the nominal chip, the others those of ``seeds``.

    phase_count: before truncation, less the whole counts of the same chip at rest. Empty, like rest_count, with an ideal clamp.
    """

    seeds: tuple[int, ...]
    charge_c: np.ndarray
    rest_a: np.ndarray
    phase_count: np.ndarray
    rest_count: np.ndarray
    deck_hashes: tuple[str, ...]

    @property
    def beyond_rest(self) -> np.ndarray:
        """Phases less the resting column's, neither truncated, (chips, vectors)."""
        return self.phase_count + (np.floor(self.rest_count) - self.rest_count)[:, None]


def simulate_tied_lines(
    bench: ColumnBench, line: PairLine, seeds: Sequence[int], *, clamp: str = "ota", part: str = "all",
    a_vt_v_um: float | None = None, idle_rate_hz: float = IDLE_RATE_HZ, jobs: int | None = None,
    cache_dir: str | Path | None = None, progress: bool = True, code_max: int = CODE_MAX,
) -> TiedLinePopulation:  # fmt: skip
    """The column on the nominal chip and on the chips ``seeds``, with mismatch in ``part`` (all, cells, readout).

    Arguments as ``calibrate.chips.simulate_lines``; code_max: of the window. A resting ring is strictly periodic, so its counts
    over the window come from a few periods at the current that the column's run begins with.
    """
    t_lsb_s, design = bench.readout.t_lsb_s, default_tied_driver(bench.technology)
    sources = source_lines(
        bench.technology, bench.corner, bench.temperature_c, design, t_lsb_s=t_lsb_s, v_read_v=bench.v_read_v, cache_dir=cache_dir
    )
    edges = dict(zip(POSITIONS, sources.straight.values(), strict=True))[line.position]
    pulses = Pulses(t_lsb_s, delay_s=design.edge_delay_s, code_max=code_max)
    chips = chips_of(bench.technology, seeds, a_vt_v_um, part)
    runs = [ChipRun(t, f"{name} v{v}", x) for name, t in chips.items() for v, x in enumerate(line.codes)]
    decks = [
        tied_column_deck(
            replace(bench, technology=t), name, g_plus_s=line.conductance_s[0], g_minus_s=line.conductance_s[1], codes=x,
            cell=CellDesign(line.w_select_um), wire=Wire(), pulses=pulses, edges=edges, clamp=clamp,
        )
        for t, name, x in runs
    ]  # fmt: skip
    columns = run_many(decks, jobs, cache_dir, "chips", progress)
    shape, each = (len(chips), len(line.codes)), len(line.codes)
    currents = [slot_currents(w, pulses)["current_a"] for w in columns]
    charge = np.reshape([i.sum() * pulses.t_lsb_s for i in currents], shape)
    hashes = tuple(w.deck_hash for w in columns)
    # A run begins at its operating point: every source line at the common mode.
    into = "i(vcol)" if clamp == "ota" else "i(vclamp)"
    rest = np.array([w[into][0] for w in columns[::each]]) * (1 if clamp == "ota" else -1)
    if clamp == "ideal":
        return TiedLinePopulation(tuple(seeds), charge, rest, np.zeros((len(chips), 0)), np.zeros(0), hashes)
    phase, ring_hashes = ring_phases(bench, runs, columns, pulses, idle_rate_hz, jobs, cache_dir, progress)
    carried = np.array([w["i(vreg)"][0] for w in columns[::each]])
    rate, offset, resting = ring_rates(bench, list(chips.values()), carried[:, None], 0, jobs, cache_dir, progress, 1.0)
    idle = rate[:, 0] * (pulses.stop_s - LEAD_S) + offset
    signed = np.reshape(phase, shape) - np.floor(idle)[:, None]
    hashes += (*ring_hashes, *resting)
    return TiedLinePopulation(tuple(seeds), charge, rest, signed, idle, hashes)
