"""What a tied row's source-line switches do: edges, drop along the row and charge per pulse, over their size and the wire.

python -m aimcard.netlists.source_report nom 27 freepdk45        # corner, °C, technology
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from aimcard.models.console import Arguments, number, run_module
from aimcard.netlists.levels import V_COMMON_V, V_READ_V
from aimcard.netlists.ngspice import run
from aimcard.netlists.readout import default_readout
from aimcard.netlists.source_edges import SourceLines, source_lines
from aimcard.netlists.technology import Technology, get_technology
from aimcard.netlists.tied_driver import RAILS, TiedDriverDesign, default_tied_driver, tied_driver_deck
from aimcard.netlists.tied_supply import SourceSupply, source_supply

#: Sizes of all switches over the design's, and resistances of its row wire over its own, that the table compares.
SIZES, WIRES = (0.25, 0.5, 2.0), (0.5, 0.1)


def scaled(design: TiedDriverDesign, size: float, wire: float) -> TiedDriverDesign:
    """The design with all switches ``size`` times as wide, and ``wire`` times the row's resistance."""
    widths = {f"{rail}_{kind}_um": size * getattr(design, f"{rail}_{kind}_um") for rail in RAILS for kind in "np"}
    return replace(design, r_row_ohm=wire * design.r_row_ohm, **widths)


def pulse_energy(supply: SourceSupply, technology: Technology) -> float:
    """Energy of a row's pulse [J]: V_DD and rails, without rest and cells' current."""
    rails = supply.rail_c @ np.array([V_COMMON_V - V_READ_V, V_COMMON_V, V_COMMON_V + V_READ_V])
    return technology.vdd_v * (supply.charge_c - supply.rest_a * supply.window_s) + float(rails)


def report(technology: Technology, corner: str = "nom", temperature_c: float = 27.0) -> str:
    """The shipped design's edges, and a table of other sizes and wires."""
    design, t_lsb_s = default_tied_driver(technology), default_readout(technology).t_lsb_s
    where = {"corner": corner, "temperature_c": temperature_c, "t_lsb_s": t_lsb_s}

    def at(d: TiedDriverDesign) -> tuple[SourceLines, SourceSupply]:
        waves = run(tied_driver_deck(technology, d, 4, **where))
        return source_lines(technology, design=d, **where), source_supply(waves, 4, t_lsb_s)

    own, supply = at(design)
    rows = [str(own), f"at rest {1e6 * supply.rest_a:.2f} uA from V_DD; a pulse takes from {', '.join(RAILS)} "
            f"{', '.join(f'{1e15 * q:.0f}' for q in supply.rail_c)} fC and from V_DD "
            f"{1e12 * (supply.charge_c - supply.rest_a * supply.window_s):.2f} pC",
            "switches  wire   gain near / middle / far (down)  slowest edge [ps]  pulse [pJ]"]  # fmt: skip
    for size, wire in ((1.0, 1.0), *((s, 1.0) for s in SIZES), *((1.0, w) for w in WIRES)):
        lines, found = (own, supply) if size == wire == 1 else at(scaled(design, size, wire))
        gains = " / ".join(f"{g:.4f}" for g in lines.gain[:, 0])
        rows.append(f"{size:7g}x {wire:4g}x  {gains:30}  {1e12 * lines.transition_s.max():17.1f}  "
                    f"{1e12 * pulse_energy(found, technology):9.2f}")  # fmt: skip
    return "\n".join(rows)


def main(arguments: list[str]) -> None:
    """Print the figures; all is checked before anything is simulated."""
    parser = Arguments(prog="python -m aimcard.netlists.source_report", description=main.__doc__)
    parser.add_argument("corner", nargs="?", default="nom")
    parser.add_argument("temperature", nargs="?", default=27.0, type=number, help="degrees Celsius (27)")
    parser.add_argument("technology", nargs="?", default="freepdk45")
    given = parser.parse_args(arguments)
    technology = get_technology(given.technology)
    technology.check_bench(given.corner, given.temperature)
    print(report(technology, given.corner, given.temperature))


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
