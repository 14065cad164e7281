"""The read-out between column and oscillator: an OTA that holds the bit line, and a current mirror.

Static: the clamp voltage falls a little with the current (V_clamp(I), a table), solved together with the column; the
mirror's output against its input is another table. Dynamic: after a current step the clamp voltage is off by
z_step·ΔI and comes back with t_clamp; the mirror follows with a lag that shrinks as the current grows (C/g_m).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.lut import lookup, lookup_slope


@dataclass(frozen=True)
class ReadoutParameters:
    """Fitted numbers of the read-out.

    i_clamp_a, v_clamp_v: clamp voltage against line current, tables (knots,).
    i_mirror_a, mirror_a: mirror output against line current (the bleed is in both), tables (knots,).
    z_step_ohm, t_clamp_s: the clamp's dynamic resistance just after a current step, and its recovery time.
    q_on_c, q_on_per_a_s: charge missing at turn-on, constant part and part per ampere of first-slot current.
    t_mirror_s, i_mirror_lag_a: mirror lag t/(1 + I/i) at line current I.
    """

    i_clamp_a: Tensor
    v_clamp_v: Tensor
    i_mirror_a: Tensor
    mirror_a: Tensor
    z_step_ohm: Tensor | float
    t_clamp_s: Tensor | float
    q_on_c: Tensor | float
    q_on_per_a_s: Tensor | float
    t_mirror_s: Tensor | float
    i_mirror_lag_a: Tensor | float


def regulated_clamp(p: ReadoutParameters, iterations: int = 4) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The read-out as seen by the column: solves I = Y·V_clamp(I) + J by Newton's method."""

    def clamp(y: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        i = y * p.v_clamp_v[0] + j
        for _ in range(iterations):
            residual = i - y * lookup(p.i_clamp_a, p.v_clamp_v, i) - j
            i = i - residual / (1 - y * lookup_slope(p.i_clamp_a, p.v_clamp_v, i))
        return lookup(p.i_clamp_a, p.v_clamp_v, i), i

    return clamp


def relax(target: Tensor, start: Tensor, tau_s: Tensor | float, t_lsb_s: float) -> tuple[Tensor, Tensor]:
    """First-order lag towards targets constant within each slot: (means, ends), shape (..., slots).

    tau_s may differ per slot. ``start`` (...,) is the value before the first slot.
    """
    tau = torch.as_tensor(tau_s, dtype=target.dtype).expand(target.shape)
    decay = torch.exp(-t_lsb_s / tau)
    share = tau / t_lsb_s * (1 - decay)
    means, ends, value = [], [], start
    for k in range(target.shape[-1]):
        gap = value - target[..., k]
        means.append(target[..., k] + gap * share[..., k])
        value = target[..., k] + gap * decay[..., k]
        ends.append(value)
    return torch.stack(means, -1), torch.stack(ends, -1)


def clamp_lag(p: ReadoutParameters, current_a: Tensor, line_s: Tensor, t_lsb_s: float) -> Tensor:
    """Change of the slot currents [A] by the clamp's recovery, (..., slots).

    current_a: static slot currents; line_s: conductance Y of the line seen by the read-out, both (..., slots).
    """
    before = torch.cat([current_a[..., -1:], current_a[..., :-1]], dim=-1)
    step = -p.z_step_ohm * (current_a - before)
    tau = torch.as_tensor(p.t_clamp_s, dtype=current_a.dtype)
    decay = torch.exp(-t_lsb_s / tau)
    share = tau / t_lsb_s * (1 - decay)
    out, left = [], torch.zeros_like(current_a[..., 0])
    for k in range(current_a.shape[-1]):
        now = left + step[..., k]
        out.append(now * share)
        left = now * decay
    change = line_s * torch.stack(out, -1)
    turn_on = -(p.q_on_c + p.q_on_per_a_s * current_a[..., :1]) / t_lsb_s
    return torch.cat([change[..., :1] + turn_on, change[..., 1:]], dim=-1)


def lagged(p: ReadoutParameters, current_a: Tensor, t_lsb_s: float) -> Tensor:
    """The line's slot currents (..., slots) as the mirror's gate follows them [A], means over the slots."""
    tau = p.t_mirror_s / (1 + torch.clamp(current_a, min=0.0) / p.i_mirror_lag_a)
    return relax(current_a, current_a[..., -1], tau, t_lsb_s)[0]


def mirror(p: ReadoutParameters, lagged_a: Tensor) -> Tensor:
    """Mirror output [A] for lagged line currents, any shape."""
    return lookup(p.i_mirror_a, p.mirror_a, lagged_a)
