"""Decks of the mirror and the oscillator: count rate against current, and phase under a recorded current.

The mirror is in these decks because the ring kicks back onto its bias node: fed by an ideal source instead of
the mirror's transistors it runs some 500 ppm off. So the recorded current is the regulator's,
i(v<prefix>reg).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PySpice.Spice.Netlist import Circuit

from aimcard.models.errors import InputError, SimulationError
from aimcard.netlists.deck import Deck, make_deck
from aimcard.netlists.oscillator import COUNTS_PER_PERIOD, add_oscillator, add_run, edge_times_s, stage_nodes
from aimcard.netlists.readout import ReadoutDesign, add_mirror
from aimcard.netlists.technology import Technology
from aimcard.netlists.waveforms import Waveforms

#: A stage holds about 1 fC, so the charge tolerance is a tenth of the columns'.
RING_OPTIONS = "reltol=1e-4 chgtol=1e-17"
#: When the rate decks' ring is released [s].
RELEASE_AT_S = 0.1e-9


def mirror_and_ring(
    technology: Technology, design: ReadoutDesign, name: str, release_s: float, holds: Sequence[tuple[float, float]] = ()
) -> Circuit:
    """Mirror and ring from node mirrorgate on, the ring released at ``release_s`` and held between ``holds``."""
    circuit = Circuit(name)
    circuit.V("dd", "vdd", "0", technology.vdd_v)
    add_run(circuit, technology, release_s, holds)
    add_mirror(circuit, technology, design, mirror_gate="mirrorgate", out="oscbias")
    add_oscillator(circuit, technology, design, bias="oscbias", run="run")
    return circuit


def oscillator_rate_deck(
    technology: Technology,
    design: ReadoutDesign,
    current_a: float,
    *,
    corner: str = "nom",
    temperature_c: float = 27.0,
    periods: int = 9,
    options: str = RING_OPTIONS,
    step_s: float | None = None,
) -> Deck:
    """The ring at a constant regulator current (the mirror's input), for about ``periods`` periods.

    The time step is capped at ``step_s`` (None: the design's) or, if slow, at 1/800 of a period (within 10 ppm of finer steps).
    """
    if not current_a > 0:
        raise InputError(f"current_a: expected a positive current; got {current_a}")
    circuit = mirror_and_ring(technology, design, "oscillator rate", RELEASE_AT_S)
    circuit.I("reg", "mirrorgate", "0", current_a)
    period = design.mirror_ratio / (design.gain_hz_per_a * current_a)
    step = max(design.ring_step_s if step_s is None else step_s, period / 800)
    return make_deck(
        circuit, f"oscillator {current_a * 1e6:.4g} uA", technology, corner, temperature_c,
        f".tran {step:.9g} {RELEASE_AT_S + periods * period:.9g} 0 {step:.9g}",
        (*(f"v({n})" for n in stage_nodes()), "i(vmir)", "i(voscdd)"), options, expected_cpu_s=1.0,
    )  # fmt: skip


@dataclass(frozen=True)
class OscillatorRate:
    """Count rate [1/s], ten counts a period, at a regulator current [A], bleed included.

    ``mirror_a``, ``supply_a``: mean of the mirror's output and of the ring's supply [A].

    ``unevenness``: the largest departure of an edge interval from a tenth of the period, in counts.
    """

    current_a: float
    mirror_a: float
    rate_hz: float
    supply_a: float
    unevenness: float

    @property
    def frequency_hz(self) -> float:
        """The ring's frequency [Hz]."""
        return self.rate_hz / COUNTS_PER_PERIOD


def oscillator_rate(waves: Waveforms, current_a: float, vdd_v: float) -> OscillatorRate:
    """The rate in the waveforms of `oscillator_rate_deck`, over whole periods after the first two."""
    edges = edge_times_s(waves, vdd_v / 2)
    first = 2 * COUNTS_PER_PERIOD
    periods = (edges.size - 1 - first) // COUNTS_PER_PERIOD
    if periods < 3:
        raise SimulationError(
            f"oscillator at {current_a * 1e6:g} uA: expected 5 periods or more; got {edges.size} edges; "
            "simulate longer (periods)"
        )
    last = first + periods * COUNTS_PER_PERIOD
    span = edges[last] - edges[first]
    rate = (last - first) / span
    intervals = np.diff(edges[first : last + 1]).reshape(periods, COUNTS_PER_PERIOD).mean(axis=0) * rate
    span_s = [edges[first], edges[last]]
    mirror, supply = (float(waves.slot_means(signal, span_s)[0]) for signal in ("i(vmir)", "i(voscdd)"))
    return OscillatorRate(current_a, mirror, float(rate), -supply, float(np.abs(intervals - 1).max()))


def oscillator_drive_deck(
    technology: Technology,
    design: ReadoutDesign,
    time_s: np.ndarray,
    current_a: np.ndarray,
    *,
    release_s: float,
    name: str = "oscillator",
    corner: str = "nom",
    temperature_c: float = 27.0,
    options: str = RING_OPTIONS,
    step_s: float | None = None,
    holds: Sequence[tuple[float, float]] = (),
) -> Deck:
    """Mirror and ring under a recorded regulator current, released at ``release_s`` and held in each of ``holds`` [s].

    time_s, current_a: shape (points,), piecewise linear between them; the run ends with the last.

    ``step_s`` caps the time step [s] (None: the design's): error control alone lets the ring run 600 ppm slow.
    """
    time, current = np.asarray(time_s, dtype=float), np.asarray(current_a, dtype=float)
    if time.shape != current.shape or time.ndim != 1 or time.size < 2 or not np.all(np.diff(time) > 0):
        raise InputError(
            f"time_s, current_a: expected two or more increasing times and as many currents; "
            f"got shapes {time.shape} and {current.shape}"
        )
    circuit = mirror_and_ring(technology, design, "oscillator drive", release_s, holds)
    points = "\n+ ".join(f"{t:.12g} {i:.9g}" for t, i in zip(time, current, strict=True))
    circuit.raw_spice += f"Ireg mirrorgate 0 PWL({points})\n"
    step_s = design.ring_step_s if step_s is None else step_s
    return make_deck(
        circuit, name, technology, corner, temperature_c, f".tran 1n {time[-1]:.12g} 0 {step_s:.9g}",
        (*(f"v({n})" for n in stage_nodes()), "i(vmir)", "i(voscdd)"), options, expected_cpu_s=15.0,
    )  # fmt: skip
