"""Many small tiles about one mean column: matrices that change with every call, such as those of an attention's products.

What a reference column holds of pulses and read-out hardly depends on the weights, and takes a hundred times as long to make as
such a product. It is made once, from conductances spread as those of normal weights, and moved to the mean column of the
lines at hand, group by group of like total conductance: answers depend on no earlier call.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aimcard.models.fast.batch import readings
from aimcard.models.fast.columns import Columns, Settings, about, group, share_of
from aimcard.models.fast.curve import unit
from aimcard.models.fast.weights import apparent

if TYPE_CHECKING:
    from aimcard.models.fast.tile import FastTile

#: Lines from which a reference's tables are made.
LINES = 16


#: Rows of a segment, four segments at least: short lines drop little.
ROWS = 32
#: Largest total conductance over smallest among lines about one mean column. Short lines bend so little that it may be large.
RATIO = 5.0
#: How finely they are computed.
FAST = {False: Settings(4, 8, 1), True: Settings(8, 8, 2)}


def _edges(total: Tensor, ratio: float) -> Tensor:
    """Borders of groups of lines by total conductance, no group empty."""
    found, edges = total.flatten().sort().values, []
    # A line that conducts nothing is a hundred times below the others at the most.
    least, most = float(found[-1]) * 0.01, float(found[-1])
    low = max(float(found[0]), least)
    while low * ratio < most:
        edges.append(low * ratio)
        low = max(float(found[torch.searchsorted(found, edges[-1], right=True)]), least)
    return total.new_tensor(edges)


def _columns_of(plans: list[Any], owner: Tensor) -> Columns:
    """The groups of one tile's lines; owner (lines,): the group of each."""
    there = owner.unique().tolist()
    sizes = owner.bincount()[there].tolist()
    own = [share_of(plans[k], n) for k, n in zip(there, sizes, strict=True)]
    if len(there) == 1:
        return Columns(own, sizes, None, None)
    order = owner.argsort(stable=True)
    return Columns(own, sizes, order, order.argsort())


class SharedTile:
    """The products of a FastTile's circuit for a batch of tiles; ``g_min_s`` and ``g_max_s`` span their conductances [S]."""

    def __init__(self, tile: FastTile, g_min_s: float, g_max_s: float) -> None:
        self.tile, self.range_s = tile, (g_min_s, g_max_s)
        self._made: dict[tuple[bool, int, torch.dtype], Columns] = {}

    def charge(self, conductance_s: Tensor, codes: Tensor) -> Tensor:
        """Charges [C], (tiles, batch, lines), of conductances (tiles, lines, rows) [S] and codes (tiles, batch, rows) in LSB."""
        return self._answer(conductance_s, codes, counts=False)

    def phase(self, conductance_s: Tensor, codes: Tensor) -> Tensor:
        """Counts before rounding; arguments as ``charge``'s."""
        return self._answer(conductance_s, codes, counts=True)

    def _answer(self, conductance_s: Tensor, codes: Tensor, *, counts: bool) -> Tensor:
        circuit = self.tile.circuit
        if not (torch.is_grad_enabled() and (conductance_s.requires_grad or codes.requires_grad)):
            g, x = conductance_s.to(self.tile.work), codes.to(self.tile.work)
            return readings(self.reference(g, counts).plans[0], g, x, RATIO) * unit(circuit, counts)
        work = torch.float64 if codes.dtype == torch.float64 else torch.float32
        g, x = conductance_s.to(work), codes.to(work)
        parts = [c.answers(circuit, a, b) for c, a, b in zip(self.columns(g, counts), g, x, strict=True)]
        return torch.stack(parts) * unit(circuit, counts)

    def columns(self, g: Tensor, counts: bool) -> list[Columns]:
        """The columns of each tile of conductances (tiles, lines, rows) [S]."""
        total = g.detach().sum(-1)
        edges = _edges(total, RATIO)
        made, lines = self.reference(g, counts), apparent(self.tile.circuit, g.detach().flatten(0, -2))
        owner = torch.bucketize(total, edges)
        plans = [about(made.plans[0], lines[owner.flatten() == k]) for k in range(len(edges) + 1)]
        return [_columns_of(plans, o) for o in owner]

    def sample(self, g: Tensor) -> Tensor:
        """Conductances (lines, rows) [S] like normal weights', of as many rows and the type of ``g``."""
        rng = torch.Generator().manual_seed(0)
        low, high = self.range_s
        share = (torch.randn(LINES, g.shape[-1], dtype=torch.float64, generator=rng) / 3).clamp(0.0, 1.0)
        return (low + (high - low) * share).to(g)

    def reference(self, g: Tensor, counts: bool) -> Columns:
        """The columns of ``sample``, in one group."""
        key = (counts, g.shape[-1], g.dtype)
        if key not in self._made:
            lines = self.sample(g)
            if self.tile.accuracy == "fast":
                settings = replace(FAST[counts], segments=min(FAST[counts].segments, max(4, g.shape[-1] // ROWS)))
            else:
                settings = self.tile.settings(lines, g.new_zeros(3, g.shape[-1]), counts=counts)
            settings = replace(settings, groups=1)
            self._made[key] = group(self.tile.circuit, lines, settings, counts=counts, plain=self.tile.plain)
        return self._made[key]
