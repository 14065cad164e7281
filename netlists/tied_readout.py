"""The read-out of a tied column: a regulator that works on a stated bias, so that one mirror carries both signs.

    V_DD ── mirror diode (PMOS, N units) ── i(vreg) ── regulating NMOS ── column line ── i(vcol) ── cells
                                                                     └── bias sink (NMOS), 200 µA

The sink draws the bias from the column's node, so the regulating transistor carries bias + column current and never turns
off while the column gives back less than the bias. A push-pull stage would need an NMOS mirror diode *and* a regulating
PMOS between 0.4 V and ground; the diode alone takes nearly all of it at full current (`sink_diode_deck`).
The reference at 0.4 V wants an NMOS pair at a supply of 1.0 V: with PMOS, tail and output would meet at V_DD.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from PySpice.Spice.Netlist import Circuit

from aimcard.netlists.deck import ACCURATE, Deck, make_deck
from aimcard.netlists.levels import V_COMMON_V
from aimcard.netlists.oscillator import add_oscillator_input_load
from aimcard.netlists.readout import ReadoutDesign, add_mirror, add_supplies
from aimcard.netlists.readout_decks import LINE_C_F
from aimcard.netlists.technology import Technology, sizes_for


@dataclass(frozen=True)
class TiedReadoutDesign:
    """Drawn sizes [µm], reference currents [A] and compensation; mirror and ring are those of a ``ReadoutDesign``.

    ``pair_kind`` is the kind of the OTA's pair and tail; its load is of the other.
    """

    pair_kind: str = "nmos"
    pair_flavour: str = "lvt"
    load_flavour: str = "lvt"
    tail_flavour: str = "lvt"
    bias_a: float = 200e-6
    bias_ratio: int = 20
    bias_w_um: float = 3.0
    bias_l_um: float = 0.1
    ota_reference_a: float = 10e-6
    tail_w_um: float = 6.0
    tail_l_um: float = 0.1
    tail_fingers: int = 20
    pair_w_um: float = 40.0
    pair_l_um: float = 0.1
    load_w_um: float = 8.0
    load_l_um: float = 0.1
    follower_w_um: float = 60.0
    follower_l_um: float = 0.05
    lead_r_ohm: float = 500.0
    lead_c_f: float = 200e-15


#: At 1.8 V a PMOS pair at 0.4 V has room: its tail rests at 1.59 V, its output near 1.04 V (docs/sky130.md).
_SKY130 = TiedReadoutDesign(
    pair_kind="pmos",
    pair_flavour="hvt",
    load_flavour="svt",
    tail_flavour="svt",
    bias_w_um=1.5,
    bias_l_um=0.5,
    tail_w_um=5.0,
    tail_l_um=0.3,
    tail_fingers=24,
    pair_w_um=60.0,
    pair_l_um=0.3,
    load_w_um=3.2,
    load_l_um=0.7,
    follower_w_um=100.0,
    follower_l_um=0.15,
    lead_r_ohm=1200.0,
    lead_c_f=180e-15,
)

DEFAULT_TIED_READOUT = MappingProxyType({"freepdk45": TiedReadoutDesign(), "sky130": _SKY130})


def default_tied_readout(technology: Technology) -> TiedReadoutDesign:
    """The shipped design for ``technology``; TechnologyError if nobody has sized one."""
    return sizes_for(technology, DEFAULT_TIED_READOUT, "tied read-out")


def add_tied_regulator(
    circuit: Any, technology: Technology, d: TiedReadoutDesign, *, column: str, mirror_gate: str, reference: str = "ref",
    supply: str = "vdd",
) -> None:  # fmt: skip
    """OTA, regulating transistor and bias sink, holding ``column`` at V(``reference``).

    Zero-volt sources measure: ``vcol`` the current into the column, ``vreg`` what is drawn from ``mirror_gate`` (bias
    included). ``vloop`` sits in the sense line for the loop gain (.ac).
    """
    mos = technology.mosfet
    circuit.V("col", "reg", column, 0)
    circuit.V("loop", "reg", "sense", "dc 0 ac 1")
    other, low, high = ("pmos", "0", supply) if d.pair_kind == "nmos" else ("nmos", supply, "0")
    # The reference flows from the supply into an NMOS tail's diode, or out of a PMOS one's to ground.
    circuit.I("ota", *((supply, "tailbias") if d.pair_kind == "nmos" else ("tailbias", "0")), d.ota_reference_a)
    tail: dict[str, Any] = {"kind": d.pair_kind, "w_um": d.tail_w_um, "l_um": d.tail_l_um, "flavour": d.tail_flavour}
    mos(circuit, "tailref", "tailbias", "tailbias", low, low, **tail)
    mos(circuit, "tail", "tail", "tailbias", low, low, m=d.tail_fingers, **tail)
    pair: dict[str, Any] = {"kind": d.pair_kind, "w_um": d.pair_w_um, "l_um": d.pair_l_um, "flavour": d.pair_flavour}
    load: dict[str, Any] = {"kind": other, "w_um": d.load_w_um, "l_um": d.load_l_um, "flavour": d.load_flavour}
    # The column drives the output side's gate: it falls, the follower's gate rises.
    mos(circuit, "pairref", "load", reference, "tail", low, **pair)
    mos(circuit, "pairsense", "gate", "sense", "tail", low, **pair)
    mos(circuit, "loadref", "load", "load", high, high, **load)
    mos(circuit, "loadout", "gate", "load", high, high, **load)
    circuit.R("lead", "gate", "lead", d.lead_r_ohm)
    circuit.C("lead", "lead", "0", d.lead_c_f)
    circuit.V("reg", mirror_gate, "drain", 0)
    mos(
        circuit, "follower", "drain", "gate", "reg", "0", kind="nmos", w_um=d.follower_w_um, l_um=d.follower_l_um,
        flavour="lvt",
    )  # fmt: skip
    sink: dict[str, Any] = {"kind": "nmos", "w_um": d.bias_w_um, "l_um": d.bias_l_um, "flavour": "svt"}
    circuit.I("bias", supply, "sinkbias", d.bias_a / d.bias_ratio)
    mos(circuit, "sinkref", "sinkbias", "sinkbias", "0", "0", **sink)
    mos(circuit, "sink", "reg", "sinkbias", "0", "0", m=d.bias_ratio, **sink)


def add_tied_readout(
    circuit: Any, technology: Technology, readout: ReadoutDesign, *, column: str, design: TiedReadoutDesign | None = None
) -> None:
    """Regulator, mirror and the oscillator's input as load, between ``column`` and the nodes of ``add_supplies``."""
    d = default_tied_readout(technology) if design is None else design
    add_tied_regulator(circuit, technology, d, column=column, mirror_gate="mirrorgate")
    add_mirror(circuit, technology, readout, mirror_gate="mirrorgate", out="oscbias")
    add_oscillator_input_load(circuit, technology, readout, bias="oscbias")


