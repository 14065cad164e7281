"""A tied row's source lines, simulated once: edges as few straight lines, and the share of the read voltage that arrives."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aimcard.models.errors import InputError
from aimcard.netlists.driver import LEAD_S, POSITIONS
from aimcard.netlists.levels import V_COMMON_V, V_READ_V
from aimcard.netlists.ngspice import Waveforms, run
from aimcard.netlists.piecewise import reduce_edge
from aimcard.netlists.technology import Technology
from aimcard.netlists.tied import SourceEdge, SourceEdges
from aimcard.netlists.tied_driver import LINES, TiedDriverDesign, default_tied_driver, tied_driver_deck

#: The four edges of a row's pulse, as fields of ``SourceEdges``.
EDGES = tuple(f"{line}_{when}" for line in LINES for when in ("start", "end"))
# The pulse that edges are recorded from [LSB]; edges do not depend on it.
_CODE = 4


@dataclass(frozen=True, eq=False)
class SourceLines:
    """Source lines near to, in the middle of and far from their driver.

    Times count from the ideal edge plus ``common_delay_s``, one shift for all, which puts the down line's start in the middle
    through half of its swing at zero; the other edges keep their offset.

    at : the edges as few straight lines, and gains, by position; column : the positions' columns, (positions,)
    time_s : (points,); level : recorded edges from 0 to 1, (positions, 4, points) in the order of ``EDGES``
    transition_s : 10 to 90 %, (positions, 4)
    load_a : current of all cells of a line, (lines,); error : largest distance of straight lines from the record, in swings
    """

    at: dict[str, SourceEdges]
    column: tuple[int, ...]
    time_s: np.ndarray
    level: np.ndarray
    transition_s: np.ndarray
    load_a: np.ndarray
    common_delay_s: float
    error: float
    deck_hash: str

    @property
    def straight(self) -> dict[str, SourceEdges]:
        """The edges as one straight line each, of the same area and 10 to 90 % time: for columns' decks.

        A tied column is linear, so of an edge it sees the area; every further point costs time points (a test compares both).
        """
        found = {}
        for (place, edges), slopes in zip(self.at.items(), self.transition_s, strict=True):
            spans = zip(EDGES, slopes / 1.6, strict=True)
            lines = {n: SourceEdge((getattr(edges, n).delay_s - h, getattr(edges, n).delay_s + h)) for n, h in spans}
            found[place] = replace(edges, **lines)
        return found

    @property
    def gain(self) -> np.ndarray:
        """Shares of the read voltage, (positions, lines)."""
        return np.array([[e.down_gain, e.up_gain] for e in self.at.values()])

    @property
    def delay_s(self) -> np.ndarray:
        """Equal-area delays, (positions, 4)."""
        return np.array([[getattr(e, name).delay_s for name in EDGES] for e in self.at.values()])

    def __str__(self) -> str:
        rows = [
            f"source lines, {1e12 * self.common_delay_s:.1f} ps after their input, {1e6 * self.load_a.mean():.0f} uA a line; "
            f"gain down / up; delay and 10-90 % time of {', '.join(e.replace('_', ' ') for e in EDGES)} in ps:"
        ]
        for name, gain, delay, slope in zip(self.at, self.gain, 1e12 * self.delay_s, 1e12 * self.transition_s, strict=True):
            edges = " / ".join(f"{d:5.1f} {t:5.1f}" for d, t in zip(delay, slope, strict=True))
            rows.append(f"  {name:6} {gain[0]:.4f} {gain[1]:.4f}   {edges}")
        return "\n".join(rows)


def record_source_edges(
    waves: Waveforms, code: int, design: TiedDriverDesign, *, t_lsb_s: float = 1e-9, v_common_v: float = V_COMMON_V,
    v_read_v: float = V_READ_V, tolerance: float = 5e-3,
) -> SourceLines:  # fmt: skip
    """Edges and gains of one simulated pulse (``tied_driver_deck``); each edge within ``tolerance`` of its swing.

    Raises InputError if an edge has not settled to 0.4 of the tolerance at 70 % of an LSB (of ``edge_window_s`` at most).
    """
    begin, stop = LEAD_S, LEAD_S + code * t_lsb_s
    # Levels reached: means over the pulse's last third.
    reached = {
        f"{line}{place}": float(waves.slot_means(f"v({line}{place})", [stop - (stop - begin) / 3, stop])[0]) - v_common_v
        for line in LINES
        for place in POSITIONS
    }
    if any(abs(v) < 0.01 * v_read_v for v in reached.values()):
        raise InputError("source lines: expected one pulse of a LSB or more; got none; a switch is too weak or too slow")
    half = waves.crossings("v(downmiddle)", v_common_v + 0.5 * reached["downmiddle"], "fall")
    if half.size != 1:
        raise InputError(f"source lines: expected one pulse at the middle column; got {half.size}; make the switches wider")
    delay = float(half[0]) - begin
    time = np.linspace(-0.3, 0.7, 2001) * min(t_lsb_s, design.edge_window_s)
    level, transition = np.empty((len(POSITIONS), 4, time.size)), np.empty((len(POSITIONS), 4))
    at, error = {}, 0.0
    for p, place in enumerate(POSITIONS):
        found: dict[str, SourceEdge] = {}
        for k, (line, when) in enumerate(itertools.product(LINES, ("start", "end"))):
            swing, instant = reached[f"{line}{place}"], begin if when == "start" else stop
            share = (np.interp(time + instant + delay, waves.time_s, waves[f"v({line}{place})"]) - v_common_v) / swing
            wave = share if when == "start" else 1 - share
            x, y = reduce_edge(time, wave, start=0.0, end=1.0, tolerance=tolerance)
            error = max(error, float(np.abs(np.interp(time, x, y) - wave).max()))
            level[p, k], transition[p, k] = wave, _passes(time, wave, 0.9) - _passes(time, wave, 0.1)
            found[f"{line}_{when}"] = SourceEdge(tuple(x.tolist()), tuple(y.tolist()))
        down, up = (abs(reached[f"{line}{place}"]) / v_read_v for line in LINES)
        at[place] = SourceEdges(**found, down_gain=down, up_gain=up)
    held = [stop - (stop - begin) / 3, stop]
    load = np.abs([waves.slot_means(f"i(v{rail})", held)[0] for rail in ("low", "high")])
    columns = (0, design.columns // 2, design.columns)
    return SourceLines(at, columns, time, level, transition, load, delay, error, waves.deck_hash)


def _passes(time: np.ndarray, value: np.ndarray, level: float) -> float:
    k = int(np.flatnonzero((value[:-1] < level) & (value[1:] >= level))[-1])
    return float(time[k] + (level - value[k]) / (value[k + 1] - value[k]) * (time[k + 1] - time[k]))


def source_lines(
    technology: Technology, corner: str = "nom", temperature_c: float = 27.0, design: TiedDriverDesign | None = None, *,
    t_lsb_s: float = 1e-9, v_common_v: float = V_COMMON_V, v_read_v: float = V_READ_V, tolerance: float = 5e-3,
    cache_dir: Path | str | None = None,
) -> SourceLines:  # fmt: skip
    """Simulate a row's source lines once and reduce their edges; ``cache_dir`` as in ``ngspice.run``.

    Raises InputError if the switches are too weak for ``t_lsb_s``, SimulationError if ngspice fails.
    """
    design = design or default_tied_driver(technology)
    deck = tied_driver_deck(
        technology, design, _CODE, corner=corner, temperature_c=temperature_c, t_lsb_s=t_lsb_s, v_common_v=v_common_v,
        v_read_v=v_read_v,
    )  # fmt: skip
    waves = run(deck, cache=cache_dir)
    return record_source_edges(
        waves, _CODE, design, t_lsb_s=t_lsb_s, v_common_v=v_common_v, v_read_v=v_read_v, tolerance=tolerance
    )
