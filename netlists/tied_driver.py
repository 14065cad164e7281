"""West of a tied tile: switches that put a row's two source lines on three rails, and the edges and the drop they make.

A row has a plus and a minus source line. Each has a switch to every rail (one read voltage below the common mode, at it, and
one above), an NMOS, a PMOS or both, with their gates on inverter chains at V_DD. Unlike a word line, a source line carries
current, that of the cells of all columns: switch and row wire take a share of the read voltage, which is static, because a
row's current depends on its own cells only. Both are simulated once per technology, corner and temperature, with every
column's cell at the mean conductance; columns are then driven with the recorded edges and levels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from PySpice.Spice.Netlist import Circuit

from aimcard.models.checks import check_positive
from aimcard.models.errors import InputError
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.deck import Deck, make_deck
from aimcard.netlists.driver import LEAD_S, POSITIONS, TAIL_S
from aimcard.netlists.levels import V_COMMON_V, V_READ_V
from aimcard.netlists.technology import Technology, sizes_for

#: Rails, from the lowest; a row's lines by what a positive input does to them (the plus line goes down).
RAILS = ("low", "mid", "high")
LINES = ("down", "up")
#: The switches hold charges of pC and a line's drop is 1 mV: tolerances as a tied column's.
OPTIONS = "reltol=1e-5 chgtol=1e-16 vntol=1e-7 abstol=1e-12"
# Edge of the signals that enter the first inverters [s]: those of flip-flops' outputs.
_INPUT_EDGE_S = 20e-12


@dataclass(frozen=True)
class TiedDriverDesign:
    """Sizes of a source line's switches and gate drivers, and its load. Widths of zero leave a transistor out.

    ``<rail>_n_um``, ``<rail>_p_um``: width of the NMOS and PMOS between that rail and the line. n_flavour, p_flavour: theirs.
    One of the two carries the current; the other's gate moves the opposite way, which cancels most of the kick that a gate of
    200 µm gives the line (alone, the PMOS of the high rail kicks it by 50 mV).
    fan : a gate driver's load over its own input's; stages : inverters of a chain, pmos_ratio : their PMOS over NMOS width
    dead_s : how much later a switch turns on than the one before it turns off
    r_row_ohm, c_row_f : wire of one column along the source line
    columns : load, one ``cell`` of conductance ``load_s`` each, its column held at the common mode
    sections : lumps of the source line; even, so that the middle column is a node
    edge_delay_s : where the ideal edge lies after its slot's boundary, so that whole edges are inside a slot
    edge_window_s : span in which an edge is recorded, 0.3 of it before and 0.7 after the down line's edge in the middle

    ``load_s`` is the mean of normal weights, clipped at three sigma, between 0.1 and 25 µS.
    """

    low_n_um: float = 100.0
    low_p_um: float = 50.0
    mid_n_um: float = 80.0
    mid_p_um: float = 80.0
    high_n_um: float = 200.0
    high_p_um: float = 200.0
    n_flavour: str = "lvt"
    p_flavour: str = "lvt"
    fan: float = 4.0
    pmos_ratio: float = 1.8
    stages: int = 4
    dead_s: float = 0.0
    r_row_ohm: float = 0.15
    c_row_f: float = 0.3e-15
    columns: int = 512
    sections: int = 32
    cell: CellDesign = field(default_factory=CellDesign)
    load_s: float = 3.4e-6
    edge_delay_s: float = 150e-12
    edge_window_s: float = 1e-9

    def __post_init__(self) -> None:
        for name in ("fan", "pmos_ratio", "columns", "sections", "load_s", "edge_window_s"):
            check_positive(name, getattr(self, name))
        for name in ("r_row_ohm", "c_row_f", "dead_s", *(f"{r}_{kind}_um" for r in RAILS for kind in "np")):
            check_positive(name, getattr(self, name), zero=True)
        for rail in RAILS:
            if not any(self.switch_um(rail).values()):
                raise InputError(f"{rail}_n_um, {rail}_p_um: expected one width above zero; got none; the rail needs a switch")
        if self.stages < 2 or self.stages % 2:
            raise InputError(f"stages: expected an even number of inverters (no inversion); got {self.stages}")
        if self.sections % 2 or self.columns % self.sections:
            raise InputError(f"sections: expected an even number that divides {self.columns}; got {self.sections}")

    def switch_um(self, rail: str) -> dict[str, float]:
        """Widths of the transistors between a rail and a line, by kind."""
        return {"nmos": getattr(self, f"{rail}_n_um"), "pmos": getattr(self, f"{rail}_p_um")}


#: At a common mode of 0.4 V of 1.8 V the NMOS carry all current; here too half a percent is lost in a switch.
_SKY130 = TiedDriverDesign(
    low_n_um=250.0, low_p_um=200.0, mid_n_um=240.0, mid_p_um=240.0, high_n_um=430.0, high_p_um=430.0, p_flavour="svt",
    pmos_ratio=3.0, cell=CellDesign(1.0), edge_delay_s=300e-12, edge_window_s=2e-9,
)  # fmt: skip

#: Source-line drivers by technology.
DEFAULT_TIED_DRIVER = MappingProxyType({"freepdk45": TiedDriverDesign(), "sky130": _SKY130})


def default_tied_driver(technology: Technology) -> TiedDriverDesign:
    """The shipped driver for ``technology``; TechnologyError if nobody has sized one."""
    return sizes_for(technology, DEFAULT_TIED_DRIVER, "source-line driver")


def tied_driver_deck(
    technology: Technology, design: TiedDriverDesign, code: int, *, corner: str = "nom", temperature_c: float = 27.0,
    t_lsb_s: float = 1e-9, v_common_v: float = V_COMMON_V, v_read_v: float = V_READ_V, options: str = OPTIONS,
) -> Deck:  # fmt: skip
    """Both source lines of a row during one pulse of ``code`` LSB of a positive input; 0 LSB is an idle row.

    Saves ``v(down<position>)``, ``v(up<position>)`` at near, middle and far, and the currents of the sources vdd, vlow,
    vmid, vhigh (rails) and vcol (all columns together).
    """
    if code < 0:
        raise InputError(f"code: expected a pulse of 0 LSB or more; got {code}")
    technology.check_temperature(temperature_c)
    on_s, off_s = LEAD_S, LEAD_S + code * t_lsb_s
    circuit = Circuit("tied source lines")
    circuit.V("dd", "vdd", "0", technology.vdd_v)
    circuit.V("col", "col", "0", v_common_v)
    for rail, volt in zip(RAILS, (v_common_v - v_read_v, v_common_v, v_common_v + v_read_v), strict=True):
        circuit.V(rail, rail, "0", volt)
    for line, active in zip(LINES, ("low", "high"), strict=True):
        for rail in RAILS:
            # A switch turns on ``dead_s`` after the other has turned off.
            if code == 0 or rail not in (active, "mid"):
                changes, closed = (), rail == "mid"
            elif rail == "mid":
                changes, closed = (on_s, off_s + design.dead_s), True
            else:
                changes, closed = (on_s + design.dead_s, off_s), False
            _add_switch(circuit, technology, design, line, rail, closed, changes)
        _add_source_line(circuit, technology, design, line)
    save = (
        *(f"v({line}{place})" for line in LINES for place in POSITIONS),
        *(f"i(v{name})" for name in ("dd", *RAILS, "col")),
    )
    stop = off_s + max(TAIL_S, 1.25 * design.edge_window_s)
    name = f"source lines, code {code}, {corner}, {temperature_c:g} C"
    return make_deck(
        circuit, name, technology, corner, temperature_c, f".tran 10p {stop:.6e}", save, options, expected_cpu_s=3.0 + 0.3 * code
    )  # fmt: skip


def _add_switch(
    circuit: Any, technology: Technology, d: TiedDriverDesign, line: str, rail: str, closed: bool, changes: tuple[float, ...]
) -> None:
    """Transistors between ``rail`` and ``<line>near`` with a chain each, switched at the times ``changes``."""
    for kind, w_um in d.switch_um(rail).items():
        if w_um == 0:
            continue
        tag = f"{line}{rail}{kind[0]}"
        # A PMOS conducts while its gate is low.
        high = closed == (kind == "nmos")
        points = [f"0 {_level(high, technology)}"]
        for change in changes:
            start, stop = change - _INPUT_EDGE_S / 2, change + _INPUT_EDGE_S / 2
            points.append(f"{start:.6e} {_level(high, technology)} {stop:.6e} {_level(not high, technology)}")
            high = not high
        circuit.raw_spice += f"V{tag} {tag}0 0 PWL({' '.join(points)})\n"
        # An inverter's gates are 1 + ratio times its NMOS width.
        last = w_um / (d.fan * (1 + d.pmos_ratio))
        for k in range(d.stages):
            width = max(technology.w_min_um, last / d.fan ** (d.stages - 1 - k))
            for device, bulk, ratio in (("nmos", "0", 1.0), ("pmos", "vdd", d.pmos_ratio)):
                _mosfet(circuit, technology, f"{tag}{k}{device[0]}", f"{tag}{k + 1}", f"{tag}{k}", bulk, bulk, device,
                        ratio * width, "svt")  # fmt: skip
        bulk, flavour = ("0", d.n_flavour) if kind == "nmos" else ("vdd", d.p_flavour)
        _mosfet(circuit, technology, tag, f"{line}near", f"{tag}{d.stages}", rail, bulk, kind, w_um, flavour)


def _level(high: bool, technology: Technology) -> str:
    return f"{technology.vdd_v:.6g}" if high else "0"


def _mosfet(
    circuit: Any, technology: Technology, name: str, d: str, g: str, s: str, b: str, kind: str, w_um: float, flavour: str
) -> None:
    # Fingers of about 1 µm, as a wide transistor is drawn.
    fingers = max(1, round(w_um))
    technology.mosfet(circuit, name, d, g, s, b, kind=kind, w_um=w_um / fingers, m=fingers, flavour=flavour)


def _add_source_line(circuit: Any, technology: Technology, d: TiedDriverDesign, line: str) -> None:
    """π sections from ``<line>near`` to ``<line>far``, each with its columns' cells as one."""
    each = d.columns // d.sections
    nodes = {0: "near", d.sections // 2: "middle", d.sections: "far"}
    node = [f"{line}{nodes.get(k, k)}" for k in range(d.sections + 1)]
    for k, name in enumerate(node):
        share = 0.5 if k in (0, d.sections) else 1.0
        circuit.raw_spice += f"Cw{line}{k} {name} 0 {d.c_row_f * each * share:.6g}\n"
        if k:
            ohm = d.r_row_ohm * each
            wire = f"Rw{line}{k} {node[k - 1]} {name} {ohm:.6g}" if ohm > 0 else f"Vw{line}{k} {node[k - 1]} {name} 0"
            circuit.raw_spice += wire + "\n"
        inner, count = f"{line}x{k}", each * share
        circuit.raw_spice += f"Rg{line}{k} {name} {inner} {1 / (d.load_s * count):.12g}\n"
        # Half a section at either end has half the fingers; an odd number of columns has wider ones instead.
        fingers = max(1, int(count))
        technology.mosfet(
            circuit, f"s{line}{k}", inner, "vdd", "col", "0", kind="nmos", flavour=d.cell.flavour,
            w_um=d.cell.w_select_um * count / fingers, m=fingers,
        )  # fmt: skip
