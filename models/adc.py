"""The current-controlled oscillator (CCO) and its counter: phase is the integral of the count rate over the window."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.departure import Departure, departure
from aimcard.models.lut import lookup


@dataclass(frozen=True)
class AdcParameters:
    """Fitted numbers of the converter.

    i_adc_a, rate_hz: count rate against the *instantaneous* line current, mirror included, tables (knots,),
    monotone. The bleed is in the rate, not in the current: at zero line current the ring still runs.
    phase_start: counts gained (or lost) by start-up from the reset state.
    t_wait_s: how long the first slot's current is still the idle one, before the pulses' edges reach the oscillator.
    rate_departure: what mismatch adds to the logarithm of each line's rate; None for nominal lines.
    """

    i_adc_a: Tensor
    rate_hz: Tensor
    phase_start: Tensor | float
    t_wait_s: Tensor | float
    rate_departure: Departure | None = None


def count_rate(p: AdcParameters, current_a: Tensor) -> Tensor:
    """Count rate [Hz] at an instantaneous line current (..., lines, slots), same shape."""
    nominal = lookup(p.i_adc_a, p.rate_hz, current_a)
    return nominal if p.rate_departure is None else nominal * torch.exp(departure(p.rate_departure, current_a))


def phase(p: AdcParameters, current_a: Tensor, t_lsb_s: float) -> Tensor:
    """Count before truncation (...,), from the line's lagged slot currents (..., slots)."""
    rate = count_rate(p, current_a)
    # The first slot's current jumps inside it, and the rate of the mean is not the mean of the rate.
    # At most half a slot: a shorter LSB than twice the wait is not what was calibrated.
    wait = torch.clamp(torch.as_tensor(p.t_wait_s / t_lsb_s, dtype=current_a.dtype), max=0.5)
    idle = current_a[..., -1]
    on = (current_a[..., :1] - wait * idle[..., None]) / (1 - wait)
    first = wait * rate[..., -1] + (1 - wait) * count_rate(p, on)[..., 0]
    return (first + rate[..., 1:].sum(-1)) * t_lsb_s + p.phase_start


def count(phase_count: Tensor) -> Tensor:
    """What the counter shows: the phase truncated. Straight-through: its gradient is the phase's."""
    return phase_count + (torch.floor(phase_count) - phase_count).detach()


def inl_dnl(p: AdcParameters, codes: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Integral and differential non-linearity of the rate over the table's range.

    Returns current (codes + 1,), INL and DNL in units of the mean step (end-point line).
    """
    i = torch.linspace(float(p.i_adc_a[0]), float(p.i_adc_a[-1]), codes + 1, dtype=p.i_adc_a.dtype)
    rate = lookup(p.i_adc_a, p.rate_hz, i)
    step = (rate[-1] - rate[0]) / codes
    inl = (rate - rate[0]) / step - torch.arange(codes + 1, dtype=rate.dtype)
    dnl = (rate[1:] - rate[:-1]) / step - 1
    return i, inl, dnl
