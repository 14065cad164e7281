"""Slot currents of a line: the static solution of each slot, plus what the pulses' edges add."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.cell import CellParameters, expand
from aimcard.models.column import LineSolution, WireParameters, gather_segments, segment_bounds, solve_line
from aimcard.models.pulse import PulseParameters, fall_charge, fall_delay, recharge, rise_charge, rise_delay


@dataclass(frozen=True)
class LineParameters:
    """All that one line needs, read-out apart."""

    cell: CellParameters
    pulse: PulseParameters
    wire: WireParameters


@dataclass(frozen=True)
class LineDrive:
    """One column's situation. conductance_s (..., rows) and codes (..., rows) broadcast to the same leading shape.

    position: 0 at the drivers, 1 at the far end of the word lines. slots: LSB-long slots of the window.
    """

    conductance_s: Tensor
    codes: Tensor
    slots: int
    t_lsb_s: float
    w_select_um: float
    position: float
    v_return_passes: int = 3


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
    seg = gather_segments(cells, codes, drive.slots, p.wire.segments)
    return solve_line(seg, p.cell, p.wire, drive.w_select_um, clamp, drive.v_return_passes)


def edge_charges(p: LineParameters, drive: LineDrive, static: LineSolution) -> Tensor:
    """Charge per slot that the edges add to the static current [C], shape (..., slots).

    Delays: until the conduction really changes, the line carries the current of the slot before. The idle line
    before the first slot carries leakage only, which the last slot (all pulses over) stands for.
    """
    i = static.current_a
    idle = i[..., -1:]
    rise = rise_delay(p.pulse, drive.position)
    fall = fall_delay(p.pulse, drive.position)
    first = -rise * (i[..., :1] - idle)
    later = fall * (i[..., :-1] - i[..., 1:])
    charge = torch.cat([first, later], dim=-1)

    rows = drive.codes.shape[-1]
    bounds = segment_bounds(rows, p.wire.segments)
    owner = torch.cat([torch.full((b - a,), s) for s, (a, b) in enumerate(bounds)])
    shape = torch.broadcast_shapes(drive.codes.shape, drive.conductance_s.shape)
    codes = drive.codes.expand(shape)
    on = (codes > 0).to(i.dtype)
    # Voltages seen by each cell when its pulse begins (slot 0) and when it is over (slot = code).
    first_return = static.v_return_v[..., 0, :][..., owner]
    flat = codes.clamp(max=drive.slots - 1) * len(bounds) + owner
    bit = torch.gather(static.v_bit_v.flatten(-2), -1, flat)
    back = torch.gather(static.v_return_v.flatten(-2), -1, flat)

    start = (rise_charge(p.pulse, first_return, drive.w_select_um) * on).sum(-1, keepdim=True)
    charge = torch.cat([charge[..., :1] + start, charge[..., 1:]], dim=-1)
    amount = fall_charge(p.pulse, drive.conductance_s, bit, back, drive.w_select_um)
    edges = torch.arange(drive.slots + 1, dtype=i.dtype) * drive.t_lsb_s
    share = recharge(p.pulse, drive.conductance_s.expand(shape), codes, edges, drive.t_lsb_s, drive.position, drive.w_select_um)
    return charge + (amount[..., None] * share).sum(-2)


def slot_currents(p: LineParameters, drive: LineDrive, clamp) -> tuple[Tensor, LineSolution]:
    """Mean current in every slot [A], shape (..., slots), and the static solution behind it."""
    static = static_solution(p, drive, clamp)
    return static.current_a + edge_charges(p, drive, static) / drive.t_lsb_s, static
