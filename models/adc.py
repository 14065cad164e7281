"""The current-controlled oscillator (CCO) and its counter: phase is the integral of the count rate over the window."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.checks import check_choice
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
    return _integral(p, current_a, t_lsb_s, 0.0) + p.phase_start


def _integral(p: AdcParameters, current_a: Tensor, t_lsb_s: float, hold_s: float) -> Tensor:
    rate = count_rate(p, current_a)
    # The first slot's current jumps inside it, and the rate of the mean is not the mean of the rate.
    # At most half a slot: a shorter LSB than twice the wait is not what was calibrated.
    wait = torch.clamp(torch.as_tensor(p.t_wait_s / t_lsb_s, dtype=current_a.dtype), max=0.5)
    idle = current_a[..., -1]
    on = (current_a[..., :1] - wait * idle[..., None]) / (1 - wait)
    first = wait * rate[..., -1] + (1 - wait) * count_rate(p, on)[..., 0]
    return (first + rate[..., 1:].sum(-1)) * t_lsb_s - rate[..., -1] * hold_s


#: What becomes of the oscillator's phase between two edges when one PWM phase ends and the next begins.
#: reset: the ring is held for a moment and starts each phase alike, so the fraction is lost. carry: it runs on while
#: the counter's gate closes and opens, so the fraction is counted in the next phase, with that one's weight.
PHASE_RULES = ("reset", "carry")
#: How long before a phase's end the ring is held under "reset", if nothing else is said [s].
HOLD_S = 0.5e-9


def phase_counts(p: AdcParameters, current_a: Tensor, t_lsb_s: float, windows: tuple[tuple[int, int], ...], rule: str,
                 hold_s: float) -> Tensor:  # fmt: skip
    """Counts before truncation in each PWM phase (..., phases), from the lagged currents of all slots (..., slots).

    windows: slots (first, beyond) of each phase. Under "reset" the ring is held for the last ``hold_s`` of every
    phase but the last, and gains ``phase_start`` in each; under "carry" it starts once and is not held.
    Raises InputError for another rule.
    """
    check_choice("phase_rule", rule, PHASE_RULES)
    parts = []
    for k, (first, beyond) in enumerate(windows):
        held = hold_s if rule == "reset" and k < len(windows) - 1 else 0.0
        part = _integral(p, current_a[..., first:beyond], t_lsb_s, held)
        parts.append(part + p.phase_start if rule == "reset" or k == 0 else part)
    return torch.stack(parts, dim=-1)


def truncated(phases: Tensor, rule: str) -> Tensor:
    """What the counter shows in each phase (..., phases), from ``phase_counts``: the residue dropped or carried over."""
    if rule == "reset":
        return torch.floor(phases)
    shown = torch.floor(torch.cumsum(phases, -1))
    return torch.cat([shown[..., :1], shown[..., 1:] - shown[..., :-1]], dim=-1)


def residue_sigma(weights: tuple[int, ...], rule: str) -> float:
    """σ of the weighted counts' truncation error [counts], for fractions spread evenly and independently.

    reset: √(Σ w²/12). carry: phase k loses its own fraction f_k and gains that of the phase before, so the error
    is Σ (w_{k+1} − w_k)·f_k with w = 0 beyond the last.
    """
    check_choice("phase_rule", rule, PHASE_RULES)
    parts = weights if rule == "reset" else [b - a for a, b in itertools.pairwise((*weights, 0))]
    return math.sqrt(sum(w * w for w in parts) / 12)


def count(phase_count: Tensor) -> Tensor:
    """What the counter shows: the phase truncated. Straight-through: its gradient is the phase's."""
    whole = torch.floor(phase_count)
    if not (torch.is_grad_enabled() and phase_count.requires_grad):
        return whole
    return phase_count + (whole - phase_count).detach()


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
