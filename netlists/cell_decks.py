"""Single cells, many to a deck: static currents over voltages, and slot charges of single pulses."""

from __future__ import annotations

import numpy as np
from PySpice.Spice.Netlist import Circuit

from aimcard.models.pcm import G_MAX_S
from aimcard.netlists.cell import CellDesign, add_cell
from aimcard.netlists.column import LEAD_S, Edge, Pulses
from aimcard.netlists.deck import Deck, make_deck
from aimcard.netlists.technology import Technology
from aimcard.netlists.waveforms import Waveforms

#: Currents of one cell run from 0.1 nA to 5 µA: far tighter than a column needs, and cheap here.
DC_OPTIONS = "reltol=1e-6 abstol=1e-16 vntol=1e-10 gmin=1e-15"
PULSE_OPTIONS = "reltol=1e-5 chgtol=1e-18 abstol=1e-15 gmin=1e-15"


def cell_dc_deck(
    technology: Technology, design: CellDesign, corner: str, temperature_c: float,
    conductance_s: np.ndarray, widths_um: np.ndarray, v_bit_v: tuple[float, float, int], v_return_v: tuple[float, float, int],
) -> Deck:  # fmt: skip
    """A .dc grid over bit and return voltage (first, last, points), all cells at once, each conducting and idle.

    Saves per cell k and state s (1 on, 0 idle) the currents of bit side ``vb<k>s<s>`` and word line ``vw<k>s<s>``.
    """
    circuit = Circuit("cell dc")
    circuit.V("bl", "bl", "0", v_bit_v[0])
    circuit.V("ret", "ret", "0", v_return_v[0])
    save = []
    k = 0
    for w in widths_um:
        cell = CellDesign(float(w), design.flavour, design.pcm_v0_v)
        for g in conductance_s:
            for state in (1, 0):
                tag = f"{k}s{state}"
                circuit.V(f"b{tag}", "bl", f"b{tag}", 0)
                circuit.V(f"w{tag}", f"w{tag}", "0", technology.vdd_v * state)
                add_cell(
                    circuit, technology, cell, tag, conductance_s=float(g), bit=f"b{tag}", word=f"w{tag}", back="ret"
                )
                save += [f"i(vb{tag})", f"i(vw{tag})"]
            k += 1

    def sweep(source: str, axis: tuple[float, float, int]) -> str:
        step = (axis[1] - axis[0]) / (axis[2] - 1)
        return f"{source} {axis[0]:.9g} {axis[1] + 0.01 * step:.9g} {step:.9g}"

    return make_deck(
        circuit, "cell dc", technology, corner, temperature_c,
        f".dc {sweep('Vbl', v_bit_v)} {sweep('Vret', v_return_v)}", tuple(save), DC_OPTIONS, expected_cpu_s=1.0,
    )  # fmt: skip


def cell_dc_arrays(
    waves: Waveforms, technology: Technology, conductance_s: np.ndarray, widths_um: np.ndarray,
    v_bit_v: tuple[float, float, int], v_return_v: tuple[float, float, int],
) -> dict[str, np.ndarray]:  # fmt: skip
    """The arrays of a ``cell_dc`` record, one entry per cell, state and grid point."""
    bits, backs = np.linspace(*v_bit_v), np.linspace(*v_return_v)
    columns: dict[str, list[np.ndarray]] = {}
    grid = len(bits) * len(backs)
    vb, vr = np.tile(bits, len(backs)), np.repeat(backs, len(bits))
    k = 0
    for w in widths_um:
        for g in conductance_s:
            for state in (1, 0):
                row = {
                    "conductance_s": np.full(grid, g), "w_select_um": np.full(grid, w), "v_bit_v": vb, "v_return_v": vr,
                    "v_gate_v": np.full(grid, technology.vdd_v * state),
                    "current_a": waves[f"i(vb{k}s{state})"],
                    # Out of the word-line source: a source's branch current flows into its positive end.
                    "gate_current_a": -waves[f"i(vw{k}s{state})"],
                }  # fmt: skip
                for name, values in row.items():
                    columns.setdefault(name, []).append(values)
            k += 1
    return {name: np.concatenate(values) for name, values in columns.items()}


