"""West: the PWM driver of one word line, a tapered buffer chain into the row's RC, and the edges it makes.

A word line carries the select gates of 512 columns of two lines each, so slope and delay of its edges depend
on the column's position. The driver is simulated once per technology, corner and temperature, and columns are
driven with the recorded edges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PySpice.Spice.Netlist import Circuit

from aimcard.models.checks import check_positive
from aimcard.models.errors import InputError
from aimcard.netlists.cell import CellDesign, add_cell
from aimcard.netlists.column import Edge
from aimcard.netlists.levels import V_READ_V
from aimcard.netlists.ngspice import ACCURATE, Deck, Waveforms, make_deck, run
from aimcard.netlists.piecewise import reduce_edge
from aimcard.netlists.technology import Technology, sizes_for

POSITIONS = ("near", "middle", "far")
#: Time before the pulse [s], and after its end (more for a design with a longer edge window).
LEAD_S = 0.5e-9
TAIL_S = 1.5e-9
# Edge of the signal that enters the first inverter [s]: that of a flip-flop's output.
_INPUT_EDGE_S = 20e-12
# The pulse that edges are recorded from [LSB]; edges do not depend on it.
_CODE = 4
_CELL_S = 5e-6


@dataclass(frozen=True)
class DriverDesign:
    """Sizes of a word line's driver and load.

    The wire's default resistance is that of two cells of a bit line. Its RC sets the edge at the far column
    (at 0.5 Ω a column more than 200 ps from 10 to 90 %, whatever the driver); the driver sets the near one.

    w_last_um : NMOS width of the last inverter; each one before it is ``taper`` times smaller
    pmos_ratio : PMOS width over NMOS width
    r_word_ohm, c_word_f : wire of one column (pair of lines) along the word line
    columns, lines : load, one select gate of ``cell`` per column and line
    sections : lumps of the word line; even, so that the middle column is a node
    edge_delay_s : where the ideal edge lies after its slot's boundary, so that whole edges are inside a slot
    edge_window_s : span in which an edge is recorded, 0.3 of it before and 0.7 after the middle column's edge
    """

    w_last_um: float = 40.0
    taper: float = 3.5
    pmos_ratio: float = 1.8
    stages: int = 4
    r_word_ohm: float = 0.3
    c_word_f: float = 0.3e-15
    columns: int = 512
    lines: int = 2
    sections: int = 32
    cell: CellDesign = field(default_factory=CellDesign)
    edge_delay_s: float = 150e-12
    edge_window_s: float = 1e-9

    def __post_init__(self) -> None:
        for name in ("w_last_um", "taper", "pmos_ratio", "r_word_ohm", "columns", "lines", "sections", "edge_window_s"):
            check_positive(name, getattr(self, name))
        check_positive("c_word_f", self.c_word_f, zero=True)
        if self.stages < 2 or self.stages % 2:
            raise InputError(
                f"stages: expected an even number of inverters (no inversion); got {self.stages}"
            )
        if self.sections % 2 or self.columns % (2 * self.sections):
            raise InputError(
                f"sections: expected an even number whose double divides {self.columns}; got {self.sections}"
            )


@dataclass(frozen=True)
class DriverSupply:
    """What a word line's driver takes from V_DD over one pulse: ``charge_c`` in ``window_s``, ``rest_a`` before it."""

    code: int
    window_s: float
    charge_c: float
    rest_a: float


def driver_supply(waves: Waveforms, code: int) -> DriverSupply:
    """The supply in the waveforms of ``driver_deck``."""
    before, stop = 0.8 * LEAD_S, float(waves.time_s[-1])
    rest, mean = (-float(waves.slot_means("i(vdd)", span)[0]) for span in ([0.0, before], [before, stop]))
    return DriverSupply(code, stop - before, mean * (stop - before), rest)


#: Word-line drivers by technology.
DEFAULT_DRIVER = MappingProxyType(
    {
        "freepdk45": DriverDesign(),
        "sky130": DriverDesign(
            w_last_um=80.0, pmos_ratio=3.0, cell=CellDesign(1.0), edge_delay_s=300e-12, edge_window_s=2e-9
        ),
    }
)


def default_driver(technology: Technology) -> DriverDesign:
    """The shipped driver for ``technology``; TechnologyError if nobody has sized one."""
    return sizes_for(technology, DEFAULT_DRIVER, "driver")


