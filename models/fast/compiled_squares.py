"""The second order of a group's middle column, part by part of the window, compiled: bytes of z and what goes with them.

The plain twin is ``meanfield._squares`` and ``_course``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba

from aimcard.models.fast.compiled_workspace import ANSWERS, ARCHED, BIAS, FOURTH, LEFT, SQUARE
from aimcard.models.fast.jit import BYTE, FOUR, HALF, LANES, ONE, PASS, QUARTER, ROOT3, SIX, SIXTEEN, STEP, THREE, TINY, TWO, ZERO
from aimcard.models.fast.lanes import fill, high, load, low, root, store, where_less


class Form(NamedTuple):
    """One part's quadratic form on the middle column, of each vector: by z alone, and with signs; the largest sum of one row's z;
    what independent departures lose to the square, and what they have without it."""

    own: Any
    signed: Any
    most: Any
    lost: Any
    spare: Any


class Multiples(NamedTuple):
    """What the parts' multiples of the mean column add up to: strengths of the squares, coefficients of e², e³ and e⁴."""

    strength: Any
    rest: Any
    third: Any
    fourth: Any


@numba.njit(**STEP)
def size_of(a):
    """The absolute value."""
    return high(a, fill(ZERO) - a)


@numba.njit(**PASS)
def form_of_part(j, bins, group, size, sums, fields, weights):
    """Weights of z from its fields, and the form, of part j ("Method", step 4)."""
    zero, count = fill(ZERO), len(bins.width)
    own, signed, most, lost, spare = zero, zero, zero, zero, zero
    for s in range(size):
        sum_z, before, ratio = zero, zero, group.ratio[s]
        for q in range(bins.cuts[j], bins.cuts[j + 1]):
            at, low_point = (s * count + q) * LANES, (2 * q * size + s) * LANES
            high_point, wide = low_point + size * LANES, HALF * bins.width[q]
            conduct, ramp = load(sums.conduct, at), load(sums.ramp, at)
            z0, z1 = load(fields.z, low_point), load(fields.z, high_point)
            s0, s1 = load(fields.signed, low_point), load(fields.signed, high_point)
            o0, o1 = load(fields.own, low_point), load(fields.own, high_point)
            z_full, z_ramp = (z0 + z1) * wide, (z1 - z0) * (ROOT3 * wide)
            own = own + z_full * conduct + z_ramp * ramp
            signed = signed + ((s0 + s1) * conduct + (s1 - s0) * ramp * ROOT3) * wide
            spare = spare + ((o0 + o1) * conduct + (o1 - o0) * ramp * ROOT3) * (wide * ratio)
            lost = lost + (z_full * z_full * (conduct + ramp) + z_full * before * conduct * TWO) * ratio
            before = before + z_full
            sum_z = sum_z + size_of(z_full) + size_of(z_ramp) * QUARTER
            store(weights.z_full, at, z_full)
            store(weights.z_ramp, at, z_ramp)
        most = high(most, sum_z)
    return Form(own, signed, most, lost, spare)


@numba.njit(**PASS)
def busy_rows(j, bins, size, n):
    """Rows that conduct in part j, on average over those that do."""
    count, total, squared = len(bins.width), fill(TINY), fill(ZERO)
    for q in range(bins.cuts[j], bins.cuts[j + 1]):
        busy = fill(ZERO)
        for s in range(size):
            busy = busy + load(n, (s * count + q) * LANES)
        total, squared = total + busy * bins.width[q], squared + busy * busy * bins.width[q]
    return squared, total


@numba.njit(**PASS)
def course_of_part(j, reach, parts):
    """Coefficients of e², e³ and e⁴ of part j's answer for 1 + e times the mean column, from those at ±h/2 and ±h ("Method",
    step 5)."""
    at, square = j * ANSWERS * LANES, reach * reach
    still = load(parts.answers, at)
    up, more = load(parts.answers, at + LANES), load(parts.answers, at + 2 * LANES)
    down, less = load(parts.answers, at + 3 * LANES), load(parts.answers, at + 4 * LANES)
    wide, narrow = more + less - still * TWO, up + down - still * TWO
    store(parts.second, j * LANES, (narrow * SIXTEEN - wide) / fill(square * SIX))
    store(parts.third, j * LANES, ((more - less) - (up - down) * TWO) / fill(reach * square * (ONE + HALF)))
    store(parts.fourth, j * LANES, (wide - narrow * FOUR) / fill(square * square * (ONE + HALF)))


