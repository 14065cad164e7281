"""Slot currents of a line: the static solution of each slot, plus what the pulses' edges add."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.cell import CellParameters, expand, idle_weight
from aimcard.models.column import Clamp, LineSolution, WireParameters, gather_segments, segment_bounds, solve_line
from aimcard.models.modes import Mode
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
    pulses: (start, stop) of each row's pulses, each (..., rows) as codes, in slots of the window, one pair a phase, in
    order and with at least one slot between them; start None is slot 0. None: one pulse from slot 0, ``codes`` long.
    starts: first slots of the phases, which a line enters from rest.
    """

    conductance_s: Tensor
    codes: Tensor
    slots: int
    t_lsb_s: float
    w_select_um: float | Tensor
    edges: Edges
    passes: int = 3
    pulses: tuple[tuple[Tensor | None, Tensor], ...] | None = None
    starts: tuple[int, ...] = (0,)

    def window_pulses(self) -> tuple[tuple[Tensor | None, Tensor], ...]:
        """``pulses``, each of the shape of lines and rows together."""
        shape = torch.broadcast_shapes(self.codes.shape, self.conductance_s.shape)
        pulses = ((None, self.codes),) if self.pulses is None else self.pulses
        return tuple((None if start is None else start.expand(shape), stop.expand(shape)) for start, stop in pulses)


def mode_drive(mode: Mode, guard: int, conductance_s: Tensor, codes: Tensor, t_lsb_s: float, w_select_um: float | Tensor,
               edges: Edges, passes: int = 3) -> LineDrive:  # fmt: skip
    """The drive of ``codes`` in a PWM mode, row 0 of the last axis at the far end; arguments as LineDrive's fields."""
    slots = mode.window_slots(guard)
    if mode.name == "conventional":
        return LineDrive(conductance_s, codes, slots, t_lsb_s, w_select_um, edges, passes)
    pulses = tuple(mode.window_pulses(codes, torch.arange(codes.shape[-1]), guard))
    return LineDrive(conductance_s, codes, slots, t_lsb_s, w_select_um, edges, passes, pulses, mode.starts(guard))


