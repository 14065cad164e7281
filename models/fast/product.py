"""The matrix products behind a group of columns, with a hand-written backward pass.

Answer = W·y (one product: first order) − Σ sign·m²·(1 + cubic·m), m = δ·z (one product a square: second order, and third along
the mean column). Derivatives: the answer of line c moves with conductance W_ci by y_i − sign·(2m + 3·cubic·m²)·z_i, and with code
x_i by W_ci times the rate of the same weight at the time at which row i's pulse ends. That is the derivative of the circuit as
far as the expansion knows it, and differs from the derivative of the formula, in which every code moves all weights, in terms
of third order. Nothing but the arguments is kept for the backward pass: it prepares again, block by block.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.meanfield import EXTRA, Prepared, parts
from aimcard.models.fast.weights import MIDDLE, Cells, Plan, Weights, apparent, apparent_slope, recharge_slope

#: Vectors that are prepared and multiplied together: enough to read the weights seldom, few enough to bound the memory.
BLOCK = 128
#: Lines whose gradients are taken together: a product of them with all rows is as large as the weights are.
LINES = 128


def blocks(batch: int) -> range:
    """First vectors of the blocks; a small batch is cut too, for what is kept of a block counts against its outputs."""
    step = max(BLOCK // 2, min(BLOCK, batch // 8))
    return range(0, batch, step)


def byte_product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a·b of int8 matrices, exact in int32."""
    if 1 in a.shape or 1 in b.shape:
        # torch 2.13 takes a transposed matrix with an axis of one for another one.
        return (a.double() @ b.double()).to(torch.int32)
    return torch._int_mm(a, b) if out is None else torch._int_mm(a, b, out=out)


def _roots(weights: Weights, z: Tensor, out: Tensor | None = None) -> Tensor:
    """δ·z (batch, lines): int32 in units of both scales, or real."""
    if weights.scale is not None:
        return byte_product(z, weights.departure.T, out)
    return (z.to(weights.departure.dtype) @ weights.departure.T).to(z.dtype)


def answer(weights: Weights, prepared: Prepared, plan: Plan, out: Tensor, first: int = 0) -> None:
    """Answers into ``out`` (batch, ·), from line ``first`` on."""
    start = 0
    for y, size in zip(prepared.y, plan.ref.sizes, strict=True):
        torch.mm(y, weights.wide[start : start + size].T, out=out[:, first + start : first + start + size])
        start += size
    root = None
    for k, z in enumerate(prepared.z):
        scale, sign, cubic = prepared.scale[:, k], prepared.sign[:, k], prepared.cubic[:, k]
        root = _roots(weights, z, root)
        if weights.scale is not None:
            from aimcard.models.fast.passes import bend

            bend(out.numpy(), first, root.numpy(), scale.numpy(), weights.scale.numpy(), sign.numpy(), cubic.numpy(), plan.ends)
            continue
        scale, sign, cubic = (plan.by_line(q) for q in (scale, sign, cubic))
        m = root * scale
        out[:, first : first + start].sub_((m * cubic).add_(1).mul_(m).mul_(m).mul_(sign))


