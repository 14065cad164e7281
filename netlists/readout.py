"""The read-out's analog front end: regulator (OTA and regulating transistor), bleed, and N:1 current mirror.

The bit line sources the cells' current: V_DD, mirror diode (PMOS), regulating NMOS, bit line, cells, return
line. The mirror's output current leaves V_DD through the output PMOS into the oscillator's bias node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from aimcard.models.errors import InputError
from aimcard.netlists.levels import V_READ_V
from aimcard.netlists.technology import Technology, sizes_for


@dataclass(frozen=True)
class ReadoutDesign:
    """Drawn sizes [µm], reference currents [A] and compensation of one line's read-out in one technology.

    ``*_flavour`` are threshold flavours of `Technology.mosfet`; ``*_fingers`` multiply a transistor.
    """

    # OTA: PMOS pair, NMOS mirror load, PMOS tail of `tail_fingers` times the reference current.
    ota_reference_a: float = 10e-6
    pair_w_um: float = 10.0
    pair_l_um: float = 0.1
    pair_flavour: str = "hvt"
    load_w_um: float = 3.0
    load_l_um: float = 0.12
    load_flavour: str = "svt"
    tail_w_um: float = 3.0
    tail_l_um: float = 0.1
    tail_flavour: str = "lvt"
    tail_fingers: int = 12
    # Lead network from the OTA's output to ground.
    lead_r_ohm: float = 3500.0
    lead_c_f: float = 60e-15
    # Regulating transistor (source follower) and the bleed that keeps it, the mirror and the ring alive.
    follower_w_um: float = 20.0
    follower_l_um: float = 0.05
    follower_flavour: str = "lvt"
    bleed_a: float = 10e-6
    bleed_w_um: float = 6.0
    bleed_l_um: float = 0.2
    bleed_flavour: str = "svt"
    # Mirror: `mirror_ratio` unit transistors as the diode, one as the output.
    mirror_unit_w_um: float = 3.0
    mirror_l_um: float = 0.15
    mirror_flavour: str = "lvt"
    mirror_ratio: int = 8
    # Oscillator: bias transistors, starving transistors, inverters, reset, wire load of a stage.
    bias_n_w_um: float = 0.8
    bias_p_w_um: float = 1.06
    starve_n_w_um: float = 1.82
    starve_p_w_um: float = 2.0
    starve_l_um: float = 0.073
    starve_flavour: str = "svt"
    inverter_n_w_um: float = 0.58
    inverter_p_w_um: float = 0.715
    inverter_l_um: float = 0.05
    inverter_flavour: str = "svt"
    reset_w_um: float = 0.12
    reset_flavour: str = "svt"
    stage_c_f: float = 0.2e-15
    # About the ring's frequency per current; sets only how long a rate measurement runs.
    gain_hz_per_a: float = 110e12
    # Cap on the time step wherever the ring runs: 1/100 of a period at full scale or less.
    ring_step_s: float = 2e-12
    # The LSB that loop, mirror and counter follow.
    t_lsb_s: float = 1e-9
    # Fastest ring that the technology's counter follows: in both technologies 0.3 of what a lone flip-flop does (counter.py).
    counter_max_hz: float = 5e9


#: docs/sky130.md says what each size is for.
_SKY130 = ReadoutDesign(
    ota_reference_a=10e-6,
    pair_w_um=30.0,
    pair_l_um=0.25,
    pair_flavour="hvt",
    load_w_um=4.0,
    load_l_um=0.6,
    load_flavour="svt",
    tail_w_um=5.0,
    tail_l_um=0.3,
    tail_flavour="svt",
    tail_fingers=12,
    lead_r_ohm=3500.0,
    lead_c_f=90e-15,
    follower_w_um=60.0,
    follower_l_um=0.15,
    follower_flavour="lvt",
    bleed_a=10e-6,
    bleed_w_um=16.0,
    bleed_l_um=1.0,
    bleed_flavour="svt",
    mirror_unit_w_um=8.0,
    mirror_l_um=0.3,
    mirror_flavour="svt",
    mirror_ratio=6,
    bias_n_w_um=1.0,
    bias_p_w_um=2.5,
    starve_n_w_um=1.2,
    starve_p_w_um=3.0,
    starve_l_um=0.25,
    starve_flavour="svt",
    inverter_n_w_um=0.8,
    inverter_p_w_um=1.6,
    inverter_l_um=0.15,
    inverter_flavour="svt",
    reset_w_um=0.42,
    reset_flavour="svt",
    stage_c_f=2e-15,
    gain_hz_per_a=14e12,
    ring_step_s=10e-12,
    t_lsb_s=4e-9,
    counter_max_hz=1.5e9,
)

#: Read-outs by technology.
DEFAULT_READOUT = MappingProxyType({"freepdk45": ReadoutDesign(), "sky130": _SKY130})


#: Largest line current of a usual gated tile [A]: mean and six sigma of lines of normal weights to 25 µS (docs/readout.md).
FULL_SCALE_A = 300e-6
#: Units of a mirror's diode that may be asked for. One alone takes the regulator's headroom: 370 µA pull a tied column from
#: 0.40 to 0.25 V. With more than 32 an idle line hardly turns the ring.
MIRROR_RATIOS = (2, 32)


def check_mirror_ratio(value: float) -> int:
    """The number of the diode's units; InputError unless it is a whole number in MIRROR_RATIOS."""
    lo, hi = MIRROR_RATIOS
    if not (lo <= value <= hi and value == int(value)):
        raise InputError(
            f"mirror ratio: expected a whole number from {lo} to {hi}, the mirror's units on the line's side for each one on the "
            f"oscillator's; got {value:g}"
        )
    return int(value)


