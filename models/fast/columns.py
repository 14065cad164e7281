"""Columns in groups of like total conductance, each with its own mean column: what is prepared once per weight version."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aimcard.models.fast.compiled import Kernel, available
from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.product import Product, forward
from aimcard.models.fast.reference import Reference, make_grid, make_reference
from aimcard.models.fast.weights import Cells, Plan, Weights, apparent


@dataclass(frozen=True)
class Settings:
    """How finely the fast path computes.

    bins of the window, segments of the line, squares of second order (0 to the number of bins). ratio: largest total
    conductance over smallest in one group of columns; groups: at most so many, then the ratio gives way.
    """

    bins: int
    segments: int
    squares: int
    ratio: float = 1.5
    groups: int = 16


def low_precision(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones on this processor."""
    if device.type == "cuda":
        return True
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(known()) if known is not None and device.type == "cpu" else False


@dataclass
class Columns:
    """Groups of columns with their plans; ``order`` sorts the columns by group, ``back`` undoes it; None for one group."""

    plans: list[Plan]
    sizes: list[int]
    order: Tensor | None
    back: Tensor | None
    ready: list[Weights] | None = None

    def answers(self, circuit: Circuit, conductance_s: Tensor, x: Tensor) -> Tensor:
        """Answers (batch, lines) of ``conductance_s`` (lines, rows) [S] and codes (batch, rows), differentiable in both.

        What only the weights decide is kept for the next call.
        """
        if self.ready is None:
            weight = apparent(circuit, conductance_s.detach())
            parts = [weight] if self.order is None else weight[self.order].split(self.sizes)
            self.ready = [Weights.of(part, plan) for part, plan in zip(parts, self.plans, strict=True)]
        if torch.is_grad_enabled() and (conductance_s.requires_grad or x.requires_grad):
            lines = [conductance_s] if self.order is None else conductance_s[self.order].split(self.sizes)
            outs = [Product.apply(p, x, plan, w) for p, plan, w in zip(lines, self.plans, self.ready, strict=True)]
            return outs[0] if self.back is None else torch.cat(outs, 1)[:, self.back]
        out, at = x.new_empty(len(x), sum(self.sizes)), 0
        for weights, plan, size in zip(self.ready, self.plans, self.sizes, strict=True):
            forward(weights, x, plan, out, at)
            at += size
        return out if self.back is None else out.index_select(1, self.back)


def group_sizes(total: Tensor, ratio: float, most: int) -> list[int]:
    """Sizes of groups of columns in order of their total conductance, each within ``ratio``; ``most`` groups at most."""
    found = total.detach().double().sort().values.cpu()
    # A line that conducts nothing is a hundred times below the others at the most.
    found = found.clamp(min=0.01 * float(found[-1]))
    while True:
        sizes, start = [], 0
        while start < len(found):
            end = int(torch.searchsorted(found, float(found[start]) * ratio, right=True))
            sizes.append(max(end, start + 1) - start)
            start += sizes[-1]
        if len(sizes) <= most:
            return sizes
        ratio *= 1.2


def group(circuit: Circuit, conductance_s: Tensor, settings: Settings, *, counts: bool, plain: bool = False) -> Columns:
    """Split and prepare ``conductance_s`` (lines, rows) [S]; ``plain`` leaves the compiled preparation out."""
    g = conductance_s.detach()
    parts, order, back = [g], None, None
    sizes = group_sizes(g.sum(1), settings.ratio, settings.groups)
    if len(sizes) > 1:
        order = g.sum(1).argsort()
        back = order.argsort()
        parts = list(g[order].split(sizes))
    grid = make_grid(g.shape[1], circuit.code_max, settings.bins, settings.segments)
    compiled = not plain and g.device.type == "cpu" and g.dtype == torch.float32 and available()
    cells = Cells.of(circuit, g)
    plans = []
    for part in parts:
        ref = make_reference(circuit, part.cpu(), grid, counts)
        # Without curvature there is no second order; all off is then exactly linear.
        flat = not circuit.effects.ir_drop and ref.conversion.rate is None
        plans.append(plan_of(ref, 0 if flat else settings.squares, cells, compiled, g, plans))
    return Columns(plans, [len(p) for p in parts], order, back)


def plan_of(ref: Reference, squares: int, cells: Cells, compiled: bool, like: Tensor, others: list[Plan]) -> Plan:
    """A group's plan, for weights of the type and place of ``like``."""
    kernel = Kernel(ref, squares) if compiled else None
    if kernel is not None and others and others[0].kernel is not None:
        # Groups follow one another: they can share their working memory.
        kernel.scratch = others[0].kernel.scratch
    return Plan(ref, squares, kernel, like.dtype == torch.float32 and low_precision(like.device), cells)


def refresh(columns: Columns, conductance_s: Tensor) -> Columns:
    """The same plans about the mean columns of new weights: what the tables of a pulse hold changes little by little."""
    circuit = columns.plans[0].ref.circuit
    weight = apparent(circuit, conductance_s.detach())
    parts = [weight] if columns.order is None else weight[columns.order].split(columns.sizes)
    plans: list[Plan] = []
    for part, plan in zip(parts, columns.plans, strict=True):
        mean, variance = part.mean(0).cpu().double(), part.var(0, correction=0).cpu().double()
        ref = replace(plan.ref, g=mean, variance=variance)
        plans.append(plan_of(ref, plan.squares, plan.cells, plan.kernel is not None, conductance_s, plans))
    return Columns(plans, columns.sizes, columns.order, columns.back)
