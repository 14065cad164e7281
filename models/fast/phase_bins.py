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
from aimcard.models.fast.phase_pulses import CellCharges
from aimcard.models.fast.phase_slots import Course, Line, PhaseSlots, Samples, ended_in, later
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

    def answers(self, ref: Reference, course: Course) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The part that goes on to each line (4, batch), the pulses' of a group whose middle line it is, (3, batch), how the
        latter goes on to the group's other lines, (4, batch): per share of conductance, and for the departure; and what it
        takes a charge for in each bin, (batch, bins). For one column, these are the formulas of ``meanfield.prepare``."""
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
        gain = cell[:3] * (force * (ending @ self.gain)).sum(-1)
        by_drop = (ref.end_drop + ref.end_square * drop) * drop
        lift = _mean(line.lift)[:3] if isinstance(line.lift, Tensor) else torch.zeros_like(drop)
        by_drop = by_drop + ref.end_clamp * lift
        pulses = (force * (ending @ self.const + ended * by_drop)).sum(-1) + gain
        pulses = pulses - 0.5 * (bend * extra * extra * width).sum(-1)
        pulses = pulses + _stored(ref, n, lift - (1 - ref.share) * drop, force)
        begin, drop = force @ ref.times[-1], drop[..., 0]
        pulses = pulses + begin * (ref.start_drop + ref.start_square * drop) * drop * begun
        return still, pulses, torch.cat([on_slope[:3] + gain, on_slope[3:]]), force[1]


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
