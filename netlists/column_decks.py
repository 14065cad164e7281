"""One line of a column in a deck: with an ideal clamp, with the read-out, or with the read-out and its oscillator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PySpice.Spice.Netlist import Circuit

from aimcard.models.adc import HOLD_S
from aimcard.models.checks import check_choice
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import LEAD_S, Pulses, Wire, add_line, add_word_lines, check_line
from aimcard.netlists.deck import ACCURATE, Deck, make_deck
from aimcard.netlists.levels import V_READ_V
from aimcard.netlists.oscillator import add_readout, add_run, stage_nodes
from aimcard.netlists.readout import ReadoutDesign, add_supplies
from aimcard.netlists.technology import Technology
from aimcard.netlists.waveforms import Waveforms

READOUTS = ("ideal", "ota", "full")
#: A ring's phase is read between edges, so its deck runs a little beyond the window.
AFTER_S = 1e-9


@dataclass(frozen=True)
class ColumnBench:
    """What all decks of a technology's columns share."""

    technology: Technology
    corner: str
    temperature_c: float
    readout: ReadoutDesign
    v_read_v: float = V_READ_V


def column_deck(
    bench: ColumnBench, name: str, *, conductance_s: np.ndarray, codes: np.ndarray, cell: CellDesign, wire: Wire,
    pulses: Pulses, clamp: str, options: str = ACCURATE, step_s: float | None = None, save_supply: bool = False,
) -> Deck:  # fmt: skip
    """One line, conductance_s and codes of shape (rows,).

    clamp: "ideal" (a voltage source), "ota" (regulator and mirror, the oscillator's input as load) or "full"
    (the ring too, released at the first slot: a tenfold cost). ``step_s`` caps the time step; by default error control
    alone sets it, and with the ring it is the read-out's ``ring_step_s``. ``save_supply`` records V_DD's current too.
    """
    check_choice("clamp", clamp, READOUTS)
    if clamp == "full" and step_s is None:
        step_s = bench.readout.ring_step_s
    g, x = check_line(conductance_s, codes, pulses.code_max)
    circuit = Circuit("column")
    words = add_word_lines(circuit, x, pulses, bench.technology.vdd_v)
    add_line(circuit, bench.technology, cell, wire, conductance_s=g, codes=x, end="end", words=words)
    # Edges at different times are what costs; one of two of a conventional pulse is everybody's.
    distinct = len({edge for pattern in pulses.patterns(x) for pulse in pattern for edge in pulse})
    # Measured: 20 points around an edge time, 2.7 ms of CPU a point for 512 rows.
    cpu = len(g) / 512 * (0.5 + 0.09 * distinct)
    stop = pulses.stop_s + AFTER_S
    analysis = f".tran {pulses.t_lsb_s:.9g} {stop:.9g}"
    if step_s is not None:
        analysis = f".tran {step_s:.9g} {stop:.9g} 0 {step_s:.9g}"
    if clamp == "ideal":
        circuit.V("clamp", "end", "0", bench.v_read_v)
        save: tuple[str, ...] = ("i(vclamp)",)
    else:
        add_supplies(circuit, bench.technology, bench.v_read_v)
        if clamp == "full":
            add_run(circuit, bench.technology, LEAD_S, holds(pulses))
        add_readout(circuit, bench.technology, bench.readout, bit_line="end", run="run" if clamp == "full" else None)
        save = ("i(vcol)", "i(vreg)", "i(vmir)", "v(end)", *(("i(vdd)",) if save_supply else ()))
        cpu *= 1.6
        if clamp == "full":
            save += tuple(f"v({n})" for n in stage_nodes())
    if step_s is not None:
        cpu = max(cpu, len(g) * 5e-6 * stop / step_s)
    return make_deck(
        circuit, name, bench.technology, bench.corner, bench.temperature_c, analysis, save, options, expected_cpu_s=cpu
    )


def holds(pulses: Pulses) -> tuple[tuple[float, float], ...]:
    """When a ring that is reset between phases is held: (from, to) [s], lead included; empty for one phase."""
    return tuple((end - HOLD_S, end) for _, end in pulses.phase_windows_s()[:-1])


def line_current(waves: Waveforms) -> tuple[str, float]:
    """The signal that carries the line's current into its cells, and the sign that makes it positive."""
    return ("i(vclamp)", -1.0) if "i(vclamp)" in waves else ("i(vcol)", 1.0)


def slot_currents(waves: Waveforms, pulses: Pulses) -> dict[str, np.ndarray]:
    """Mean currents of the window's slots [A], (slots,): ``current_a``, and ``mirror_a`` where there is a mirror."""
    edges = LEAD_S + pulses.slot_edge_s
    signal, sign = line_current(waves)
    out = {"current_a": sign * waves.slot_means(signal, edges)}
    if "i(vmir)" in waves:
        out["mirror_a"] = waves.slot_means("i(vmir)", edges)
    return out


def overlay(waves: Waveforms, pulses: Pulses, step_s: float = 10e-12) -> dict[str, np.ndarray]:
    """Currents on a fine grid, for the eye: ``waveform_time_s``, ``waveform_a``, ``mirror_waveform_a``, each (t,)."""
    time = np.arange(0.0, pulses.slots * pulses.t_lsb_s + step_s / 2, step_s)
    signal, sign = line_current(waves)
    out = {"waveform_time_s": time, "waveform_a": sign * np.interp(time + LEAD_S, waves.time_s, waves[signal])}
    if "i(vmir)" in waves:
        out["mirror_waveform_a"] = np.interp(time + LEAD_S, waves.time_s, waves["i(vmir)"])
    return out
