"""``meanfield.prepare`` compiled with numba: the same steps, sixteen input vectors at a time, in the processor's first cache.

Sums over rows, ladder and squares run with sixteen vectors side by side (``lanes``), the weights of the rows with sixteen rows of
one vector. numba keeps what it compiled by the date of this file: after a change of another one that it calls, delete
``__pycache__/*.nb?``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba

from aimcard.models.fast.compiled_adjoint import weigh_departures
from aimcard.models.fast.compiled_ladder import keep_voltages, solve_column, solve_multiple
from aimcard.models.fast.compiled_pulses import charge_of_segment, draw_pulses, force_at_edges, own_rate
from aimcard.models.fast.compiled_rows import place_charges, read_codes, sum_rows, write_rows
from aimcard.models.fast.compiled_squares import square_group
from aimcard.models.fast.compiled_workspace import (
    ANSWERS,
    BASE,
    CONDUCTANCE,
    DROP,
    ENDED,
    FAR,
    NEAR,
    NUMBER,
    SEGMENT,
    make_workspace,
)  # fmt: skip
from aimcard.models.fast.jit import HALF, LANES, ONE, PASS, ROOT3, STEP, WHOLE, ZERO
from aimcard.models.fast.lanes import curve_at, fill, high, load, store


class Answer(NamedTuple):
    """Answer per LSB at a point, of each vector, and its two derivatives to the current."""

    value: Any
    rate: Any
    bend: Any


@numba.njit(**STEP)
def answer_at(current, p, read_out):
    """Of a current at point p; the first two points are the first slot."""
    if read_out.curved:
        if p < 2:
            value, first, second = curve_at(read_out.start, current * read_out.per_ua)
        else:
            value, first, second = curve_at(read_out.rate, current * read_out.per_ua)
        return Answer(value, first * read_out.per_ua, second * (read_out.per_ua * read_out.per_ua))
    gain = fill(read_out.start_gain) if p < 2 else fill(ONE)
    return Answer(gain * current, gain, fill(ZERO))


@numba.njit(**PASS)
def scale_group(group, column, bins, sums, own):
    """The sums from the group's before to this one's, and its laws: a line of larger cells falls more with its voltages, and its
    variance is told against the first group's."""
    scale = column.scales[group]
    more = scale / column.scales[group - 1] if group > 0 else scale
    for s in range(len(column.lengths)):
        own.source[s], own.drain[s] = column.source[s] * scale, column.drain[s] * scale
        own.ratio[s] = column.ratio[s] / scale
        if group > 0:
            store(sums.g_started, s * LANES, load(sums.g_started, s * LANES) * more)
            for q in range(len(bins.width)):
                at = (s * len(bins.width) + q) * LANES
                store(sums.conduct, at, load(sums.conduct, at) * more)
                store(sums.moment, at, load(sums.moment, at) * more)
                store(sums.ramp, at, load(sums.ramp, at) * more)


