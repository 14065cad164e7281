"""Differences of pairs for inputs of either sign: what four readings of a gated tile come to, their first order in one product.

A pair's G+ and G− are lines of their own, and inputs of either sign take a phase each. About one middle column both lines
share the weights y of a phase, and so, with wide rows W as ``weights.Weights`` has them,

    (R₊₊ − R₊₋) − (R₋₊ − R₋₋) = (y₊ − y₋)·(W₊ − W₋) − Σ_squares [b(m₊₊) − b(m₊₋)] − [b(m₋₊) − b(m₋₋)],

with R and m the reading and the root of a phase and a line, b(m) = sign·m²·(1 + cubic·m). All but the squares is one product
instead of four; the squares are of bytes. Pairs whose lines differ too much for one middle column are read four times.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.errors import InputError
from aimcard.models.fast.bytes import byte_product
from aimcard.models.fast.columns import REACH, Settings, columns_of
from aimcard.models.fast.curve import unit
from aimcard.models.fast.meanfield import Prepared
from aimcard.models.fast.product import Columns
from aimcard.models.fast.tile import FastTile
from aimcard.models.fast.weights import Plan, Weights

#: Vectors that are prepared and multiplied together, and pairs whose squares are.
BLOCK, PAIRS = 64, 512
#: What a pair has in common cancels, errors too: groups may be wider than those of readings, and squares fewer. Bins are more,
#: for inputs of one sign are often short only (GELU): they all end in the window's first LSBs.
FAST = {False: Settings(8, 8, 1, 2.2), True: Settings(8, 8, 2, 1.7)}


def phases_of(codes: Tensor) -> Tensor:
    """Codes (..., batch, rows) of either sign as phases, (..., 1 or 2 · batch, rows): no second one where none is below 0."""
    positive = codes.clamp(min=0)
    return torch.cat([positive, (-codes).clamp_(min=0)], -2) if bool((codes < 0).any()) else positive


def arrange_pairs(total: Tensor, ratio: float, most: int) -> tuple[list[Tensor], Tensor]:
    """Groups of pairs within ``ratio`` of total conductance, ``most`` at most, and the pairs that no group has.

    total (pairs, 2). A group's lines all lie within its ratio, so groups may overlap.
    """
    # A line that conducts nothing is a hundred times below the others at the most.
    total = total.double().cpu()
    low, high = total.clamp(min=0.01 * float(total.max())).aminmax(dim=1)
    fits = high <= ratio * low
    left = torch.nonzero(fits)[:, 0]
    left, groups = left[low[left].argsort()], []
    while len(left):
        inside = high[left] <= ratio * low[left[0]]
        groups.append(left[inside])
        left = left[~inside]
    if len(groups) > most:
        return arrange_pairs(total, 1.2 * ratio, most)
    return groups, torch.nonzero(~fits)[:, 0]


def plans_of_pairs(groups: list[Tensor], total: Tensor) -> list[list[Tensor]]:
    """Groups that share a preparation, the largest first, by their lines' total conductances (pairs, 2)."""
    plans: list[list[Tensor]] = []
    for pairs in groups:
        pairs = pairs.sort().values
        if plans and float(total[pairs].max()) <= REACH * float(total[plans[-1][0]].min()):
            plans[-1].append(pairs)
        else:
            plans.append([pairs])
    return [sorted(plan, key=len, reverse=True) for plan in plans]


@dataclass
class Part:
    """A group's pairs ready for products: wide (pairs, rows + 8), W₊ − W₋; departures of either side, with their scales.

    place: where the group's answers go in those of all pairs; group: its number in the plan.
    """

    wide: Tensor
    sides: tuple[Tensor, Tensor]
    scales: tuple[Tensor, Tensor] | None
    place: slice
    group: int

    @classmethod
    def all_of(cls, plan: Plan, weights: Weights, first: int) -> list[Part]:
        """The groups of a plan, each with its lines of G+ before those of G−; ``first``: place of the first pair."""
        found, start = [], 0
        for group, size in enumerate(plan.ref.sizes):
            n = size // 2
            a, b = slice(start, start + n), slice(start + n, start + size)
            at = first + start // 2
            whole = weights.departure
            sides = (whole[a], whole[b]) if plan.squares else (whole, whole)
            scales = None if weights.scale is None else (weights.scale[a], weights.scale[b])
            found.append(cls(weights.wide[a] - weights.wide[b], sides, scales, slice(at, at + n), group))
            start += size
        return found

    def answer(self, prepared: Prepared, y: Tensor, out: Tensor) -> None:
        """Differences into ``out`` (batch, pairs); y (batch, rows + 8): that of the first phase less that of the second."""
        torch.mm(y, self.wide.T, out=out[:, self.place])
        for k, z in enumerate(prepared.z):
            numbers = [q[self.group, k] for q in (prepared.scale, prepared.sign, prepared.cubic)]
            for a in range(0, len(self.wide), PAIRS):
                if self.scales is None:
                    self._bend(out, z, numbers, slice(a, a + PAIRS))
                else:
                    self._bend_bytes(out, z, numbers, slice(a, a + PAIRS))

    def _bend_bytes(self, out: Tensor, z: Tensor, numbers: list[Tensor], some: slice) -> None:
        from aimcard.models.fast.passes import bend_pairs

        assert self.scales is not None
        roots = (byte_product(z, d[some].T).numpy() for d in self.sides)
        scales = (s[some].numpy() for s in self.scales)
        bend_pairs(out.numpy(), self.place.start + some.start, *roots, *scales, *(q.numpy() for q in numbers))

    def _bend(self, out: Tensor, z: Tensor, numbers: list[Tensor], some: slice) -> None:
        scale, sign, cubic = (q[:, None] for q in numbers)
        first, second = ((z.to(d.dtype) @ d[some].T).to(out.dtype) * scale for d in self.sides)
        bent = sign * ((cubic * first + 1) * first * first - (cubic * second + 1) * second * second)
        here = out[:, self.place][:, some]
        here -= bent if len(bent) == len(out) else bent[: len(out)] - bent[len(out) :]