def tied_static_deck(
    technology: Technology, readout: ReadoutDesign, *, corner: str = "nom", temperature_c: float = 27.0,
    current_max_a: float = 200e-6, points: int = 81, v_common_v: float = V_COMMON_V, design: TiedReadoutDesign | None = None,
    current_min_a: float | None = None,
) -> Deck:  # fmt: skip
    """A .dc sweep of the current into the column from ``current_min_a`` (None: −``current_max_a``) to ``current_max_a``."""
    circuit = Circuit("tied readout static")
    add_supplies(circuit, technology, v_common_v)
    add_tied_readout(circuit, technology, readout, column="bl", design=design)
    circuit.I("load", "bl", "0", 0)
    least_a = -current_max_a if current_min_a is None else current_min_a
    step = (current_max_a - least_a) / (points - 1)
    return make_deck(
        circuit, "tied readout static", technology, corner, temperature_c,
        f".dc Iload {least_a:.9g} {current_max_a + 0.5 * step:.9g} {step:.9g}",
        ("v(bl)", "v(gate)", "v(tail)", "v(mirrorgate)", "i(vreg)", "i(vmir)", "i(vdd)"), ACCURATE, expected_cpu_s=0.2,
    )  # fmt: skip


def _load(circuit: Circuit, conductance_s: float, row_c_f: float) -> None:
    # 512 always-on pairs: wire capacitance and the transistors' own, behind half of the line's wire.
    circuit.R("line", "bl", "mid", 38.0)
    circuit.C("line", "mid", "0", LINE_C_F + 512 * row_c_f)
    circuit.R("cells", "mid", "source", 1 / conductance_s)