@numba.njit(**STEP)
def give_point(point, p, column, bins, sums):
    """What loads the ladder at point p: the conductance's straight line in time at one of its bin's Gauss points. Returns the
    whole column's."""
    t = ROOT3 if p % 2 else -ROOT3
    whole = fill(ZERO)
    for s in range(len(column.lengths)):
        at, to = (s * bins + p // 2) * LANES, s * SEGMENT
        here, near = load(sums.conduct, at) + load(sums.ramp, at) * t, load(sums.near, at)
        whole = whole + here
        store(point, to + CONDUCTANCE, here)
        store(point, to + NUMBER, high(load(sums.n, at) + load(sums.n_ramp, at) * t, fill(ZERO)))
        store(point, to + NEAR, near)
        store(point, to + FAR, fill(column.r * column.lengths[s]) - near)
    return whole


@numba.njit(**PASS)
def answer_multiples(p, part, answer, whole, width, column, cell, read_out, work):
    """Adds point p to part's answers of the mean column and its multiples, the ideal product left out."""
    at = part * ANSWERS * LANES
    keep_voltages(work.point, len(column.lengths))
    store(work.parts.answers, at, load(work.parts.answers, at) + answer)
    for j in range(len(column.multiples)):
        scale = column.multiples[j]
        current = solve_multiple(work.point, scale, column, cell, read_out, work.group)
        more = (answer_at(current, p, read_out).value - whole * (read_out.ideal * scale)) * (HALF * width)
        at = (part * ANSWERS + j + 1) * LANES
        store(work.parts.answers, at, load(work.parts.answers, at) + more)


@numba.njit(**PASS)
def solve_bins(multiples, column, bins, cell, pulse, read_out, work):
    """The ladder and its adjoint at both Gauss points of every bin: fills fields and course, and with ``multiples`` the parts'
    answers. Returns the column's answer, the ideal product left out, and what no code changes."""
    zero, v0, count, size, course = fill(ZERO), fill(cell.v0), len(bins.width), len(column.lengths), work.course
    total, part = fill(read_out.rest), 0
    work.parts.answers[:] = ZERO
    for q in range(count):
        if part + 2 < len(bins.cuts) and q >= bins.cuts[part + 1]:
            part += 1
        force, lift, bend = zero, zero, zero
        for p in range(2 * q, 2 * q + 2):
            whole = give_point(work.point, p, column, count, work.sums)
            solved = solve_column(work.point, column, cell, read_out, work.group)
            answer = answer_at(solved.current, p, read_out)
            rate = answer.rate + answer.bend * load(course.extra, q * LANES)
            weigh_departures(work.point, p, count, solved, rate, answer.bend, column, cell, pulse, read_out, work.sums.ends,
                             work.fields)  # fmt: skip
            force, lift, bend = force + rate * HALF, lift + (solved.clamp - v0) * HALF, bend + answer.bend * HALF
            for s in range(size):
                at, drop = (s * count + q) * LANES, load(work.point, s * SEGMENT + DROP) * HALF
                store(course.drop, at, drop if p % 2 == 0 else load(course.drop, at) + drop)
            value = (answer.value - whole * read_out.ideal) * (HALF * bins.width[q])
            total = total + value
            if multiples:
                answer_multiples(p, part, value, whole, bins.width[q], column, cell, read_out, work)
        store(course.force, q * LANES, force)
        store(course.lift, q * LANES, lift)
        store(course.bend, q * LANES, bend)
    return total


@numba.njit(**PASS)
def weigh_bins(total, begun, s, column, bins, pulse, read_out, work):
    """Weights of y by f, place and f² − f in segment s, from fields and pulses; takes off ``total`` what they are on the mean
    column, so that it becomes the base of the product Σ W·y. ``begun``: weight of a row that has a pulse."""
    sums, fields, course, weights = work.sums, work.fields, work.course, work.weights
    size, count, r = len(column.lengths), len(bins.width), column.r
    total = total - begun * load(sums.g_started, s * LANES)
    for q in range(count):
        at, low_point = (s * count + q) * LANES, (2 * q * size + s) * LANES
        high_point, wide = low_point + size * LANES, HALF * bins.width[q]
        by_place = (load(fields.tilt, low_point) + load(fields.tilt, high_point)) * wide
        y0, y1 = load(fields.y, low_point), load(fields.y, high_point)
        by_full = ((y0 - read_out.ideal) + (y1 - read_out.ideal)) * wide
        if r > ZERO:
            by_full = by_full - load(sums.near, at) / r * by_place
        by_ramp = (y1 - y0) * (ROOT3 * wide)
        if pulse.counted:
            last, first = load(course.at_edge, q * LANES + LANES), load(course.at_edge, q * LANES)
            by_full = by_full + last * pulse.end_gain[q + 1] - first * pulse.end_gain[q]
            by_ramp = by_ramp + load(course.force, q * LANES) * pulse.bow_gain[q]
        total = total - (by_full * load(sums.conduct, at) + by_place * load(sums.moment, at) + by_ramp * load(sums.ramp, at))
        store(weights.y_full, at, by_full)
        store(weights.y_place, at, by_place)
        store(weights.y_ramp, at, by_ramp)
    return total


@numba.njit(**PASS)
def weigh_group(total, column, bins, pulse, read_out, work):
    """Weights of y in all segments, and behind the rows the product's base and the force of the pulses' ends."""
    begun, forces, course = fill(ZERO), fill(ZERO), work.course
    if pulse.counted:
        begin, edge = load(course.at_edge, (len(bins.width) + 1) * LANES), load(course.at_edge, 0)
        begun = begin * pulse.start_gain + edge * pulse.end_gain[0]
        total = own_rate(total, bins, course)
    store(work.weights.begun, 0, begun)
    for s in range(len(column.lengths)):
        if pulse.counted:
            total, forces = charge_of_segment(total, forces, s, column, bins, pulse, read_out, work.sums, course)
        total = weigh_bins(total, begun, s, column, bins, pulse, read_out, work)
    store(work.behind, BASE, total)
    store(work.behind, ENDED, forces)


@numba.njit(**PASS)
def prepare_block(first, x, column, bins, cell, pulse, read_out, work, out):
    """The vectors from ``first`` on, as many as go side by side."""
    count = min(LANES, x.shape[0] - first)
    read_codes(x, first, count, column, work.rows)
    sum_rows(work.rows.across, column, bins, work.sums)
    place_charges(work.sums, column, bins, pulse)
    for group in range(len(column.scales)):
        scale_group(group, column, bins, work.sums, work.group)
        draw_pulses(column.scales[group], column, bins, pulse, work.sums, work.course)
        multiples = group == 0 and out.z.shape[0] > 0 and column.reach > ZERO
        total = solve_bins(multiples, column, bins, cell, pulse, read_out, work)
        force_at_edges(bins, work.course)
        weigh_group(total, column, bins, pulse, read_out, work)
        square_group(group, first, count, column, bins, work, out)
        for lane in range(count):
            write_rows(x, first + lane, lane, group, column, bins, read_out.ideal, work, out)


@numba.njit(**WHOLE, cache=True)
def prepare(x, column, bins, cell, pulse, read_out, out):
    """Fill ``out`` (``compiled.Outputs``) for codes x (batch, rows) of a reference, the parts of ``CompiledReference``."""
    work = make_workspace(column, bins, out.z.shape[0])
    for first in range(0, x.shape[0], LANES):
        prepare_block(first, x, column, bins, cell, pulse, read_out, work, out)