def default_readout(technology: Technology, mirror_ratio: float | None = None) -> ReadoutDesign:
    """The shipped design for ``technology``, with its own mirror or one of ``mirror_ratio``:1.

    Raises TechnologyError if nobody has sized one, InputError as ``check_mirror_ratio``.
    """
    own = sizes_for(technology, DEFAULT_READOUT, "read-out")
    return own if mirror_ratio is None else replace(own, mirror_ratio=check_mirror_ratio(mirror_ratio))


def add_regulator(
    circuit: Any,
    technology: Technology,
    design: ReadoutDesign,
    *,
    bit_line: str,
    mirror_gate: str,
    reference: str,
    supply: str = "vdd",
    prefix: str = "",
) -> None:
    """Add OTA, regulating transistor and bleed, holding ``bit_line`` at V(``reference``).

    Zero-volt sources measure: ``v<prefix>col`` the current into the column (bleed excluded), ``v<prefix>reg``
    the current drawn from ``mirror_gate``, the mirror's input (bleed included). ``v<prefix>loop`` sits in the
    sense line for the loop gain (.ac).
    """
    p = prefix
    mos = technology.mosfet
    out, sense, tail, mirror, gate = f"{p}reg", f"{p}sense", f"{p}tail", f"{p}load", f"{p}gate"
    circuit.V(f"{p}col", out, bit_line, 0)
    # DC 0: no effect in .tran or .dc; in .ac the injection of Middlebrook's voltage method. The pair's gate
    # is the high-impedance side, so voltage injection alone gives the loop gain.
    circuit.V(f"{p}loop", out, sense, "dc 0 ac 1")

    circuit.I(f"{p}ota", f"{p}tailbias", "0", design.ota_reference_a)
    tail_size: dict[str, Any] = {
        "kind": "pmos",
        "w_um": design.tail_w_um,
        "l_um": design.tail_l_um,
        "flavour": design.tail_flavour,
    }
    mos(circuit, f"{p}tailref", f"{p}tailbias", f"{p}tailbias", supply, supply, **tail_size)
    mos(circuit, f"{p}tail", tail, f"{p}tailbias", supply, supply, m=design.tail_fingers, **tail_size)
    pair: dict[str, Any] = {
        "kind": "pmos",
        "w_um": design.pair_w_um,
        "l_um": design.pair_l_um,
        "flavour": design.pair_flavour,
    }
    load: dict[str, Any] = {
        "kind": "nmos",
        "w_um": design.load_w_um,
        "l_um": design.load_l_um,
        "flavour": design.load_flavour,
    }
    # The bit line drives the gate of the output side: it falls, the follower's gate rises.
    mos(circuit, f"{p}pairref", mirror, reference, tail, supply, **pair)
    mos(circuit, f"{p}pairsense", gate, sense, tail, supply, **pair)
    mos(circuit, f"{p}loadref", mirror, mirror, "0", "0", **load)
    mos(circuit, f"{p}loadout", gate, mirror, "0", "0", **load)
    circuit.R(f"{p}lead", gate, f"{p}lead", design.lead_r_ohm)
    circuit.C(f"{p}lead", f"{p}lead", "0", design.lead_c_f)

    circuit.V(f"{p}reg", mirror_gate, f"{p}drain", 0)
    mos(
        circuit, f"{p}follower", f"{p}drain", gate, out, "0",
        kind="nmos", w_um=design.follower_w_um, l_um=design.follower_l_um, flavour=design.follower_flavour,
    )  # fmt: skip
    circuit.I(f"{p}bleed", supply, f"{p}bleedbias", design.bleed_a)
    bleed: dict[str, Any] = {
        "kind": "nmos",
        "w_um": design.bleed_w_um,
        "l_um": design.bleed_l_um,
        "flavour": design.bleed_flavour,
    }
    mos(circuit, f"{p}bleedref", f"{p}bleedbias", f"{p}bleedbias", "0", "0", **bleed)
    mos(circuit, f"{p}bleed", out, f"{p}bleedbias", "0", "0", **bleed)


def add_mirror(
    circuit: Any,
    technology: Technology,
    design: ReadoutDesign,
    *,
    mirror_gate: str,
    out: str,
    supply: str = "vdd",
    prefix: str = "",
) -> None:
    """Add the N:1 mirror; the zero-volt source ``v<prefix>mir`` measures its output current into ``out``."""
    size: dict[str, Any] = {
        "kind": "pmos",
        "w_um": design.mirror_unit_w_um,
        "l_um": design.mirror_l_um,
        "flavour": design.mirror_flavour,
    }
    p, mos = prefix, technology.mosfet
    mos(circuit, f"{p}mirror", mirror_gate, mirror_gate, supply, supply, m=design.mirror_ratio, **size)
    mos(circuit, f"{p}mirrorout", f"{p}mirrorout", mirror_gate, supply, supply, **size)
    circuit.V(f"{p}mir", f"{p}mirrorout", out, 0)


def add_supplies(circuit: Any, technology: Technology, read_v: float = V_READ_V) -> None:
    """Add what all lines share: ideal sources ``vdd`` (node vdd), ``vref`` (node ref, the read voltage)."""
    circuit.V("dd", "vdd", "0", technology.vdd_v)
    circuit.V("ref", "ref", "0", read_v)
