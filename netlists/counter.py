"""A counter's first stage, a static toggle flip-flop: how fast a ring can be for a counter of the technology to follow.

``python -m aimcard.netlists.counter [corner] [temperature_c] [technology]`` prints the fastest clock. Clock and its inverse come
from two inverters of the stage itself, as a ring's edges would be buffered; the output drives another stage's clock inverter.
"""

from __future__ import annotations

import sys
from typing import Any

from PySpice.Spice.Netlist import Circuit

from aimcard.models.console import Arguments, number, run_module
from aimcard.models.errors import SimulationError
from aimcard.netlists.deck import ACCURATE, Deck, make_deck
from aimcard.netlists.ngspice import run
from aimcard.netlists.readout import default_readout
from aimcard.netlists.technology import Technology, get_technology

#: NMOS of the flip-flop in units of the least width, and PMOS in units of the NMOS.
UNIT_W, PMOS_W = 2.5, 1.8
CYCLES = 16
#: Clocks that are tried [Hz], a twentieth apart.
CLOCKS_HZ = tuple(2e9 * 1.05**k for k in range(52))


def _inverter(circuit: Any, t: Technology, name: str, source: str, out: str, size: float = 1.0) -> None:
    w = size * UNIT_W * t.w_min_um
    t.mosfet(circuit, f"{name}n", out, source, "0", "0", kind="nmos", w_um=w)
    t.mosfet(circuit, f"{name}p", out, source, "vdd", "vdd", kind="pmos", w_um=PMOS_W * w)


def _gate(circuit: Any, t: Technology, name: str, a: str, b: str, on: str, off: str, size: float = 1.0) -> None:
    """Transmission gate between ``a`` and ``b``, open while V(``on``) is high and V(``off``) low."""
    w = size * UNIT_W * t.w_min_um
    t.mosfet(circuit, f"{name}n", a, on, b, "0", kind="nmos", w_um=w)
    t.mosfet(circuit, f"{name}p", a, off, b, "vdd", kind="pmos", w_um=PMOS_W * w)


def add_toggle(circuit: Any, t: Technology, clock: str, out: str) -> None:
    """Master and slave latch of transmission gates; ``out`` changes at each rise of ``clock``. Node vdd is the supply."""
    _inverter(circuit, t, "ckb", clock, "ckb")
    _inverter(circuit, t, "ck", "ckb", "ck", 2.0)
    _gate(circuit, t, "into", "d", "m", "ckb", "ck")
    _inverter(circuit, t, "master", "m", "mb")
    _inverter(circuit, t, "mback", "mb", "mf", 0.5)
    _gate(circuit, t, "mhold", "mf", "m", "ck", "ckb", 0.5)
    _gate(circuit, t, "over", "mb", "s", "ck", "ckb")
    _inverter(circuit, t, "slave", "s", out, 2.0)
    _inverter(circuit, t, "sback", out, "sf", 0.5)
    _gate(circuit, t, "shold", "sf", "s", "ckb", "ck", 0.5)
    _inverter(circuit, t, "turn", out, "d")


def toggle_deck(technology: Technology, clock_hz: float, *, corner: str = "nom", temperature_c: float = 27.0) -> Deck:
    """The flip-flop over ``CYCLES`` periods of a clock with edges of a tenth of a period."""
    circuit, vdd, period = Circuit("toggle"), technology.vdd_v, 1 / clock_hz
    circuit.V("dd", "vdd", "0", vdd)
    edge, high = 0.1 * period, 0.4 * period
    circuit.V("clock", "clock", "0", f"PULSE(0 {vdd:g} {period:.9g} {edge:.9g} {edge:.9g} {high:.9g} {period:.9g})")
    add_toggle(circuit, technology, "clock", "q")
    _inverter(circuit, technology, "load", "q", "load")
    stop = (CYCLES + 1) * period
    return make_deck(
        circuit, f"toggle {clock_hz / 1e9:.3g} GHz", technology, corner, temperature_c, f".tran {period / 100:.9g} {stop:.9g}",
        ("v(q)", "v(clock)"), ACCURATE, expected_cpu_s=0.3,
    )  # fmt: skip


def toggles(waves: Any, vdd_v: float) -> int:
    """How often the output changed side, each time by at least 80 % of the supply between changes."""
    q, changes, side = waves["v(q)"], 0, None
    for v in q:
        new = True if v > 0.9 * vdd_v else False if v < 0.1 * vdd_v else side
        changes += side is not None and new != side
        side = new
    return changes


def follows(technology: Technology, clock_hz: float, *, corner: str = "nom", temperature_c: float = 27.0) -> bool:
    """Whether every rise of the clock after the first two changes the output."""
    deck = toggle_deck(technology, clock_hz, corner=corner, temperature_c=temperature_c)
    return toggles(run(deck), technology.vdd_v) >= CYCLES - 2


def fastest_clock_hz(technology: Technology, corner: str, temperature_c: float) -> float:
    """The last of CLOCKS_HZ before the first that the flip-flop does not follow; SimulationError if that is the first of all."""
    fastest = None
    for clock_hz in CLOCKS_HZ:
        if not follows(technology, clock_hz, corner=corner, temperature_c=temperature_c):
            break
        fastest = clock_hz
    if fastest is None:
        raise SimulationError(f"counter: expected a flip-flop that follows {CLOCKS_HZ[0] / 1e9:g} GHz; it does not")
    return fastest


def _main(arguments: list[str]) -> None:
    parser = Arguments(prog="python -m aimcard.netlists.counter", description=__doc__)
    parser.add_argument("corner", nargs="?", default="nom")
    parser.add_argument("temperature", nargs="?", default=27.0, type=number, help="degrees Celsius (27)")
    parser.add_argument("technology", nargs="?", default="freepdk45")
    given = parser.read(arguments)
    technology = get_technology(given.technology)
    technology.check_bench(given.corner, given.temperature)
    limit_hz = default_readout(technology).counter_max_hz
    found = fastest_clock_hz(technology, given.corner, given.temperature)
    print(f"a toggle flip-flop follows {found / 1e9:.2f} GHz; the read-out's limit for the ring is {limit_hz / 1e9:g} GHz")


if __name__ == "__main__":
    sys.exit(run_module(_main, sys.argv[1:]))
