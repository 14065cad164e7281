"""One line of a column between pulses: rows clumped into segments, the line reduced to its Thévenin equivalent.

Bit and return line carry the same current in opposite directions when the return line is grounded at the
read-out end, so both wires act as one ladder of r = r_bit + r_return per cell, and the return line's share of
the drop is r_return/r.

A segment is a T-section: its conductance sits at its centroid, and its own (distributed) drop is smaller than
that of a lump by r_self = −r·L/6·(1 − 1/n_eff), the two-port of a uniform ladder (n_eff: effective number of
conducting cells). From the far end, (Y, J) with I = Y·V + J passes through a series resistance R as
Y/(1 + R·Y), J/(1 + R·Y): R_th = 1/Y and V_th = −J/Y of the recursion in IBM's aihwkit (time-dependent IR-drop).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.cell import CellExpansion, CellParameters, conducting, gate_current, leakage_current

#: A read-out as its column sees it: (Y, J) [S, A] to (V, I) [V, A] with I = Y·V + J, V from where the column counts it.
Clamp = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class WireParameters:
    """Wire of one cell pitch: resistances [Ω], numbers or tensors (..., 1) with one value per line; bit-line
    capacitance [F]; ``segments``: clumps of the fast model."""

    r_bit_ohm: Tensor | float
    r_return_ohm: Tensor | float
    c_bit_f: Tensor | float
    segments: int


@dataclass(frozen=True)
class Segments:
    """Sums over the conducting cells of each segment, shape (..., slots, segments); ``idle_weight`` over the idle ones."""

    g_s: Tensor
    source: Tensor
    drain: Tensor
    centroid: Tensor
    n_eff: Tensor
    n_on: Tensor
    idle_weight: Tensor
    lengths: Tensor


def segment_bounds(rows: int, segments: int) -> list[tuple[int, int]]:
    """Row ranges of at most ``segments`` segments of nearly equal length; the far end is row 0."""
    count = min(segments, rows)
    edges = [round(k * rows / count) for k in range(count + 1)]
    return list(itertools.pairwise(edges))


def conducting_sums(weights: Tensor, codes: Tensor, slots: int, bounds: list[tuple[int, int]]) -> Tensor:
    """Sum of ``weights`` (..., kinds, rows) over rows whose pulse lasts beyond each slot's start.

    codes (..., rows), conventional mode: row i conducts in slots 0 … code−1. Returns (..., kinds, slots, segments).
    Each row is added once at its code, then summed from the last slot back: cost rows, not rows × slots.
    Codes of a floating type may be broken: the last slot then conducts by its share, differentiable in the code.
    """
    if codes.is_floating_point():
        whole = codes.detach().floor().clamp(0, slots)
        part = (codes - whole)[..., None, :]
        begun = whole.to(torch.int64)
        return conducting_sums(weights * (1 - part), begun, slots, bounds) + conducting_sums(
            weights * part, begun + 1, slots, bounds
        )
    *lead, kinds, rows = weights.shape
    out = weights.new_zeros(*lead, kinds, slots + 1, len(bounds))
    index = codes.clamp(0, slots)[..., None, :].expand(*lead, kinds, rows).to(torch.int64)
    for s, (a, b) in enumerate(bounds):
        part = weights.new_zeros(*lead, kinds, slots + 1)
        out[..., s] = part.scatter_add(-1, index[..., a:b], weights[..., a:b])
    # Slot k sums all codes above k.
    return torch.flip(torch.cumsum(torch.flip(out, (-2,)), -2), (-2,))[..., 1:, :]


def pulsed_sums(
    weights: Tensor, pulses: Sequence[tuple[Tensor | None, Tensor]], slots: int, bounds: list[tuple[int, int]]
) -> Tensor:
    """``conducting_sums`` for pulses (start, stop), each (..., rows) in slots of the window; start None: slot 0.

    A row's pulses do not touch. The last of ``weights``' kinds must count cells: where none conducts, all sums are zero.
    """
    total = torch.zeros(())
    for start, stop in pulses:
        part = conducting_sums(weights, stop, slots, bounds)
        total = total + (part if start is None else part - conducting_sums(weights, start, slots, bounds))
    if all(start is None for start, _ in pulses):
        return total
    # Differences of sums leave rounding where nothing conducts; a count of whole pulses is exact. Slopes stay.
    return torch.where(total[..., -1:, :, :] > 1e-6, total, total - total.detach())


def gather_segments(
    cells: CellExpansion,
    idle_weight: Tensor,
    pulses: Sequence[tuple[Tensor | None, Tensor]],
    slots: int,
    segments: int,
) -> Segments:
    """Reduce a line's cells (..., rows) to its segments in every slot, for pulses as ``pulsed_sums`` takes them.

    idle_weight (..., rows): share of the leakage that each cell passes when idle.
    """
    stop = pulses[0][1]
    rows = stop.shape[-1]
    bounds = segment_bounds(rows, segments)
    lengths = torch.tensor([b - a for a, b in bounds], dtype=cells.g_s.dtype)
    distance = torch.cat([b - 0.5 - torch.arange(a, b, dtype=cells.g_s.dtype) for a, b in bounds])
    ones = torch.ones_like(cells.g_s)
    weights = torch.stack(
        torch.broadcast_tensors(
            cells.g_s, cells.source_s_per_v, cells.drain_s_per_v, cells.g_s * distance, cells.g_s**2, idle_weight, ones
        ),
        dim=-2,
    )
    weights = weights.expand(*stop.shape[:-1], *weights.shape[-2:])
    sums = pulsed_sums(weights, pulses, slots, bounds)
    g, source, drain, moment, square, weight, count = sums.unbind(-3)
    whole = torch.stack([idle_weight[..., a:b].sum(-1) for a, b in bounds], dim=-1)[..., None, :]
    tiny = torch.finfo(g.dtype).tiny
    safe = torch.clamp(g, min=tiny)
    centroid = torch.where(g > 0, moment / safe, 0.5 * lengths)
    n_eff = torch.where(g > 0, g * (g / torch.clamp(square, min=tiny)), torch.ones_like(g))
    return Segments(g, source, drain, centroid, n_eff, count, whole - weight, lengths)


@dataclass(frozen=True)
class LineSolution:
    """current_a, v_clamp_v (..., slots); v_bit_v, v_return_v of the segments' nodes, (..., slots, segments).

    n_idle: idle cells of each segment, same shape; lengths: cells of each segment, (segments,).
    """

    current_a: Tensor
    v_clamp_v: Tensor
    v_bit_v: Tensor
    v_return_v: Tensor
    n_idle: Tensor
    lengths: Tensor


def reduce_line(seg: Segments, conductance: Tensor, injected: Tensor, r_ohm: Tensor | float) -> tuple[Tensor, Tensor]:
    """Thévenin reduction from the far end: (Y, J) at the read-out, I = Y·V_clamp + J. Shapes (..., slots)."""
    y = torch.zeros_like(conductance[..., 0])
    j = torch.zeros_like(y)
    for s in range(conductance.shape[-1]):
        far = r_ohm * (seg.lengths[s] - seg.centroid[..., s])
        k = 1 + far * y
        y, j = y / k, j / k
        y, j = y + conductance[..., s], j + injected[..., s]
        k = 1 + r_ohm * seg.centroid[..., s] * y
        y, j = y / k, j / k
    return y, j


def node_voltages(seg: Segments, conductance: Tensor, injected: Tensor, r_ohm: Tensor | float,
                  v_clamp: Tensor, current: Tensor) -> Tensor:  # fmt: skip
    """Voltage V_bit − V_return at the segments' nodes, walking from the read-out to the far end."""
    v, i = v_clamp, current
    nodes: list[Tensor] = []
    for s in reversed(range(conductance.shape[-1])):
        v = v - r_ohm * seg.centroid[..., s] * i
        nodes.append(v)
        i = i - conductance[..., s] * v - injected[..., s]
        v = v - r_ohm * (seg.lengths[s] - seg.centroid[..., s]) * i
    return torch.stack(nodes[::-1], dim=-1)


