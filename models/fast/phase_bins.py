"""A phase of the mean line as its product takes it, beside the same slot by slot: what the product has too much of.

Both are taken of three multiples of the mean line, and of one with the departure that lines of its conductance have on average.
The product's pulses are about a group's middle line, and go on to the group's other lines along its own slopes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from aimcard.models.fast.mean_ladder import convert
from aimcard.models.fast.meanfield import ROOT3, idle_answer
from aimcard.models.fast.phase_charges import bin_shares, product_charges
from aimcard.models.fast.phase_pulses import CellCharges, Worth
from aimcard.models.fast.phase_rest import line_shapes
from aimcard.models.fast.phase_slots import Course, Line, PhaseSlots, Samples, ended_in, later
from aimcard.models.fast.product import Columns
from aimcard.models.fast.reference import Reference


@dataclass(frozen=True)
class PhaseBins:
    """Tables of a phase's product: f, ramp (digits, bins), share of each bin in which a digit conducts, and its bend;
    const, gain (digits, bins), charge that is drawn at each bin's force, and its part per µS of a cell; functions: of the pulses'
    own product, tilt (r,): how they grow with the conductance on average; quiet: answer of an idle line per LSB."""

    f: Tensor
    ramp: Tensor
    const: Tensor
    gain: Tensor
    functions: CellCharges
    tilt: Tensor
    quiet: float

    @classmethod
    def of(cls, ref: Reference, slots: PhaseSlots, functions: CellCharges, samples: Samples) -> PhaseBins:
        """Of the same phase, in double; functions: of the pulses' own product."""
        digit = torch.arange(slots.member.shape[1]).double()
        f = bin_shares(ref, digit[:, None])
        const, gain = product_charges(ref, digit)
        less, more = (functions.lines(g[:, None]).mean(0) for g in samples.parts[1:])
        return cls(f, f * f - f, const, gain, functions, (more - less) * slots.per_share, idle_answer(ref))

    def to(self, device: torch.device) -> PhaseBins:
        """The same on another device."""
        tables = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: t.to(device) for name, t in tables.items() if isinstance(t, Tensor)})

    def answers(self, ref: Reference, course: Course, beside: Tensor, by_slot: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Worth]:
        """The part that goes on to each line (4, batch), the pulses' of a group whose middle line it is, (3, batch), how the
        latter goes on to the group's other lines, (4, batch): per share of conductance, and for the departure; and what charges
        are worth.

        beside (4,): how far lines are from the tables'; by_slot (batch, slots): what a charge is worth in each slot. For one
        column, these are the formulas of ``meanfield.prepare``."""
        conv, width, ending = ref.conversion, ref.grid.width, course.ending
        left = -torch.nn.functional.pad(course.paths, (0, 1)).diff(dim=-1)
        n, n_ramp = left @ self.f[1:], left @ self.ramp[1:]
        points = torch.stack([n - ROOT3 * n_ramp, n + ROOT3 * n_ramp], -1).flatten(-2)
        line = Line.of(ref, points)
        answer, rate, bend = convert(ref, line.current)
        still = (_mean(answer) * width).sum(-1) + conv.guard * self.quiet
        n = ending @ self.f
        ended = ended_in(n)
        cell = course.cell[:, None]
        each = ref.e_const + ref.e_gain * cell
        extra = ended * ((each[:, 1:] + each[:, :-1]) / 2 / width)[:, None]
        rate = rate + bend * extra.repeat_interleave(2, -1)
        begun, drop = ending[:, 1:].sum(1), _mean(line.drop)
        # Of the departure, beside the mean line.
        moves = torch.cat([line.moves[:3], line.current[3:] - line.current[1:2]])
        shifts = torch.cat([drop[:3], drop[3:] - drop[1:2]])
        mean = _mean(rate)
        end_drop = ref.end_drop + (1 - ref.share) * ref.node
        on_slope = (_mean(bend * moves) * extra * width + mean * end_drop * ended * shifts).sum(-1)
        on_slope = on_slope + mean[..., 0] * ref.start_drop * begun * shifts[..., 0]
        force, bend, extra, drop = later(mean)[:3], later(_mean(bend))[:3], extra[:3], drop[:3]
        worth = Worth(by_slot, force[1])
        own = self.functions.tables(worth) @ self.tilt
        own = (course.whole * self.functions.means(worth)).sum(-1) + beside[:, None] * (course.whole * own).sum(-1)
        gain = cell[:3] * (force * (ending @ self.gain)).sum(-1)
        by_drop = (ref.end_drop + ref.end_square * drop) * drop
        lift = _mean(line.lift)[:3] if isinstance(line.lift, Tensor) else torch.zeros_like(drop)
        by_drop = by_drop + ref.end_clamp * lift
        pulses = (force * (ending @ self.const + ended * by_drop)).sum(-1) + gain
        pulses = pulses - 0.5 * (bend * extra * extra * width).sum(-1)
        pulses = pulses + _stored(ref, n, lift - (1 - ref.share) * drop, force)
        begin, drop = force @ ref.times[-1], drop[..., 0]
        pulses = pulses + begin * (ref.start_drop + ref.start_square * drop) * drop * begun
        return still, pulses, torch.cat([on_slope[:3] + gain, on_slope[3:]]), own, worth


