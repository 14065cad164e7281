"""Noise of the read-out from ngspice: spectra of its bias point (.noise), and a ring with noisy starving transistors (.tran).

A ring has no operating point, so `.noise` cannot see it. What it can see is the relative noise of the two currents that charge
and discharge a stage, with everything before them: cells, regulator, mirror, the ring's bias. A rate follows these currents,
half of the edges each. That the stages' own noise then counts as if one transistor were in charge at a time is what the
transient with noise sources checks (`jitter_deck`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PySpice.Spice.Netlist import Circuit

from aimcard.models.errors import InputError, SimulationError
from aimcard.netlists.deck import ACCURATE, Deck, make_deck
from aimcard.netlists.levels import V_READ_V
from aimcard.netlists.oscillator import COUNTS_PER_PERIOD, STAGES, add_bias, edge_times_s, stage_nodes
from aimcard.netlists.oscillator_decks import RELEASE_AT_S, RING_OPTIONS, mirror_and_ring
from aimcard.netlists.readout import ReadoutDesign, add_mirror, add_regulator, add_supplies
from aimcard.netlists.readout_decks import add_line
from aimcard.netlists.technology import Technology
from aimcard.netlists.waveforms import Waveforms

#: Elements by source of noise; what is left over belongs to the regulator.
SOURCES = {
    "cells": re.compile(r"r(cells|line)\w+"),
    "mirror": re.compile(r"mmirror(out)?"),
    "oscillator": re.compile(r"mosc(bias[np]|branch)"),
    "stages": re.compile(r"mstage[np]"),
}
FLICKER_AT_HZ, WHITE_AT_HZ = 1e4, 1e7


def add_stage(circuit: Circuit, technology: Technology, design: ReadoutDesign) -> None:
    """Mirror, the ring's bias and one stage's two starving transistors, their drains held at V_DD/2 by ``vsn`` and ``vsp``."""
    vdd, half = technology.vdd_v, technology.vdd_v / 2
    add_mirror(circuit, technology, design, mirror_gate="mirrorgate", out="oscbias")
    circuit.V("oscdd", "oscvdd", "0", vdd)
    add_bias(circuit, technology, design, "oscbias", "oscvdd", "osc")
    circuit.V("half", "half", "0", half)
    circuit.V("sn", "half", "stagen", 0)
    circuit.V("sp", "stagep", "half", 0)
    starve = {"l_um": design.starve_l_um, "flavour": design.starve_flavour}
    technology.mosfet(circuit, "stagen", "stagen", "oscbias", "0", "0", kind="nmos", w_um=design.starve_n_w_um, **starve)
    technology.mosfet(
        circuit, "stagep", "stagep", "oscbiasp", "oscvdd", "oscvdd", kind="pmos", w_um=design.starve_p_w_um, **starve
    )


def _stage_circuit(technology: Technology, design: ReadoutDesign, current_a: float, read_v: float) -> Circuit:
    """A line's read-out up to one stage."""
    circuit = Circuit("read-out noise")
    add_supplies(circuit, technology, read_v)
    add_regulator(circuit, technology, design, bit_line="bl", mirror_gate="mirrorgate", reference="ref")
    add_stage(circuit, technology, design)
    nodes = add_line(circuit)
    if current_a > 0:
        for node in nodes:
            circuit.R(f"cells{node}", node, "0", len(nodes) * read_v / current_a)
    return circuit


def stage_current_deck(
    technology: Technology, design: ReadoutDesign, current_a: float, *,
    corner: str = "nom", temperature_c: float = 27.0, read_v: float = V_READ_V,
) -> Deck:  # fmt: skip
    """Operating point of `readout_noise_deck`: i(vreg) of the regulator, i(vsn) and i(vsp) of a stage."""
    circuit = _stage_circuit(technology, design, current_a, read_v)
    name = f"stage current {current_a * 1e6:g} uA"
    return make_deck(circuit, name, technology, corner, temperature_c, ".op", ("i(vreg)", "i(vsn)", "i(vsp)"), expected_cpu_s=0.1)


def readout_noise_deck(
    technology: Technology, design: ReadoutDesign, current_a: float, *,
    corner: str = "nom", temperature_c: float = 27.0, read_v: float = V_READ_V,
) -> Deck:  # fmt: skip
    """Densities of ½·(δI_n/I_n + δI_p/I_p), the starving currents of one stage, with cells that draw ``current_a`` in all.

    The cells are resistors, so they carry the Johnson noise of as much conductance.
    """
    circuit = _stage_circuit(technology, design, current_a, read_v)
    return stage_noise_deck(circuit, f"noise {current_a * 1e6:g} uA", technology, corner, temperature_c)


def stage_noise_deck(
    circuit: Circuit, name: str, technology: Technology, corner: str, temperature_c: float, options: str = ACCURATE
) -> Deck:
    """Densities by element of ½·(δI_n/I_n + δI_p/I_p) in a circuit with ``add_stage``, read with ``readout_noise``."""
    # Small-signal, a logarithm is a relative change; the 1 pA keeps the first iterations off its pole.
    circuit.raw_spice += "Bout out 0 V=0.5*ln(abs(i(vsn))+1p)+0.5*ln(abs(i(vsp))+1p)\n"
    # .noise wants a source to refer to; this one touches nothing.
    circuit.raw_spice += "Vnone none 0 dc 0 ac 1\nRnone none 0 1\n"
    elements = re.findall(r"^([MR]\w+) ", str(circuit), re.MULTILINE)
    save = ["onoise_spectrum"]
    for element in (e.lower() for e in elements if e != "Rnone"):
        # ngspice 39 writes a point for transistors and an underscore for resistors.
        both = [f"onoise.{element}", f"onoise.{element}.1overf"]
        save += both if element.startswith("m") else [f"onoise_{element}"]
    return make_deck(
        circuit, name, technology, corner, temperature_c, ".noise v(out) Vnone dec 1 1e4 1e7 1", save, options,
        expected_cpu_s=0.2,
    )  # fmt: skip


