"""The products of many small tiles at once: what all their vectors make of the shared middle columns is prepared in one call.

Lines of all tiles are grouped together by total conductance. A tile's lines of one group lie side by side, so that each tile
takes a product for each group, of its own vectors with its own lines.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from aimcard.models.fast.columns import about, arrange
from aimcard.models.fast.meanfield import Prepared
from aimcard.models.fast.pair import Part, arrange_pairs, phases_of, plans_of_pairs
from aimcard.models.fast.product import answer
from aimcard.models.fast.weights import Plan, Weights, apparent

#: Vectors that are prepared together.
VECTORS = 2048


def _part_of(prepared: Prepared, vectors: slice) -> Prepared:
    """What belongs to some of the vectors."""
    return Prepared(
        prepared.y[:, vectors], prepared.z[:, vectors], prepared.scale[..., vectors], prepared.sign[..., vectors],
        prepared.cubic[..., vectors],
    )  # fmt: skip


def _lines_of(weights: Weights, lines: slice) -> Weights:
    """Some of the lines."""
    w = weights
    scale, departure = None if w.scale is None else w.scale[lines], w.departure[lines] if len(w.departure) else w.departure
    return Weights(w.wide[lines], departure, scale, w.e[lines], w.near[lines], w.middle[lines])


def _edges(owners: Tensor, tiles: int) -> list[int]:
    """Where each tile's members begin among ascending ``owners``, and their number."""
    return torch.searchsorted(owners, torch.arange(tiles + 1, device=owners.device)).tolist()


def _steps(x: Tensor) -> list[slice]:
    """Tiles that are prepared together."""
    step = max(1, VECTORS // x.shape[1])
    return [slice(a, min(a + step, len(x))) for a in range(0, len(x), step)]


@torch.no_grad()
def readings(common: Plan, conductance_s: Tensor, x: Tensor, ratio: float) -> Tensor:
    """Readings (tiles, batch, lines) of conductances (tiles, lines, rows) [S] and codes (tiles, batch, rows).

    common: a plan whose tables of pulses and read-out hold for these lines; ratio: largest total conductance over smallest
    among lines about one middle column.
    """
    tiles, lines = conductance_s.shape[:2]
    weight = apparent(common.ref.circuit, conductance_s.flatten(0, 1))
    order, plans_of = arrange(weight.sum(1), ratio, 16)
    places = torch.arange(len(weight), device=weight.device) if order is None else order
    out = x.new_empty(*x.shape[:2], lines)
    for some, sizes in zip(places.split([sum(s) for s in plans_of]), plans_of, strict=True):
        some = torch.cat([part.sort().values for part in some.split(list(sizes))])
        here = weight[some]
        plan = about(common, here, sizes)
        weights = Weights.of(here, plan)
        ends = [_edges(part // lines, tiles) for part in some.split(list(sizes))]
        for step in _steps(x):
            prepared = plan.prepare(x[step].flatten(0, 1), reuse=True)
            for t in range(step.start, step.stop):
                begin = (t - step.start) * x.shape[1]
                mine = _part_of(prepared, slice(begin, begin + x.shape[1]))
                first = 0
                for group, (size, edges) in enumerate(zip(sizes, ends, strict=True)):
                    a, b = first + edges[t], first + edges[t + 1]
                    first += size
                    if a == b:
                        continue
                    own = replace(plan, ref=replace(plan.ref, sizes=(b - a,)))
                    part = x.new_empty(x.shape[1], b - a)
                    answer(_lines_of(weights, slice(a, b)), _group_of(mine, group), own, part)
                    out[t].index_copy_(1, some[a:b] - t * lines, part)
    return out


def _group_of(prepared: Prepared, group: int) -> Prepared:
    """One group's numbers."""
    g = slice(group, group + 1)
    return replace(prepared, y=prepared.y[g], scale=prepared.scale[g], sign=prepared.sign[g], cubic=prepared.cubic[g])


@torch.no_grad()
def differences(common: Plan, conductance_s: Tensor, codes: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """As ``pair.PairTile``'s, (tiles, batch, pairs), of conductances (tiles, pairs, 2, rows), G+ first, and codes of either sign.

    Also returns which pairs, tile by tile, no middle column is good for: their answers are not there.
    """
    tiles, pairs = conductance_s.shape[:2]
    weight = apparent(common.ref.circuit, conductance_s.flatten(0, 1))
    total = weight.sum(2)
    groups, rest = arrange_pairs(total, ratio, 16)
    x = phases_of(codes)
    batch = codes.shape[1]
    out = codes.new_empty(tiles, batch, pairs)
    for plan_of in plans_of_pairs(groups, total[:, 0]):
        index = [p.to(weight.device) for p in plan_of]
        lines = torch.cat([weight[p].transpose(0, 1).flatten(0, 1) for p in index])
        plan = about(common, lines, tuple(2 * len(p) for p in index))
        parts = Part.all_of(plan, Weights.of(lines, plan), 0)
        ends = [_edges(p // pairs, tiles) for p in index]
        for step in _steps(x):
            prepared = plan.prepare(x[step].flatten(0, 1), reuse=True)
            y = prepared.y.unflatten(1, (-1, x.shape[1]))
            y = y if x.shape[1] == batch else y[:, :, :batch] - y[:, :, batch:]
            for t in range(step.start, step.stop):
                begin = (t - step.start) * x.shape[1]
                mine = _part_of(prepared, slice(begin, begin + x.shape[1]))
                for part, p, edges in zip(parts, index, ends, strict=True):
                    a, b = edges[t], edges[t + 1]
                    if b - a == pairs:
                        part.some(slice(a, b)).answer(mine, y[part.group, t - step.start], out[t])
                    elif a < b:
                        here = codes.new_empty(batch, b - a)
                        part.some(slice(a, b)).answer(mine, y[part.group, t - step.start], here)
                        out[t].index_copy_(1, p[a:b] - t * pairs, here)
    return out, rest