def cell_pulse_deck(
    technology: Technology, design: CellDesign, corner: str, temperature_c: float, pulses: Pulses, edges: dict[float, Edge],
    points: list[dict[str, float]],
) -> Deck:  # fmt: skip
    """Single cells under one pulse each. ``points``: dicts of conductance_s, code, position, w_select_um, v_bit_v, v_return_v."""
    circuit = Circuit("cell pulse")
    save = []
    made: set[str] = set()
    for k, p in enumerate(points):
        word = f"w{p['code']:.0f}p{p['position'] * 100:.0f}"
        if word not in made:
            made.add(word)
            shaped = Pulses(pulses.t_lsb_s, pulses.code_max, pulses.guard, pulses.delay_s, edges[p["position"]])
            circuit.raw_spice += f"V{word} {word} 0 {shaped.waveform(int(p['code']), technology.vdd_v)}\n"
        cell = CellDesign(p["w_select_um"], design.flavour, design.pcm_v0_v)
        circuit.V(f"b{k}", f"b{k}", "0", p["v_bit_v"])
        circuit.V(f"r{k}", f"r{k}", "0", p["v_return_v"])
        add_cell(
            circuit, technology, cell, str(k), conductance_s=p["conductance_s"], bit=f"b{k}", word=word, back=f"r{k}"
        )
        save.append(f"i(vb{k})")
    return make_deck(
        circuit, "cell pulse", technology, corner, temperature_c,
        f".tran {pulses.t_lsb_s:.9g} {pulses.stop_s:.9g}", tuple(save), PULSE_OPTIONS, expected_cpu_s=10.0,
    )  # fmt: skip


def cell_pulse_arrays(waves: Waveforms, pulses: Pulses, points: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """The arrays of a ``cell_pulse`` record."""
    edges = LEAD_S + pulses.slot_edge_s
    current = np.stack([-waves.slot_means(f"i(vb{k})", edges) for k in range(len(points))])
    columns = {name: np.array([p[name] for p in points]) for name in points[0]}
    columns["code"] = columns["code"].astype(np.int64)
    return columns | {"current_a": current, "slot_edge_s": pulses.slot_edge_s}


#: A large PCM, so that the select transistor is a visible part of the cell.
POPULATION_CONDUCTANCE_S = G_MAX_S


def cell_population_deck(
    technology: Technology, design: CellDesign, corner: str, temperature_c: float, v_bit_v: float, widths_um: np.ndarray,
    *, cells: int, conducting: bool,
) -> Deck:  # fmt: skip
    """Operating point of ``cells`` cells of each width; cell k of width j is number j·cells + k in both states' decks."""
    circuit = Circuit("cell population")
    circuit.V("bl", "bl", "0", v_bit_v)
    circuit.V("w", "w", "0", technology.vdd_v if conducting else 0.0)
    save = []
    for j, w in enumerate(widths_um):
        cell = CellDesign(float(w), design.flavour, design.pcm_v0_v)
        for k in range(j * cells, (j + 1) * cells):
            circuit.V(f"b{k}", "bl", f"b{k}", 0)
            add_cell(
                circuit, technology, cell, str(k), conductance_s=POPULATION_CONDUCTANCE_S, bit=f"b{k}", word="w", back="0"
            )
            save.append(f"i(vb{k})")
    return make_deck(
        circuit, "cell population", technology, corner, temperature_c, ".op", tuple(save), DC_OPTIONS, expected_cpu_s=1.0
    )


def cell_population(waves: Waveforms, v_bit_v: float, *, conducting: bool) -> np.ndarray:
    """On-resistances [Ω] of the select transistors, or leakages [A], (widths · cells,)."""
    current = np.array([waves[f"i(vb{k})"][0] for k in range(len(waves.names))])
    return v_bit_v / current - 1 / POPULATION_CONDUCTANCE_S if conducting else current