@dataclass
class Columns:
    """Columns with their plans; ``order`` sorts the columns by group, ``back`` undoes it; None for one group. ``ready``: the
    plans' weights, made at the first call and kept."""

    plans: list[Plan]
    sizes: list[int]
    order: Tensor | None
    back: Tensor | None
    ready: list[Weights] | None = None

    def answers(self, circuit: Circuit, conductance_s: Tensor, x: Tensor) -> Tensor:
        """Answers (batch, lines) of ``conductance_s`` (lines, rows) [S] and codes (batch, rows), differentiable in both."""
        if self.ready is None:
            self.ready = self.weights(circuit, conductance_s)
        if torch.is_grad_enabled() and (conductance_s.requires_grad or x.requires_grad):
            return Product.apply(conductance_s, x, self)
        return self.forward(x)

    def weights(self, circuit: Circuit, conductance_s: Tensor) -> list[Weights]:
        """The plans' weights of ``conductance_s`` (lines, rows) [S]."""
        weight = apparent(circuit, conductance_s.detach())
        parts = [weight] if self.order is None else weight[self.order].split(self.sizes)
        return [Weights.of(part, plan) for part, plan in zip(parts, self.plans, strict=True)]

    def members(self) -> list[tuple[Plan, Weights, slice]]:
        """Plans, weights and places in the order."""
        assert self.ready is not None
        ends = list(itertools.accumulate(self.sizes))
        return [(p, w, slice(e - n, e)) for p, w, n, e in zip(self.plans, self.ready, self.sizes, ends, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        """Answers (batch, lines) of codes (batch, rows), without derivatives, block by block."""
        members = self.members()
        out = x.new_empty(len(x), sum(self.sizes))
        steps = blocks(len(x))
        ordered = None if self.back is None else x.new_empty(min(steps.step, len(x)), out.shape[1])
        for a in steps:
            codes, to = x[a : a + steps.step], out[a : a + steps.step]
            part = to if ordered is None else ordered[: len(codes)]
            for plan, weights, place in members:
                answer(weights, plan.prepare(codes, reuse=True), plan, part, place.start)
            if self.back is not None:
                torch.index_select(part, 1, self.back, out=to)
        return out


class Product(torch.autograd.Function):
    """``apply(conductance_s, x, columns)``: ``Columns.answers`` of the conductances that its weights were made of."""

    @staticmethod
    def forward(ctx: Any, conductance_s: Tensor, x: Tensor, columns: Columns) -> Tensor:  # type: ignore[override]
        """Keeps the arguments only."""
        ctx.columns, ctx.members = columns, columns.members()
        ctx.save_for_backward(conductance_s, x)
        return columns.forward(x.detach())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """To the conductances and to the codes."""
        (grad,) = grads
        conductance_s, x = ctx.saved_tensors
        order, back = ctx.columns.order, ctx.columns.back
        want_g, want_x = ctx.needs_input_grad[:2]
        whole = torch.empty_like(conductance_s) if want_g else None
        behind = grad.new_zeros(grad.shape[1], EXTRA)
        to_x = torch.zeros_like(x) if want_x else None
        steps = blocks(len(x))
        for a in steps:
            block = slice(a, a + steps.step)
            codes, part = x[block], grad[block] if order is None else grad[block].index_select(1, order)
            own = None if to_x is None else to_x[block]
            for plan, weights, place in ctx.members:
                prepared = plan.prepare(codes, rates=True, reuse=True)
                group_back(plan, weights, prepared, part[:, place], (whole, behind, own), place, add=a > 0)
                here = None if whole is None else whole[place]
                bend_back(plan, weights, prepared, part[:, place].contiguous(), codes, here, own)
        if whole is None:
            return None, to_x, None
        for plan, weights, place in ctx.members:
            lines = torch.arange(len(whole), device=x.device) if order is None else order[place]
            along(plan, weights, behind[place], whole[place])
            cells_back(plan, conductance_s, x, grad, whole[place], lines)
        return whole if back is None else whole.index_select(0, back), to_x, None


def group_back(plan: Plan, weights: Weights, prepared: Prepared, grad: Tensor, to: tuple[Tensor | None, Tensor, Tensor | None],
               place: slice, *, add: bool) -> None:  # fmt: skip
    """Gradients of the first-order product, ``to`` weights, the columns behind them and codes; ``add`` to what is there."""
    whole, behind, to_x = to
    rows, start = prepared.y.shape[2] - EXTRA, 0
    for k, size in enumerate(plan.ref.sizes):
        part, y = grad[:, start : start + size], prepared.y[k]
        lines = slice(place.start + start, place.start + start + size)
        if whole is not None:
            torch.addmm(whole[lines], part.T, y[:, :rows], beta=int(add), out=whole[lines])
            behind[lines] += part.T @ y[:, rows:]
        if to_x is not None:
            assert prepared.y_rate is not None
            to_x.addcmul_(part @ weights.wide[start : start + size, :rows], prepared.y_rate[k])
        start += size


def bend_back(plan: Plan, weights: Weights, prepared: Prepared, grad: Tensor, x: Tensor, whole: Tensor | None,
              to_x: Tensor | None) -> None:  # fmt: skip
    """Take what the squares contribute off the gradients to weights (lines, rows) and codes (batch, rows), in place."""
    edges = plan.ref.grid.edges.tolist()
    assert prepared.z_rate is not None
    for k, (a, b) in enumerate(parts(len(edges) - 1, plan.squares) if plan.squares else []):
        z, scale, sign, cubic = prepared.z[k], prepared.scale[:, k], prepared.sign[:, k], prepared.cubic[:, k]
        begin, end = edges[a], edges[b] if b < len(edges) - 1 else 2 * edges[-1]
        root = _roots(weights, z)
        if weights.scale is not None:
            from aimcard.models.fast.passes import slope_bytes, take, take_within

            batch, lines = grad.shape
            bent, vectors = torch.empty_like(grad), torch.empty(grad.shape, dtype=torch.int8)
            by_line, line_scale = torch.empty(lines, batch, dtype=torch.int8), torch.empty(lines)
            vector_scale, total = torch.empty(batch), torch.empty(batch)
            slope_bytes(
                grad.numpy(), root.numpy(), scale.numpy(), weights.scale.numpy(), sign.numpy(), cubic.numpy(), plan.ends,
                bent.numpy(), by_line.numpy(), line_scale.numpy(), vectors.numpy(), vector_scale.numpy(), total.numpy(),
                weights.middle.numpy(),
            )  # fmt: skip
            if whole is not None:
                for a in range(0, lines, LINES):
                    some = slice(a, a + LINES)
                    take(whole[some].numpy(), byte_product(by_line[some], z).numpy(), line_scale[some].numpy())
            if to_x is not None:
                take_within(
                    to_x.numpy(), byte_product(vectors, weights.departure).numpy(), vector_scale.numpy(), total.numpy(),
                    plan.ref.g.float().numpy(), prepared.z_rate.numpy(), x.numpy(), np.float32(begin), np.float32(end),
                )  # fmt: skip
            continue
        scale, sign, cubic = (plan.by_line(q) for q in (scale, sign, cubic))
        m = root * scale
        bent = grad * m * (2 + 3 * cubic * m) * sign * scale
        low = weights.departure.dtype
        if whole is not None:
            whole -= (bent.to(low).T @ z.to(low)).to(whole.dtype)
        if to_x is not None:
            inside = ((x >= begin) & (x < end)).to(grad.dtype)
            moved = (bent.to(low) @ weights.departure).to(grad.dtype) + torch.outer(bent @ weights.middle, plan.ref.g.to(grad))
            to_x -= moved * prepared.z_rate * inside


def along(plan: Plan, weights: Weights, behind: Tensor, whole: Tensor) -> None:
    """Add the gradients of share, e² and e⁴ to those of the weights, in place; ``behind`` (lines, EXTRA): to the columns."""
    if not plan.squares:
        return
    mean = plan.ref.g.to(whole)
    total, size = float(plan.ref.variance.sum()), float(mean.sum())
    if size <= 0:
        return
    e, near, middle = weights.e, weights.near, weights.middle
    share = weights.wide[:, whole.shape[1] + 1]
    to_e = (2 * e * behind[:, 2] + 4 * e**3 * behind[:, 3] + share * behind[:, 5]) * (e == near)
    to_sum = to_e / middle
    if total > 0:
        # Beside the mean column: W − (1 + e)·middle·ḡ, without a copy of it.
        weight = weights.wide[:, : whole.shape[1]]
        along_mean = (1 + e) * middle
        scale = (behind[:, 1] + behind[:, 5] * near) * (2 / total)
        inner = weight @ mean - along_mean * (mean @ mean)
        whole.addcmul_(weight, scale[:, None], value=-1)
        whole.addr_(scale * along_mean, mean)
        to_sum = to_sum + scale * inner
    whole += (to_sum / size)[:, None]


def cells_back(plan: Plan, conductance_s: Tensor, x: Tensor, grad: Tensor, whole: Tensor, lines: Tensor) -> None:
    """From gradients to apparent conductances to those to the PCM's, in place; ``whole`` has those of ``lines``, the others all.

    A pulse's charge is far from linear in a small conductance. The value takes the best straight line, whose error averages out
    over the rows; a gradient to one cell needs the cell's own slope: one product, of the gradient with the rows that got a pulse.
    """
    ref, circuit = plan.ref, plan.ref.circuit
    cells = plan.cells
    if not cells.covers(conductance_s):
        cells = plan.cells = Cells.of(circuit, conductance_s)
    middle = min(int(MIDDLE), circuit.code_max)
    # The value has the mean slope already: what a cell's own adds to it, as a product of code and conductance.
    mean = ref.s_gain + np.interp(np.arange(circuit.code_max + 1), ref.grid.edges.numpy(), ref.e_gain.numpy())
    taken = float(mean[middle])
    on = None
    if circuit.effects.pulse:
        over = cells.over_codes - torch.from_numpy(mean) * 1e6
        shape = (over / over[middle] * ref.conversion.ideal if float(over[middle]) != 0 else torch.ones_like(over)).to(grad)
        on = torch.empty_like(x, dtype=torch.bfloat16 if plan.half else grad.dtype)
        for codes, to in zip(x.split(BLOCK), on.split(BLOCK), strict=True):
            to.copy_(torch.where(codes > 0, shape[codes.round().long()], torch.zeros_like(codes)))
    own = cells.tables[:, 1] - taken * cells.tables[:, 0]
    tables = torch.stack([cells.tables[:, 0], own if on is not None else torch.zeros_like(own)], -1).float()
    for some, part in zip(lines.split(LINES), whole.split(LINES), strict=True):
        g = conductance_s.detach()[some]
        pulses = part if on is None else (grad[:, some].T.to(on.dtype) @ on).to(grad.dtype)
        if plan.kernel is not None:
            from aimcard.models.fast.passes import through_cells

            through_cells(part.numpy(), pulses.numpy(), g.numpy(), tables.numpy(), np.float32(cells.step))
            continue
        slope = apparent_slope(circuit, g)
        part *= slope
        if on is not None:
            part += pulses * (recharge_slope(circuit, g, MIDDLE) - taken * slope)
