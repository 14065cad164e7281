"""Decks that show what the regulator and the mirror do on their own: static curve, steps, loop gain.

Each ``*_deck`` function returns one deck; the function after it turns that deck's waveforms into arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PySpice.Spice.Netlist import Circuit

from aimcard.models.errors import InputError, SimulationError
from aimcard.netlists.deck import ACCURATE, Deck, make_deck
from aimcard.netlists.levels import V_READ_V
from aimcard.netlists.oscillator import add_readout, add_run, stage_nodes
from aimcard.netlists.readout import ReadoutDesign, add_supplies
from aimcard.netlists.technology import Technology
from aimcard.netlists.waveforms import Waveforms

#: A 512-cell bit line at the default pitch, in a few equal sections: 512 × 0.15 Ω, 512 × 0.3 fF.
LINE_R_OHM = 77.0
LINE_C_F = 154e-15
LINE_SECTIONS = 4


@dataclass(frozen=True, eq=False)
class ReadoutStatic:
    """Static curves over the current drawn from the bit line, each of shape (currents,) [A, V].

    ``mirror_a`` is the mirror's output; ``supply_a`` all that V_DD gives, the ring's own supply apart.
    """

    current_a: np.ndarray
    clamp_v: np.ndarray
    regulator_a: np.ndarray
    mirror_a: np.ndarray
    supply_a: np.ndarray

    @property
    def r_out_ohm(self) -> np.ndarray:
        """Static output resistance, −dV_clamp/dI, shape (currents,)."""
        return -np.gradient(self.clamp_v, self.current_a)

    @property
    def bias_a(self) -> np.ndarray:
        """Supply current of OTA and current references, shape (currents,)."""
        return self.supply_a - self.regulator_a - self.mirror_a


def readout_static_deck(
    technology: Technology,
    design: ReadoutDesign,
    *,
    corner: str = "nom",
    temperature_c: float = 27.0,
    read_v: float = V_READ_V,
    current_max_a: float = 400e-6,
    points: int = 41,
) -> Deck:
    """A .dc sweep of the current drawn from the bit line, 0 (bleed only) to ``current_max_a``."""
    circuit = Circuit("readout static")
    add_supplies(circuit, technology, read_v)
    add_readout(circuit, technology, design, bit_line="bl")
    circuit.I("load", "bl", "0", 0)
    # Half a step beyond the end: rounding must not cost the last point.
    step = current_max_a / (points - 1)
    return make_deck(
        circuit, "readout static", technology, corner, temperature_c,
        f".dc Iload 0 {current_max_a + 0.5 * step:.9g} {step:.9g}",
        ("v(bl)", "i(vreg)", "i(vmir)", "i(vdd)"), ACCURATE, expected_cpu_s=0.2,
    )  # fmt: skip


def readout_static(waves: Waveforms) -> ReadoutStatic:
    """The static curves in the waveforms of `readout_static_deck`."""
    return ReadoutStatic(waves.scale, waves["v(bl)"], waves["i(vreg)"], waves["i(vmir)"], -waves["i(vdd)"])


def add_line(circuit: Circuit, sections: int = LINE_SECTIONS) -> list[str]:
    """The bit line's wire from node bl; returns the nodes at which cells hang."""
    nodes = ["bl", *(f"l{k}" for k in range(1, sections + 1))]
    for k in range(1, sections + 1):
        # Half a section of wire before the first, as half a cell before the read-out.
        r = LINE_R_OHM / sections * (0.5 if k == 1 else 1.0)
        circuit.R(f"line{k}", nodes[k - 1], nodes[k], r)
        circuit.C(f"line{k}", nodes[k], "0", LINE_C_F / sections)
    return nodes[1:]


def add_conductance_line(circuit: Circuit, time_s: np.ndarray, conductance_s: np.ndarray) -> None:
    """A bit line at node bl whose cells' total conductance follows a piecewise linear waveform.

    time_s, conductance_s: shape (points,); node g carries the waveform, 1 V for 1 mS.
    """
    if len(time_s) != len(conductance_s) or len(time_s) < 2 or not np.all(np.diff(time_s) > 0):
        raise InputError(
            "time_s, conductance_s: expected two or more increasing times and as many conductances; "
            f"got {len(time_s)} and {len(conductance_s)} values"
        )
    points = " ".join(f"{t:.9g} {g * 1e3:.9g}" for t, g in zip(time_s, conductance_s, strict=True))
    circuit.V("g", "g", "0", f"PWL({points})")
    nodes = add_line(circuit)
    for node in nodes:
        circuit.BehavioralSource(
            f"cells{node}", node, "0", current_expression=f"v({node})*v(g)*{1e-3 / len(nodes):.9g}"
        )


def conductance_steps(
    levels_s: np.ndarray, hold_s: float, ramp_s: float = 100e-12
) -> tuple[np.ndarray, np.ndarray]:
    """A staircase of conductances [S], each held for ``hold_s``: (times, conductances), both (2 levels,)."""
    levels = np.asarray(levels_s, dtype=float)
    start = np.arange(levels.size) * hold_s
    time = np.column_stack([start + ramp_s, start + hold_s]).ravel()
    time[0] = 0.0
    return time, np.repeat(levels, 2)


