"""What the edges of a pulse add to the static current: width shift, and the recharge of the cell's internal node.

While a cell conducts, the node between PCM and select transistor sits near the return line. When the word line
falls, gate feed-through pulls it lower still, and the bit line then recharges it through the PCM: a fixed charge,
almost independent of G, that arrives with the time constant C_x/G (0.2 to 0.3 fC per pulse in FreePDK45).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.lut import lookup


@dataclass(frozen=True)
class Edges:
    """A column's word-line edges; numbers, or tensors (..., 1) with one value per line.

    rise_delay_s, fall_delay_s: V_DD/2 crossings after the slot boundary. rise_s, fall_s: 10 to 90 % times.
    """

    rise_delay_s: Tensor | float
    fall_delay_s: Tensor | float
    rise_s: Tensor | float
    fall_s: Tensor | float


def edges_at(tables: dict[str, tuple[Tensor, Tensor]], position: float | Tensor) -> Edges:
    """Edges of a column at ``position`` (0 at the drivers, 1 far) from the card's tables over the position."""
    u = torch.as_tensor(position, dtype=torch.float64)
    return Edges(*(lookup(*tables[name], u) for name in EDGE_TABLES))


#: Wire at which the pushed charges are quoted, per cell [Ω] (aihwkit's time-dependent IR-drop tile).
R_REF_OHM = 0.15
#: Least conductance of a recharge [S]. Below it next to nothing flows, and the leak's share, which goes with C/G, has no limit.
LEAST_RECHARGE_S = 1e-10
EDGE_TABLES = ("edge_rise_delay", "edge_fall_delay", "edge_rise_time", "edge_fall_time")


@dataclass(frozen=True)
class PulseParameters:
    """Fitted numbers of the edges; scalars.

    t_rise_s, k_rise: conduction starts t + k·(10–90 % time) after the word line's V_DD/2. t_fall_s, k_fall: it ends so.
    k_gate: a return line at V moves both by V·k·(10–90 % time)/(0.8 V_DD), as the gate must rise higher.
    t_fall_per_s: later end per siemens of PCM, whose own recharge begins while the gate still falls; goes with
    1/(W − dw_late_um), as the transistor's resistance does.
    q_rise_c: charge of a rising edge.
    q_fall_c, i_fall_a: recharge of the internal node after a pulse, at edges of no length; per second of fall time.
    c_fall_bit_f, c_fall_return_f: its change per volt on bit and return line.
    c_node_f: capacitance that sets the recharge's time constant τ = C/G.
    c_idle_f: capacitance by which an idle cell's internal node loads the bit line.
    i_recharge_a: while the node is low its transistor leaks the other way; the charge missing is i·τ. A return line
    at V multiplies it by exp(−k_recharge_per_v·V), since the idle transistor's gate-source voltage falls by V.
    c_rise_push_f, c_fall_push_f: a rising gate pushes charge into the return line (the channel's and the internal
    node's), a falling one pulls it back. The line sees q·R, so what it loses or gains goes with the cell's
    static return-line voltage: this much per volt. g_rise_push_s, g_fall_push_s: the same per second of 10–90 % time.
    c_small_push_f, g_small_s: a cell of conductance below g_small pulls more: c/(1 + G/g_small), at any wire.
    n_rise_push, n_fall_push: a more resistive return line holds on to the charge for longer than the edge lasts, and
    loses it less efficiently: both go with (r_return/0.15 Ω)^−n, an empirical law between 0.15 and 1.5 Ω per cell;
    n stays below 1, so that what is pushed vanishes with the wire.
    dw_node_um, dw_fall_um, dw_recharge_um, dw_cap_um, dw_push_um, dw_pull_um, dw_small_um: the recharge, its part per
    second of fall time, i_recharge_a, the node's capacitances, the rising and the falling gate's push, and the part of
    it that small cells add, go with W − dw.
    """

    t_rise_s: Tensor | float
    k_rise: Tensor | float
    t_fall_s: Tensor | float
    k_fall: Tensor | float
    k_gate: Tensor | float
    t_fall_per_s: Tensor | float
    q_rise_c: Tensor | float
    q_fall_c: Tensor | float
    i_fall_a: Tensor | float
    c_fall_bit_f: Tensor | float
    c_fall_return_f: Tensor | float
    c_node_f: Tensor | float
    c_idle_f: Tensor | float
    i_recharge_a: Tensor | float
    k_recharge_per_v: Tensor | float
    dw_node_um: Tensor | float
    dw_fall_um: Tensor | float
    dw_recharge_um: Tensor | float
    dw_late_um: Tensor | float
    dw_cap_um: Tensor | float
    c_rise_push_f: Tensor | float
    g_rise_push_s: Tensor | float
    c_fall_push_f: Tensor | float
    g_fall_push_s: Tensor | float
    c_small_push_f: Tensor | float
    g_small_s: Tensor | float
    n_rise_push: Tensor | float
    n_fall_push: Tensor | float
    dw_push_um: Tensor | float
    dw_pull_um: Tensor | float
    dw_small_um: Tensor | float
    w_ref_um: float
    v_read_v: float
    vdd_v: float


def rise_delay(p: PulseParameters, e: Edges) -> Tensor | float:
    """Start of conduction after the slot boundary [s], return line at ground."""
    return e.rise_delay_s + p.t_rise_s + p.k_rise * e.rise_s


