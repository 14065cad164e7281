"""From the ladder's fields to weights of the bins in one pass (Triton): what ``meanfield.prepare`` does between ladder and rows.

A program has some vectors and all bins of one group, a tile (vectors, bins); sums over segments are carried, sums over bins stay
within it. What belongs to a part of the window is held in each of the part's bins.
"""

# Triton compiles these functions, of its own types; Python never calls them.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportMissingImports=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from aimcard.models.fast.fused_ladder import ROOT3
from aimcard.models.fast.fused_points import charge_of, ended_in

#: Numbers, vectors × bins, of a program.
NUMBERS = 64
TINY = tl.constexpr(1e-20)


@triton.jit
def line_of(values, at, points, mask):
    """Mean over a bin and slope across it, of values at its Gauss points, ``points`` apart."""
    first, last = tl.load(values + at, mask=mask, other=0.0), tl.load(values + at + points, mask=mask, other=0.0)
    return (first + last) / 2, ROOT3 * (last - first)


@triton.jit
def over(values, weights):
    """Σ over p of values (vectors, p) · weights (q, p)."""
    return tl.sum(values[:, None, :] * weights[None, :, :], 2)


@triton.jit
def at_edges(force, window, col, q, bins):
    """Forces at the begin and the end of each bin, when the pulses that end there draw their charge, at the first edge and at the
    pulses' begin."""
    place, inner = q[:, None] * bins + q[None, :], (q < bins)[:, None] & (q < bins)[None, :]
    low = over(force, tl.load(window.times + place, mask=inner, other=0.0))
    high = over(force, tl.load(window.times + bins + place, mask=inner, other=0.0))
    first = tl.sum(force * tl.load(window.times + col), 1)
    return low, high, first, tl.sum(force * tl.load(window.times + (bins + 1) * bins + col), 1)


@triton.jit
def stored(tile, length, n, drop, lift, force, before, pulse, share):
    """What a segment's wire and idle cells store as the bit line's voltage moves; none is left, but the rate changes meanwhile.

    before: number, drop, lift and force in the bin before.
    """
    col, bins, mask = tile
    n_before, drop_before, lift_before, force_before = before
    volts = lift - (1 - share) * drop
    rise = volts - tl.where(col > 0, lift_before - (1 - share) * drop_before, pulse.lifted)
    idle = length - tl.where(col > 0, (n + n_before) / 2, n)
    moves = tl.where(col > 0, (force + force_before) / 2, force) * rise * (pulse.line * length + pulse.node * idle)
    back = tl.where(col == bins - 1, force * (pulse.lifted - volts), 0.0) * (pulse.line + pulse.node) * length
    return tl.where(mask, moves + back, 0.0)


@triton.jit
def parts_of(size_z, signed, spare, lost, same):
    """Strength, sign and scale of the parts' squares, and what these leave, from sums over the segments in each bin."""
    size_z, strength = over(size_z, same), over(signed, same)
    some = size_z > 0
    sign = tl.where(some, tl.where(strength >= 0, 1.0, -1.0), 0.0)
    # The form may be weaker than its probe where its parts differ in sign: that goes into the scale.
    scale = tl.where(some, tl.sqrt(tl.maximum(tl.abs(strength), 1e-30)) / tl.where(some, size_z, 1.0), 0.0)
    strength = tl.where(some, strength, 0.0)
    return strength, tl.where(strength == 0, 0.0, sign), scale, spare - sign * scale * scale * lost


@triton.jit
def course(solved, at, mask, count, groups, cases, h):
    """Coefficients of e², e³ and e⁴ of each bin's answer, for 1 + e times the first group's middle column: ``_course`` of
    ``meanfield``."""
    still, _slope = line_of(solved.answer, at, cases * count, mask)
    more = solved.answer + groups * count + at
    up, _slope = line_of(more, 0, cases * count, mask)
    down, _slope = line_of(more, count, cases * count, mask)
    far_up, _slope = line_of(more, 2 * count, cases * count, mask)
    far_down, _slope = line_of(more, 3 * count, cases * count, mask)
    # Both halves of a bin count.
    wide, narrow = 2 * (far_up + far_down - 2 * still), 2 * (up + down - 2 * still)
    second = (16 * narrow - wide) / (6 * h * h)
    third = 2 * ((far_up - far_down) - 2 * (up - down)) / (1.5 * h * h * h)
    return second, third, (wide - 4 * narrow) / (1.5 * h * h * h * h)


