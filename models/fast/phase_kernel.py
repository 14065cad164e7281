"""``phase_errors.vector_errors`` compiled with numba, sixteen vectors side by side: the formulas of ``phase_slots`` and
``phase_bins``, slot by slot and bin by bin, in float32."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from aimcard.models.fast.lanes import curve_at, fill, high, load, store

_options = {"fastmath": True, "nogil": True, "boundscheck": False, "error_model": "numpy", "cache": True}
_none, _half, _one, _two, _root3, _tiny = (np.float32(q) for q in (0.0, 0.5, 1.0, 2.0, np.sqrt(3.0), 1e-9))
#: Taps of a step response, as ``readout.TAPS``.
_TAPS = 3


class Numbers(NamedTuple):
    """Constants of a phase and its mean line, float32; names as in ``Reference``, ``PhaseSlots`` and ``Conversion``."""

    rows: np.float32
    conductance_us: np.float32
    third_ohm: np.float32
    v_read_v: np.float32
    per_step: np.float32
    regulated: np.float32
    share: np.float32
    line: np.float32
    node: np.float32
    idle_ua: np.float32
    start_drop: np.float32
    start_square: np.float32
    end_drop: np.float32
    end_square: np.float32
    end_clamp: np.float32
    rise: np.float32
    fall: np.float32
    push: np.float32
    push_square: np.float32
    back: np.float32
    back_square: np.float32
    wait: np.float32
    hold: np.float32
    quiet: np.float32
    guard: np.float32
    offset: np.float32
    rest_lift: np.float32
    along: np.float32


class Tables(NamedTuple):
    """Tables of a phase, float32. rate, start, clamp: cubics (pieces, 4); settling (blocks, 3 + 5·taps); recharge (digits,
    slots); f, ramp (digits, bins); width, each_const, each_gain, begin (bins,)."""

    rate: np.ndarray
    start: np.ndarray
    clamp: np.ndarray
    settling: np.ndarray
    recharge: np.ndarray
    f: np.ndarray
    ramp: np.ndarray
    width: np.ndarray
    each_const: np.ndarray
    each_gain: np.ndarray
    begin: np.ndarray


class Sums(NamedTuple):
    """Sums over the rows, (·, batch) each, flat: busy by slot, drawn and its tilt by slot, on, const and gain by bin, mean and
    tilt of what the pulses' product adds by slot and bin, and the shares that the rest goes with."""

    busy: np.ndarray
    drawn: np.ndarray
    drawn_tilt: np.ndarray
    on: np.ndarray
    const: np.ndarray
    gain: np.ndarray
    own: np.ndarray
    own_tilt: np.ndarray
    shares: np.ndarray


@numba.njit(**_options)
def line_of(conductance, c, clamp):
    """Current, its part per logarithm of the conductance, and the mean drops of cells and clamp: ``phase_slots.Line``."""
    series = _one / (conductance * c.third_ohm + _one)
    y = conductance * series
    volts = fill(c.v_read_v)
    if c.regulated > _none:
        volts = curve_at(clamp, y * volts * c.per_step)[0]
        volts = curve_at(clamp, y * volts * c.per_step)[0]
    current = y * volts
    return current + c.idle_ua, current * series, current * c.third_ohm, volts - c.v_read_v


@numba.njit(**_options)
def paths_of(sums, v, stride, digits, c, shared, path):
    """``Course.of``: the mean line's path, the conductance in each slot, and what a line that departs from it adds."""
    total = fill(_none)
    for s in range(digits - 1):
        n = load(sums.busy, s * stride + v) * (_one / c.rows)
        store(path, s * 16, n)
        total = total + n
    beyond, whole = fill(_none), fill(_none)
    for s in range(digits - 2, -1, -1):
        n = load(path, s * 16)
        beyond = beyond + n
        both = n * np.float32(s) + beyond - n * total
        whole = whole + both
        store(shared, s * 16, both)
    scale = total / high(whole, fill(_tiny)) * (c.along * c.conductance_us)
    for s in range(digits - 1):
        store(shared, s * 16, load(shared, s * 16) * scale)
        store(path, s * 16, load(path, s * 16) * c.conductance_us)


