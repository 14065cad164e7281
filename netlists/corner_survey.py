"""Static figures of cell, regulator and ring over corners, temperatures and supplies: seconds where a card takes minutes.

`python -m aimcard.netlists.corner_survey nom,ff,ss -40,27,85 0.95,1` prints them for FreePDK45, a fourth argument `sky130` for
another technology.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aimcard.models.console import Arguments, numbers, run_module
from aimcard.models.pcm import G_MAX_S
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.cell_decks import cell_dc_arrays, cell_dc_deck
from aimcard.netlists.levels import V_READ_V
from aimcard.netlists.ngspice import run_many
from aimcard.netlists.oscillator_decks import oscillator_rate, oscillator_rate_deck
from aimcard.netlists.readout import ReadoutDesign, default_readout
from aimcard.netlists.readout_decks import loop_gain, loop_gain_deck, readout_static, readout_static_deck
from aimcard.netlists.technology import Technology, get_technology

#: Conductance of the cell, whose select transistor is the widest that a calibration covers [S].
CELL_S = G_MAX_S
FULL_SCALE_A = 300e-6
LOOP_A = (0.0, 60e-6, FULL_SCALE_A)
#: Periods of the ring to simulate: a slow corner's turns fewer times than the design's gain promises.
PERIODS = 27


@dataclass(frozen=True)
class CornerFigures:
    """r_on_ohm: select transistor in series with CELL_S at the read voltage; leak_a: an idle cell's current. clamp_v,
    ring_hz: at no line current (the bleed) and at FULL_SCALE_A; margin_deg: phase margins at LOOP_A."""

    r_on_ohm: float
    leak_a: float
    clamp_v: tuple[float, float]
    margin_deg: tuple[float, ...]
    ring_hz: tuple[float, float]


def corner_figures(
    technology: Technology, design: ReadoutDesign, corner: str, temperature_c: float,
    jobs: int | None = None, cache_dir: str | Path | None = None,
) -> CornerFigures:  # fmt: skip
    """Simulate them, about 3 s of CPU; the supply is the technology's (`Technology.at_supply`). Raises as `run_many`."""
    where = {"corner": corner, "temperature_c": temperature_c}
    # The bit line's other value only makes a grid.
    g, w, bit, back = np.array([CELL_S]), np.array([technology.w_select_range_um[1]]), (0.18, V_READ_V, 2), (0.0, 0.02, 2)
    decks = [
        cell_dc_deck(technology, CellDesign(), corner, temperature_c, g, w, bit, back),
        readout_static_deck(technology, design, current_max_a=FULL_SCALE_A, points=31, **where),
        *(loop_gain_deck(technology, design, i, **where) for i in LOOP_A),
    ]
    waves = run_many(decks, jobs, cache_dir, "corner", False)
    cell = cell_dc_arrays(waves[0], technology, g, w, bit, back)
    read = (cell["v_bit_v"] > V_READ_V - 1e-6) & (cell["v_return_v"] < 1e-6)
    idle = float(cell["current_a"][read & (cell["v_gate_v"] == 0)][0])
    on = float(cell["current_a"][read & (cell["v_gate_v"] > 0)][0])
    static = readout_static(waves[1])
    ends = (float(static.regulator_a[0]), float(static.regulator_a[-1]))
    rings = [oscillator_rate_deck(technology, design, i, periods=PERIODS, **where) for i in ends]
    rates = [
        oscillator_rate(r, i, technology.vdd_v).frequency_hz
        for r, i in zip(run_many(rings, jobs, cache_dir, "ring", False), ends, strict=True)
    ]
    margins = tuple(loop_gain(wave, i).phase_margin_deg for wave, i in zip(waves[2:], LOOP_A, strict=True))
    clamp = (float(static.clamp_v[0]), float(static.clamp_v[-1]))
    return CornerFigures(V_READ_V / on - 1 / CELL_S, idle, clamp, margins, (rates[0], rates[1]))


def survey(
    technology: Technology, design: ReadoutDesign, corners: Sequence[str], temperatures_c: Sequence[float],
    supplies_v: Sequence[float],
) -> str:  # fmt: skip
    """A line for every combination."""
    rows = ["corner    °C      V   R_on [Ω]   leak [nA]   V_clamp [mV]     phase margin [°]   ring [GHz]"]
    for vdd, corner, celsius in itertools.product(supplies_v, corners, temperatures_c):
        f = corner_figures(technology.at_supply(vdd), design, corner, celsius)
        rows.append(
            f"{corner:6} {celsius:5.0f} {vdd:6.2f} {f.r_on_ohm:10.0f} {f.leak_a * 1e9:11.3f} "
            f"{f.clamp_v[0] * 1e3:7.1f} {f.clamp_v[1] * 1e3:7.1f} "
            f"{f.margin_deg[0]:8.0f} {f.margin_deg[1]:5.0f} {f.margin_deg[2]:5.0f} "
            f"{f.ring_hz[0] / 1e9:9.3f} {f.ring_hz[1] / 1e9:6.3f}"
        )
    return "\n".join(rows)


def main(arguments: list[str]) -> None:
    """Print the table; all is checked before anything is simulated."""
    parser = Arguments(prog="python -m aimcard.netlists.corner_survey", description=__doc__)
    parser.add_argument("corners", nargs="?", help="corners with commas between (default: all)")
    parser.add_argument("temperatures", nargs="?", default="27", type=numbers, help="degrees Celsius, with commas between")
    parser.add_argument("supplies", nargs="?", type=numbers, help="V, with commas between (default: the technology's own)")
    parser.add_argument("technology", nargs="?", default="freepdk45")
    given = parser.parse_args(arguments)
    technology = get_technology(given.technology)
    corners = technology.corners if given.corners is None else given.corners.split(",")
    temperatures: list[float] = given.temperatures
    for corner, celsius in itertools.product(corners, temperatures):
        technology.check_bench(corner, celsius)
    supplies = given.supplies or [technology.vdd_v]
    for vdd in supplies:
        technology.at_supply(vdd)
    print(survey(technology, default_readout(technology), corners, given.temperatures, supplies))


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