def tied_loop_gain_deck(
    technology: Technology, readout: ReadoutDesign, current_a: float, *, conductance_s: float = 4e-3,
    corner: str = "nom", temperature_c: float = 27.0, v_common_v: float = V_COMMON_V, row_c_f: float = 3.4e-15,
    design: TiedReadoutDesign | None = None,
) -> Deck:  # fmt: skip
    """.ac of the closed loop on a column of ``conductance_s`` that draws ``current_a``; read it with ``loop_gain``."""
    circuit = Circuit("tied loop gain")
    add_supplies(circuit, technology, v_common_v)
    add_tied_readout(circuit, technology, readout, column="bl", design=design)
    _load(circuit, conductance_s, row_c_f)
    circuit.V("source", "source", "0", v_common_v - current_a * (1 / conductance_s + 38.0))
    return make_deck(
        circuit, f"tied loop gain {current_a * 1e6:g} uA", technology, corner, temperature_c,
        ".ac dec 40 1e6 1e11", ("v(reg)", "v(sense)"), ACCURATE, expected_cpu_s=0.2,
    )  # fmt: skip


def tied_step_deck(
    technology: Technology, readout: ReadoutDesign, levels_a: list[float], hold_s: float, *, conductance_s: float = 4e-3,
    corner: str = "nom", temperature_c: float = 27.0, v_common_v: float = V_COMMON_V, row_c_f: float = 3.4e-15,
    design: TiedReadoutDesign | None = None,
) -> Deck:  # fmt: skip
    """A staircase of column currents, made by the source behind the column's conductance; 100 ps ramps."""
    circuit = Circuit("tied step")
    add_supplies(circuit, technology, v_common_v)
    add_tied_readout(circuit, technology, readout, column="bl", design=design)
    _load(circuit, conductance_s, row_c_f)
    volts = [v_common_v - i * (1 / conductance_s + 38.0) for i in levels_a]
    points = [(0.0 if k == 0 else k * hold_s + 100e-12, v, (k + 1) * hold_s) for k, v in enumerate(volts)]
    text = " ".join(f"{a:.9g} {v:.9g} {b:.9g} {v:.9g}" for a, v, b in points)
    circuit.V("source", "source", "0", f"PWL({text})")
    return make_deck(
        circuit, "tied step", technology, corner, temperature_c, f".tran 1n {len(levels_a) * hold_s:.9g}",
        ("v(bl)", "i(vcol)", "i(vreg)", "i(vmir)"), ACCURATE, expected_cpu_s=1.0,
    )  # fmt: skip


def sink_diode_deck(
    technology: Technology, *, w_um: float = 24.0, l_um: float = 0.15, flavour: str = "lvt", current_max_a: float = 225e-6,
    corner: str = "nom", temperature_c: float = 27.0,
) -> Deck:  # fmt: skip
    """V_GS of the NMOS mirror diode that a push-pull regulator would need below the column, over its current."""
    circuit = Circuit("sink diode")
    circuit.I("load", "0", "diode", 0)
    technology.mosfet(circuit, "diode", "diode", "diode", "0", "0", kind="nmos", w_um=w_um, l_um=l_um, flavour=flavour)
    return make_deck(
        circuit, "sink diode", technology, corner, temperature_c,
        f".dc Iload 0 {current_max_a:.9g} {current_max_a / 9:.9g}", ("v(diode)",), ACCURATE, expected_cpu_s=0.1,
    )  # fmt: skip