def gate_rise(seg: Segments, injected_a: Tensor, r_return_ohm: Tensor | float) -> Tensor:
    """Voltage [V] that currents entering the return line at the segments' nodes raise there, (..., slots, segments).

    A segment's own current is spread over it: it sees a third of the segment's wire, the classical Σ min(i, j).
    """
    total = torch.cumsum(injected_a, -1)
    far = total - injected_a
    across = r_return_ohm * seg.lengths * (far + injected_a / 2)
    # Voltage at a segment's near edge: what all segments nearer to the ground drop.
    edge = torch.flip(torch.cumsum(torch.flip(across, (-1,)), -1), (-1,)) - across
    return edge + r_return_ohm * seg.lengths * (far / 2 + injected_a / 3)


def _with_segments(quantity: Tensor | float) -> Tensor | float:
    return quantity[..., None] if isinstance(quantity, Tensor) and quantity.ndim else quantity


def solve_line(seg: Segments, cell: CellParameters, wire: WireParameters, w_select_um: Tensor | float,
               clamp: Clamp, passes: int = 3) -> LineSolution:  # fmt: skip
    """Static solution of a line in every slot.

    ``clamp(Y, J) -> (V_clamp, I)`` closes the circuit at the read-out (readout.py). Each pass re-expands the cells
    about the segment voltages of the pass before; the first assumes the read voltage everywhere.
    """
    r_total = wire.r_bit_ohm + wire.r_return_ohm
    # A width or a wire per line is shaped (..., 1); voltages have slots and segments behind it.
    r, r_return, w_select_um = (_with_segments(q) for q in (r_total, wire.r_return_ohm, w_select_um))
    share = r_return / torch.clamp(torch.as_tensor(r, dtype=seg.g_s.dtype), min=1e-30)
    v = torch.full_like(seg.g_s, cell.v_read_v)
    v_return = torch.zeros_like(v)
    v_clamp = current = conductance = injected = None
    for _ in range(passes):
        g = conducting(cell, seg.g_s, seg.source, seg.drain, v, v_return)
        self_r = -r * seg.lengths / 6 * (1 - 1 / torch.clamp(seg.n_eff, min=1.0))
        conductance = g / (1 + self_r * g)
        gates = seg.n_on * gate_current(cell, v_return, w_select_um)
        rise = gate_rise(seg, gates, r_return)
        idle = seg.idle_weight * leakage_current(cell, v + v_return, v_return, w_select_um)
        injected = idle - conductance * rise
        y, j = reduce_line(seg, conductance, injected, r_total)
        v_clamp, current = clamp(y, j)
        # The ladder's voltage counts from a return line without gate currents.
        ladder = node_voltages(seg, conductance, injected, r_total, v_clamp, current)
        v = ladder - rise
        v_return = share * (v_clamp[..., None] - ladder) + rise
    assert current is not None
    assert v_clamp is not None
    return LineSolution(current, v_clamp, v + v_return, v_return, seg.lengths - seg.n_on, seg.lengths)
