"""Which non-idealities act: a switch each, applied to the card's parameters, so that every one runs the same code."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from aimcard.models.adc import AdcParameters
from aimcard.models.line import LineParameters
from aimcard.models.pulse import Edges, edges_at
from aimcard.models.readout import ReadoutParameters
from aimcard.models.tile import TileModel, adc_parameters, readout_parameters


@dataclass(frozen=True)
class Effects:
    """Switches. All off, the charge is V·T·Σ G·x.

    ir_drop: the wire's resistance. apparent_weight: the select transistor's. leakage: sub-threshold and gate currents.
    pulse: what the edges add. regulator: clamp voltage and settling of the card's read-out; off is an ideal clamp.
    adc: the oscillator's rate table, the mirror's lag and the start; off counts the charge with the table's mean slope.
    A card without a read-out has neither regulator nor ADC, whatever the switch.
    """

    ir_drop: bool = True
    apparent_weight: bool = True
    leakage: bool = True
    pulse: bool = True
    regulator: bool = True
    adc: bool = True

    @classmethod
    def none(cls) -> Effects:
        """All off: the ideal product."""
        return cls(False, False, False, False, False, False)


@dataclass(frozen=True)
class Circuit:
    """What of a card acts under given effects; ``readout`` None is an ideal clamp, ``adc`` None a card without converter.

    line_pulses: products take the mean pulse of each line by themselves; else all lines' alike, and who asks does it better."""

    line: LineParameters
    readout: ReadoutParameters | None
    mirror: ReadoutParameters | None
    adc: AdcParameters | None
    edges: Edges
    effects: Effects
    code_max: int
    slots: int
    t_lsb_s: float
    v_read_v: float
    w_select_um: float
    line_pulses: bool = True


def circuit_of(model: TileModel, effects: Effects, wire_scale: float, w_select_um: float, position: float) -> Circuit:
    """The card's parameters with the switched-off ones at their ideal values."""
    line = model.line(wire_scale)
    if not effects.ir_drop:
        line = replace(line, wire=replace(line.wire, r_bit_ohm=0.0, r_return_ohm=0.0))
    if not effects.apparent_weight:
        line = replace(line, cell=replace(line.cell, r_on_ohm=0.0))
    if not effects.leakage:
        line = replace(line, cell=replace(line.cell, i_leak_a=0.0, i_gate_a=0.0))
    readout = readout_parameters(model.values, model.tables) if model.has_readout else None
    adc = adc_parameters(model.values, model.tables) if model.has_readout else None
    return Circuit(
        line, readout if effects.regulator else None, readout if effects.adc else None, adc,
        edges_at(model.tables, position), effects, model.code_max, model.slots, model.t_lsb_s, model.v_read_v, w_select_um,
    )  # fmt: skip


def linear_gain(adc: AdcParameters) -> Tensor:
    """Counts per coulomb of the straight line between the ends of the rate table."""
    i, rate = adc.i_adc_a, adc.rate_hz
    return (rate[-1] - rate[0]) / (i[-1] - i[0])