@dataclass(frozen=True, eq=False)
class DriverEdges:
    """Edges of a word line near to, in the middle of and far from its driver.

    Times count from the ideal edge (the input's V_DD/2) plus ``common_delay_s``, one shift for all, which
    puts the middle column's rise through V_DD/2 at zero: a fall keeps its offset, so a pulse keeps its width.

    position : names, and ``column`` their columns, both (positions,)
    time_s : shape (points,); rise_v, fall_v : recorded waveforms [V], (positions, points)
    edge : the same as few straight lines, for ``Pulses(edge=...)``, (positions,)
    delay_s : V_DD/2 crossings, (positions, 2) for rise and fall; transition_s : 10 to 90 %, the same
    error_v : largest distance of the straight lines from the record
    """

    position: tuple[str, ...]
    column: tuple[int, ...]
    time_s: np.ndarray
    rise_v: np.ndarray
    fall_v: np.ndarray
    edge: tuple[Edge, ...]
    delay_s: np.ndarray
    transition_s: np.ndarray
    common_delay_s: float
    error_v: float
    vdd_v: float

    def at(self, position: str) -> Edge:
        """The edge at "near", "middle" or "far"."""
        if position not in self.position:
            raise InputError(f"position: expected one of {', '.join(self.position)}; got {position!r}")
        return self.edge[self.position.index(position)]

    @property
    def width_error_s(self) -> np.ndarray:
        """By how much a pulse is longer than its code says [s], shape (positions,)."""
        return self.delay_s[:, 1] - self.delay_s[:, 0]

    def __str__(self) -> str:
        common = f"{1e12 * self.common_delay_s:.1f} ps after its input"
        rows = [f"word line, {common}; delay and 10-90 % time of rise / fall in ps:"]
        numbers = zip(self.position, 1e12 * self.delay_s, 1e12 * self.transition_s, strict=True)
        for name, delay, slope in numbers:
            rows.append(f"  {name:6} {delay[0]:6.1f} {slope[0]:6.1f} / {delay[1]:6.1f} {slope[1]:6.1f}")
        return "\n".join(rows)


def driver_deck(
    technology: Technology,
    design: DriverDesign,
    code: int,
    *,
    corner: str = "nom",
    temperature_c: float = 27.0,
    t_lsb_s: float = 1e-9,
    options: str = ACCURATE,
) -> Deck:
    """One pulse of ``code`` LSB; saves v(in0), v(near), v(middle), v(far), i(vbl) of three cells there, and i(vdd)."""
    if code < 1:
        raise InputError(f"code: expected a pulse of at least 1 LSB; got {code}")
    technology.check_temperature(temperature_c)
    vdd, half = technology.vdd_v, _INPUT_EDGE_S / 2
    rise_s, fall_s = LEAD_S, LEAD_S + code * t_lsb_s
    circuit = Circuit("word line driver")
    circuit.raw_spice += (
        f"Vdd vdd 0 {vdd:.6g}\n"
        f"Vbl bl 0 {V_READ_V:.6g}\n"
        f"Vin in0 0 PWL(0 0 {rise_s - half:.6e} 0 {rise_s + half:.6e} {vdd:.6g} "
        f"{fall_s - half:.6e} {vdd:.6g} {fall_s + half:.6e} 0)\n"
    )
    for stage in range(design.stages):
        w_um = design.w_last_um / design.taper ** (design.stages - 1 - stage)
        out = "near" if stage == design.stages - 1 else f"in{stage + 1}"
        # Fingers of about 1 µm, as a wide driver is drawn.
        fingers = max(1, round(w_um))
        for kind, rail, ratio in (("nmos", "0", 1.0), ("pmos", "vdd", design.pmos_ratio)):
            technology.mosfet(
                circuit, f"{kind[0]}{stage}", out, f"in{stage}", rail, rail,
                kind=kind, w_um=ratio * w_um / fingers, m=fingers,
            )  # fmt: skip
    _add_word_line(circuit, technology, design)
    save = ("v(in0)", "i(vbl)", "i(vdd)", *(f"v({name})" for name in POSITIONS))
    analysis = f".tran 10p {fall_s + max(TAIL_S, 1.25 * design.edge_window_s):.6e}"
    name = f"word line driver, code {code}, {corner}, {temperature_c:g} C"
    return make_deck(
        circuit,
        name,
        technology,
        corner,
        temperature_c,
        analysis,
        save,
        options,
        expected_cpu_s=1.0 + 0.2 * code,
    )


