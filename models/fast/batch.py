"""The readings of many small tiles at once: what all their vectors make of the shared middle columns is prepared in one call.

Lines of all tiles are grouped together by total conductance. A tile's lines of one group lie side by side, and it takes a
product for each group, of its own vectors with its own lines.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aimcard.models.fast.columns import about, arrange, share_of
from aimcard.models.fast.meanfield import Prepared
from aimcard.models.fast.product import answer
from aimcard.models.fast.weights import Plan, Weights, apparent

#: Vectors that are prepared together.
VECTORS = 2048


def _of_vectors(prepared: Prepared, group: int, vectors: slice) -> Prepared:
    """What belongs to a group and some of the vectors."""
    g, p = slice(group, group + 1), prepared
    return Prepared(
        p.y[g, vectors], p.z[:, vectors], p.scale[g, :, vectors], p.sign[g, :, vectors], p.cubic[g, :, vectors]
    )  # fmt: skip


def _of_lines(weights: Weights, lines: slice) -> Weights:
    """Some of the lines."""
    w = weights
    scale, departure = None if w.scale is None else w.scale[lines], w.departure[lines] if len(w.departure) else w.departure
    return Weights(w.wide[lines], departure, scale, w.middle[lines], w.back[:, lines], w.bow)


@torch.no_grad()
def readings(common: Plan, conductance_s: Tensor, x: Tensor, ratio: float) -> Tensor:
    """Readings (tiles, batch, lines) of conductances (tiles, lines, rows) [S] and codes (tiles, batch, rows).

    common: a plan whose tables of pulses and read-out hold for these lines; ratio: largest total conductance over smallest
    among lines about one middle column.
    """
    tiles, batch, lines = len(x), x.shape[1], conductance_s.shape[1]
    weight = apparent(common.ref.circuit, conductance_s.flatten(0, 1))
    order, plans_of = arrange(weight.sum(1), ratio, 16)
    places = torch.arange(len(weight), device=weight.device) if order is None else order
    out = x.new_empty(tiles, batch, lines)
    step = max(1, VECTORS // batch)
    for some, sizes in zip(places.split([sum(s) for s in plans_of]), plans_of, strict=True):
        groups = [part.sort().values for part in some.split(list(sizes))]
        some = torch.cat(groups)
        here = weight if order is None else weight[some]
        plan = about(common, here, sizes)
        weights = Weights.of(here, plan)
        # Where each tile's lines begin among those of a group.
        borders = torch.arange(tiles + 1, device=some.device) * lines
        ends = [torch.searchsorted(part, borders).tolist() for part in groups]
        for first in range(0, tiles, step):
            prepared = plan.prepare(x[first : first + step].flatten(0, 1), reuse=True)
            for t in range(first, min(first + step, tiles)):
                vectors, start = slice((t - first) * batch, (t - first + 1) * batch), 0
                for group, (size, edges) in enumerate(zip(sizes, ends, strict=True)):
                    a, b = start + edges[t], start + edges[t + 1]
                    start += size
                    if a == b:
                        continue
                    whole = b - a == lines
                    part = out[t] if whole else x.new_empty(batch, b - a)
                    own = _of_vectors(prepared, group, vectors)
                    answer(_of_lines(weights, slice(a, b)), own, share_of(plan, b - a), part)
                    if not whole:
                        out[t].index_copy_(1, some[a:b] - t * lines, part)
    return out
