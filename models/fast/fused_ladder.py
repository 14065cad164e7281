"""The ladder of ``mean_ladder`` and its adjoint in one pass (Triton): a lane solves one column at one Gauss point of one bin.

Lanes need nothing of each other. What a sweep leaves for the next one is kept in memory, segment by segment: unrolled into
registers it took as many as there are, and half a minute to compile.
"""

# Triton compiles these functions, of its own types; Python never calls them.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportMissingImports=false, reportOperatorIssue=false

from __future__ import annotations

import math

import triton
import triton.language as tl

from aimcard.models.fast.fused_adjoint import weigh
from aimcard.models.fast.fused_points import beside, cells_at, charge_of, curve_at, ended_in, number_at, voltages

ROOT3 = tl.constexpr(math.sqrt(3.0))
#: Lanes of a program, vectors × bins.
LANES = 64
WARPS = 2


@triton.jit
def gates_of(number, back, beyond, length, wire):
    """Current of the gates of a segment's conducting cells into the return line [µA], and how far, with that of the segments
    beyond, it lifts the line across the segment, and at its middle [V]: towards the far end all of it, here a third."""
    gates, reach = number * wire.gate_ua * tl.exp(-back / wire.gate_source_v), wire.share * wire.r_ohm * length
    return gates, reach * (beyond + gates / 2), reach * (beyond / 2 + gates / 3)


@triton.jit
def lifted(column, count, lane, line, step, segments, wire, clamp, SEGMENTS: tl.constexpr, SOLVED: tl.constexpr):
    """What gates lift the return line's far end [V]."""
    mask = column[3]
    lift, beyond = clamp * 0.0, clamp * 0.0
    for s in range(SEGMENTS):
        _v, back = voltages(line + s * step, 2 * SEGMENTS * step, clamp, wire, mask, SOLVED)
        number = number_at(column, s * count + lane)
        gates, across, _middle = gates_of(number, back, beyond, tl.load(segments.lengths + s), wire)
        lift += across
        beyond += gates
    return lift


@triton.jit
def sweep_in(column, count, lane, line, step, segments, wire, scale, steeper, clamp, lift, SEGMENTS: tl.constexpr,
             LEAKAGE: tl.constexpr, SOLVED: tl.constexpr):  # fmt: skip
    """Admittance and short-circuit current that the read-out sees; what the segments are goes into the line's memory."""
    mask, kind, v0 = column[3], 2 * SEGMENTS * step, wire.v_read_v
    none = clamp * 0.0
    y, j, beyond = none, none, none
    for s in range(SEGMENTS):
        g, number, near, self_r = cells_at(column, s * count + lane, s, segments, wire)
        length, own = tl.load(segments.lengths + s), line + s * step
        v, back = voltages(own, kind, clamp, wire, mask, SOLVED)
        falls = tl.load(segments.source + s) * back / (1 - wire.k_source * back) + tl.load(segments.drain + s) * (v - v0)
        inner = g * scale * (1 - steeper * falls)
        cond = inner / (1 + self_r * inner)
        inject, rise = none, none
        if LEAKAGE:
            gates, across, middle = gates_of(number, back, beyond, length, wire)
            lift -= across
            rise = lift + middle
            beyond += gates
            # The drain is far above the thermal voltage: how much sweeps back hardly depends on the drops.
            above = (v + back - v0) / wire.leak_drain_v - back / wire.leak_source_v
            idle = (length - number) * tl.load(segments.weight + s) * wire.leak_ua * tl.exp(above)
            inject = idle - cond * rise
        y, j = beside(y, j, cond, inject, near, wire.r_ohm * length - near)
        tl.store(own, cond, mask=mask)
        tl.store(own + kind, inject, mask=mask)
        tl.store(own + 2 * kind, rise, mask=mask)
        tl.store(own + 3 * kind, near, mask=mask)
    return y, j


@triton.jit
def sweep_out(line, step, segments, wire, clamp, current, mask, SEGMENTS: tl.constexpr):
    """Drops of the segments into the line's memory, from the clamp's voltage and current on."""
    kind = 2 * SEGMENTS * step
    drop, i = current * 0.0, current
    for k in range(SEGMENTS):
        s = SEGMENTS - 1 - k
        own = line + s * step
        near = tl.load(own + 3 * kind, mask=mask, other=0.0)
        drop += near * i
        tl.store(own + 4 * kind, drop, mask=mask)
        i -= tl.load(own, mask=mask, other=0.0) * (clamp - drop) + tl.load(own + kind, mask=mask, other=0.0)
        drop += (wire.r_ohm * tl.load(segments.lengths + s) - near) * i


