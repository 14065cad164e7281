"""The pulses' own charge, compiled ("Method", step 7): what begin, end and the line's stored charge add to the answer.

The plain twin is ``meanfield._pulses``. Functions that take ``total`` add to it.
"""

from __future__ import annotations

import numba

from aimcard.models.fast.compiled_rows import ended_in
from aimcard.models.fast.jit import HALF, LANES, ONE, PASS, STEP, ZERO
from aimcard.models.fast.lanes import fill, load, store


@numba.njit(**PASS)
def draw_pulses(scale, column, bins, pulse, sums, course):
    """Current at which the pulses of a column of ``scale`` times the conductance draw their own charge in each bin."""
    const, gain = pulse.end_const, pulse.end_gain
    for q in range(len(bins.width)):
        mean = (const[q] + const[q + 1] + (gain[q] + gain[q + 1]) * column.g_mean * scale) * HALF
        store(course.extra, q * LANES, load(sums.drawn, q * LANES) * mean)


@numba.njit(**PASS)
def force_at_edges(bins, course):
    """Force at the bins' edges and at the pulses' begin, from the bins' means; the first slot's is that of another curve: the
    next bin's stands for it."""
    count = len(bins.width)
    if count > 1:
        store(course.force, 0, load(course.force, LANES))
        store(course.bend, 0, load(course.bend, LANES))
    for j in range(count + 2):
        at = fill(ZERO)
        for q in range(count):
            at = at + load(course.force, q * LANES) * bins.times[j, q]
        store(course.at_edge, j * LANES, at)


@numba.njit(**PASS)
def own_rate(total, bins, course):
    """The force is the rate's slope at the pulses' own current; their answer is the rate's rise up to there."""
    for q in range(len(bins.width)):
        extra = load(course.extra, q * LANES)
        total = total - load(course.bend, q * LANES) * extra * extra * (HALF * bins.width[q])
    return total


@numba.njit(**STEP)
def charge_of_begin(total, s, bins, pulse, sums, course):
    """Of the pulses that begin in segment s, at the drop of the first bin."""
    begin, edge = load(course.at_edge, (len(bins.width) + 1) * LANES), load(course.at_edge, 0)
    on, g_on = load(sums.started, s * LANES), load(sums.g_started, s * LANES)
    drop = load(course.drop, s * len(bins.width) * LANES)
    total = total + begin * (on * pulse.start_const + g_on * pulse.start_gain)
    total = total + edge * (on * pulse.end_const[0] + g_on * pulse.end_gain[0])
    return total + begin * on * (drop * pulse.start_square + pulse.start_drop) * drop


@numba.njit(**STEP)
def charge_of_ends(total, ended, at, q, pulse, sums, course):
    """Of the pulses that end in bin q of a segment, whose numbers are at ``at``: at full voltage by the edges' forces, the sum by
    parts, and with the drop and the clamp's lift."""
    force, drop, lift = load(course.force, q * LANES), load(course.drop, at), load(course.lift, q * LANES)
    first, last = load(course.at_edge, q * LANES), load(course.at_edge, q * LANES + LANES)
    total = total + force * ended * ((drop * pulse.end_square + pulse.end_drop) * drop + lift * pulse.end_clamp)
    total = total + (last * pulse.end_const[q + 1] - first * pulse.end_const[q]) * load(sums.n, at)
    total = total + force * pulse.bow_const[q] * load(sums.n_ramp, at)
    total = total + (last * pulse.end_gain[q + 1] - first * pulse.end_gain[q]) * load(sums.conduct, at)
    return total + force * pulse.bow_gain[q] * load(sums.ramp, at)


@numba.njit(**PASS)
def charge_of_segment(total, forces, s, column, bins, pulse, read_out, sums, course):
    """All of segment s, and ``forces`` with those of its pulses' ends.

    What wire and idle cells store goes back as the bit line does; none is left, but the rate changes meanwhile.
    """
    count, length = len(bins.width), column.lengths[s]
    total = charge_of_begin(total, s, bins, pulse, sums, course)
    volts_before = fill(read_out.idle_lift)
    for q in range(count):
        at = (s * count + q) * LANES
        ended, force = ended_in(sums.n, at, q, count), load(course.force, q * LANES)
        forces = forces + force * ended
        total = charge_of_ends(total, ended, at, q, pulse, sums, course)
        volts = load(course.lift, q * LANES) - load(course.drop, at) * (ONE - column.share)
        busy = (load(sums.n, at - LANES) + load(sums.n, at)) * HALF if q > 0 else load(sums.n, at)
        side = force if q == 0 else (load(course.force, q * LANES - LANES) + force) * HALF
        total = total + side * (volts - volts_before) * ((length - busy) * pulse.node + pulse.line * length)
        volts_before = volts
    back = (read_out.idle_lift - volts_before) * ((pulse.line + pulse.node) * length)
    return total + load(course.force, (count - 1) * LANES) * back, forces