def fall_delay(p: PulseParameters, e: Edges) -> Tensor | float:
    """End of conduction after the slot boundary [s], return line at ground."""
    return e.fall_delay_s + p.t_fall_s + p.k_fall * e.fall_s


def _width(dw_um: Tensor | float, p: PulseParameters, w_select_um: float | Tensor) -> Tensor | float:
    return (w_select_um - dw_um) / (p.w_ref_um - dw_um)


def node_capacitance(p: PulseParameters, w_select_um: float | Tensor) -> Tensor | float:
    """Capacitance of the internal node during its recharge [F]."""
    return p.c_node_f * _width(p.dw_cap_um, p, w_select_um)


def idle_capacitance(p: PulseParameters, w_select_um: float | Tensor) -> Tensor | float:
    """Capacitance by which an idle cell loads the bit line [F]."""
    return p.c_idle_f * _width(p.dw_cap_um, p, w_select_um)


def wire_factor(n: Tensor | float, r_return_ohm: Tensor | float) -> Tensor:
    """(r_return/0.15 Ω)^−n; a wire below 1 µΩ counts as 1 µΩ (it has no voltage to multiply)."""
    r = torch.clamp(torch.as_tensor(r_return_ohm, dtype=torch.float64), min=1e-6)
    return torch.exp(-n * torch.log(r / R_REF_OHM))


def rise_charge(
    p: PulseParameters,
    e: Edges,
    cell_a: Tensor,
    v_return: Tensor,
    w_select_um: float | Tensor,
    r_return_ohm: float | Tensor,
) -> Tensor:
    """Charge drawn from the bit line by one rising edge, beside the delay's [C]; cell_a: the cell's current [A]."""
    later = p.k_gate * e.rise_s / (0.8 * p.vdd_v) * v_return
    push = (p.c_rise_push_f + p.g_rise_push_s * e.rise_s) * v_return
    push = push * wire_factor(p.n_rise_push, r_return_ohm)
    return p.q_rise_c - later * cell_a + _width(p.dw_push_um, p, w_select_um) * push


def fall_charge(
    p: PulseParameters,
    e: Edges,
    conductance_s: Tensor,
    cell_a: Tensor,
    v_return: Tensor,
    w_select_um: float | Tensor,
    r_return_ohm: float | Tensor,
) -> Tensor:
    """Charge that one falling edge makes the line draw at once, beside the delay's [C]."""
    later = p.t_fall_per_s * conductance_s / _width(p.dw_late_um, p, w_select_um)
    later = later - p.k_gate * e.fall_s / (0.8 * p.vdd_v) * v_return
    push = (p.c_fall_push_f + p.g_fall_push_s * e.fall_s) * v_return
    push = push * wire_factor(p.n_fall_push, r_return_ohm)
    small = p.c_small_push_f / (1 + conductance_s / p.g_small_s) * v_return
    wide = _width(p.dw_pull_um, p, w_select_um) * push + _width(p.dw_small_um, p, w_select_um) * small
    return later * cell_a + wide


def recharging(conductance_s: Tensor) -> Tensor:
    """Conductance through which an internal node recharges [S]: an open device counts as ``LEAST_RECHARGE_S``."""
    return conductance_s.clamp(min=LEAST_RECHARGE_S)


def recharge_amount(p: PulseParameters, e: Edges, conductance_s: Tensor, v_bit: Tensor, v_return: Tensor,
                    w_select_um: float | Tensor) -> Tensor:  # fmt: skip
    """Charge that recharges one internal node after its pulse [C]; arguments broadcast."""
    full = p.q_fall_c + p.c_fall_bit_f * (v_bit - p.v_read_v) + p.c_fall_return_f * v_return
    later = p.i_fall_a * e.fall_s * _width(p.dw_fall_um, p, w_select_um)
    leak = p.i_recharge_a * torch.exp(-p.k_recharge_per_v * v_return) * _width(p.dw_recharge_um, p, w_select_um)
    leak = leak * node_capacitance(p, w_select_um) / recharging(conductance_s)
    return _width(p.dw_node_um, p, w_select_um) * full + later - leak


def recharge_share(p: PulseParameters, e: Edges, conductance_s: Tensor, codes: Tensor, slot_edge_s: Tensor, t_lsb_s: float,
                   w_select_um: float | Tensor, on: Tensor | None = None, until: Tensor | None = None) -> Tensor:  # fmt: skip
    """Share of each cell's recharge that falls into each slot.

    conductance_s (..., rows), codes (..., rows) broadcastable: the slot at which the pulse ends, which is its length if
    it starts in slot 0. Returns (..., rows, slots), zero where there is no pulse: not ``on`` (None: code 0).
    The share between two times a < b after the pulse is exp(−a·G/C) − exp(−b·G/C). ``until``, same shape: the slot at
    which the cell's next pulse starts and ends the recharge, whatever is left.
    """
    start = codes.to(conductance_s.dtype) * t_lsb_s + fall_delay(p, e)
    rate = recharging(conductance_s) / node_capacitance(p, w_select_um)
    after = torch.clamp(slot_edge_s - start[..., None], min=0.0)
    if until is not None:
        span = until.to(conductance_s.dtype) * t_lsb_s + rise_delay(p, e) - start
        after = torch.minimum(after, span[..., None])
    decayed = torch.exp(-after * rate[..., None])
    return (decayed[..., :-1] - decayed[..., 1:]) * (codes > 0 if on is None else on)[..., None]
