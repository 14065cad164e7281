"""The hand-written backward pass of a group's products: gradients to the weights and codes of one block of vectors.

The answer of line c moves with conductance W_ci by y_i − sign·(2m + 3·cubic·m²)·z_i, and with code x_i by W_ci times the rate of
the same weight at the time at which row i's pulse ends. That is the derivative of the circuit as far as the expansion knows it,
and differs from the derivative of the formula, in which every code moves all weights, in terms of third order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimcard.models.fast.bytes import byte_product, roots
from aimcard.models.fast.meanfield import EXTRA, Prepared, parts
from aimcard.models.fast.weights import MIDDLE, Cells, Plan, Weights, apparent_slope, recharge_slope

#: Lines whose gradients are taken together: a product of them with all rows is as large as the weights are.
LINES = 128


@dataclass
class Gradients:
    """Where the blocks' gradients gather, in the order of the groups.

    wide (lines, rows + EXTRA): to apparent conductances and the columns behind them; answers (batch, lines): of the answers, in
    the precision of the pulses' product.
    """

    wide: Tensor
    answers: Tensor

    @classmethod
    def empty(cls, lines: int, codes: Tensor, *, half: bool) -> Gradients:
        """For ``lines`` and all ``codes`` (batch, rows)."""
        batch, rows = codes.shape
        answers = codes.new_empty(batch, lines, dtype=torch.bfloat16 if half else codes.dtype)
        return cls(codes.new_empty(lines, rows + EXTRA), answers)

    @property
    def whole(self) -> Tensor:
        """To apparent conductances (lines, rows)."""
        return self.wide[:, :-EXTRA]

    @property
    def behind(self) -> Tensor:
        """To the columns behind them (lines, EXTRA)."""
        return self.wide[:, -EXTRA:]


def group_back(plan: Plan, weights: Weights, prepared: Prepared, grad: Tensor, to: Gradients | None, to_x: Tensor | None,
               place: slice, *, add: bool) -> None:  # fmt: skip
    """Gradients of the first-order product to weights, the columns behind them and codes; ``add`` to what is there."""
    rows, start = prepared.y.shape[2] - EXTRA, 0
    for k, size in enumerate(plan.ref.sizes):
        part, y = grad[:, start : start + size], prepared.y[k]
        lines = slice(place.start + start, place.start + start + size)
        if to is not None:
            torch.addmm(to.wide[lines], part.T, y, beta=int(add), out=to.wide[lines])
        if to_x is not None:
            assert prepared.y_rate is not None
            to_x.addcmul_(part @ weights.wide[start : start + size, :rows], prepared.y_rate[k])
        start += size


def bend_back(plan: Plan, weights: Weights, prepared: Prepared, grad: Tensor, x: Tensor, whole: Tensor | None,
              to_x: Tensor | None) -> None:  # fmt: skip
    """Take what the squares contribute off the gradients to weights (lines, rows) and codes (batch, rows), in place.

    The compiled path spoils ``prepared.z``.
    """
    if not len(prepared.z):
        return
    edges = plan.ref.grid.edges.tolist()
    bins = len(edges) - 1
    spans = [(edges[a], edges[b] if b < bins else 2 * edges[-1]) for a, b in parts(bins, plan.squares)]
    if weights.scale is not None:
        _bend_back_bytes(plan, weights, prepared, grad.contiguous(), x, whole, to_x, spans)
        return
    if plan.fused is not None:
        _bend_back_fused(plan, weights, prepared, grad, x, whole, to_x)
        return
    assert prepared.z_rate is not None
    for k, (begin, end) in enumerate(spans):
        z = prepared.z[k]
        scale, sign, cubic = (plan.by_line(q[:, k]) for q in (prepared.scale, prepared.sign, prepared.cubic))
        m = roots(weights, z) * scale
        bent = grad * m * (2 + 3 * cubic * m) * sign * scale
        low = weights.departure.dtype
        if whole is not None:
            whole -= (bent.to(low).T @ z.to(low)).to(whole.dtype)
        if to_x is not None:
            inside = ((x >= begin) & (x < end)).to(grad.dtype)
            moved = (bent.to(low) @ weights.departure).to(grad.dtype) + torch.outer(bent @ weights.middle, plan.ref.g.to(grad))
            to_x -= moved * prepared.z_rate * inside


def _bend_back_fused(plan: Plan, weights: Weights, prepared: Prepared, grad: Tensor, x: Tensor, whole: Tensor | None,
                     to_x: Tensor | None) -> None:  # fmt: skip
    """The same with one product for all squares either way."""
    from aimcard.models.fast.fused_products import bend_slopes

    assert plan.fused is not None
    assert prepared.z_rate is not None
    bent, total = bend_slopes(plan, weights, prepared, grad)
    if whole is not None:
        whole -= (bent.flatten(0, 1).T @ prepared.z.to(bent.dtype).flatten(0, 1)).to(whole.dtype)
    if to_x is not None:
        # A code moves the square in whose part of the window it lies.
        numbers = plan.fused.numbers
        part = numbers.window.part[torch.bucketize(x, numbers.window.edges[1:-1], right=True)].long()
        moved = torch.matmul(bent, weights.departure).gather(0, part[None])[0]
        to_x -= torch.addcmul(moved.to(grad.dtype), total.T.gather(1, part), numbers.rows.g) * prepared.z_rate


def _bend_back_bytes(plan: Plan, weights: Weights, prepared: Prepared, grad: Tensor, x: Tensor, whole: Tensor | None,
                     to_x: Tensor | None, spans: list[tuple[float, float]]) -> None:  # fmt: skip
    """The same in bytes. Each square's slopes are rounded for the codes' product and for the weights', all squares' in one."""
    from aimcard.models.fast.passes import lessen, slope_bytes, take, take_within

    assert weights.scale is not None
    assert prepared.z_rate is not None
    (batch, lines), squares = grad.shape, len(spans)
    # By each line's own largest gradient, lest a line that matters less be rounded away beside one that matters more.
    most = grad.abs().amax(0).clamp_(min=1e-30)
    by_line = most * weights.scale
    own, vectors = grad.new_empty(squares, batch, lines, dtype=torch.int8), grad.new_empty(batch, lines, dtype=torch.int8)
    own_scale, vector_scale, total = grad.new_empty(squares, batch), grad.new_empty(batch), grad.new_empty(batch)
    mean, row, inverse = plan.ref.g.float().numpy(), np.empty(lines, np.float32), (1 / by_line).numpy()
    root = moved = None
    for k, (begin, end) in enumerate(spans):
        scale, sign, cubic = (q[:, k].numpy() for q in (prepared.scale, prepared.sign, prepared.cubic))
        root = roots(weights, prepared.z[k], root)
        slope_bytes(
            grad.numpy(), root.numpy(), scale, weights.scale.numpy(), sign, cubic, plan.ends, weights.middle.numpy(), inverse,
            row, own[k].numpy(), own_scale[k].numpy(), vectors.numpy(), vector_scale.numpy(), total.numpy(),
        )  # fmt: skip
        if to_x is not None:
            moved = byte_product(vectors, weights.departure, moved)
            take_within(
                to_x.numpy(), moved.numpy(), vector_scale.numpy(), total.numpy(), mean, prepared.z_rate.numpy(), x.numpy(),
                np.float32(begin), np.float32(end),
            )  # fmt: skip
    if whole is not None:
        z = prepared.z.flatten(0, 1)
        by_line *= float(lessen(z.numpy(), (own_scale * prepared.scale[0]).flatten().numpy()))
        own = own.flatten(0, 1)
        for a in range(0, lines, LINES):
            some = slice(a, a + LINES)
            take(whole[some].numpy(), byte_product(own[:, some].T, z).numpy(), by_line[some].numpy())


def slopes_of(plan: Plan, cells: Cells) -> tuple[Tensor | None, Tensor, float]:
    """A pulse's charge and its slope in the cell's conductance, beside what the value takes for it; kept with the plan.

    How it goes with the code, 1 at MIDDLE, in answers (code_max + 1,), None without pulses; ``Cells.pieces``; and the slope that
    the value takes at MIDDLE [LSB·V], in the apparent conductance.
    """
    if plan.slopes is not None and plan.slopes[0] is cells:
        return plan.slopes[1]
    ref = plan.ref
    codes = np.arange(ref.circuit.code_max + 1)
    middle = min(int(MIDDLE), len(codes) - 1)
    taken = torch.from_numpy(ref.s_gain + np.interp(codes, ref.grid.edges.numpy(), ref.e_gain.numpy()))
    over, shape = cells.over_codes - taken * 1e6, None
    if ref.circuit.effects.pulse:
        shape = over / over[middle] * ref.conversion.ideal if float(over[middle]) != 0 else torch.ones_like(over)
    at = float(taken[middle])
    plan.slopes = cells, (shape, cells.pieces(at if shape is not None else None), at)
    return plan.slopes[1]


def pulses_of(plan: Plan, shape: Tensor, codes: Tensor, kind: torch.dtype) -> Tensor:
    """That charge of the rows' pulses (batch, rows), in ``kind``; shape: by code."""
    over = shape.to(kind)
    if plan.kernel is None:
        return torch.where(codes > 0, over.to(codes.device)[codes.round().long()], codes.new_zeros((), dtype=kind))
    from aimcard.models.fast.passes import by_code

    # Halves have no type in numba; their bits do.
    bits = torch.int16 if kind == torch.bfloat16 else torch.int32
    on = torch.empty_like(codes, dtype=kind)
    by_code(codes.numpy(), torch.cat([over.new_zeros(1), over]).view(bits).numpy(), on.view(bits).numpy())
    return on