def ideal_clamp(v_read_v: float):
    """The read-out that holds the line's end at the read voltage whatever the current."""

    def clamp(y: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        v = torch.full_like(y, v_read_v)
        return v, y * v + j

    return clamp


def static_solution(p: LineParameters, drive: LineDrive, clamp: Clamp) -> LineSolution:
    """Static currents and segment voltages, shapes (..., slots) and (..., slots, segments)."""
    cells = expand(p.cell, drive.conductance_s, drive.w_select_um)
    weight = idle_weight(p.cell, drive.conductance_s, drive.w_select_um)
    seg = gather_segments(cells, weight, drive.window_pulses(), drive.slots, p.wire.segments)
    return solve_line(seg, p.cell, p.wire, drive.w_select_um, clamp, drive.passes)


def edge_charges(p: LineParameters, drive: LineDrive, static: LineSolution) -> Tensor:
    """Charge per slot that the edges add to the static current [C], shape (..., slots).

    Delays: until the conduction really changes, the line carries the current of the slot before. The idle line
    before the first slot carries leakage only, which the last slot (all pulses over) stands for.
    """
    i = static.current_a
    e, w = drive.edges, drive.w_select_um
    r_return = p.wire.r_return_ohm
    bounds = segment_bounds(drive.codes.shape[-1], p.wire.segments)
    owner = torch.cat([torch.full((b - a,), s) for s, (a, b) in enumerate(bounds)])
    pulses = _whole_pulses(drive)
    conductance = drive.conductance_s.expand(pulses[0][2].shape)
    g = expand(p.cell, drive.conductance_s, w).g_s.expand(conductance.shape)
    slot_edge_s = torch.arange(drive.slots + 1, dtype=i.dtype) * drive.t_lsb_s
    bits, backs = static.v_bit_v.flatten(-2), static.v_return_v.flatten(-2)

    def seen(slot: Tensor) -> tuple[Tensor, Tensor]:
        at = slot * len(bounds) + owner
        return torch.gather(bits, -1, at), torch.gather(backs, -1, at)

    charge = line_charge(p, static, w)
    rising, falling = torch.zeros_like(i), torch.zeros_like(i)
    for k, first, stop, on in pulses:
        last = stop.clamp(max=drive.slots - 1)
        # Voltages seen by each cell when its pulse begins, just before it ends, and when it is over.
        begin = first.clamp(max=drive.slots - 1)
        bit, back = seen(begin)
        rise = rise_charge(p.pulse, e, g * (bit - back), back, w, r_return) * on
        bit, back = seen((last - 1).clamp(min=0))
        fall = fall_charge(p.pulse, e, conductance, g * (bit - back), back, w, r_return) * on
        charge = charge.scatter_add(-1, begin, rise).scatter_add(-1, last, fall)
        rising = rising.scatter_add(-1, begin, p.cell.v_read_v * g * on)
        falling = falling.scatter_add(-1, last, p.cell.v_read_v * g * on)
        amount = recharge_amount(p.pulse, e, conductance, *seen(last), w)
        until = None if drive.pulses is None else _next_start(drive.window_pulses()[k + 1 :], drive.slots)
        share = recharge_share(p.pulse, e, conductance, stop, slot_edge_s, drive.t_lsb_s, w, on, until)
        charge = charge + (amount[..., None] * share).sum(-2)
    # Each boundary's step is the sum of what rises and what falls there, shared out as the cells' nominal currents are.
    step = i - torch.cat([i[..., -1:], i[..., :-1]], dim=-1)
    share = rising / torch.clamp(rising + falling, min=torch.finfo(i.dtype).tiny)
    up = rising + (step - (rising - falling)) * share
    return charge - rise_delay(p.pulse, e) * up + fall_delay(p.pulse, e) * (up - step)


def _whole_pulses(drive: LineDrive) -> list[tuple[int, Tensor, Tensor, Tensor]]:
    """(phase, start, stop, weight) of the drive's pulses in whole slots; weight is 1 where there is a pulse, else 0.

    A broken code is the share of each neighbour, so it begins or ends in between and is differentiable.
    """
    dtype, found = drive.conductance_s.dtype, []
    for k, (start, stop) in enumerate(drive.window_pulses()):
        first = torch.zeros_like(stop, dtype=torch.int64) if start is None else start
        if not stop.is_floating_point() and not first.is_floating_point():
            found.append((k, first, stop, (stop > first).to(dtype)))
            continue
        on = (stop > first).to(dtype)
        for begin, early in _neighbours(first, drive.slots):
            found += [(k, begin, end, early * late * on) for end, late in _neighbours(stop, drive.slots)]
    return found


def _neighbours(at: Tensor, slots: int) -> list[tuple[Tensor, Tensor | float]]:
    """The whole slots on both sides of ``at``, each with its share; a whole number's is itself."""
    if not at.is_floating_point():
        return [(at, 1.0)]
    whole = at.detach().floor().clamp(max=slots - 1)
    part, below = at - whole, whole.to(torch.int64)
    return [(below, 1 - part), (below + 1, part)]


def _next_start(later: tuple[tuple[Tensor | None, Tensor], ...], slots: int) -> Tensor | None:
    """Slot at which each row's next pulse starts, ``slots`` + some where there is none; None if no phase follows."""
    until = None
    for start, stop in reversed(later):
        first = torch.zeros_like(stop) if start is None else start
        none = torch.full_like(stop, 2 * slots) if until is None else until
        until = torch.where(stop > first, first.to(none), none)
    return until


def line_charge(p: LineParameters, static: LineSolution, w_select_um: float | Tensor) -> Tensor:
    """Charge per slot that follows the bit line's voltage [C]: wire, and the internal nodes of idle cells on it."""
    v = static.v_bit_v
    change = v - torch.cat([v[..., -1:, :], v[..., :-1, :]], dim=-2)
    w = w_select_um[..., None] if isinstance(w_select_um, Tensor) and w_select_um.ndim else w_select_um
    node = idle_capacitance(p.pulse, w)
    return (change * (p.wire.c_bit_f * static.lengths + node * static.n_idle)).sum(-1)


def slot_currents(p: LineParameters, drive: LineDrive, clamp: Clamp) -> tuple[Tensor, LineSolution]:
    """Mean current in every slot [A], shape (..., slots), and the static solution behind it."""
    static = static_solution(p, drive, clamp)
    return static.current_a + edge_charges(p, drive, static) / drive.t_lsb_s, static