@triton.jit
def close(curve, y, j, current, step_ua, PIECES: tl.constexpr):
    """The regulator's voltage [V], its slope [V/µA] and the current [µA], by Newton's method from ``current``."""
    for _ in tl.static_range(2):
        v, slope, _second = curve_at(curve, current / step_ua, PIECES)
        current -= (current - y * v - j) / (1 - y * slope / step_ua)
    v, slope, _second = curve_at(curve, current / step_ua, PIECES)
    return v, slope / step_ua, current


@triton.jit
def convert(curves, current, q, wire, PIECES: tl.constexpr, CURVED: tl.constexpr):
    """Answer per LSB, its first and second derivative to the current, in bin q: the first bin is the first slot."""
    if CURVED:
        # The first slot's curve lies behind the rate's.
        value, rate, bend = curve_at(curves + tl.where(q == 0, 4 * PIECES, 0), current / wire.step_ua, PIECES)
        return value, rate / wire.step_ua, bend / (wire.step_ua * wire.step_ua)
    else:
        rate = tl.where(q == 0, wire.start_gain, 1.0)
        return rate * current, rate, current * 0.0


@triton.jit
def solve(sums, solved, segments, window, cases, wire, pulse, curves, sizes, first_case, SEGMENTS: tl.constexpr,
          LANES: tl.constexpr, PIECES: tl.constexpr, ADJOINT: tl.constexpr, LEAKAGE: tl.constexpr, PULSES: tl.constexpr,
          REGULATED: tl.constexpr, CURVED: tl.constexpr):  # fmt: skip
    """``Solved`` of the cases from ``first_case`` on, by ``mean_ladder.solve_ladder``'s equations; all of it with ADJOINT."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    case, point = first_case + tl.program_id(1), tl.program_id(2)
    bins, groups, count = sizes.bins, sizes.groups, sizes.batch * sizes.bins
    mask, vector, q = lane < count, lane // bins, lane % bins
    scale, steeper = tl.load(cases.scale + case), tl.load(cases.fall + case)
    column = (sums.by_bin, SEGMENTS * count, tl.where(point == 0, -ROOT3, ROOT3), mask)
    line, step = solved.line + (point * SEGMENTS * sizes.cases + case) * count + lane, sizes.cases * count
    none = tl.zeros((LANES,), tl.float32)
    clamp, current, slope, y = none + wire.v_read_v, none, none, none
    for turn in tl.static_range(2):
        lift = none
        if LEAKAGE:
            lift = lifted(column, count, lane, line, step, segments, wire, clamp, SEGMENTS, turn > 0)
        y, j = sweep_in(
            column, count, lane, line, step, segments, wire, scale, steeper, clamp, lift, SEGMENTS, LEAKAGE, turn > 0
        )
        if turn == 0 or not REGULATED:
            current = y * wire.v_read_v + j
        if REGULATED:
            clamp, slope, current = close(curves + 8 * PIECES, y, j, current, wire.step_ua, PIECES)
        # Each lane reads what it has written; the barrier makes that sure however lanes are laid out.
        tl.debug_barrier()
        sweep_out(line, step, segments, wire, clamp, current, mask, SEGMENTS)
        tl.debug_barrier()
    whole, ended = none, none
    for s in range(SEGMENTS):
        g, _number, _near, _self_r = cells_at(column, s * count + lane, s, segments, wire)
        whole += g * scale
        if PULSES and ADJOINT:
            ended += ended_in(sums.by_bin + 2 * SEGMENTS * count, s * count + lane, q, bins, mask)
    value, rate, bend = convert(curves, current, q, wire, PIECES, CURVED)
    width = tl.load(window.width + q)
    tl.store(solved.answer + (point * sizes.cases + case) * count + lane, (value - wire.ideal * whole) * width / 2, mask=mask)
    if ADJOINT:
        if PULSES:
            # The pulses' own charge is a current too, at which the rate is taken.
            rate += bend * ended * charge_of(window, q, wire.g_mean * scale) / width
        to = solved.clamp + (point * groups + case) * count + lane
        tl.store(to, rate, mask=mask)
        tl.store(to + 2 * groups * count, bend, mask=mask)
        tl.store(to + 4 * groups * count, clamp - wire.v_read_v, mask=mask)
        weigh(
            column, count, lane, q, bins, line, step, solved.fields + (point * SEGMENTS * groups + case) * count + lane,
            groups * count, sums.started + vector, segments, wire, pulse, scale, width, clamp, current, slope, y, rate, bend,
            SEGMENTS, PULSES,
        )  # fmt: skip