def cells_back(plan: Plan, weights: Weights, cells: Cells, conductance_s: Tensor, codes: Tensor, to: Gradients, place: slice,
               lines: Tensor | None, out: Tensor) -> None:  # fmt: skip
    """From gradients to apparent conductances and the columns behind them to those to the PCM's, ``out`` (lines, rows).

    lines: where the group's are in ``out``; None: as they come. A pulse's charge is far from linear in a small conductance. The
    value takes the best straight line, whose error averages out over the rows; a gradient to one cell needs the cell's own slope:
    one product, of the gradient with the rows that got a pulse.
    """
    mean, circuit = plan.ref.g.to(to.whole), plan.ref.circuit
    # What share, e² and e⁴, and the bow add.
    by = torch.einsum("lk,dlk->dl", to.behind[place], weights.back)
    shape, pieces, at = slopes_of(plan, cells)
    on = None if shape is None else pulses_of(plan, shape, codes, to.answers.dtype)
    whole, weight = to.whole[place], weights.wide[:, : len(mean)]
    where = torch.arange(place.start, place.stop, device=out.device) if lines is None else lines
    pulses = None if on is None else to.answers[:, place].T @ on
    if plan.kernel is not None:
        from aimcard.models.fast.passes import through_cells

        added, half = whole, False
        if pulses is not None:
            half = pulses.dtype == torch.bfloat16 and len(mean) % 16 == 0
            added = pulses.view(torch.int16) if half else pulses.float()
        through_cells(
            whole.numpy(), added.numpy(), half, weight.numpy(), mean.numpy(), weights.bow.numpy(), by.numpy(),
            conductance_s.detach().numpy(), where.numpy(), pieces.numpy(), np.float32(1 / cells.step), out.numpy(),
        )  # fmt: skip
        return
    # On a GPU a launch counts for more than the memory does.
    step = LINES if plan.fused is None else 8 * LINES
    for a in range(0, len(whole), step):
        some = slice(a, a + step)
        g = conductance_s.detach()[where[some]]
        slope = apparent_slope(circuit, g)
        whole[some] += by[0, some, None] + by[1, some, None] * weight[some] + by[2:, some].T @ torch.stack([mean, weights.bow])
        whole[some] *= slope
        if pulses is not None:
            whole[some] += pulses[some].to(whole.dtype) * (recharge_slope(circuit, g, MIDDLE) - at * slope)
    out[where] = whole
