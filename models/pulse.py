"""What the edges of a pulse add to the static current: width shift, and the recharge of the cell's internal node.

While a cell conducts, the node between PCM and select transistor sits near the return line. When the word line
falls, gate feed-through pulls it lower still, and the bit line then recharges it through the PCM: a fixed charge,
almost independent of G, that arrives with the time constant C_x/G (PHYSICS: 0.2 to 0.3 fC per pulse).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PulseParameters:
    """Fitted numbers of the edges; scalars.

    t_rise_s, t_fall_s: delay of the conduction's start and end behind the ideal edges, middle column.
    t_rise_position_s, t_fall_position_s: how much later at the far column than at the near one (position 1 against 0).
    t_rise_bend_s, t_fall_bend_s: quadratic part over the position, zero at both ends' mean line's middle.
    q_rise_c: charge of a rising edge.  c_rise_return_f: its change per volt on the return line.
    q_fall_c: recharge of the internal node after a pulse.
    c_fall_bit_f, c_fall_return_f: its change per volt on bit and return line.
    c_node_f: capacitance that sets the recharge's time constant τ = C/G.
    i_recharge_a: while the node is low its transistor leaks the other way; the charge missing is i·τ.
    dw_node_um, dw_rise_um: charges and capacitance of the falling (rising) edge go with W − dw.
    """

    t_rise_s: Tensor | float
    t_rise_position_s: Tensor | float
    t_rise_bend_s: Tensor | float
    t_fall_s: Tensor | float
    t_fall_position_s: Tensor | float
    t_fall_bend_s: Tensor | float
    q_rise_c: Tensor | float
    c_rise_return_f: Tensor | float
    q_fall_c: Tensor | float
    c_fall_bit_f: Tensor | float
    c_fall_return_f: Tensor | float
    c_node_f: Tensor | float
    i_recharge_a: Tensor | float
    dw_node_um: Tensor | float
    dw_rise_um: Tensor | float
    w_ref_um: float
    v_read_v: float


def rise_delay(p: PulseParameters, position: float | Tensor) -> Tensor | float:
    """Start of conduction behind the ideal edge [s] for a column at ``position`` (0 near the drivers, 1 far)."""
    u = position - 0.5
    return p.t_rise_s + p.t_rise_position_s * u + p.t_rise_bend_s * u * u


def fall_delay(p: PulseParameters, position: float | Tensor) -> Tensor | float:
    """End of conduction behind the ideal edge [s]."""
    u = position - 0.5
    return p.t_fall_s + p.t_fall_position_s * u + p.t_fall_bend_s * u * u


def node_width(p: PulseParameters, w_select_um: float | Tensor) -> Tensor | float:
    """Width factor of the internal node's charges."""
    return (w_select_um - p.dw_node_um) / (p.w_ref_um - p.dw_node_um)


def rise_charge(p: PulseParameters, v_return: Tensor, w_select_um: float | Tensor) -> Tensor:
    """Charge drawn from the bit line by one rising edge, beside the delay's −t_rise·g·V [C]."""
    width = (w_select_um - p.dw_rise_um) / (p.w_ref_um - p.dw_rise_um)
    return width * (p.q_rise_c + p.c_rise_return_f * v_return)


def fall_charge(p: PulseParameters, conductance_s: Tensor, v_bit: Tensor, v_return: Tensor, w_select_um: float | Tensor) -> Tensor:
    """Charge that recharges one internal node after its pulse [C]; arguments broadcast."""
    full = p.q_fall_c + p.c_fall_bit_f * (v_bit - p.v_read_v) + p.c_fall_return_f * v_return
    return node_width(p, w_select_um) * (full - p.i_recharge_a * p.c_node_f / conductance_s)


def recharge(p: PulseParameters, conductance_s: Tensor, codes: Tensor, slot_edge_s: Tensor, t_lsb_s: float,
             position: float | Tensor, w_select_um: float | Tensor) -> Tensor:  # fmt: skip
    """Share of each cell's recharge that falls into each slot.

    conductance_s (..., rows), codes (..., rows) broadcastable; returns (..., rows, slots), zero where the code is 0.
    The share between two times a < b after the pulse is exp(−a·G/C) − exp(−b·G/C).
    """
    start = codes.to(conductance_s.dtype) * t_lsb_s + fall_delay(p, position)
    rate = conductance_s / (p.c_node_f * node_width(p, w_select_um))
    after = torch.clamp(slot_edge_s - start[..., None], min=0.0)
    decayed = torch.exp(-after * rate[..., None])
    return (decayed[..., :-1] - decayed[..., 1:]) * (codes > 0)[..., None]
