"""The read-out between column and oscillator: an OTA that holds the bit line, and a current mirror.

Static: the clamp voltage falls a little with the current (V_clamp(I), a table), solved together with the column; the
mirror's output against the line current is another table. Dynamic: after each step of the line's current, clamp and
mirror take a fraction of a slot to follow, and may overshoot into the next ones. What a step of ΔI leaves in the slot
in which it happens and in the two after it is a charge t·ΔI, with times t that grow as the current shrinks
(the loop's and the mirror's speed go with g_m, hence with the current).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.column import Clamp
from aimcard.models.departure import Departure, departure, departure_slope
from aimcard.models.lut import lookup, lookup_slope

Scalar = Tensor | float
#: Weight of the current after a step, against before it, in how fast the block is.
SPEED = 0.5
#: Slots in which a step is still felt: the one in which it happens and the two after.
TAPS = 3


@dataclass(frozen=True)
class StepResponse:
    """Charges that the current steps leave in the slots, for one block (clamp or mirror).

    step_s, step_idle_s, step_low_s: per slot after a step, the charge per ampere is step + step_idle·w + step_low·w²,
    w = 1/(1 + I/half), at the line current I between before and after the step.
    on_s, on_idle_s: for turn-on, the step into the first slot, with I the turn-on current: on + on_idle/(1 + I/on_half).
    """

    step_s: tuple[Scalar, ...]
    step_idle_s: tuple[Scalar, ...]
    step_low_s: tuple[Scalar, ...]
    half_a: Scalar
    on_s: tuple[Scalar, ...]
    on_idle_s: tuple[Scalar, ...]
    on_half_a: Scalar


def response_names(block: str) -> dict[str, tuple[str, ...]]:
    """Parameter names of a block's StepResponse, by field."""
    taps = range(TAPS)
    return {
        "step_s": tuple(f"{block}_step_{k}_s" for k in taps),
        "step_idle_s": tuple(f"{block}_step_{k}_idle_s" for k in taps),
        "step_low_s": tuple(f"{block}_step_{k}_low_s" for k in taps),
        "half_a": (f"{block}_half_a",),
        "on_s": tuple(f"{block}_on_{k}_s" for k in taps),
        "on_idle_s": tuple(f"{block}_on_{k}_idle_s" for k in taps),
        "on_half_a": (f"{block}_on_half_a",),
    }


@dataclass(frozen=True)
class ReadoutParameters:
    """Tables (knots,) of clamp voltage and mirror current against line current, bleed left out of the line current
    and included in the mirror's; step responses of both blocks.

    clamp_departure [V], mirror_departure (logarithm): what mismatch adds to each line's tables; None for nominal lines.
    """

    i_clamp_a: Tensor
    v_clamp_v: Tensor
    i_mirror_a: Tensor
    mirror_a: Tensor
    clamp: StepResponse
    mirror: StepResponse
    clamp_departure: Departure | None = None
    mirror_departure: Departure | None = None


def clamp_voltage(p: ReadoutParameters, current_a: Tensor) -> tuple[Tensor, Tensor]:
    """V_clamp [V] at a line current and its slope [Ω], both of the current's shape (..., lines, slots)."""
    v, slope = (f(p.i_clamp_a, p.v_clamp_v, current_a) for f in (lookup, lookup_slope))
    if p.clamp_departure is None:
        return v, slope
    return v + departure(p.clamp_departure, current_a), slope + departure_slope(p.clamp_departure, current_a)


def regulated_clamp(p: ReadoutParameters, iterations: int = 4) -> Clamp:
    """The read-out as seen by the column: solves I = Y·V_clamp(I) + J by Newton's method."""

    def clamp(y: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        i = y * p.v_clamp_v[0] + j
        for _ in range(iterations):
            v, slope = clamp_voltage(p, i)
            i = i - (i - y * v - j) / (1 - y * slope)
        return clamp_voltage(p, i)[0], i

    return clamp


def step_charges(p: StepResponse, static_a: Tensor, starts: tuple[int, ...] = (0,), rest_a: Tensor | None = None) -> Tensor:
    """Charges [C] that the steps of the line leave in the slots, (..., slots).

    starts: first slots of the phases, each TAPS slots or more before the next. There the line turns on from nothing, or,
    with ``rest_a`` (..., 1), steps from that current as it does later.

    static_a: the line's static currents (..., slots), which step at the slot boundaries; the slot means do not show
    the steps as cleanly, for the pulses' edges lie a little inside the slots.
    """
    at = torch.clamp(static_a, min=0.0)
    first = torch.zeros(static_a.shape[-1], dtype=torch.bool, device=static_a.device)
    first[list(starts)] = True
    before = torch.cat([at[..., :1], at[..., :-1]], dim=-1)
    steps = torch.cat([torch.zeros_like(at[..., :1]), static_a[..., 1:] - static_a[..., :-1]], dim=-1)
    if rest_a is not None:
        before = torch.where(first, torch.clamp(rest_a, min=0.0), before)
        steps = torch.where(first, static_a - rest_a, steps)
        first = torch.zeros_like(first)
    weight = 1 / (1 + SPEED * at / p.half_a + (1 - SPEED) * before / p.half_a)
    # The step into a phase's first slot is turn-on, too large for the response to small steps.
    steps = torch.where(first, torch.zeros_like(steps), steps)
    charge = torch.zeros_like(static_a)
    for k in range(TAPS):
        left = (p.step_s[k] + p.step_idle_s[k] * weight + p.step_low_s[k] * weight * weight) * steps
        charge = charge + (left if k == 0 else torch.cat([torch.zeros_like(left[..., :k]), left[..., :-k]], dim=-1))
    start = torch.where(first, at, torch.zeros_like(at))
    on_weight = 1 / (1 + start / p.on_half_a)
    for k in range(TAPS):
        on = (p.on_s[k] + p.on_idle_s[k] * on_weight) * start
        charge = charge + (on if k == 0 else torch.cat([torch.zeros_like(on[..., :k]), on[..., :-k]], dim=-1))
    return charge


def lagged(
    p: ReadoutParameters, current_a: Tensor, static_a: Tensor, t_lsb_s: float, starts: tuple[int, ...] = (0,),
    rest_a: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The line's slot currents (..., slots) as the mirror's gate follows them [A], means over the slots."""
    return current_a + step_charges(p.mirror, static_a, starts, rest_a) / t_lsb_s


def answered(
    p: ReadoutParameters, base_a: Tensor, static_a: Tensor, t_lsb_s: float, starts: tuple[int, ...] = (0,),
    rest_a: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The line's slot currents, and the same as the mirror's gate follows them [A], (..., slots) each.

    base_a: the slot currents with the regulator's static voltage; other arguments as ``step_charges``.
    """
    current = base_a + step_charges(p.clamp, static_a, starts, rest_a) / t_lsb_s
    return current, lagged(p, current, static_a, t_lsb_s, starts, rest_a)


def mirror(p: ReadoutParameters, lagged_a: Tensor) -> Tensor:
    """Mirror output [A] for lagged line currents, any shape."""
    nominal = lookup(p.i_mirror_a, p.mirror_a, lagged_a)
    return nominal if p.mirror_departure is None else nominal * torch.exp(departure(p.mirror_departure, lagged_a))