@numba.njit(**_options)
def settle(still, seen, slots, settling):
    """Add what regulator and mirror make of the steps: ``readout.step_charges``."""
    none = fill(_none)
    for b in range(settling.shape[0]):
        p = settling[b]
        begin = high(load(still, 0), none)
        weight = _one / (begin * p[2] + _one)
        for k in range(_TAPS):
            at = 3 + 3 * _TAPS + 2 * k
            store(seen, k * 16, load(seen, k * 16) + (weight * p[at + 1] + p[at]) * begin)
        before = begin
        for s in range(1, slots):
            now, step = high(load(still, s * 16), none), load(still, s * 16) - load(still, (s - 1) * 16)
            weight = _one / (now * p[0] + before * p[1] + _one)
            for k in range(min(_TAPS, slots - s)):
                at = 3 + 3 * k
                left = (weight * (weight * p[at + 2] + p[at + 1]) + p[at]) * step
                store(seen, (s + k) * 16, load(seen, (s + k) * 16) + left)
            before = now


@numba.njit(**_options)
def rates(seen, slots, c, rate, worth, keep):
    """Answer of the currents seen, and what a charge is worth in each slot if ``keep``: the end of ``PhaseSlots.answers``."""
    last = load(seen, (slots - 1) * 16)
    first = (load(seen, 0) - last * c.wait) * (_one / (_one - c.wait))
    value, slope, _ = curve_at(rate, first * c.per_step)
    total = value * (_one - c.wait)
    if keep:
        store(worth, 0, slope * c.per_step)
    for s in range(1, slots):
        value, slope, _ = curve_at(rate, load(seen, s * 16) * c.per_step)
        total = total + value
        if keep:
            store(worth, s * 16, slope * c.per_step)
    if keep:
        store(worth, (slots - 1) * 16, slope * (c.per_step * (_one - c.hold)))
    return total + value * c.wait - (value - c.quiet) * c.hold


@numba.njit(**_options)
def slot_answer(sums, v, stride, path, beside, c, t, work, worth, keep):
    """Answer of a line slot by slot: ``PhaseSlots.answers``. work (4, slots·16)."""
    digits, slots = t.recharge.shape
    still, drop, lift, seen = work[0], work[1], work[2], work[3]
    for s in range(slots):
        current, _, fallen, above = line_of(load(path, s * 16) if s < digits - 1 else fill(_none), c, t.clamp)
        store(still, s * 16, current)
        store(drop, s * 16, fallen)
        store(lift, s * 16, above)
        drawn = load(sums.drawn, s * stride + v) + load(sums.drawn_tilt, s * stride + v) * beside
        store(seen, s * 16, current + drawn)
    for d in range(1, digits):
        fallen, before = load(drop, d * 16), load(drop, (d - 1) * 16)
        ending = load(sums.busy, (d - 1) * stride + v)
        if d < digits - 1:
            ending = ending - load(sums.busy, d * stride + v)
        each = ((fallen * c.back_square + c.back) * fallen + load(lift, d * 16) * c.end_clamp) * ending
        for s in range(d, slots):
            store(seen, s * 16, load(seen, s * 16) + each * t.recharge[d, s])
        store(seen, d * 16, load(seen, d * 16) + (before * c.push_square + c.push) * before * ending)
    earlier = load(lift, (slots - 1) * 16) - load(drop, (slots - 1) * 16) * (_one - c.share)
    for s in range(slots):
        volts = load(lift, s * 16) - load(drop, s * 16) * (_one - c.share)
        idle = fill(c.rows)
        if s < digits - 1:
            idle = idle - load(sums.busy, s * stride + v)
        now = load(seen, s * 16) + (volts - earlier) * (idle * c.node + c.line * c.rows)
        if s:
            now = now - (load(still, s * 16) - load(still, (s - 1) * 16)) * c.fall
        else:
            fallen = load(drop, 0)
            begin = (fallen * c.start_square + c.start_drop) * fallen * load(sums.busy, v)
            now = now + (c.idle_ua - load(still, 0)) * c.rise + begin
        store(seen, s * 16, now)
        earlier = volts
    settle(still, seen, slots, t.settling)
    return rates(seen, slots, c, t.rate, worth, keep)