def _stored(ref: Reference, n: Tensor, volts: Tensor, force: Tensor) -> Tensor:
    """What wire and idle cells store, as ``meanfield`` has it."""
    clamp, rows = ref.conversion.clamp, len(ref.g)
    edge = torch.full_like(volts[..., :1], 0.0 if clamp is None else float(clamp.pieces[0, 0]) - ref.circuit.v_read_v)
    moves = torch.cat([volts, edge], -1) - torch.cat([edge, volts], -1)
    busy = torch.cat([n[:, :1], (n[:, 1:] + n[:, :-1]) / 2, torch.zeros_like(n[:, :1])], -1)
    weight = torch.cat([force[..., :1], (force[..., 1:] + force[..., :-1]) / 2, force[..., -1:]], -1)
    return (weight * moves * (ref.line * rows + ref.node * (rows - busy))).sum(-1)


def _mean(values: Tensor) -> Tensor:
    return (values[..., ::2] + values[..., 1::2]) / 2


@dataclass(frozen=True)
class VectorErrors:
    """What a plan's product has too much of, for vectors: by_line (9, batch), along ``PlanErrors.places``; share (batch,): of each
    answer; start: what of the answer is no part of that. worth: what charges are worth."""

    by_line: Tensor
    share: Tensor
    start: float
    worth: Worth


@dataclass(frozen=True)
class PlanErrors:
    """The plan's, for one version of the weights. lines: numbers of its lines, None: all of the tile.
    places (9, lines): where its lines are between the multiples of the mean line, where their groups' middles are, and the latter
    times how far the line is from its middle. reach: how far the multiples are from the mean."""

    bins: PhaseBins
    ref: Reference
    reach: float
    places: Tensor
    lines: Tensor | None

    def of(self, slots: PhaseSlots, hist: Tensor) -> VectorErrors:
        """Of rows of each code ``hist`` (batch, codes), in double."""
        course = Course.of(self.ref, slots.member, hist, self.reach)
        truth, by_slot = slots.answers(self.ref, course, self.bins.quiet)
        still, pulses, on_slope, own, worth = self.bins.answers(self.ref, course, slots.beside(course), by_slot)
        # What a line departs from its multiple of the mean line by, it does along the path that departures have on average.
        along = still[3] - still[1] + on_slope[3]
        share = (along - truth[3] + truth[1]) / along.clamp(min=1e-9)
        rest = 1 - share
        by_line = torch.cat([still[:3] * rest + own[:3] - truth[:3], pulses * rest, on_slope[:3] * rest])
        return VectorErrors(by_line, share, self.ref.conversion.offset, worth)

    def answers(self, vectors: VectorErrors, found: Tensor) -> Tensor:
        """(batch, lines), as ``LineErrors.answers``'s."""
        share = vectors.share.to(found)[:, None]
        return (vectors.by_line.T.to(found) @ self.places.to(found)).addcmul_(share, found).sub_(share * vectors.start)


@dataclass(frozen=True)
class LineErrors:
    """The same of all lines of a tile, plan by plan; none without a bend of the rate. shapes (3, lines): see ``line_shapes``."""

    slots: PhaseSlots | None
    parts: list[PlanErrors]
    shapes: Tensor

    @classmethod
    def of(cls, slots: PhaseSlots | None, bins: list[PhaseBins], columns: Columns, sums: list[Tensor]) -> LineErrors:
        """Of each plan's tables, and sums (lines, 2) as ``PulseProduct``'s."""
        several, parts, offs, device = len(columns.plans) > 1, [], [], sums[0].device
        order = torch.arange(sum(columns.sizes), device=device) if columns.order is None else columns.order
        slots = None if slots is None else slots.to(device)
        for n, (plan, (total, _)) in enumerate(zip(columns.plans, (s.double().T for s in sums), strict=True)):
            size = float(plan.ref.g.sum())
            e = total / size - 1
            middles = torch.repeat_interleave(torch.tensor(plan.ref.scales).double(), torch.tensor(plan.ref.sizes)).to(e) - 1
            offs.append((e - middles) * size)
            if slots is None:
                continue
            reach = max(plan.ref.reach, 0.2)
            about = _through(middles / reach)
            places = torch.cat([_through(e / reach), about, about * ((e - middles) / (1 + middles))])
            if not several and columns.back is not None:
                places = places[:, columns.back]
            own = bins[n if len(bins) > 1 else 0].to(device)
            lines = order.split(columns.sizes)[n] if several else None
            parts.append(PlanErrors(own, plan.ref.like(e), reach, places, lines))
        (total, tilted), off = torch.cat(sums).double().T, torch.cat(offs)
        mean = total.mean()
        shapes = line_shapes(total, off / mean, (tilted - total * (tilted.mean() / mean)) / mean, slots is not None)
        return cls(slots, parts, shapes if columns.back is None else shapes[:, columns.back])

    def vectors(self, hist: Tensor) -> list[VectorErrors]:
        """Of each plan, of rows of each code ``hist`` (batch, codes), in double."""
        if self.slots is None:
            return []
        return [part.of(self.slots, hist) for part in self.parts]

    def answers(self, vectors: list[VectorErrors], found: Tensor) -> Tensor:
        """What the products have too much of (batch, lines), of answers ``found`` (batch, lines) with the pulses' own product."""
        out = torch.empty_like(found)
        for part, some in zip(self.parts, vectors, strict=True):
            if part.lines is None:
                return part.answers(some, found)
            out[:, part.lines] = part.answers(some, found[:, part.lines])
        return out


def _through(u: Tensor) -> Tensor:
    """Weights (3, n) of values at −1, 0 and 1 in their parabola at ``u`` (n,)."""
    return torch.stack([u * (u - 1) / 2, 1 - u * u, u * (u + 1) / 2])
