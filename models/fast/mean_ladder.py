"""The mean column's ladder at the Gauss points of the bins, and its adjoint: currents, and what a departure adds to them.

Several columns, multiples of one, are solved side by side. Shapes: (segments, cases, batch, points), for what all columns share
(segments, batch, points); segments first, for the sweeps take one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from aimcard.models.cell import gate_current, leakage_current
from aimcard.models.fast.reference import Reference

#: Times the cells are expanded again about the voltages found.
PASSES = 2


@dataclass(frozen=True)
class Fields:
    """Per point and segment weight y and its slope per row of distance, quadratic weight z, of either sign, and the diagonal of
    the quadratic form; drop: of the line below the clamp [V]."""

    y: Tensor
    tilt: Tensor
    z: Tensor | None
    z_sign: Tensor | None
    own: Tensor | None


@dataclass(frozen=True)
class Ladder:
    """The line at the Gauss points: sums of the cells given, and what the ladder makes of them. near, far: the wire either side
    of a segment's centroid, the same for all columns; admittance, clamp, current (cases, batch, points)."""

    near: Tensor
    far: Tensor
    g: Tensor
    self_r: Tensor
    cond: Tensor
    v: Tensor
    back: Tensor
    drop: Tensor
    admittance: Tensor
    clamp: Tensor
    current: Tensor

    def first(self, cases: int) -> Ladder:
        """The first columns' alone."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        per_segment = {n: t[:, :cases] for n, t in own.items() if t.ndim == 4}
        return Ladder(**own | per_segment | {n: own[n][:cases] for n in ("admittance", "clamp", "current")})


def solve_ladder(ref: Reference, g: Tensor, centre: Tensor, n: Tensor, fall: Tensor) -> Ladder:
    """g: conductance [µS]; n: number of conducting cells, centre: centroid, of all columns; fall (cases,): by how much more than
    the reference's the columns' conductance falls with its voltages."""
    c, cell = ref.circuit, ref.circuit.line.cell
    w, r = c.w_select_um, ref.r_ohm
    lengths, weight = ref.lengths[:, None, None], ref.weight[:, None, None, None]
    self_r = (-r * lengths / 6 * (1 - 1 / (n / ref.spread[:, None, None]).clamp(min=1.0)))[:, None]
    source, drain = (q[:, None, None, None] * fall[:, None, None] for q in (ref.source, ref.drain))
    v0, reach = c.v_read_v, ref.share * r * lengths[:, None]
    near, far = r * centre, r * (lengths - centre)
    idle_cells = ((lengths - n)[:, None] * weight) if c.effects.leakage else None
    zero = torch.zeros((), dtype=torch.float64)
    leak_ua = float(leakage_current(cell, zero + v0, zero, w)) * 1e6
    v = back = cond = drop = None
    y = clamp = torch.zeros_like(g[0])
    current = None
    for _ in range(PASSES):
        inner = g
        if v is not None and back is not None:
            inner = g * (1 - source * back / (1 - ref.k_source * back) - drain * (v - v0))
        cond = inner / (1 + self_r * inner)
        rise = inject = None
        if idle_cells is not None:
            at_v, at_back = (torch.full_like(g, v0), torch.zeros_like(g)) if v is None or back is None else (v, back)
            gates = n[:, None] * gate_current(cell, at_back, w) * 1e6
            beyond = torch.cumsum(gates, 0) - gates
            across = reach * (beyond + gates / 2)
            rise = _beyond(across) + reach * (beyond / 2 + gates / 3)
            # The drain is far above the thermal voltage: how much sweeps back hardly depends on the drops.
            leak = leak_ua * torch.exp((at_v + at_back - v0) / cell.v_leak_drain_v - at_back / cell.v_leak_source_v)
            inject = idle_cells * leak - cond * rise
        y, j = _inward(near, far, cond, inject)
        clamp, current = _close(ref, y, j, current)
        at, i, drops = torch.zeros_like(y), current, []
        for s in reversed(range(len(g))):
            at = torch.addcmul(at, near[s], i)
            drops.append(at)
            i = i - cond[s] * (clamp - at)
            if inject is not None:
                i = i - inject[s]
            at = torch.addcmul(at, far[s], i)
        drop = torch.stack(drops[::-1])
        v, back = clamp - drop, ref.share * drop
        if rise is not None:
            v, back = v - rise, back + rise
    assert cond is not None
    assert v is not None
    assert back is not None
    assert drop is not None
    assert current is not None
    return Ladder(near, far, g, self_r, cond, v, back, drop, y, clamp, current)


def _beyond(values: Tensor) -> Tensor:
    """Sum over the segments nearer to the read-out."""
    return values.sum(0) - torch.cumsum(values, 0)


def _inward(near: Tensor, far: Tensor, cond: Tensor, inject: Tensor | None) -> tuple[Tensor, Tensor]:
    """Admittance and short-circuit current that the read-out sees, from the far end on."""
    y = j = torch.zeros_like(cond[0])
    for s in range(len(cond)):
        k = 1 / torch.addcmul(cond.new_ones(()), far[s], y)
        y = torch.addcmul(cond[s], y, k)
        if inject is not None:
            j = torch.addcmul(inject[s], j, k)
        k = 1 / torch.addcmul(cond.new_ones(()), near[s], y)
        y, j = y * k, j * k if inject is not None else j
    return y, j


def _close(ref: Reference, y: Tensor, j: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
    """Clamp's voltage and current, by Newton's method from ``start``."""
    v0 = ref.circuit.v_read_v
    curve = ref.conversion.clamp
    if curve is None:
        return torch.full_like(y, v0), y * v0 + j
    i = y * v0 + j if start is None else start
    for _ in range(2):
        v, slope = curve.line_at(i)
        i = i - (i - y * v - j) / (1 - y * slope)
    return curve.line_at(i)[0], i


def solve_fields(ref: Reference, at: Ladder, ends: Tensor, rate: Tensor, bend: Tensor, second: bool) -> Fields:
    """Weights from a solved ladder by its adjoint.

    ends: charge per volt of drop by which each segment's pulses act there, per LSB, of all columns; rate, bend (cases, batch,
    points): the answer's derivatives at the current that the pulses' own adds to.
    """
    g, near, far, cond, v, back, current = at.g, at.near, at.far, at.cond, at.v, at.back, at.current
    conv, v0 = ref.conversion, ref.circuit.v_read_v
    loop = slope = None
    if conv.clamp is not None:
        slope = conv.clamp.line_at(current)[1]
        loop = 1 / (1 - at.admittance * slope)
    # What the pulses' ends add when their cells' voltage drops acts like a current drawn there by the adjoint.
    draws = None
    if ref.circuit.effects.pulse:
        draws = (-ends[:, None]).expand_as(cond) if loop is None else -ends[:, None] / loop
    i = at.admittance if draws is None else at.admittance + _inward(near, far, cond, draws)[1]
    fall, iv = torch.zeros_like(current), current
    falls, tilts_a, tilts_v = [], [], []
    for s in reversed(range(len(g))):
        fall = torch.addcmul(fall, near[s], i)
        falls.append(fall)
        before, before_v = i, iv
        i = i - cond[s] * (1 - fall)
        if draws is not None:
            i = i - draws[s]
        iv = iv - cond[s] * v[s]
        tilts_a.append(i + before)
        tilts_v.append(iv + before_v)
        fall = torch.addcmul(fall, far[s], i)
    a = 1 - torch.stack(falls[::-1])
    tilt_a, tilt_v = torch.stack(tilts_a[::-1]), torch.stack(tilts_v[::-1])
    spread = (1 - ref.d_source * back / (1 - ref.k_source * back) - ref.d_drain * (v - v0)) / (1 + at.self_r * g) ** 2
    gain = rate if loop is None else rate * loop
    first = a * spread * v
    y = gain * first
    tilt = gain * spread * (a * tilt_v + v * tilt_a) * (-ref.r_ohm / 2)
    if not second:
        return Fields(y, tilt, None, None, None)
    # Action of the quadratic form on the mean column: loaded drop, regulator, and the bend of the rate.
    move = (first * g).sum(0)
    curve = -0.5 * bend
    if loop is not None:
        move, curve = move * loop, curve * loop
    shift = y * (at.drop if slope is None else at.drop - slope * current) / v0
    # Its diagonal: the resistance that a cell sees between its node and the clamp.
    place = ref.r_ohm * (_beyond(ref.lengths) + ref.lengths / 2)[:, None, None, None]
    seen = place * a if slope is None else place * a - slope
    own = y * first / v0 * seen + (curve if loop is None else curve * loop) * first * first
    return Fields(y, tilt, shift + (curve.abs() * move) * first, shift + (curve * move) * first, own)


def convert(ref: Reference, current: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Answer per LSB, its first and second derivative; the first two points are the first slot."""
    conv = ref.conversion
    if conv.rate is None or conv.start is None:
        gain = current.new_ones(current.shape[-1])
        gain[:2] = conv.start_gain
        return gain * current, gain.expand_as(current), torch.zeros_like(current)
    first, rest = conv.start.at(current[..., :2]), conv.rate.at(current[..., 2:])
    return tuple(torch.cat(pair, -1) for pair in zip(first, rest, strict=True))  # type: ignore[return-value]
