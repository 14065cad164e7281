"""Columns in groups of like total conductance, each with its own mean column: what is prepared once per weight version."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aimcard.models.fast.compiled import Kernel, available
from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.fused import Fused
from aimcard.models.fast.fused import available as fusible
from aimcard.models.fast.fused_check import agree
from aimcard.models.fast.product import Columns
from aimcard.models.fast.reference import Reference, make_grid, make_reference, middles_of
from aimcard.models.fast.weights import Cells, Plan, apparent

#: Largest total conductance over smallest of the columns that share a preparation.
REACH = 2.2


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


def arrange(total: Tensor, ratio: float, most: int) -> tuple[Tensor | None, list[tuple[int, ...]]]:
    """Groups of columns within ``ratio`` of total conductance, ``most`` at most, and plans of groups within REACH.

    Returns the columns' order, None for one group, and the sizes of each plan's groups, its largest first.
    """
    order = total.detach().argsort()
    found = total.detach()[order].double().cpu()
    # A line that conducts nothing is a hundred times below the others at the most.
    found = found.clamp(min=0.01 * float(found[-1]))
    while len(starts := _starts(found, ratio)) > most:
        ratio *= 1.2
    if len(starts) == 1:
        return None, [(len(found),)]
    ends = [*starts[1:], len(found)]
    plans: list[list[tuple[int, int]]] = []
    for a, b in zip(starts, ends, strict=True):
        if plans and float(found[b - 1]) <= REACH * float(found[plans[-1][0][0]]):
            plans[-1].append((a, b))
        else:
            plans.append([(a, b)])
    for groups in plans:
        groups.sort(key=lambda g: g[0] - g[1])
    places = torch.cat([torch.arange(a, b) for groups in plans for a, b in groups])
    return order[places.to(order.device)], [tuple(b - a for a, b in groups) for groups in plans]


def _starts(found: Tensor, ratio: float) -> list[int]:
    starts = [0]
    while (end := int(torch.searchsorted(found, float(found[starts[-1]]) * ratio, right=True))) < len(found):
        starts.append(max(end, starts[-1] + 1))
    return starts


def group(circuit: Circuit, conductance_s: Tensor, settings: Settings, *, counts: bool, plain: bool = False) -> Columns:
    """Split and prepare ``conductance_s`` (lines, rows) [S]; ``plain`` leaves the compiled preparation out."""
    g = conductance_s.detach()
    return columns_of(circuit, g, settings, *arrange(g.sum(1), settings.ratio, settings.groups), counts=counts, plain=plain)


def columns_of(
    circuit: Circuit, g: Tensor, settings: Settings, order: Tensor | None, plans_of: list[tuple[int, ...]], *, counts: bool,
    plain: bool,
) -> Columns:  # fmt: skip
    """Columns of conductances (lines, rows) [S] in a given order, with the sizes of each plan's groups."""
    parts = [g] if order is None else g[order].split([sum(sizes) for sizes in plans_of])
    # A bin is one LSB at least.
    bins = min(settings.bins, circuit.code_max)
    # More segments than the slow twin has would be another circuit.
    segments = min(settings.segments, circuit.line.wire.segments)
    grid = make_grid(g.shape[1], circuit.code_max, bins, segments)
    fused = not plain and fusible(g.device, g.dtype)
    compiled = not plain and not fused and g.device.type == "cpu" and g.dtype == torch.float32 and available()
    cells = Cells.of(circuit, g)
    plans: list[Plan] = []
    for part, sizes in zip(parts, plans_of, strict=True):
        ref = make_reference(circuit, part.cpu(), grid, counts, sizes)
        # Without curvature there is no second order; all off is then exactly linear.
        flat = not circuit.effects.ir_drop and ref.conversion.rate is None
        plans.append(plan_of(ref, 0 if flat else min(settings.squares, bins), cells, g, plans, compiled=compiled, fused=fused))
    columns = Columns(plans, [len(p) for p in parts], order, None if order is None else order.argsort())
    if fused and not agree(columns, circuit, g):
        columns.plans = [replace(p, fused=None) for p in plans]
    return columns


def plan_of(
    ref: Reference, squares: int, cells: Cells, like: Tensor, others: list[Plan], *, compiled: bool, fused: bool
) -> Plan:
    """A group's plan, for weights of the type and place of ``like``."""
    kernel = Kernel(ref, squares) if compiled else None
    if kernel is not None and others and others[0].kernel is not None:
        # Groups follow one another: they can share their working memory.
        kernel.scratch = others[0].kernel.scratch
    half = like.dtype == torch.float32 and low_precision(like.device)
    return Plan(ref, squares, kernel, half, cells, fused=Fused(ref, squares, like.device, half=half) if fused else None)


def refresh(columns: Columns, conductance_s: Tensor) -> Columns:
    """The same plans about the mean columns of new weights: what the tables of a pulse hold changes little by little."""
    circuit = columns.plans[0].ref.circuit
    weight = apparent(circuit, conductance_s.detach())
    parts = [weight] if columns.order is None else weight[columns.order].split(columns.sizes)
    plans: list[Plan] = []
    for part, plan in zip(parts, columns.plans, strict=True):
        mean, variance = part.mean(0).cpu().double(), part.var(0, correction=0).cpu().double()
        # The groups' middles stay where they were: totals have hardly changed.
        ref = replace(plan.ref, g=mean * (float(plan.ref.g.sum()) / max(float(mean.sum()), 1e-30)), variance=variance)
        compiled, fused = plan.kernel is not None, plan.fused is not None
        plans.append(plan_of(ref, plan.squares, plan.cells, conductance_s, plans, compiled=compiled, fused=fused))
        plans[-1].slopes = plan.slopes
    return Columns(plans, columns.sizes, columns.order, columns.back)


def about(plan: Plan, weight: Tensor, sizes: tuple[int, ...] = ()) -> Plan:
    """A plan moved to the middles of other lines, ``weight`` (lines, rows) [µS]; its tables of pulses and read-out stay.

    ``sizes``: lines in each group, one behind the other; none: all of them in one.
    """
    sizes, compiled = sizes or (len(weight),), plan.kernel is not None
    if compiled:
        from aimcard.models.fast.line_passes import moments

        sums, (mean, variance) = torch.empty(len(weight)), torch.empty(2, weight.shape[1], dtype=torch.float64)
        moments(weight.detach().contiguous().numpy(), sums.numpy(), mean.numpy(), variance.numpy())
    else:
        big = weight.detach().cpu().double()
        sums, mean, variance = big.sum(1), big.mean(0), big.var(0, correction=0)
    middles, reaches, reach = middles_of(sums, sizes)
    g = mean * (middles[0] / float(mean.sum())) if middles[0] > 0 else mean
    scales = tuple(m / middles[0] if middles[0] > 0 else 1.0 for m in middles)
    ref = replace(plan.ref, g=g, variance=variance, sizes=sizes, scales=scales, reaches=reaches, reach=reach)
    return plan_of(ref, plan.squares, plan.cells, weight, [plan], compiled=compiled, fused=plan.fused is not None)


def share_of(plan: Plan, lines: int) -> Plan:
    """A plan of one group for ``lines`` of its lines, the preparation shared."""
    return replace(plan, ref=replace(plan.ref, sizes=(lines,)))