def readout_step_deck(
    technology: Technology,
    design: ReadoutDesign,
    time_s: np.ndarray,
    conductance_s: np.ndarray,
    *,
    run_s: float | None = None,
    corner: str = "nom",
    temperature_c: float = 27.0,
    read_v: float = V_READ_V,
    options: str = ACCURATE,
    step_s: float | None = None,
) -> Deck:
    """The read-out on a bit line whose conductance follows a waveform (`conductance_steps`, say).

    With ``run_s`` the ring is in the same deck and released at that time: then cap the time
    step, ``step_s``. Without it the mirror sees the ring's input load.
    """
    circuit = Circuit("readout step")
    add_supplies(circuit, technology, read_v)
    add_conductance_line(circuit, np.asarray(time_s), np.asarray(conductance_s))
    save = ["v(g)", "v(bl)", "i(vcol)", "i(vreg)", "i(vmir)", "i(vdd)", "i(voscdd)"]
    if run_s is not None:
        add_run(circuit, technology, run_s)
        save += [f"v({node})" for node in stage_nodes()]
    add_readout(circuit, technology, design, bit_line="bl", run=None if run_s is None else "run")
    return make_deck(
        circuit, "readout step" if run_s is None else "readout with ring", technology, corner, temperature_c,
        f".tran 1n {time_s[-1]:.9g}" + ("" if step_s is None else f" 0 {step_s:.9g}"),
        save, options, expected_cpu_s=1.0 if run_s is None else 40.0,
    )  # fmt: skip


@dataclass(frozen=True)
class Step:
    """How the bit line takes one step of conductance.

    Voltages in V, ``settle_s`` from the step's start until the bit line stays within 1 mV of its final value,
    ``charge_c`` the column's charge missing (negative) against an instant step to the final current.
    """

    from_s: float
    to_s: float
    extreme_v: float
    final_v: float
    settle_s: float
    charge_c: float


def readout_steps(waves: Waveforms, levels_s: np.ndarray, hold_s: float, band_v: float = 1e-3) -> list[Step]:
    """Each step of a `conductance_steps` staircase in the waveforms of `readout_step_deck`."""
    steps = []
    time, v, i = waves.time_s, waves["v(bl)"], waves["i(vcol)"]
    for k in range(1, len(levels_s)):
        part = (time >= k * hold_s) & (time < (k + 1) * hold_s - 1e-15)
        t, dv = time[part] - k * hold_s, v[part] - v[part][-1]
        outside = np.flatnonzero(np.abs(dv) > band_v)
        if outside.size and t[outside[-1]] > 0.9 * hold_s:
            raise SimulationError(
                f"bit line: expected a step to settle within {hold_s:g} s; got more than {band_v:g} V after "
                f"{t[outside[-1]]:.3g} s; hold longer, or the loop rings"
            )
        extreme = v[part][np.argmax(np.abs(dv))]
        charge = np.trapezoid(i[part] - i[part][-1], t)
        steps.append(
            Step(
                float(levels_s[k - 1]), float(levels_s[k]), float(extreme), float(v[part][-1]),
                float(t[outside[-1]]) if outside.size else 0.0, float(charge),
            )
        )  # fmt: skip
    return steps


@dataclass(frozen=True, eq=False)
class LoopGain:
    """The regulator's loop gain at one column current [A]: frequency [Hz] and complex gain."""

    current_a: float
    frequency_hz: np.ndarray
    gain: np.ndarray

    @property
    def crossover_hz(self) -> float:
        """The frequency at which |gain| passes 1."""
        log = np.log(np.abs(self.gain))
        below = np.flatnonzero(log < 0)
        if below.size == 0 or below[0] == 0:
            raise SimulationError(
                "loop gain: expected a crossing of 1 within the simulated band; there is none"
            )
        k = below[0]
        span = np.log(self.frequency_hz[k] / self.frequency_hz[k - 1])
        return float(self.frequency_hz[k - 1] * np.exp(span * log[k - 1] / (log[k - 1] - log[k])))

    @property
    def phase_deg(self) -> np.ndarray:
        """Phase without jumps, near 0 at the lowest frequency, shape (frequencies,)."""
        phase = np.degrees(np.unwrap(np.angle(self.gain)))
        return phase - 360 * np.round(phase[0] / 360)

    @property
    def phase_margin_deg(self) -> float:
        """Phase above −180° where the gain crosses one [°]."""
        return float(180 + np.interp(self.crossover_hz, self.frequency_hz, self.phase_deg))

    @property
    def gain_margin_db(self) -> float:
        """Infinite if the phase never reaches −180° in the band."""
        turned = np.flatnonzero(self.phase_deg < -180)
        return float(-20 * np.log10(np.abs(self.gain[turned[0]]))) if turned.size else float("inf")


def loop_gain_deck(
    technology: Technology,
    design: ReadoutDesign,
    current_a: float,
    *,
    corner: str = "nom",
    temperature_c: float = 27.0,
    read_v: float = V_READ_V,
) -> Deck:
    """.ac of the closed loop, injecting at the OTA's sense input; cells draw ``current_a`` in all."""
    circuit = Circuit("loop gain")
    add_supplies(circuit, technology, read_v)
    add_readout(circuit, technology, design, bit_line="bl")
    nodes = add_line(circuit)
    if current_a > 0:
        for node in nodes:
            circuit.R(f"cells{node}", node, "0", len(nodes) * read_v / current_a)
    return make_deck(
        circuit, f"loop gain {current_a * 1e6:g} uA", technology, corner, temperature_c,
        ".ac dec 40 1e6 1e11", ("v(reg)", "v(sense)"), ACCURATE, expected_cpu_s=0.2,
    )  # fmt: skip


def loop_gain(waves: Waveforms, current_a: float) -> LoopGain:
    """The loop gain in the waveforms of `loop_gain_deck` (Middlebrook 1975, voltage injection)."""
    return LoopGain(current_a, waves.scale, -waves["v(reg)"] / waves["v(sense)"])