def _add_word_line(circuit: Circuit, technology: Technology, design: DriverDesign) -> None:
    """π sections from ``near`` to ``far``; the select gates of a section are fingers of one transistor."""
    per_section = design.columns // design.sections
    gates = per_section * design.lines
    nodes = {0: "near", design.sections // 2: "middle", design.sections: "far"}
    node = [nodes.get(k, f"w{k}") for k in range(design.sections + 1)]
    for k, name in enumerate(node):
        half = 2 if name in ("near", "far") else 1
        circuit.raw_spice += f"Cw{k} {name} 0 {design.c_word_f * per_section / half:.6g}\n"
        if k:
            circuit.raw_spice += f"Rw{k} {node[k - 1]} {name} {design.r_word_ohm * per_section:.6g}\n"
        m = gates // half
        if name in POSITIONS:
            add_cell(
                circuit, technology, design.cell, name, conductance_s=_CELL_S, bit="bl", word=name, back="0"
            )
            m -= 1
        technology.mosfet(
            circuit, f"load{k}", "0", name, "0", "0",
            kind="nmos", flavour=design.cell.flavour, w_um=design.cell.w_select_um, m=m,
        )  # fmt: skip


def record_edges(
    waves: Waveforms,
    code: int,
    technology: Technology,
    design: DriverDesign,
    *,
    t_lsb_s: float = 1e-9,
    tolerance_v: float | None = None,
) -> DriverEdges:
    """Edges of one simulated pulse (``driver_deck``), each reduced to straight lines within ``tolerance_v`` (0.5 % of V_DD).

    Raises InputError if an edge has not settled to 0.4 of the tolerance at 70 % of an LSB (of ``edge_window_s`` at most).
    """
    vdd = technology.vdd_v
    tolerance_v = 5e-3 * vdd if tolerance_v is None else tolerance_v
    middle = waves.crossings("v(middle)", vdd / 2, "rise")
    if middle.size != 1:
        raise InputError(
            f"driver: expected one pulse at the middle column; got {middle.size}; make it stronger"
        )
    delay = float(middle[0]) - LEAD_S
    time = np.linspace(-0.3, 0.7, 2001) * min(t_lsb_s, design.edge_window_s)
    recorded = np.empty((len(POSITIONS), 2, time.size))
    crossing, transition = np.empty((2, len(POSITIONS), 2))
    reduced: list[Edge] = []
    error = 0.0
    for p, name in enumerate(POSITIONS):
        lines: list[tuple[float, ...]] = []
        for k, (instant, start, end) in enumerate(((LEAD_S, 0.0, 1.0), (LEAD_S + code * t_lsb_s, 1.0, 0.0))):
            wave = np.interp(time + instant + delay, waves.time_s, waves[f"v({name})"]) / vdd
            x, y = reduce_edge(time, wave, start=start, end=end, tolerance=tolerance_v / vdd)
            error = max(error, float(np.abs(np.interp(time, x, y) - wave).max()) * vdd)
            lines += [tuple(x.tolist()), tuple(y.tolist())]
            recorded[p, k] = wave * vdd
            low, crossing[p, k], high = (_crossing(time, wave, level) for level in (0.1, 0.5, 0.9))
            transition[p, k] = abs(high - low)
        reduced.append(Edge(*lines))
    return DriverEdges(
        position=POSITIONS,
        column=(0, design.columns // 2, design.columns),
        time_s=time,
        rise_v=recorded[:, 0],
        fall_v=recorded[:, 1],
        edge=tuple(reduced),
        delay_s=crossing,
        transition_s=transition,
        common_delay_s=delay,
        error_v=error,
        vdd_v=vdd,
    )


def _crossing(time: np.ndarray, value: np.ndarray, level: float) -> float:
    at = int(np.flatnonzero((value[:-1] < level) != (value[1:] < level))[0])
    return float(time[at] + (level - value[at]) / (value[at + 1] - value[at]) * (time[at + 1] - time[at]))


def edges(
    technology: Technology,
    corner: str = "nom",
    temperature_c: float = 27.0,
    design: DriverDesign | None = None,
    *,
    t_lsb_s: float = 1e-9,
    tolerance_v: float | None = None,
    cache_dir: Path | str | None = None,
) -> DriverEdges:
    """Simulate the driver once and reduce its edges; ``cache_dir`` as in ``ngspice.run``.

    Raises InputError if the driver is too weak for ``t_lsb_s``, SimulationError if ngspice fails.
    """
    design = design or default_driver(technology)
    deck = driver_deck(technology, design, _CODE, corner=corner, temperature_c=temperature_c, t_lsb_s=t_lsb_s)
    waves = run(deck, cache=cache_dir)
    return record_edges(waves, _CODE, technology, design, t_lsb_s=t_lsb_s, tolerance_v=tolerance_v)
