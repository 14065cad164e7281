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
    l_clamp_h, l_idle_h, i_clamp_half_a: the clamp's inductance, l + l_idle/(1 + I/i): while the loop regains its
    voltage after a step ΔI, the line misses the flux L·ΔI.
    q_on_*, q_next_*: charge missing in the first and in the second slot of a window, constant part [C] and part per
    ampere of turn-on current [s]. q_mirror_*, q_mirror_next_*: the same of the mirror, referred to the line.
    t_mirror_s, i_mirror_lag_a: mirror lag t/(1 + I/i) at line current I.
    """

    i_clamp_a: Tensor
    v_clamp_v: Tensor
    i_mirror_a: Tensor
    mirror_a: Tensor
    l_clamp_h: Tensor | float
    l_idle_h: Tensor | float
    i_clamp_half_a: Tensor | float
    q_on_c: Tensor | float
    q_on_per_a_s: Tensor | float
    q_next_c: Tensor | float
    q_next_per_a_s: Tensor | float
    t_mirror_s: Tensor | float
    i_mirror_lag_a: Tensor | float
    q_mirror_c: Tensor | float
    q_mirror_per_a_s: Tensor | float
    q_mirror_next_c: Tensor | float
    q_mirror_next_per_a_s: Tensor | float


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
    """Change of the slot currents [A] while the clamp recovers from each step, (..., slots).

    current_a: static slot currents; line_s: conductance of the line seen by the read-out, both (..., slots).
    """
    before = torch.cat([current_a[..., -1:], current_a[..., :-1]], dim=-1)
    inductance = p.l_clamp_h + p.l_idle_h / (1 + torch.clamp(current_a, min=0.0) / p.i_clamp_half_a)
    # The first step is turn-on, too large for a small-signal inductance: it has charges of its own.
    steps = (-inductance * line_s * (current_a - before))[..., 1:]
    start = current_a[..., :1]
    charge = torch.cat([-(p.q_on_c + p.q_on_per_a_s * start), steps[..., :1] - (p.q_next_c + p.q_next_per_a_s * start),
                        steps[..., 1:]], dim=-1)  # fmt: skip
    return charge / t_lsb_s


def lagged(p: ReadoutParameters, current_a: Tensor, t_lsb_s: float) -> Tensor:
    """The line's slot currents (..., slots) as the mirror's gate follows them [A], means over the slots."""
    tau = p.t_mirror_s / (1 + torch.clamp(current_a, min=0.0) / p.i_mirror_lag_a)
    follows = relax(current_a, current_a[..., -1], tau, t_lsb_s)[0]
    start = current_a[..., 1:2]
    on = torch.cat([p.q_mirror_c + p.q_mirror_per_a_s * start, p.q_mirror_next_c + p.q_mirror_next_per_a_s * start], dim=-1)
    return torch.cat([follows[..., :2] - on / t_lsb_s, follows[..., 2:]], dim=-1)


def mirror(p: ReadoutParameters, lagged_a: Tensor) -> Tensor:
    """Mirror output [A] for lagged line currents, any shape."""
    return lookup(p.i_mirror_a, p.mirror_a, lagged_a)
