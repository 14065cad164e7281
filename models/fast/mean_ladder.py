"""The mean column's ladder at the Gauss points of the bins, and its adjoint: currents, and what a departure adds to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.cell import gate_current, leakage_current
from aimcard.models.fast.reference import Reference

#: Times the cells are expanded again about the voltages found.
PASSES = 2


@dataclass(frozen=True)
class Fields:
    """Solution at the Gauss points: answer per LSB, and per point and segment weight y and its slope per row of distance,
    quadratic weight z; shapes (batch, points), (batch, points, segments)."""

    answer: Tensor
    y: Tensor
    tilt: Tensor
    z: Tensor | None
    z_sign: Tensor | None
    own: Tensor | None
    drop: Tensor
    clamp: Tensor
    rate: Tensor
    bend: Tensor


@dataclass(frozen=True)
class Ladder:
    """The line at the Gauss points: sums of the cells given, (batch, points, segments), and what the ladder makes of them."""

    g: Tensor
    near: Tensor
    far: Tensor
    self_r: Tensor
    cond: Tensor
    admittance: Tensor
    clamp: Tensor
    current: Tensor
    v: Tensor
    back: Tensor
    drop: Tensor


def solve_ladder(ref: Reference, g: Tensor, centre: Tensor, n: Tensor) -> Ladder:
    """g, n (batch, points, segments): conductance [µS] and number of conducting cells; centre: centroid."""
    c, cell, dtype = ref.circuit, ref.circuit.line.cell, g.dtype
    lengths, weight = ref.lengths.to(dtype), ref.weight.to(dtype)
    w, r = c.w_select_um, ref.r_ohm
    n_eff = (n / ref.spread.to(dtype)).clamp(min=1.0)
    self_r = -r * lengths / 6 * (1 - 1 / n_eff)
    v0 = c.v_read_v
    v, back = torch.full_like(g, v0), torch.zeros_like(g)
    near, far = r * centre, r * (lengths - centre)
    leaks = c.effects.leakage
    clamp = torch.full_like(g[..., 0], v0)
    current = torch.zeros_like(clamp)
    cond, ladder = g, torch.zeros_like(g)
    y = current
    for _ in range(PASSES):
        fac = 1 - ref.source.to(dtype) * back / (1 - ref.k_source * back) - ref.drain.to(dtype) * (v - v0)
        inner = g * fac
        cond = inner / (1 + self_r * inner)
        if leaks:
            gates = n * gate_current(cell, back, w) * 1e6
            total = torch.cumsum(gates, -1)
            beyond = total - gates
            across = ref.share * r * lengths * (beyond + gates / 2)
            edge = torch.flip(torch.cumsum(torch.flip(across, (-1,)), -1), (-1,)) - across
            rise = edge + ref.share * r * lengths * (beyond / 2 + gates / 3)
            idle = (lengths - n) * weight * leakage_current(cell, v + back, back, w) * 1e6
            inject = idle - cond * rise
        else:
            rise, inject = torch.zeros_like(g), torch.zeros_like(g)
        y = torch.zeros_like(current)
        j = torch.zeros_like(current)
        for s in range(g.shape[-1]):
            k = 1 + far[..., s] * y
            y, j = y / k + cond[..., s], j / k + inject[..., s]
            k = 1 + near[..., s] * y
            y, j = y / k, j / k
        clamp, current = _close(ref, y, j)
        drop, i, drops = torch.zeros_like(y), current, []
        for s in reversed(range(g.shape[-1])):
            drop = drop + near[..., s] * i
            drops.append(drop)
            i = i - cond[..., s] * (clamp - drop) - inject[..., s]
            drop = drop + far[..., s] * i
        ladder = torch.stack(drops[::-1], -1)
        v = clamp[..., None] - ladder - rise
        back = ref.share * ladder + rise
    return Ladder(g, near, far, self_r, cond, y, clamp, current, v, back, ladder)


def _close(ref: Reference, y: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
    v0 = ref.circuit.v_read_v
    curve = ref.conversion.clamp
    if curve is None:
        return torch.full_like(y, v0), y * v0 + j
    i = y * v0 + j
    for _ in range(3):
        v, slope, _ = curve.at(i)
        i = i - (i - y * v - j) / (1 - y * slope)
    return curve.at(i)[0], i


def solve_fields(ref: Reference, at: Ladder, ends: Tensor, extra: Tensor, second: bool) -> Fields:
    """Weights from a solved ladder by its adjoint.

    ends: charge per volt of drop by which each segment's pulses act there, per LSB; extra: the pulses' own current. Points
    0, 1 are the first slot.
    """
    g, near, far, self_r, cond, v, back = at.g, at.near, at.far, at.self_r, at.cond, at.v, at.back
    admittance, current, ladder = at.admittance, at.current, at.drop
    conv, v0 = ref.conversion, ref.circuit.v_read_v
    answer, rate, bend = convert(ref, current)
    rate = rate + bend * extra
    loop = torch.ones_like(current)
    reg = torch.zeros_like(current)
    slope = None
    if conv.clamp is not None:
        _, slope, _ = conv.clamp.at(current)
        loop = 1 / (1 - admittance * slope)
        reg = -slope * current
    # What the pulses' ends add when their cells' voltage drops acts like a current drawn there by the adjoint.
    draws = -ends / loop[..., None] if ref.circuit.effects.pulse else None
    j = torch.zeros_like(current)
    if draws is not None:
        y = torch.zeros_like(current)
        for s in range(g.shape[-1]):
            k = 1 + far[..., s] * y
            y, j = y / k + cond[..., s], j / k + draws[..., s]
            k = 1 + near[..., s] * y
            y, j = y / k, j / k
    fall, i = torch.zeros_like(current), admittance + j
    falls, tilts_a, tilts_v = [], [], []
    iv = current
    for s in reversed(range(g.shape[-1])):
        fall = fall + near[..., s] * i
        falls.append(fall)
        before, before_v = i, iv
        i = i - cond[..., s] * (1 - fall) - (0 if draws is None else draws[..., s])
        iv = iv - cond[..., s] * v[..., s]
        tilts_a.append(-ref.r_ohm * (i + before) / 2)
        tilts_v.append(-ref.r_ohm * (iv + before_v) / 2)
        fall = fall + far[..., s] * i
    a = 1 - torch.stack(falls[::-1], -1)
    tilt_a, tilt_v = torch.stack(tilts_a[::-1], -1), torch.stack(tilts_v[::-1], -1)
    fac = 1 - ref.d_source * back / (1 - ref.k_source * back) - ref.d_drain * (v - v0)
    spread = fac / (1 + self_r * g) ** 2
    gain = (rate * loop)[..., None]
    y = gain * a * spread * v
    tilt = gain * spread * (a * tilt_v + v * tilt_a)
    z = z_sign = own = None
    if second:
        # Action of the quadratic form on the mean column: loaded drop, regulator, and the bend of the rate.
        first = a * spread * v
        move = ((first * g).sum(-1) * loop)[..., None]
        shift = y * (ladder + reg[..., None]) / v0
        curve = -0.5 * (bend * loop)[..., None] * first
        z, z_sign = shift + curve.abs() * move, shift + curve * move
        # Its diagonal: the resistance that a cell sees between its node and the clamp.
        place = ref.r_ohm * (torch.flip(torch.cumsum(torch.flip(lengths_of(ref, g), (-1,)), -1), (-1,)) - lengths_of(ref, g) / 2)
        seen = place * a
        if slope is not None:
            seen = seen + (-slope)[..., None]
        own = y * first / v0 * seen + curve * loop[..., None] * first
    return Fields(answer, y, tilt, z, z_sign, own, ladder, at.clamp, rate, bend)


def lengths_of(ref: Reference, like: Tensor) -> Tensor:
    """Rows of each segment, (segments,)."""
    return ref.lengths.to(like.dtype)


def convert(ref: Reference, current: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Answer per LSB, its first and second derivative; the first two points are the first slot."""
    conv = ref.conversion
    if conv.rate is None or conv.start is None:
        gain = torch.ones_like(current[0])
        gain[:2] = conv.start_gain
        return gain * current, gain.expand_as(current), torch.zeros_like(current)
    first, rest = conv.start.at(current[..., :2]), conv.rate.at(current[..., 2:])
    return tuple(torch.cat(pair, -1) for pair in zip(first, rest, strict=True))  # type: ignore[return-value]
