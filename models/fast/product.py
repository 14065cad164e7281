"""The matrix products behind a group of columns.

Answer = W·y (one product: first order) − Σ sign·m²·(1 + cubic·m), m = δ·z (one product a square: second order, and third along
the mean column). Nothing but the arguments is kept for the backward pass (``gradient``): it prepares again, block by block.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aimcard.models.fast.autocast import without_autocast
from aimcard.models.fast.bytes import roots
from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.gradient import Gradients, bend_back, cells_back, group_back
from aimcard.models.fast.meanfield import Prepared
from aimcard.models.fast.weights import Cells, Plan, Weights, apparent

#: Vectors that are prepared and multiplied together: enough to read the weights seldom, few enough to bound the memory.
BLOCK = 128
#: The same on a GPU, where every step costs a launch.
LAUNCHED = 512
#: Vectors whose answers are put back into the columns' order together.
FEW = 32


def blocks(batch: int, plan: Plan) -> range:
    """First vectors of the blocks.

    A small batch is cut too where the preparation is compiled, for what is kept of a block counts against its outputs; plain
    torch keeps ten times as much, and its many small steps cost as much for a small block as for a large one.
    """
    if plan.kernel is None:
        return range(0, batch, BLOCK if plan.fused is None else LAUNCHED)
    step = max(BLOCK // 2, min(BLOCK, batch // 8))
    return range(0, batch, step)


def answer(weights: Weights, prepared: Prepared, plan: Plan, out: Tensor, first: int = 0) -> None:
    """Answers into ``out`` (batch, ·), from line ``first`` on; the compiled path spoils ``prepared.y``."""
    start = 0
    for y, size in zip(prepared.y, plan.ref.sizes, strict=True):
        torch.mm(y, weights.wide[start : start + size].T, out=out[:, first + start : first + start + size])
        start += size
    if plan.fused is not None and len(prepared.z):
        from aimcard.models.fast.fused_products import bend

        bend(plan, weights, prepared, out[:, first : first + start])
        return
    root, needed = None, len(out) * start
    if weights.scale is not None and needed <= prepared.y.numel():
        # What the first product has read is memory for the second.
        root = prepared.y.view(torch.int32).flatten()[:needed].view(len(out), start)
    for k, z in enumerate(prepared.z):
        scale, sign, cubic = prepared.scale[:, k], prepared.sign[:, k], prepared.cubic[:, k]
        root = roots(weights, z, root)
        if weights.scale is not None:
            from aimcard.models.fast.passes import bend

            bend(out.numpy(), first, root.numpy(), scale.numpy(), weights.scale.numpy(), sign.numpy(), cubic.numpy(), plan.ends)
            continue
        a = 0
        for g, b in enumerate(plan.ends.tolist()):
            m = root[:, a:b] * scale[g, :, None]
            out[:, first + a : first + b].sub_((m * cubic[g, :, None]).add_(1).mul_(m).mul_(m).mul_(sign[g, :, None]))
            a = b


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
        steps, back = blocks(len(x), self.plans[0]), self.back
        for a in steps:
            codes, to = x[a : a + steps.step], out[a : a + steps.step]
            for plan, weights, place in members:
                answer(weights, plan.prepare(codes, reuse=True), plan, to, place.start)
            # A few vectors at a time: a second block of answers would be half an output. On a GPU a launch counts for more.
            if back is not None:
                for some in to.split(FEW if to.device.type == "cpu" else len(to)):
                    some.copy_(some.index_select(1, back))
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
    @without_autocast
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """To the conductances and to the codes."""
        (grad,) = grads
        conductance_s, x = (q.contiguous() for q in ctx.saved_tensors)
        columns, (want_g, want_x) = ctx.columns, ctx.needs_input_grad[:2]
        order, plans = columns.order, columns.plans
        cells = plans[0].cells
        # The tables are the compiled pass's.
        if want_g and plans[0].kernel is not None and not cells.covers(conductance_s):
            cells = Cells.of(plans[0].ref.circuit, conductance_s)
            for plan in plans:
                plan.cells = cells
        to = Gradients.empty(grad.shape[1], x, half=plans[0].half) if want_g else None
        to_x = torch.zeros_like(x) if want_x else None
        step = BLOCK if plans[0].fused is None else LAUNCHED
        for a in range(0, len(x), step):
            block = slice(a, a + step)
            codes, part = x[block], grad[block] if order is None else grad[block].index_select(1, order)
            own = None if to_x is None else to_x[block]
            if to is not None:
                to.answers[block] = part
            for plan, weights, place in ctx.members:
                prepared = plan.prepare(codes, rates=True, reuse=True)
                group_back(plan, weights, prepared, part[:, place], to, own, place, add=a > 0)
                bend_back(plan, weights, prepared, part[:, place], codes, None if to is None else to.whole[place], own)
        if to is None:
            return None, to_x, None
        whole = torch.empty_like(conductance_s)
        for plan, weights, place in ctx.members:
            cells_back(plan, weights, cells, conductance_s, x, to, place, None if order is None else order[place], whole)
        return whole, to_x, None