@numba.njit(**_options)
def bin_points(sums, v, stride, path, cell, c, t, k, mean_at, work, at):
    """A line in a bin: its answer and its part of ``on_slope``; rate, bend, extra, drop, lift and ended into work (6, bins·16).

    k: number of the line; mean_at (bins, 3·16): currents at the bin's points and drop of line 1, by which line 3 departs.
    """
    digits = t.f.shape[0]
    n, ramp = fill(_none), fill(_none)
    for d in range(1, digits):
        left = load(path, (d - 1) * 16)
        if d < digits - 1:
            left = left - load(path, d * 16)
        n, ramp = n + left * t.f[d, at], ramp + left * t.ramp[d, at]
    bins = t.width.shape[0]
    here = load(sums.on, at * stride + v)
    near = load(sums.on, (at - 1) * stride + v) if at else here
    ended = (near - load(sums.on, (at + 1) * stride + v)) * _half if at < bins - 1 else (near + here) * _half
    extra = ended * (cell * t.each_gain[at] + t.each_const[at])
    answer, rate, bend, moved = fill(_none), fill(_none), fill(_none), fill(_none)
    drop, lift = fill(_none), fill(_none)
    for side in range(2):
        spread = ramp * (_root3 if side else -_root3)
        current, moves, fallen, above = line_of(n + spread, c, t.clamp)
        value, first, second = curve_at(t.rate if at else t.start, current * c.per_step)
        first, second = first * c.per_step, second * (c.per_step * c.per_step)
        if k == 1:
            store(mean_at[at], side * 16, current)
        elif k == 3:
            moves = current - load(mean_at[at], side * 16)
        answer, bend = answer + value * _half, bend + second * _half
        rate, moved = rate + (first + second * extra) * _half, moved + second * moves * _half
        drop, lift = drop + fallen * _half, lift + above * _half
    shift = drop
    if k == 1:
        store(mean_at[at], 32, drop)
    elif k == 3:
        shift = drop - load(mean_at[at], 32)
    per_drop = ended * (c.end_drop + (_one - c.share) * c.node)
    if at == 0:
        per_drop = per_drop + load(sums.busy, v) * c.start_drop
    store(work[0], at * 16, rate)
    store(work[1], at * 16, bend)
    store(work[2], at * 16, extra)
    store(work[3], at * 16, drop)
    store(work[4], at * 16, lift)
    store(work[5], at * 16, ended)
    return answer * t.width[at], moved * extra * t.width[at] + rate * per_drop * shift


@numba.njit(**_options)
def bin_pulses(sums, v, stride, cell, c, t, work, worth, keep):
    """Answer of the pulses and its part per µS of a cell: ``PhaseBins.answers`` from ``force`` on."""
    bins = t.width.shape[0]
    total, gain, begin = fill(_none), fill(_none), fill(_none)
    earlier_volts, earlier_force, earlier_on = fill(c.rest_lift), fill(_none), fill(_none)
    for b in range(bins):
        of = b if b or bins == 1 else 1
        force, bend, extra = load(work[0], of * 16), load(work[1], of * 16), load(work[2], b * 16)
        drop, lift, ended = load(work[3], b * 16), load(work[4], b * 16), load(work[5], b * 16)
        if keep:
            store(worth, b * 16, force)
        gain = gain + force * load(sums.gain, b * stride + v)
        by_drop = (drop * c.end_square + c.end_drop) * drop + lift * c.end_clamp
        total = total + force * (load(sums.const, b * stride + v) + ended * by_drop)
        total = total - bend * extra * extra * (_half * t.width[b])
        begin = begin + force * t.begin[b]
        on, volts = load(sums.on, b * stride + v), lift - drop * (_one - c.share)
        idle = fill(c.rows) - ((on + earlier_on) * _half if b else on)
        weight = (force + earlier_force) * _half if b else force
        total = total + weight * (volts - earlier_volts) * (idle * c.node + c.line * c.rows)
        earlier_volts, earlier_force, earlier_on = volts, force, on
    total = total + earlier_force * (c.rest_lift - earlier_volts) * (c.rows * (c.line + c.node))
    drop = load(work[3], 0)
    total = total + begin * (drop * c.start_square + c.start_drop) * drop * load(sums.busy, v)
    return total + gain * cell, gain * cell


