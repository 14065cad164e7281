"""How one line's look-up table departs from the nominal one: a power series in the logarithm of the current.

A shifted threshold changes a mirrored current by g_m/I times the shift, and g_m/I is smooth in log I from weak to strong
inversion. So δ(I) = Σ c_k·l^k, l = ln((I + I_idle)/(I_ref + I_idle)), with I the line's current and I_idle the bleed, or
a tied read-out's bias. δ is added to the clamp's voltage; a mirrored current and a rate are multiplied by exp δ, for they
are positive and skewed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Largest |l|; beyond it, outside the currents that were simulated, δ stays what it is there.
LIMIT = 2.0


@dataclass(frozen=True)
class Departure:
    """coefficients c_0, c_1, …: numbers, or tensors (lines, 1), in the unit of δ; i_idle_a, i_ref_a [A]. least_a: lower currents
    count as this one; a tied line's may be negative, above minus its bias."""

    coefficients: tuple[Tensor | float, ...]
    i_idle_a: float
    i_ref_a: float
    least_a: float = 0.0


def log_current(i_idle_a: float, i_ref_a: float, current_a: Tensor, least_a: float = 0.0) -> Tensor:
    """l = ln((I + I_idle)/(I_ref + I_idle)), any shape; currents below ``least_a`` count as that."""
    return torch.log((torch.clamp(current_a, min=least_a) + i_idle_a) / (i_ref_a + i_idle_a)).clamp(-LIMIT, LIMIT)


def departure(d: Departure, current_a: Tensor) -> Tensor:
    """δ at the line current ``current_a`` (..., lines, slots)."""
    return _horner(d.coefficients, log_current(d.i_idle_a, d.i_ref_a, current_a, d.least_a))


def departure_slope(d: Departure, current_a: Tensor) -> Tensor:
    """dδ/dI, same shape."""
    x = log_current(d.i_idle_a, d.i_ref_a, current_a, d.least_a)
    per_l = _horner(tuple(k * c for k, c in enumerate(d.coefficients))[1:], x)
    inside = (current_a >= d.least_a) & (x.abs() < LIMIT)
    return torch.where(inside, per_l / (current_a.clamp(min=d.least_a) + d.i_idle_a), torch.zeros_like(x))


def _horner(coefficients: tuple[Tensor | float, ...], x: Tensor) -> Tensor:
    value = torch.zeros_like(x)
    for c in reversed(coefficients):
        value = value * x + c
    return value
