"""Charges of the pulses of cells in a phase of a gated mode, slot by slot, while no voltage has dropped."""

from __future__ import annotations

import torch
from torch import Tensor

from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.reference import Reference, fall_edge, start_charge
from aimcard.models.fast.weights import apparent
from aimcard.models.modes import Mode
from aimcard.models.pulse import fall_delay, node_capacitance, recharge_amount, recharging, rise_delay


def slot_charges(circuits: list[Circuit], mode: Mode, guard: int, digit: Tensor, k: int, conductance_s: Tensor) -> Tensor:
    """Charge that a cell draws in each slot of phase ``k``'s window, beside the static current [µA·LSB], (codes, slots, n).

    Of conductances (n,) [S], in double, for digits (phases, codes); circuits: each phase's. What recharges of earlier phases
    leave for this one is in it, until the cell's next pulse; what comes after the window is not.
    """
    kinds, of_code = digit[: k + 1].unique(dim=1, return_inverse=True)
    return _of_kinds(circuits[k], mode.windows(guard), kinds, conductance_s)[of_code]


def _of_kinds(c: Circuit, windows: tuple[tuple[int, int], ...], digit: Tensor, g: Tensor) -> Tensor:
    """The same in the last of the phases of ``digit`` (phases, kinds)."""
    k = len(digit) - 1
    p, e, w, t = c.line.pulse, c.edges, c.w_select_um, c.t_lsb_s
    zero = g.new_zeros(1)
    amount = recharge_amount(p, e, g, zero + c.v_read_v, zero, w)
    rate = recharging(g) / node_capacitance(p, w)
    rise, fall = float(rise_delay(p, e)), float(fall_delay(p, e))
    first, beyond = windows[k]
    edges = torch.arange(beyond - first + 1, dtype=g.dtype) * t

    def recharge(start: Tensor, end: Tensor | None) -> Tensor:
        """From times ``start`` to ``end`` (kinds,) after the phase's begin."""
        until = edges if end is None else torch.minimum(edges, end[:, None])
        left = torch.exp(-(until - start[:, None]).clamp(min=0.0)[..., None] * rate)
        return (left[:, :-1] - left[:, 1:]) * amount

    own = digit[k].to(g.dtype)
    on, slots, at = own > 0, torch.arange(beyond - first), apparent(c, g)
    found = recharge(own * t + fall, None)
    found[:, 0] += start_charge(c, at, zero)
    found += (slots == own[:, None])[..., None] * fall_edge(c, g, at, zero)
    found *= on[:, None, None]
    # Cells whose last pulse was in an earlier phase still recharge, until their next pulse begins.
    idle = torch.ones_like(on)
    for j in reversed(range(k)):
        there = (digit[j] > 0) & idle
        start = (windows[j][0] - first + digit[j].to(g.dtype)) * t + fall
        end = torch.where(on, torch.full_like(own, rise), torch.full_like(own, float(edges[-1])))
        found[there] += recharge(start[there], end[there])
        idle = idle & (digit[j] == 0)
    return found * (1e6 / t)


def product_charges(ref: Reference, digit: Tensor) -> tuple[Tensor, Tensor]:
    """What a phase's product takes for a pulse [µA·LSB], of digits (n,): constant, and per µS of apparent conductance, (n, bins),
    by the bin whose force it is multiplied with."""
    digit = digit[:, None]
    f = bin_shares(ref, digit)
    parts = []
    for at_edges, bend, begin in ((ref.e_const, ref.c_const, ref.s_const), (ref.e_gain, ref.c_gain, ref.s_gain)):
        knots = at_edges[:, None] * ref.times[:-1]
        found = f @ (knots[1:] - knots[:-1]) + (f * f - f) * bend + knots[0] + begin * ref.times[-1]
        parts.append(found * (digit > 0))
    return parts[0], parts[1]


def bin_shares(ref: Reference, digit: Tensor) -> Tensor:
    """Share of each bin in which digits (..., 1) conduct, (..., bins)."""
    return ((digit - ref.grid.edges[:-1]) / ref.grid.width).clamp(0.0, 1.0)
