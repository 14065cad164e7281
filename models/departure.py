"""How one line's look-up table departs from the nominal one: a parabola in the logarithm of the current.

A shifted threshold changes a mirrored current by g_m/I times the shift, and g_m/I is smooth in log I from weak to strong
inversion. So δ(I) = c0 + c1·l + c2·l², l = ln((I + I_idle)/(I_ref + I_idle)), with I the line's current and I_idle the bleed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Largest and smallest argument beyond which the parabola goes on as a constant.
LIMIT = 2.5


@dataclass(frozen=True)
class Departure:
    """c0, c1, c2: numbers, or tensors (lines, 1), in the unit of what departs; i_idle_a, i_ref_a [A]."""

    offset: Tensor | float
    tilt: Tensor | float
    bend: Tensor | float
    i_idle_a: float
    i_ref_a: float


def log_current(i_idle_a: float, i_ref_a: float, current_a: Tensor) -> Tensor:
    """l = ln((I + I_idle)/(I_ref + I_idle)), any shape; currents below zero count as zero."""
    return torch.log((torch.clamp(current_a, min=0.0) + i_idle_a) / (i_ref_a + i_idle_a)).clamp(-LIMIT, LIMIT)


def departure(d: Departure, current_a: Tensor) -> Tensor:
    """δ at the line current ``current_a`` (..., lines, slots)."""
    x = log_current(d.i_idle_a, d.i_ref_a, current_a)
    return d.offset + x * (d.tilt + x * d.bend)


def departure_slope(d: Departure, current_a: Tensor) -> Tensor:
    """dδ/dI, same shape."""
    x = log_current(d.i_idle_a, d.i_ref_a, current_a)
    inside = (current_a >= 0) & (x.abs() < LIMIT)
    return torch.where(inside, (d.tilt + 2 * x * d.bend) / (current_a.clamp(min=0.0) + d.i_idle_a), torch.zeros_like(x))
