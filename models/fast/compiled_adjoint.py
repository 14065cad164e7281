"""What a departure of a row adds to the answer at one Gauss point, compiled: the solved ladder's adjoint.

The plain twin is ``mean_ladder.solve_fields``.
"""

from __future__ import annotations

import numba

from aimcard.models.fast.compiled_workspace import CELL_V, CONDUCTANCE, DROP, FAR, INNER, LOADED, NEAR, RETURN_V, SEGMENT
from aimcard.models.fast.jit import HALF, LANES, ONE, PASS, STEP, ZERO
from aimcard.models.fast.lanes import fill, high, load, store


@numba.njit(**STEP)
def draw_of_ends(point, ends, q, bins, size, loop):
    """Current at the read-out by which the ends of the pulses act on the adjoint, drawn at each segment."""
    one, admittance, drawn = fill(ONE), fill(ZERO), fill(ZERO)
    for s in range(size):
        at = s * SEGMENT
        part = one / (one + load(point, at + FAR) * admittance)
        y = admittance * part + load(point, at + LOADED)
        j = drawn * part - load(ends, (s * bins + q) * LANES) / loop
        part = one / (one + load(point, at + NEAR) * y)
        admittance, drawn = y * part, j * part
    return drawn


@numba.njit(**STEP)
def bend_by_mean(fields, p, size, bend, loop, move):
    """Adds to z what the rate's bend makes of the whole column's move: of either sign to ``signed``, always more to ``z``."""
    for s in range(size):
        at = (p * size + s) * LANES
        z = load(fields.z, at)
        bent = bend * HALF * loop * load(fields.signed, at) * move * loop
        store(fields.signed, at, z - bent)
        store(fields.z, at, z + high(bent, fill(ZERO) - bent))


@numba.njit(**PASS)
def weigh_departures(point, p, bins, solved, rate, bend, column, cell, pulse, read_out, ends, fields):
    """Fields of point p of two in each of ``bins`` from its solved ladder ("Method", steps 3 and 4).

    rate, bend: the answer's derivatives to the current; ends (segments, bins): as ``Sums.ends``. With a(t) the current that a
    unit drawn at a segment takes from the read-out, y = rate·a·v; z is y's share by the drop, and by the rate's bend.
    """
    size, q, r, slope = len(column.lengths), p // 2, column.r, solved.slope
    one, v0 = fill(ONE), fill(cell.v0)
    loop = one / (one - solved.admittance * slope)
    drawn = draw_of_ends(point, ends, q, bins, size, loop) if pulse.counted else fill(ZERO)
    unit, flow, drop, place, move = solved.admittance + drawn, solved.current, fill(ZERO), fill(ZERO), fill(ZERO)
    gain = rate * loop
    for s in range(size - 1, -1, -1):
        at, to = s * SEGMENT, (p * size + s) * LANES
        here = place + r * column.lengths[s] * HALF
        place = place + r * column.lengths[s]
        g, loaded = load(point, at + CONDUCTANCE), load(point, at + LOADED)
        v, back = load(point, at + CELL_V), load(point, at + RETURN_V)
        fall = drop + load(point, at + NEAR) * unit
        a = one - fall
        unit_far, flow_far = unit - loaded * a, flow - loaded * v
        if pulse.counted:
            unit_far = unit_far + load(ends, (s * bins + q) * LANES) / loop
        tilt_a, tilt_v = (unit_far + unit) * (-r * HALF), (flow_far + flow) * (-r * HALF)
        unit, flow = unit_far, flow_far
        drop = fall + load(point, at + FAR) * unit
        law = one - back * cell.d_source / (one - back * cell.k_source) - (v - v0) * cell.d_drain
        self_loaded = one + load(point, at + INNER) * g
        spread = law / (self_loaded * self_loaded)
        first = a * spread * v
        y = gain * first
        move = move + first * g
        store(fields.y, to, y)
        store(fields.tilt, to, gain * spread * (a * tilt_v + v * tilt_a))
        store(fields.z, to, y * (load(point, at + DROP) - slope * solved.current) / v0)
        # Kept until the sum over the segments is known.
        store(fields.signed, to, first)
        # The resistance that a cell sees between its node and the clamp.
        seen = here * a - slope
        store(fields.own, to, y * first / v0 * seen - bend * HALF * loop * loop * first * first)
    if read_out.curved:
        bend_by_mean(fields, p, size, bend, loop, move)
    else:
        for s in range(size):
            at = (p * size + s) * LANES
            store(fields.signed, at, load(fields.z, at))
