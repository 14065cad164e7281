"""The matrix products behind a group of columns, with a hand-written backward pass.

Answer = W·y (one product: first order) − (δ·z)² (one product a square: second order). Derivatives: the answer of line c
moves with conductance W_ci by y_i − 2 M_c z_i, with M = δ·z, and with code x_i by W_ci times the rate of the same weight
at the time at which row i's pulse ends. That is the derivative of the circuit as far as the expansion knows it, and
differs from the derivative of the formula, in which every code moves all weights, in terms of third order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimcard.models.cell import expand
from aimcard.models.fast.compiled import Kernel
from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.meanfield import EXTRA, Prepared, prepare
from aimcard.models.fast.reference import Reference, fall_edge, start_charge
from aimcard.models.pulse import fall_delay, node_capacitance, recharge_amount

#: Vectors that are prepared and multiplied together: enough to read the weights seldom, few enough to bound the memory.
BLOCK = 512
#: Vectors that plain torch prepares together: it keeps (block, rows, bins).
PLAIN_BLOCK = 32


@dataclass
class Plan:
    """How a group of columns is computed: reference column, squares, and the compiled preparation or None.

    half: the second-order products run in bfloat16. Its error in them is 1e-2 of a term that is 1e-2 of the answer's spread.
    """

    ref: Reference
    squares: int
    kernel: Kernel | None
    half: bool

    def prepare(self, x: Tensor, rates: bool = False, *, reuse: bool = False) -> Prepared:
        """``Prepared`` of codes (batch, rows), in their type; ``reuse``: valid until the next such call."""
        if self.kernel is not None:
            return self.kernel(x, rates, reuse=reuse)
        blocks = [prepare(self.ref, part, self.squares, rates) for part in x.split(PLAIN_BLOCK)]
        if len(blocks) == 1:
            return blocks[0]
        rate = (torch.cat([b.y_rate for b in blocks]), torch.cat([b.z_rate for b in blocks], 1)) if rates else (None, None)  # type: ignore[misc]
        return Prepared(
            torch.cat([b.y for b in blocks]), torch.cat([b.z for b in blocks], 1), torch.cat([b.sign for b in blocks], 1), *rate
        )


@dataclass
class Weights:
    """Apparent conductances of a group of columns as the products want them: with the columns behind y, and departures."""

    wide: Tensor
    departure: Tensor

    @classmethod
    def of(cls, weight: Tensor, plan: Plan) -> Weights:
        """From ``weight`` (lines, rows) [µS]."""
        departure = weight - plan.ref.g.to(weight)
        total = float(plan.ref.variance.sum())
        share = (departure * departure).sum(1, keepdim=True) / total if total > 0 else weight.new_zeros(len(weight), 1)
        wide = torch.cat([weight, torch.ones_like(share), -share, weight.new_zeros(len(weight), EXTRA - 2)], 1)
        if not plan.squares:
            departure = weight.new_zeros(0)
        return cls(wide, departure.bfloat16() if plan.half else departure)


def answer(weights: Weights, prepared: Prepared, out: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """Answers (batch, lines) and the square roots of the second-order terms, (batch, lines) each."""
    out = torch.mm(prepared.y, weights.wide.T, out=out)
    roots = []
    for z, sign in zip(prepared.z, prepared.sign, strict=True):
        root = (z.to(weights.departure.dtype) @ weights.departure.T).to(out.dtype)
        if bool((sign > 0).all()):
            out.addcmul_(root, root, value=-1)
        else:
            out.addcmul_(root * sign[:, None], root, value=-1)
        roots.append(root)
    return out, roots


def forward(weights: Weights, x: Tensor, plan: Plan) -> Tensor:
    """Answers (batch, lines) without derivatives, block by block."""
    out = x.new_empty(len(x), len(weights.wide))
    for a in range(0, len(x), BLOCK):
        answer(weights, plan.prepare(x[a : a + BLOCK], reuse=True), out[a : a + BLOCK])
    return out


class Product(torch.autograd.Function):
    """``apply(weight, x, plan)``: answers (batch, lines) of apparent conductances (lines, rows) [µS] and codes (batch, rows)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, plan: Plan) -> Tensor:  # type: ignore[override]
        """Keeps what the backward pass needs, unlike ``forward`` above."""
        weights = Weights.of(weight, plan)
        prepared = plan.prepare(x, rates=ctx.needs_input_grad[1])
        out, roots = answer(weights, prepared)
        ctx.plan = plan
        kept = [prepared.y_rate, prepared.z_rate] if ctx.needs_input_grad[1] else []
        ctx.save_for_backward(weight, prepared.y, prepared.z, prepared.sign, *roots, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """To the weights and to the codes."""
        (grad,) = grads
        weight, y, z, sign, *rest = ctx.saved_tensors
        roots, rates = rest[: len(z)], rest[len(z) :]
        rows = weight.shape[1]
        half = torch.bfloat16 if ctx.plan.half else weight.dtype
        bent = [(grad * root * (2 * s[:, None])).to(half) for root, s in zip(roots, sign, strict=True)]
        to_weight = to_x = None
        if ctx.needs_input_grad[0]:
            to_weight = grad.T @ y[:, :rows]
            for b, part in zip(bent, z, strict=True):
                to_weight -= (b.T @ part.to(half)).to(weight.dtype)
            total = float(ctx.plan.ref.variance.sum())
            if total > 0 and len(z):
                shares = (grad.T @ y[:, rows + 1]) * (2 / total)
                to_weight -= shares[:, None] * (weight - ctx.plan.ref.g.to(weight))
        if ctx.needs_input_grad[1]:
            y_rate, z_rate = rates
            to_x = (grad @ weight) * y_rate
            low = weight.to(half) if len(z) else weight
            for b, rate in zip(bent, z_rate, strict=True):
                to_x -= (b @ low).to(weight.dtype) * rate
        return to_weight, to_x, None


#: Code at which a cell's slope is taken; those of other codes follow one common curve.
MIDDLE = 32.0


def recharge_slope(circuit: Circuit, conductance_s: Tensor, codes: Tensor | float) -> Tensor:
    """Derivative of a pulse's charge to the conductance [µA·LSB/S], beside the static current's; arguments broadcast."""
    with torch.enable_grad():
        shape = torch.broadcast_shapes(conductance_s.shape, torch.as_tensor(codes).shape)
        g = conductance_s.detach().expand(shape).clone().requires_grad_(True)
        zero = g.new_zeros(1)
        w, pulse = circuit.w_select_um, circuit.line.pulse
        at = expand(circuit.line.cell, g, w).g_s * 1e6
        charge = recharge_amount(pulse, circuit.edges, g, zero + circuit.v_read_v, zero, w)
        left = (circuit.slots - codes) * circuit.t_lsb_s - float(fall_delay(pulse, circuit.edges))
        charge = charge * -torch.expm1(-left * g / node_capacitance(pulse, w))
        charge = charge + start_charge(circuit, at, zero) + fall_edge(circuit, g, at, zero)
        (slope,) = torch.autograd.grad(charge.sum(), g)
    return slope * (1e6 / circuit.t_lsb_s)


class Recharge(torch.autograd.Function):
    """``apply(answer, conductance_s, x, plan)``: the answer as it is, with a slope to the conductances.

    A pulse's charge is far from linear in a small conductance. The value takes the best straight line, whose error
    averages out over the rows; a gradient to one cell needs the cell's own slope.
    """

    @staticmethod
    def forward(ctx: Any, answer: Tensor, conductance_s: Tensor, x: Tensor, plan: Plan) -> Tensor:  # type: ignore[override]
        """The answer (batch, lines)."""
        ctx.save_for_backward(conductance_s, x)
        ctx.plan = plan
        return answer.view_as(answer)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """One product more, of the gradient with the rows that got a pulse."""
        (grad,) = grads
        if not ctx.needs_input_grad[1]:
            return grad, None, None, None
        conductance_s, x = ctx.saved_tensors
        plan: Plan = ctx.plan
        low = torch.bfloat16 if plan.half else grad.dtype
        ref, circuit = plan.ref, plan.ref.circuit
        # The value has the mean slope already: what a cell's own adds to it, as a product of code and conductance.
        edges = ref.grid.edges
        whole = torch.arange(circuit.code_max + 1, dtype=torch.float64)
        mean = torch.from_numpy(np.interp(whole.numpy(), edges.numpy(), ref.e_gain.numpy())) * 1e6
        small = conductance_s.detach().flatten().kthvalue(1 + conductance_s.numel() // 20).values.double().cpu()
        over_codes = recharge_slope(circuit, small, whole) - mean
        middle = over_codes[min(int(MIDDLE), circuit.code_max)]
        shape = (over_codes / middle if float(middle) != 0 else torch.ones_like(over_codes)).to(grad)
        weight = torch.where(x > 0, shape[x.round().long()], torch.zeros_like(x))
        pulses = (grad.to(low).T @ weight.to(low)).to(grad.dtype)
        g = expand(circuit.line.cell, conductance_s.detach(), circuit.w_select_um).g_s / conductance_s.clamp(min=1e-12)
        slope = recharge_slope(circuit, conductance_s, MIDDLE) - float(mean[min(int(MIDDLE), circuit.code_max)]) * g * g
        return grad, pulses * slope * ref.conversion.ideal, None, None
