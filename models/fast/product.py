"""The matrix products behind a group of columns, with a hand-written backward pass.

Answer = W·y (one product: first order) − Σ sign·m²·(1 + cubic·m), m = δ·z (one product a square: second order, and third along
the mean column). Derivatives: the answer of line c moves with conductance W_ci by y_i − sign·(2m + 3·cubic·m²)·z_i, and with code
x_i by W_ci times the rate of the same weight at the time at which row i's pulse ends. That is the derivative of the circuit as
far as the expansion knows it, and differs from the derivative of the formula, in which every code moves all weights, in terms
of third order. Nothing but the arguments is kept for the backward pass: it prepares again, block by block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimcard.models.fast.meanfield import Prepared, parts
from aimcard.models.fast.weights import MIDDLE, Cells, Plan, Weights, apparent_slope, recharge_slope

#: Vectors that are prepared and multiplied together: enough to read the weights seldom, few enough to bound the memory.
BLOCK = 128


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


def answer(weights: Weights, prepared: Prepared, out: Tensor, start: int = 0) -> None:
    """Answers into ``out`` (batch, ·), from line ``start`` on."""
    part = out[:, start : start + len(weights.wide)]
    torch.mm(prepared.y, weights.wide.T, out=part)
    root = None
    for k, z in enumerate(prepared.z):
        if weights.scale is not None:
            from aimcard.models.fast.passes import bend

            assert prepared.scale is not None
            root = _roots(weights, z, root)
            bend(out.numpy(), start, root.numpy(), prepared.scale[k].numpy(), weights.scale.numpy(), prepared.sign[k].numpy(),
                 prepared.cubic[k].numpy())  # fmt: skip
            continue
        root = _roots(weights, z)
        part.sub_((root * prepared.cubic[k][:, None]).add_(1).mul_(root).mul_(root).mul_(prepared.sign[k][:, None]))


def forward(weights: Weights, x: Tensor, plan: Plan, out: Tensor, start: int = 0) -> None:
    """Answers into ``out`` (batch, ·) from line ``start`` on, without derivatives, block by block."""
    for a in range(0, len(x), BLOCK):
        answer(weights, plan.prepare(x[a : a + BLOCK], reuse=True), out[a : a + BLOCK], start)


class Product(torch.autograd.Function):
    """``apply(conductance_s, x, plan, weights)``: answers (batch, lines) of (lines, rows) [S] and codes (batch, rows)."""

    @staticmethod
    def forward(ctx: Any, conductance_s: Tensor, x: Tensor, plan: Plan, weights: Weights) -> Tensor:  # type: ignore[override]
        """``weights`` are those of the conductances."""
        out = x.new_empty(len(x), len(conductance_s))
        forward(weights, x.detach(), plan, out)
        ctx.plan, ctx.weights = plan, weights
        ctx.save_for_backward(conductance_s, x)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """To the conductances and to the codes."""
        (grad,) = grads
        conductance_s, x = ctx.saved_tensors
        plan, weights = ctx.plan, ctx.weights
        want_g, want_x = ctx.needs_input_grad[:2]
        rows = x.shape[1]
        whole = torch.zeros_like(conductance_s) if want_g else None
        behind = grad.new_zeros(grad.shape[1], 6)
        to_x = torch.empty_like(x) if want_x else None
        grad = grad.contiguous()
        for a in range(0, len(x), BLOCK):
            codes, part = x[a : a + BLOCK], grad[a : a + BLOCK]
            prepared = plan.prepare(codes, rates=True, reuse=True)
            if whole is not None:
                whole.addmm_(part.T, prepared.y[:, :rows])
                behind += part.T @ prepared.y[:, rows : rows + 6]
            if to_x is not None:
                torch.mm(part, weights.wide[:, :rows], out=to_x[a : a + BLOCK])
                to_x[a : a + BLOCK] *= prepared.y_rate
            bend_back(plan, weights, prepared, part, codes, whole, None if to_x is None else to_x[a : a + BLOCK])
        if whole is None:
            return None, to_x, None, None
        along(plan, weights, behind, whole)
        cells_back(plan, conductance_s, x, grad, whole)
        return whole, to_x, None, None


def bend_back(plan: Plan, weights: Weights, prepared: Prepared, grad: Tensor, x: Tensor, whole: Tensor | None,
              to_x: Tensor | None) -> None:  # fmt: skip
    """Take what the squares contribute off the gradients to weights (lines, rows) and codes (batch, rows), in place."""
    edges = plan.ref.grid.edges.tolist()
    for k, (a, b) in enumerate(parts(len(edges) - 1, plan.squares) if plan.squares else []):
        z, sign, cubic = prepared.z[k], prepared.sign[k], prepared.cubic[k]
        begin, end = edges[a], edges[b] if b < len(edges) - 1 else 2 * edges[-1]
        root = _roots(weights, z)
        if weights.scale is not None:
            from aimcard.models.fast.passes import slope_bytes, take, take_within

            assert prepared.scale is not None
            assert prepared.z_rate is not None
            batch, lines = grad.shape
            bent, vectors = torch.empty_like(grad), torch.empty(grad.shape, dtype=torch.int8)
            by_line, line_scale = torch.empty(lines, batch, dtype=torch.int8), torch.empty(lines)
            vector_scale, total = torch.empty(batch), torch.empty(batch)
            slope_bytes(
                grad.numpy(), root.numpy(), prepared.scale[k].numpy(), weights.scale.numpy(), sign.numpy(), cubic.numpy(),
                bent.numpy(), by_line.numpy(), line_scale.numpy(), vectors.numpy(), vector_scale.numpy(), total.numpy(),
            )  # fmt: skip
            if whole is not None:
                take(whole.numpy(), byte_product(by_line, z).numpy(), line_scale.numpy())
            if to_x is not None:
                take_within(
                    to_x.numpy(), byte_product(vectors, weights.departure).numpy(), vector_scale.numpy(), total.numpy(),
                    plan.ref.g.float().numpy(), prepared.z_rate.numpy(), x.numpy(), np.float32(begin), np.float32(end),
                )  # fmt: skip
            continue
        bent = grad * root * (2 + 3 * cubic[:, None] * root) * sign[:, None]
        low = weights.departure.dtype
        if whole is not None:
            whole -= (bent.to(low).T @ z.to(low)).to(whole.dtype)
        if to_x is not None:
            inside = ((x >= begin) & (x < end)).to(grad.dtype)
            moved = (bent.to(low) @ weights.departure).to(grad.dtype) + bent.sum(1, keepdim=True) * plan.ref.g.to(grad)
            to_x -= moved * prepared.z_rate * inside


def along(plan: Plan, weights: Weights, behind: Tensor, whole: Tensor) -> None:
    """Add the gradients of share, e² and e⁴ to those of the weights, in place; ``behind`` (lines, 6): those to the columns."""
    if not plan.squares:
        return
    mean = plan.ref.g.to(whole)
    total, size = float(plan.ref.variance.sum()), float(mean.sum())
    if size <= 0:
        return
    e = weights.e
    share, near = weights.wide[:, whole.shape[1] + 1], e.clamp(-plan.ref.reach, plan.ref.reach)
    to_e = (2 * e * behind[:, 2] + 4 * e**3 * behind[:, 3] + share * behind[:, 5]) * (e.abs() <= plan.ref.reach)
    if total > 0:
        # The weights are the mean plus the departure: lone = W − (1 + e)·ḡ, without a copy of it.
        weight = weights.wide[:, : whole.shape[1]]
        scale = (behind[:, 1] + behind[:, 5] * near) * (2 / total)
        inner = weight @ mean - (1 + e) * (mean @ mean)
        whole.addcmul_(weight, scale[:, None], value=-1)
        whole.addr_(scale * (1 + e), mean)
        to_e = to_e + scale * inner
    whole += (to_e / size)[:, None]


def cells_back(plan: Plan, conductance_s: Tensor, x: Tensor, grad: Tensor, whole: Tensor) -> None:
    """From gradients to apparent conductances to those to the PCM's, in place.

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
    pulses = None
    if circuit.effects.pulse:
        over = cells.over_codes - torch.from_numpy(mean) * 1e6
        shape = (over / over[middle] * ref.conversion.ideal if float(over[middle]) != 0 else torch.ones_like(over)).to(grad)
        on = torch.where(x > 0, shape[x.round().long()], torch.zeros_like(x))
        low = torch.bfloat16 if plan.half else grad.dtype
        pulses = (grad.T.to(low) @ on.to(low)).to(grad.dtype)
    if plan.kernel is not None:
        from aimcard.models.fast.passes import through_cells

        own = cells.tables[:, 1] - taken * cells.tables[:, 0]
        tables = torch.stack([cells.tables[:, 0], own if pulses is not None else torch.zeros_like(own)], -1).float()
        through_cells(
            whole.numpy(), (whole if pulses is None else pulses).numpy(), conductance_s.detach().contiguous().numpy(),
            tables.numpy(), np.float32(cells.step),
        )  # fmt: skip
        return
    g = conductance_s.detach()
    slope = apparent_slope(circuit, g)
    whole *= slope
    if pulses is not None:
        whole += pulses * (recharge_slope(circuit, g, MIDDLE) - taken * slope)
