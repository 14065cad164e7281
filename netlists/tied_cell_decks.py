"""Single always-on cells, many to a deck: static currents over column and source-line voltage."""

from __future__ import annotations

import numpy as np
from PySpice.Spice.Netlist import Circuit

from aimcard.netlists.cell import CellDesign, add_cell
from aimcard.netlists.cell_decks import DC_OPTIONS
from aimcard.netlists.deck import Deck, make_deck
from aimcard.netlists.technology import Technology
from aimcard.netlists.waveforms import Waveforms

Axis = tuple[float, float, int]


def tied_cell_deck(
    technology: Technology, corner: str, temperature_c: float, conductance_s: np.ndarray, widths_um: np.ndarray,
    v_column_v: Axis, v_source_v: Axis, flavour: str = "svt",
) -> Deck:  # fmt: skip
    """A .dc grid over the column's and the source line's voltage (first, last, points), all cells at once.

    Saves each cell's current on the column's side, ``vc<k>``, k counting conductances within widths.
    """
    circuit = Circuit("tied cell dc")
    circuit.V("col", "col", "0", v_column_v[0])
    circuit.V("src", "src", "0", v_source_v[0])
    circuit.V("word", "vword", "0", technology.vdd_v)
    save, k = [], 0
    for w in widths_um:
        for g in conductance_s:
            circuit.V(f"c{k}", "col", f"c{k}", 0)
            add_cell(
                circuit, technology, CellDesign(float(w), flavour), str(k), conductance_s=float(g), bit="src",
                word="vword", back=f"c{k}",
            )  # fmt: skip
            save.append(f"i(vc{k})")
            k += 1

    def sweep(source: str, axis: Axis) -> str:
        step = (axis[1] - axis[0]) / (axis[2] - 1)
        return f"{source} {axis[0]:.9g} {axis[1] + 0.01 * step:.9g} {step:.9g}"

    return make_deck(
        circuit, "tied cell dc", technology, corner, temperature_c,
        f".dc {sweep('Vcol', v_column_v)} {sweep('Vsrc', v_source_v)}", tuple(save), DC_OPTIONS, expected_cpu_s=1.0,
    )  # fmt: skip


def tied_cell_arrays(
    waves: Waveforms, vdd_v: float, conductance_s: np.ndarray, widths_um: np.ndarray, v_column_v: Axis, v_source_v: Axis
) -> dict[str, np.ndarray]:
    """The arrays of a ``cell_dc`` record, one entry per cell and grid point: the source line is its return line."""
    columns, sources = np.linspace(*v_column_v), np.linspace(*v_source_v)
    grid = len(columns) * len(sources)
    cells = [(w, g) for w in widths_um for g in conductance_s]
    return {
        "conductance_s": np.repeat([g for _, g in cells], grid),
        "w_select_um": np.repeat([w for w, _ in cells], grid),
        "v_bit_v": np.tile(np.tile(columns, len(sources)), len(cells)),
        "v_return_v": np.tile(np.repeat(sources, len(columns)), len(cells)),
        "v_gate_v": np.full(grid * len(cells), vdd_v),
        "current_a": np.concatenate([waves[f"i(vc{k})"] for k in range(len(cells))]),
    }