@numba.njit(**_options)
def rest_of(sums, v, stride, coefficients, out):
    """What the rest makes of the shares (``phase_rest.features``), along each shape: into out (·, batch) from its row 9 on."""
    n, q, before = load(sums.shares, v), load(sums.shares, stride + v), load(sums.shares, 2 * stride + v)
    for shape in range(3):
        p = coefficients[shape]
        value = n * (n * (n * p[2] + p[1]) + p[0]) + q * (q * p[4] + n * p[5] + p[3]) + before * p[6]
        store(out, (9 + shape) * stride + v, value)


@numba.njit(**_options)
def errors(sums, batch, scales, besides, c, t, coefficients, by_line, share_out, base, worth):
    """``phase_errors.vector_errors`` of ``batch`` vectors, a multiple of sixteen.

    scales, besides (4,): of the lines' conductances; by_line (12, batch), share_out, base (batch,), worth (slots + bins, batch)
    are flat.
    """
    digits, slots = t.recharge.shape
    bins, stride = t.width.shape[0], batch
    path, shared, mean_path = np.empty(slots * 16, np.float32), np.empty(slots * 16, np.float32), np.empty(slots * 16, np.float32)
    slot_work, bin_work = np.empty((4, slots * 16), np.float32), np.empty((6, bins * 16), np.float32)
    mean_at, own_worth = np.empty((bins, 48), np.float32), np.empty((slots + bins) * 16, np.float32)
    found = np.empty((4, 4 * 16), np.float32)
    for v in range(0, batch, 16):
        paths_of(sums, v, stride, digits, c, shared, mean_path)
        for k in range(4):
            for s in range(digits - 1):
                more = load(shared, s * 16) if k == 3 else fill(_none)
                store(path, s * 16, load(mean_path, s * 16) * scales[k] + more)
            store(found[0], k * 16, slot_answer(sums, v, stride, path, besides[k], c, t, slot_work, own_worth, k == 1))
        for k in range(4):
            for s in range(digits - 1):
                more = load(shared, s * 16) if k == 3 else fill(_none)
                store(path, s * 16, load(mean_path, s * 16) * scales[k] + more)
            cell = scales[k] * c.conductance_us / c.rows
            still, on_slope = fill(c.guard * c.quiet), fill(_none)
            for b in range(bins):
                answer, slope = bin_points(sums, v, stride, path, fill(cell), c, t, k, mean_at, bin_work, b)
                still, on_slope = still + answer, on_slope + slope
            store(found[1], k * 16, still)
            if k < 3:
                pulses, gain = bin_pulses(sums, v, stride, cell, c, t, bin_work, own_worth[slots * 16 :], k == 1)
                store(found[2], k * 16, pulses)
                on_slope = on_slope + gain
            store(found[3], k * 16, on_slope)
        along = load(found[1], 48) - load(found[1], 16) + load(found[3], 48)
        share = (along - load(found[0], 48) + load(found[0], 16)) / high(along, fill(_tiny))
        rest = _one - share
        mean, tilt = fill(_none), fill(_none)
        for j in range(slots + bins):
            each = load(own_worth, j * 16)
            if j >= slots:
                each = each * rest
            store(worth, j * stride + v, each)
            mean = mean + each * load(sums.own, j * stride + v)
            tilt = tilt + each * load(sums.own_tilt, j * stride + v)
        for k in range(3):
            own = mean + tilt * besides[k]
            store(by_line, k * stride + v, load(found[1], k * 16) * rest + own - load(found[0], k * 16))
            store(by_line, (3 + k) * stride + v, load(found[2], k * 16) * rest)
            store(by_line, (6 + k) * stride + v, load(found[3], k * 16) * rest)
        rest_of(sums, v, stride, coefficients, by_line)
        store(share_out, v, share)
        store(base, v, mean + share * c.offset)
