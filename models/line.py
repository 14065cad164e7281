"""Slot currents of a line: the static solution of each slot, plus what the pulses' edges add."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.cell import CellParameters, expand, idle_weight
from aimcard.models.column import LineSolution, WireParameters, gather_segments, segment_bounds, solve_line
from aimcard.models.pulse import (
    Edges,
    PulseParameters,
    fall_charge,
    fall_delay,
    idle_capacitance,
    recharge_amount,
    recharge_share,
    rise_charge,
    rise_delay,
)


@dataclass(frozen=True)
class LineParameters:
    """All that one line needs, read-out apart."""

    cell: CellParameters
    pulse: PulseParameters
    wire: WireParameters


@dataclass(frozen=True)
class LineDrive:
    """One column's situation. conductance_s (..., rows) and codes (..., rows) broadcast to the same leading shape.

    edges: the column's word-line edges. slots: LSB-long slots of the window.
    w_select_um is a number, or a tensor (..., 1) with one value per line; so are the fields of ``edges``.
    """

    conductance_s: Tensor
    codes: Tensor
    slots: int
    t_lsb_s: float
    w_select_um: float | Tensor
    edges: Edges
    passes: int = 3


def ideal_clamp(v_read_v: float):
    """The read-out that holds the line's end at the read voltage whatever the current."""

    def clamp(y: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        v = torch.full_like(y, v_read_v)
        return v, y * v + j

    return clamp


def static_solution(p: LineParameters, drive: LineDrive, clamp) -> LineSolution:
    """Static currents and segment voltages, shapes (..., slots) and (..., slots, segments)."""
    cells = expand(p.cell, drive.conductance_s, drive.w_select_um)
    codes = drive.codes.expand(torch.broadcast_shapes(drive.codes.shape, drive.conductance_s.shape))
    weight = idle_weight(p.cell, drive.conductance_s, drive.w_select_um)
    seg = gather_segments(cells, weight, codes, drive.slots, p.wire.segments)
    return solve_line(seg, p.cell, p.wire, drive.w_select_um, clamp, drive.passes)


def edge_charges(p: LineParameters, drive: LineDrive, static: LineSolution) -> Tensor:
    """Charge per slot that the edges add to the static current [C], shape (..., slots).

    Delays: until the conduction really changes, the line carries the current of the slot before. The idle line
    before the first slot carries leakage only, which the last slot (all pulses over) stands for.
    """
    i = static.current_a
    e, w = drive.edges, drive.w_select_um
    idle = i[..., -1:]
    r_return = p.wire.r_return_ohm
    first = -rise_delay(p.pulse, e) * (i[..., :1] - idle)
    later = fall_delay(p.pulse, e) * (i[..., :-1] - i[..., 1:])
    charge = torch.cat([first, later], dim=-1)

    rows = drive.codes.shape[-1]
    bounds = segment_bounds(rows, p.wire.segments)
    owner = torch.cat([torch.full((b - a,), s) for s, (a, b) in enumerate(bounds)])
    shape = torch.broadcast_shapes(drive.codes.shape, drive.conductance_s.shape)
    codes = drive.codes.expand(shape)
    on = (codes > 0).to(i.dtype)
    g = expand(p.cell, drive.conductance_s, w).g_s
    bit_first, back_first = static.v_bit_v[..., 0, :][..., owner], static.v_return_v[..., 0, :][..., owner]
    start = rise_charge(p.pulse, e, g * (bit_first - back_first), back_first, w, r_return) * on
    charge = torch.cat([charge[..., :1] + start.sum(-1, keepdim=True), charge[..., 1:]], dim=-1)
    charge = charge + line_charge(p, static, w)
    if not codes.is_floating_point():
        return charge + _pulse_ends(p, drive, static, codes, on, g, owner)
    # A broken code ends in between: the share of each neighbour, differentiable in the code.
    whole = codes.detach().floor().clamp(max=drive.slots - 1)
    part = codes - whole
    below = whole.to(torch.int64)
    return (
        charge
        + _pulse_ends(p, drive, static, below, (1 - part) * on, g, owner)
        + _pulse_ends(p, drive, static, below + 1, part * on, g, owner)
    )


def _pulse_ends(p: LineParameters, drive: LineDrive, static: LineSolution, codes: Tensor, weight: Tensor,
                g: Tensor, owner: Tensor) -> Tensor:  # fmt: skip
    """Charge per slot of falling edges and recharges [C], (..., slots); codes (..., rows) whole, each by its ``weight``."""
    e, w = drive.edges, drive.w_select_um
    conductance = drive.conductance_s.expand(codes.shape)
    segments = static.v_bit_v.shape[-1]
    # Voltages seen by each cell just before its pulse ends, and when it is over.
    slot = codes.clamp(max=drive.slots - 1)
    over = slot * segments + owner
    before = (slot - 1).clamp(min=0) * segments + owner
    bits, backs = static.v_bit_v.flatten(-2), static.v_return_v.flatten(-2)
    bit_before, back_before = torch.gather(bits, -1, before), torch.gather(backs, -1, before)
    bit_over, back_over = torch.gather(bits, -1, over), torch.gather(backs, -1, over)
    end = fall_charge(p.pulse, e, conductance, g * (bit_before - back_before), back_before, w, p.wire.r_return_ohm) * weight
    charge = torch.zeros_like(static.current_a).scatter_add(-1, slot, end)
    amount = recharge_amount(p.pulse, e, conductance, bit_over, back_over, w) * weight
    slot_edge_s = torch.arange(drive.slots + 1, dtype=end.dtype) * drive.t_lsb_s
    # Code 0 may be here as the lower neighbour of a code between 0 and 1; share() leaves it out.
    share = recharge_share(p.pulse, e, conductance, codes.clamp(min=1), slot_edge_s, drive.t_lsb_s, w)
    return charge + (amount[..., None] * share).sum(-2)


def line_charge(p: LineParameters, static: LineSolution, w_select_um: float | Tensor) -> Tensor:
    """Charge per slot that follows the bit line's voltage [C]: wire, and the internal nodes of idle cells on it."""
    v = static.v_bit_v
    change = v - torch.cat([v[..., -1:, :], v[..., :-1, :]], dim=-2)
    w = w_select_um[..., None] if isinstance(w_select_um, Tensor) and w_select_um.ndim else w_select_um
    node = idle_capacitance(p.pulse, w)
    return (change * (p.wire.c_bit_f * static.lengths + node * static.n_idle)).sum(-1)


def slot_currents(p: LineParameters, drive: LineDrive, clamp) -> tuple[Tensor, LineSolution]:
    """Mean current in every slot [A], shape (..., slots), and the static solution behind it."""
    static = static_solution(p, drive, clamp)
    return static.current_a + edge_charges(p, drive, static) / drive.t_lsb_s, static
