"""Columns in groups of like total conductance, each with its own mean column: what is prepared once per weight version."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aimcard.models.cell import expand
from aimcard.models.fast.compiled import Kernel, available
from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.product import Plan, Product, Recharge, Weights, forward
from aimcard.models.fast.reference import make_grid, make_reference


@dataclass(frozen=True)
class Settings:
    """How finely the fast path computes.

    bins of the window, segments of the line, squares of second order (0 to 4), groups of columns at most.
    """

    bins: int
    segments: int
    squares: int
    groups: int = 1


def low_precision(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones on this processor."""
    if device.type == "cuda":
        return True
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(known()) if known is not None and device.type == "cpu" else False


def apparent(circuit: Circuit, conductance_s: Tensor) -> Tensor:
    """Apparent conductances [µS] of ``conductance_s`` [S], differentiable, same shape."""
    return expand(circuit.line.cell, conductance_s, circuit.w_select_um).g_s * 1e6


@dataclass
class Columns:
    """Groups of columns with their plans; ``order`` sorts the columns by group, ``back`` undoes it; None for one group."""

    plans: list[Plan]
    sizes: list[int]
    order: Tensor | None
    back: Tensor | None
    ready: list[Weights] | None = None

    def answers(self, circuit: Circuit, conductance_s: Tensor, x: Tensor) -> Tensor:
        """Answers (batch, lines) of ``conductance_s`` (lines, rows) [S] and codes (batch, rows), differentiable in both."""
        if not (torch.is_grad_enabled() and (conductance_s.requires_grad or x.requires_grad)):
            return self.forward(circuit, conductance_s, x)
        parts = [conductance_s] if self.order is None else conductance_s[self.order].split(self.sizes)
        outs = [Product.apply(apparent(circuit, part), x, plan) for part, plan in zip(parts, self.plans, strict=True)]
        if circuit.effects.pulse and conductance_s.requires_grad:
            outs = [Recharge.apply(out, part, x, plan) for out, part, plan in zip(outs, parts, self.plans, strict=True)]
        return outs[0] if self.back is None else torch.cat(outs, 1)[:, self.back]

    def forward(self, circuit: Circuit, conductance_s: Tensor, x: Tensor) -> Tensor:
        """The same without derivatives; what only the weights decide is kept for the next call."""
        if self.ready is None:
            weight = apparent(circuit, conductance_s.detach())
            parts = [weight] if self.order is None else weight[self.order].split(self.sizes)
            self.ready = [Weights.of(part, plan) for part, plan in zip(parts, self.plans, strict=True)]
        if self.order is None:
            return forward(self.ready[0], x, self.plans[0])
        out = x.new_empty(len(x), sum(self.sizes))
        for weights, plan, lines in zip(self.ready, self.plans, self.order.split(self.sizes), strict=True):
            out[:, lines] = forward(weights, x, plan)
        return out


def spread_of(conductance_s: Tensor) -> float:
    """Largest relative distance of a column's total conductance from the mean."""
    total = conductance_s.detach().sum(1)
    mean = total.mean()
    return float((total / mean - 1).abs().max()) if float(mean) > 0 else 0.0


def group(circuit: Circuit, conductance_s: Tensor, settings: Settings, *, counts: bool, plain: bool = False) -> Columns:
    """Split and prepare ``conductance_s`` (lines, rows) [S]; ``plain`` leaves the compiled preparation out."""
    g = conductance_s.detach()
    count = min(settings.groups, len(g))
    order = back = None
    parts = [g]
    if count > 1:
        order = g.sum(1).argsort()
        back = order.argsort()
        parts = list(g[order].split(math.ceil(len(g) / count)))
    grid = make_grid(g.shape[1], circuit.code_max, settings.bins, settings.segments)
    compiled = not plain and g.device.type == "cpu" and g.dtype == torch.float32 and available()
    plans = []
    for part in parts:
        ref = make_reference(circuit, part.cpu(), grid, counts)
        # Without curvature there is no second order; all off is then exactly linear.
        flat = not circuit.effects.ir_drop and ref.conversion.rate is None
        squares = 0 if flat else settings.squares
        kernel = Kernel(ref, squares) if compiled else None
        if kernel is not None and plans and plans[0].kernel is not None:
            # Groups follow one another: they can share their working memory.
            kernel.scratch = plans[0].kernel.scratch
        plans.append(Plan(ref, squares, kernel, g.dtype == torch.float32 and low_precision(g.device)))
    return Columns(plans, [len(p) for p in parts], order, back)


def refresh(columns: Columns, conductance_s: Tensor) -> Columns:
    """The same plans about the mean columns of new weights: what the tables of a pulse hold changes little by little."""
    circuit = columns.plans[0].ref.circuit
    weight = apparent(circuit, conductance_s.detach())
    parts = [weight] if columns.order is None else weight[columns.order].split(columns.sizes)
    plans = []
    for part, plan in zip(parts, columns.plans, strict=True):
        mean, variance = part.mean(0).cpu().double(), part.var(0, correction=0).cpu().double()
        ref = replace(plan.ref, g=mean, variance=variance)
        kernel = Kernel(ref, plan.squares) if plan.kernel is not None else None
        plans.append(replace(plan, ref=ref, kernel=kernel))
    return Columns(plans, columns.sizes, columns.order, columns.back)