@triton.jit
def pulses_in(sums, drops, on_line, at, tile, s, line_points, plane, segments, ended, forces, lifts, pulse, share):
    """What a segment's pulses add bin by bin beside their charge at full voltage, and the segment's drop."""
    force, force_before = forces
    lift, lift_before = lifts
    later = tile[2] & (tile[0] > 0)
    n = tl.load(sums + 2 * plane + on_line, mask=tile[2], other=0.0)
    n_before = tl.load(sums + 2 * plane + on_line - 1, mask=later, other=0.0)
    drop, _slope = line_of(drops, at, line_points, tile[2])
    drop_before, _slope = line_of(drops, at - 1, line_points, later)
    each = force * ended * ((pulse.end_drop + pulse.end_square * drop) * drop + pulse.end_clamp * lift)
    before = (n_before, drop_before, lift_before, force_before)
    return each + stored(tile, tl.load(segments.lengths + s), n, drop, lift, force, before, pulse, share), drop


@triton.jit
def squares_in(fields, of_group, at, points, mask, width, conduct, ramp, ratio, earlier):
    """A segment's z by f and f² − f, and what it adds in each bin to the probe, the square's strength, the diagonal of the form
    and what the square takes of that."""
    z_mean, z_slope = line_of(fields + 4 * points + of_group, at, points, mask)
    own_mean, own_slope = line_of(fields + 8 * points + of_group, at, points, mask)
    z_mean, z_slope = width * z_mean, width * z_slope / 2
    probe = z_mean * conduct + z_slope * ramp
    spare = width * (own_mean * conduct + own_slope * ramp / 2) * ratio
    lost = z_mean * (z_mean * (conduct + ramp) + 2 * over(z_mean, earlier) * conduct) * ratio
    return z_mean, z_slope, probe, strength_in(fields, of_group, at, points, mask, width, conduct, ramp), spare, lost


@triton.jit
def strength_in(fields, of_group, at, points, mask, width, conduct, ramp):
    """What a segment adds in each bin to the square's strength, of either sign."""
    mean, slope = line_of(fields + 6 * points + of_group, at, points, mask)
    return width * (mean * conduct + slope * ramp / 2)


@triton.jit
def bends_of(solved, at, mask, same, opens, count, groups, cases, multiples, scale, strength, sign, strong):
    """The columns r_2 and r_4 behind y, the bias' growth, and the squares' cubic: the mean column's multiples, about the group's
    middle one."""
    second, third, fourth = course(solved, at, mask, count, groups, cases, multiples)
    whole, off = tl.sum(tl.where(opens, strength, 0.0), 1), scale - 1
    third_here = scale * scale * scale * (third + 4 * off * fourth)
    rest = whole + scale * scale * tl.sum(second + 3 * off * third + 6 * off * off * fourth, 1)
    growth = tl.minimum(tl.maximum(-3 * tl.sum(third_here, 1) / tl.maximum(whole, TINY), -3.0), 3.0)
    # Third order above the second is rounding.
    cubic = sign * tl.minimum(tl.maximum(-over(third_here, same) / strong, -1.0), 1.0) / tl.sqrt(strong)
    return rest, scale * scale * scale * scale * tl.sum(fourth, 1), growth, cubic