@numba.njit(**STEP)
def add_multiples(j, scale, signed, found, parts):
    """Part j of the multiples, about the middle column, ``scale`` times the mean one; and its own e³."""
    off = scale - ONE
    c2, c3, c4 = load(parts.second, j * LANES), load(parts.third, j * LANES), load(parts.fourth, j * LANES)
    third = (c3 + c4 * (FOUR * off)) * (scale * scale * scale)
    rest = (c2 + c3 * (THREE * off) + c4 * (SIX * off * off)) * (scale * scale)
    fourth = c4 * (scale * scale * scale * scale)
    return Multiples(found.strength + signed, found.rest + rest, found.third + third, found.fourth + fourth), third


@numba.njit(**STEP)
def byte_of_part(j, scale, first, form, strong, factor, parts):
    """What one byte of part j's z is: the first group's largest sum is 127; in others that z is as strong as their square."""
    if first:
        byte = high(form.most, fill(TINY)) / BYTE * factor
        store(parts.strength, j * LANES, strong)
        store(parts.byte, j * LANES, byte)
    else:
        byte = load(parts.byte, j * LANES) * root(strong / load(parts.strength, j * LANES)) / scale
    return byte


@numba.njit(**PASS)
def write_vectors(value, lanes, first, count, to):
    """The block's ``count`` vectors of one value into ``to`` (batch,)."""
    store(lanes, 0, value)
    for lane in range(count):
        to[first + lane] = lanes[lane]


@numba.njit(**PASS)
def scale_bytes(j, bins, size, most, byte, weights):
    """Weights of part j's z in bytes."""
    per_byte, count = fill(BYTE) / high(most, fill(TINY)), len(bins.width)
    for s in range(size):
        for q in range(bins.cuts[j], bins.cuts[j + 1]):
            at = (s * count + q) * LANES
            store(weights.z_full, at, load(weights.z_full, at) * per_byte)
            store(weights.z_ramp, at, load(weights.z_ramp, at) * per_byte)
            store(weights.byte, at, byte)


@numba.njit(**PASS)
def square_group(group, first, count, column, bins, work, out):
    """All parts' squares of a group, for the ``count`` vectors from ``first`` on, and what they leave, behind the rows."""
    zero, one, scale, size = fill(ZERO), fill(ONE), column.scales[group], len(column.lengths)
    left, arched, found = zero, zero, Multiples(zero, zero, zero, zero)
    for j in range(out.z.shape[0]):
        form = form_of_part(j, bins, work.group, size, work.sums, work.fields, work.weights)
        some = where_less(zero, form.own, one, zero)
        sign = where_less(form.signed, zero, zero - one, one) * some
        # The form may be weaker than its probe where its parts differ in sign: that goes into the scale.
        factor = root(size_of(form.signed)) / high(form.own, fill(TINY)) * some
        here = form.spare - sign * factor * factor * form.lost
        squared, busy = busy_rows(j, bins, size, work.sums.n)
        left, arched = left + here, arched + here * squared / busy
        strong = high(size_of(form.signed), fill(TINY))
        byte = byte_of_part(j, scale, group == 0, form, strong, factor, work.parts)
        cubic = zero
        if column.reach > ZERO:
            if group == 0:
                course_of_part(j, column.reach, work.parts)
            found, third = add_multiples(j, scale, form.signed, found, work.parts)
            # Third order above the second is rounding.
            cubic = low(high((zero - third) / strong, zero - one), one) / root(strong)
        write_vectors(byte, work.lanes, first, count, out.scale[group, j])
        write_vectors(sign, work.lanes, first, count, out.sign[group, j])
        write_vectors(cubic * sign, work.lanes, first, count, out.cubic[group, j])
        scale_bytes(j, bins, size, form.most, byte, work.weights)
    growth = low(high((zero - found.third) * THREE / high(found.strength, fill(TINY)), fill(-THREE)), fill(THREE))
    store(work.behind, LEFT, left)
    store(work.behind, BIAS, left * growth)
    store(work.behind, ARCHED, arched * column.per_row)
    store(work.behind, FOURTH, found.fourth)
    store(work.behind, SQUARE, found.strength + found.rest)