def readout_noise(waves: Waveforms, sources: Mapping[str, re.Pattern] = SOURCES) -> dict[str, tuple[float, float]]:
    """(white [1/Hz], flicker) of the relative rate noise by source in the waveforms of `readout_noise_deck`.

    sources: which elements belong to a source; those of none are the regulator's.

    The density is white + flicker/f, one-sided. Of the stages' transistors one conducts at a time, so their white noise counts
    in full for half of the time each; their flicker noise is that of ten transistors which share the period.
    """
    slow, fast = (int(np.argmin(np.abs(waves.scale - f))) for f in (FLICKER_AT_HZ, WHITE_AT_HZ))
    out = {name: [0.0, 0.0] for name in (*sources, "regulator")}
    for name in waves.names:
        element = re.sub("^onoise[._]", "", name)
        if element == "spectrum" or element.endswith(".1overf"):
            continue
        square = waves[name] ** 2
        flicker = waves[f"{name}.1overf"] ** 2 if f"{name}.1overf" in waves else np.zeros_like(square)
        source = next((s for s, pattern in sources.items() if pattern.fullmatch(element)), "regulator")
        out[source][0] += float(square[fast] - flicker[fast])
        out[source][1] += float(flicker[slow] * waves.scale[slow])
    white, flicker = out["stages"]
    out["stages"] = [2 * white, flicker / STAGES]
    return {name: (w, f) for name, (w, f) in out.items()}


def jitter_deck(
    technology: Technology, design: ReadoutDesign, current_a: float, noise_a2_per_hz: tuple[float, float], *, seed: int,
    periods: int, corner: str = "nom", temperature_c: float = 27.0, step_s: float | None = None,
) -> Deck:  # fmt: skip
    """The ring at a constant regulator current with white noise currents across its starving transistors (N, P) [A²/Hz].

    Steps and noise samples lie ``step_s`` apart, None for twice the design's ``ring_step_s``.
    """
    step_s = 2 * design.ring_step_s if step_s is None else step_s
    if seed < 1:
        raise InputError(f"seed: expected 1 or more (ngspice takes 0 for the clock); got {seed}")
    circuit = mirror_and_ring(technology, design, "ring jitter", RELEASE_AT_S)
    circuit.I("reg", "mirrorgate", "0", current_a)
    for k in range(STAGES):
        for node, rail, density in (
            (f"oscn{k + 1}", "0", noise_a2_per_hz[0]),
            (f"oscp{k + 1}", "oscvdd", noise_a2_per_hz[1]),
        ):
            circuit.raw_spice += noise_source(f"j{node}", node, rail, density, step_s)
    period = design.mirror_ratio / (design.gain_hz_per_a * current_a)
    return make_deck(
        circuit, f"ring jitter {current_a * 1e6:.4g} uA", technology, corner, temperature_c,
        f".tran {step_s:.9g} {RELEASE_AT_S + periods * period:.9g} 0 {step_s:.9g}", tuple(f"v({n})" for n in stage_nodes()),
        f"{RING_OPTIONS} seed={seed}", expected_cpu_s=periods * period / step_s * 70e-6,
    )  # fmt: skip


def noise_source(name: str, a: str, b: str, density_a2_per_hz: float, step_s: float) -> str:
    """A white noise current from ``a`` to ``b``: independent normal samples every ``step_s``, straight lines between them.

    One-sided density 2·rms²·step at frequencies far below 1/step.
    """
    return f"I{name} {a} {b} dc 0 trnoise({np.sqrt(density_a2_per_hz / (2 * step_s)):.9g} {step_s:.9g} 0 0)\n"


@dataclass(frozen=True, eq=False)
class Jitter:
    """Variance [s²] of the time of n periods against n, and what one period takes [s]."""

    periods: np.ndarray
    variance_s2: np.ndarray
    period_s: float

    @property
    def exponent(self) -> float:
        """Slope of ln variance over ln n: 1 for jitter that accumulates as a random walk."""
        return float(np.polyfit(np.log(self.periods), np.log(self.variance_s2), 1)[0])

    @property
    def white_per_hz(self) -> float:
        """Relative white rate noise of one-sided density w with the same variance: ½·w·n·T for n periods."""
        weight = np.sqrt(1 / self.periods)  # a longer lag leaves fewer independent samples
        return float(np.average(2 * self.variance_s2 / (self.periods * self.period_s), weights=weight))


def jitter(waves: Waveforms, vdd_v: float, lags: tuple[int, ...] = (1, 2, 4, 8, 16)) -> Jitter:
    """Accumulated jitter in the waveforms of `jitter_deck`; lags are whole periods, so uneven stages cancel."""
    edges = edge_times_s(waves, vdd_v / 2)[2 * COUNTS_PER_PERIOD :]
    whole = edges.size // COUNTS_PER_PERIOD
    if whole < 4 * max(lags):
        raise SimulationError(f"jitter: expected {4 * max(lags)} periods or more; got {whole}; simulate longer")
    # One column an edge of the period: each follows the same phase of the ring.
    time = edges[: whole * COUNTS_PER_PERIOD].reshape(whole, COUNTS_PER_PERIOD)
    period = float(np.mean((time[-1] - time[0]) / (whole - 1)))
    # The mean period of the run is taken off; it carries 1/whole of the variance away, which is put back.
    variance = [float(np.mean((time[n:] - time[:-n] - n * period) ** 2)) / (1 - n / whole) for n in lags]
    return Jitter(np.array(lags), np.array(variance), period)