@triton.jit
def weigh_bins(sums, solved, by_bin, y, squares, segments, window, cases, wire, pulse, sizes, multiples, EXTRA: tl.constexpr,
               SEGMENTS: tl.constexpr, BINS: tl.constexpr, VECTORS: tl.constexpr, SQUARES: tl.constexpr, PULSES: tl.constexpr,
               BENT: tl.constexpr):  # fmt: skip
    """``ByBin`` and ``Squares`` of one group and some vectors, and the columns behind the rows of y (groups, batch,
    rows + EXTRA), as ``meanfield.Prepared`` has them.

    multiples: at this and half of this from the first group's middle column, in parts of it, the ladder was solved again.
    """
    vector, group, q = tl.program_id(0) * VECTORS + tl.arange(0, VECTORS), tl.program_id(1), tl.arange(0, BINS)
    batch, bins, groups = sizes.batch, sizes.bins, sizes.groups
    here, count = vector < batch, batch * bins
    mask, col = here[:, None] & (q < bins)[None, :], tl.minimum(q, bins - 1)[None, :]
    at, tile = vector[:, None] * bins + col, (col, bins, mask)
    plane, points, line_points = SEGMENTS * count, SEGMENTS * groups * count, SEGMENTS * sizes.cases * count
    scale, width = tl.load(cases.scale + group), tl.load(window.width + col)
    # The first slot's rate is that of another curve: the next bin's stands for it.
    beside = at + tl.where((col == 0) & (bins > 1), 1, 0)
    clamp = solved.clamp + group * count
    force, _slope = line_of(clamp, beside, groups * count, mask)
    bend, _slope = line_of(clamp + 2 * groups * count, beside, groups * count, mask)
    answer, _slope = line_of(solved.answer + group * count, at, sizes.cases * count, mask)
    base = tl.sum(2 * answer, 1) + pulse.rest
    low, high, first, begin = force * 0.0, force * 0.0, base * 0.0, base * 0.0
    forces, lifts = (force, force), (force, force)
    if PULSES:
        low, high, first, begin = at_edges(force, window, col, q, bins)
        lift, _slope = line_of(clamp + 4 * groups * count, at, groups * count, mask)
        lift_before, _slope = line_of(clamp + 4 * groups * count, at - 1, groups * count, mask & (col > 0))
        before, _slope = line_of(clamp, tl.maximum(beside - 1, vector[:, None] * bins + 1), groups * count, mask & (col > 0))
        forces, lifts = (force, before), (lift, lift_before)
    # What a row that starts at all adds: the begin of its pulse, and the charge of an end at the first edge.
    of_row = begin * pulse.s_gain + first * tl.load(window.e_gain)
    tl.store(by_bin.of_row + group * batch + vector, of_row, mask=here)
    const_step = high * tl.load(window.e_const + col + 1) - low * tl.load(window.e_const + col)
    gain_step = high * tl.load(window.e_gain + col + 1) - low * tl.load(window.e_gain + col)
    c_const, c_gain = force * tl.load(window.c_const + col), force * tl.load(window.c_gain + col)
    part = tl.load(window.part + q, mask=q < bins, other=-1)
    same = part[:, None] == part[None, :]
    earlier, same = tl.where(same & (q[None, :] < q[:, None]), 1.0, 0.0), tl.where(same, 1.0, 0.0)
    each, drawn, busy = force * 0.0, force * 0.0, force * 0.0
    probe, signed, signed_first, spare, lost = each, each, each, each, each
    for s in range(SEGMENTS):
        on_line, of_group = s * count + at, (s * groups + group) * count
        conduct = tl.load(sums.by_bin + on_line, mask=mask, other=0.0) * scale
        moment = tl.load(sums.by_bin + plane + on_line, mask=mask, other=0.0) * scale
        n = tl.load(sums.by_bin + 2 * plane + on_line, mask=mask, other=0.0)
        ramp = tl.load(sums.by_bin + 3 * plane + on_line, mask=mask, other=0.0) * scale
        centre = tl.where(conduct > 0, moment / tl.maximum(conduct, 1e-30), tl.load(segments.lengths + s) / 2)
        ended = ended_in(sums.by_bin + 2 * plane, on_line, col, bins, mask)
        busy, drawn = busy + n, drawn + ended
        if PULSES:
            drops = solved.line + 8 * line_points + (s * sizes.cases + group) * count
            more, drop = pulses_in(
                sums.by_bin, drops, on_line, at, tile, s, line_points, plane, segments, ended, forces, lifts, pulse, wire.share
            )
            each += more + const_step * n + c_const * tl.load(sums.by_bin + 4 * plane + on_line, mask=mask, other=0.0)
            # A pulse's begin; the charge per µS is in the rows' weights, of which the middle column's is taken off.
            on, drop = tl.load(sums.started + s * batch + vector, mask=here, other=0.0), tl.sum(tl.where(col == 0, drop, 0.0), 1)
            base += begin * on * ((pulse.start_drop + pulse.start_square * drop) * drop + pulse.s_const)
            base += first * on * tl.load(window.e_const)
        y_mean, y_slope = line_of(solved.fields + of_group, at, points, mask)
        tilt, _slope = line_of(solved.fields + 2 * points + of_group, at, points, mask)
        by_f, by_place = width * (y_mean - wire.ideal) - centre * width * tilt, width * tilt
        by_h = width * y_slope / 2
        each -= by_f * conduct + by_place * moment + by_h * ramp
        tl.store(by_bin.y + of_group + at, by_f + gain_step, mask=mask)
        tl.store(by_bin.y + points + of_group + at, by_place, mask=mask)
        tl.store(by_bin.y + 2 * points + of_group + at, by_h + c_gain, mask=mask)
        if SQUARES > 0:
            ratio = tl.load(segments.ratio + s) / scale
            z_mean, z_slope, probes, strengths, spares, losses = squares_in(
                solved.fields, of_group, at, points, mask, width, conduct, ramp, ratio, earlier
            )
            probe, signed, spare, lost = probe + probes, signed + strengths, spare + spares, lost + losses
            signed_first += strength_in(solved.fields, s * groups * count, at, points, mask, width, conduct, ramp) / scale
            tl.store(by_bin.z + on_line, z_mean, mask=mask & (group == 0))
            tl.store(by_bin.z + plane + on_line, z_slope, mask=mask & (group == 0))
    if PULSES:
        extra = drawn * charge_of(window, col, wire.g_mean * scale) / width
        # The force is the rate's slope at the pulses' own current; their answer is the rate's rise up to there.
        each -= bend * extra * extra * width / 2
    base += tl.sum(each, 1)
    left, arched, rest, last, growth = base * 0.0, base * 0.0, base * 0.0, base * 0.0, base * 0.0
    if SQUARES > 0:
        strength, sign, z_scale, remains = parts_of(probe, signed, spare, lost, same)
        remains = tl.where(mask, remains, 0.0)
        on = over(busy * busy * width, same) / tl.maximum(over(busy * width, same), 1e-30)
        left, arched = tl.sum(remains, 1), tl.sum(remains * on, 1) / sizes.rows
        strong = tl.maximum(tl.abs(strength), TINY)
        opens, cubic = mask & (tl.sum(earlier, 1)[None, :] == 0), strength * 0.0
        if BENT:
            rest, last, growth, cubic = bends_of(
                solved, at, mask, same, opens, count, groups, sizes.cases, multiples, scale, strength, sign, strong
            )
        strong_first = tl.maximum(tl.abs(over(signed_first, same)), TINY)
        part = tl.load(window.part + col)
        to = (group * SQUARES + part) * batch + vector[:, None]
        tl.store(squares.scale + to, tl.sqrt(strong / strong_first) / scale, mask=opens)
        tl.store(squares.sign + to, sign, mask=opens)
        tl.store(squares.cubic + to, cubic, mask=opens)
        tl.store(by_bin.z_scale + part * batch + vector[:, None], z_scale, mask=opens & (group == 0))
    behind = y + (group * batch + vector) * (sizes.rows + EXTRA) + sizes.rows
    tl.store(behind, base, mask=here)
    tl.store(behind + 1, left, mask=here)
    tl.store(behind + 2, rest, mask=here)
    tl.store(behind + 3, last, mask=here)
    tl.store(behind + 4, tl.sum(force * drawn, 1), mask=here)
    tl.store(behind + 5, left * growth, mask=here)
    tl.store(behind + 6, arched, mask=here)
    tl.store(behind + 7, base * 0.0, mask=here)