@dataclass
class Held:
    """Pairs of one weight version. back: where each pair's answer is in those of the groups, one behind the other, and of the
    rest; rest: lines (2 · pairs, rows) [S] that are read four times, None if there are none."""

    columns: Columns | None
    parts: list[list[Part]]
    back: Tensor | None
    rest: Tensor | None

    def answers(self, codes: Tensor) -> Tensor:
        """Differences of the groups' pairs, (batch, pairs), of codes (batch, rows) of either sign."""
        count = sum(len(p.wide) for parts in self.parts for p in parts)
        out = codes.new_empty(len(codes), count)
        for a in range(0, len(codes), BLOCK):
            x, to = codes[a : a + BLOCK], out[a : a + BLOCK]
            for plan, parts in zip(self.columns.plans if self.columns is not None else [], self.parts, strict=True):
                prepared = plan.prepare(phases_of(x), reuse=True)
                for part in parts:
                    y = prepared.y[part.group]
                    difference = y if len(y) == len(x) else y[: len(x)] - y[len(x) :]
                    part.answer(prepared, difference, to)
        return out


class PairTile:
    """The differences that a FastTile's readings come to, of lines (levels, 2, outputs): G+ and G− of every level."""

    def __init__(self, tile: FastTile, levels: int = 1) -> None:
        """Raises InputError for a tile of accuracy "exact", whose readings are solved one by one, or of several PWM phases."""
        if tile.accuracy == "exact":
            raise InputError("accuracy: pairs are not expanded in a tile of accuracy 'exact'; subtract its readings")
        if tile.phases is not None:
            raise InputError(f"mode: pairs are expanded in conventional PWM; got {tile.model.mode.name!r}; subtract the readings")
        self.tile, self.levels = tile, levels
        self._kept: dict[bool, tuple[weakref.ref, int, Held]] = {}

    def charge(self, conductance_s: Tensor, codes: Tensor) -> Tensor:
        """Charges [C], (batch, levels · outputs), of (levels · 2 · outputs, rows) [S] and codes (batch, rows) of either sign."""
        return self._answer(conductance_s, codes, counts=False)

    def phase(self, conductance_s: Tensor, codes: Tensor) -> Tensor:
        """Counts before rounding; arguments as ``charge``'s."""
        return self._answer(conductance_s, codes, counts=True)

    @torch.no_grad()
    def _answer(self, conductance_s: Tensor, codes: Tensor, *, counts: bool) -> Tensor:
        tile = self.tile
        tile.check(conductance_s, codes.abs())
        x = codes.to(tile.work)
        held = self._held(conductance_s, codes, counts)
        found = [held.answers(x).mul_(unit(tile.circuit, counts))]
        if held.rest is not None:
            read = (tile.phase if counts else tile.charge)(held.rest, phases_of(x)).to(x)
            plus, minus = read.chunk(2, -1)
            difference = plus - minus
            found.append(difference if len(difference) == len(x) else difference[: len(x)] - difference[len(x) :])
        out = found[0] if len(found) == 1 else torch.cat(found, -1)
        return (out if held.back is None else out.index_select(1, held.back)).to(tile.dtype)

    def _held(self, conductance_s: Tensor, codes: Tensor, counts: bool) -> Held:
        kept = self._kept.get(counts)
        if kept is not None and kept[0]() is conductance_s and kept[1] == conductance_s._version:
            return kept[2]
        held = self._made(conductance_s, codes, counts)
        self._kept[counts] = weakref.ref(conductance_s), conductance_s._version, held
        return held

    def _made(self, conductance_s: Tensor, codes: Tensor, counts: bool) -> Held:
        tile = self.tile
        g = conductance_s.detach().to(tile.work)
        index = torch.arange(len(g), device=g.device).view(self.levels, 2, -1).movedim(1, 0).flatten(1)
        settings = FAST[counts] if tile.accuracy == "fast" else tile.settings(conductance_s, phases_of(codes), counts=counts)
        total = g.sum(1)[index.T]
        groups, rest = arrange_pairs(total, settings.ratio, settings.groups)
        plans_of = plans_of_pairs(groups, total)
        columns, parts, first = None, [], 0
        if groups:
            order = torch.cat([index[:, pairs].flatten() for plan in plans_of for pairs in plan])
            sizes = [tuple(2 * len(pairs) for pairs in plan) for plan in plans_of]
            columns = columns_of(tile.circuit, g, settings, order, sizes, counts=counts, plain=tile.plain)
            for plan, weights in zip(columns.plans, columns.weights(tile.circuit, g), strict=True):
                parts.append(Part.all_of(plan, weights, first))
                first += sum(plan.ref.sizes) // 2
        places = torch.cat([*(pairs for plan in plans_of for pairs in plan), rest])
        back = None if torch.equal(places, torch.arange(len(places))) else places.argsort().to(g.device)
        return Held(columns, parts, back, g[index[:, rest].flatten()] if len(rest) else None)
