"""What a phase's product has too much of, for vectors: the mean line as it takes it beside the same slot by slot."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.fast.phase_bins import PhaseBins
from aimcard.models.fast.phase_slots import Course, PhaseSlots
from aimcard.models.fast.reference import Reference


@dataclass(frozen=True)
class VectorErrors:
    """Of each vector: base + Σ of the pulses' own product − Σ by_line·places − share·answer is to be added to a line's answer.

    by_line (·, batch), along ``places``; share, base (batch,); worth (batch, slots + bins): what charges are worth.
    """

    by_line: Tensor
    share: Tensor
    base: Tensor
    worth: Tensor


def vector_errors(ref: Reference, slots: PhaseSlots, bins: PhaseBins, reach: float, hist: Tensor) -> VectorErrors:
    """Of rows of each code ``hist`` (batch, codes), in double, about the mean line ``ref``; by_line (9, batch).

    What a line departs from its multiple of the mean line by, it does along the path that such departures have on average.
    """
    course = Course.of(ref, slots.member, hist, reach)
    truth, by_slot = slots.answers(ref, course, bins.quiet)
    still, pulses, on_slope, force = bins.answers(ref, course)
    along = still[3] - still[1] + on_slope[3]
    share = (along - truth[3] + truth[1]) / along.clamp(min=1e-9)
    rest = 1 - share
    # What the product has of the pulses is lessened too.
    worth = torch.cat([by_slot, force * rest[:, None]], -1)
    base = (hist * bins.functions.means(worth)).sum(-1)
    own = base + slots.beside(course)[:, None] * (hist * (bins.functions.tables(worth) @ bins.tilt)).sum(-1)
    by_line = torch.cat([still[:3] * rest + own[:3] - truth[:3], pulses * rest, on_slope[:3] * rest])
    return VectorErrors(by_line, share, base + share * ref.conversion.offset, worth)


def places(e: Tensor, middle: Tensor, reach: float) -> Tensor:
    """Where lines are between the multiples of the mean line, where their groups' middles are, and the latter times how far the
    line is from its middle, (9, lines); e, middle (lines,): of the mean line's conductance, less one."""
    about = _through(middle / reach)
    return torch.cat([_through(e / reach), about, about * ((e - middle) / (1 + middle))])


def _through(u: Tensor) -> Tensor:
    """Weights (3, n) of values at −1, 0 and 1 in their parabola at ``u`` (n,)."""
    return torch.stack([u * (u - 1) / 2, 1 - u * u, u * (u + 1) / 2])
