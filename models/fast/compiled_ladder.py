"""The mean column's ladder at one Gauss point of a bin, compiled: currents of the column and of its multiples.

The plain twin is ``mean_ladder``. ``point`` is ``Workspace.point``; segment 0 is the far one, the read-out is behind the last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba

from aimcard.models.fast.compiled_workspace import (
    ACROSS,
    CELL_V,
    CONDUCTANCE,
    DROP,
    FAR,
    IDLE,
    INNER,
    LOADED,
    MEAN_CELL_V,
    MEAN_RETURN_V,
    NEAR,
    NUMBER,
    RETURN_V,
    RISE,
    SEGMENT,
)
from aimcard.models.fast.jit import HALF, ONE, PASS, SIXTEENTH, SIXTH, STEP, THIRD, TINY, ZERO
from aimcard.models.fast.lanes import curve_at, fill, high, load, low, store

#: Times the cells are expanded again about the voltages found.
PASSES = 2


class Solved(NamedTuple):
    """The column at the read-out, of each vector: clamp [V], current [µA], admittance [µS] and the clamp's slope [V/µA]."""

    clamp: Any
    current: Any
    admittance: Any
    slope: Any


@numba.njit(**STEP)
def fade(a):
    """exp(−a) for a of order one: (1 − b + b²/2)^16 with b = a/16, within a³/1500."""
    b = a * SIXTEENTH
    q = ONE - b + b * b * HALF
    q = q * q
    q = q * q
    q = q * q
    return q * q


@numba.njit(**STEP)
def resist_inside(point, column):
    """Resistance by which a segment's cells load each other beyond their centroid's: −r·rows/6·(1 − 1/cells)."""
    one = fill(ONE)
    for s in range(len(column.lengths)):
        at = s * SEGMENT
        share = low(column.spread[s] / high(load(point, at + NUMBER), fill(TINY)), one)
        store(point, at + INNER, (share - one) * (column.r * column.lengths[s] * SIXTH))


@numba.njit(**STEP)
def load_cells(point, scale, column, cell, group):
    """Conductances, ``scale`` times the given ones, at the cells' voltages (apparent weight)."""
    one, v0 = fill(ONE), fill(cell.v0)
    for s in range(len(column.lengths)):
        at = s * SEGMENT
        back, v = load(point, at + RETURN_V), load(point, at + CELL_V)
        fall = one - back * group.source[s] / (one - back * cell.k_source) - (v - v0) * group.drain[s]
        conductance = load(point, at + CONDUCTANCE) * scale * fall
        store(point, at + LOADED, conductance / (one + load(point, at + INNER) * conductance))


@numba.njit(**STEP)
def leak(point, column, cell):
    """Gate currents, which lift the return line, and idle cells' sub-threshold currents, less what that lift takes away."""
    size, r = len(column.lengths), column.r
    v0, drop, lift = fill(cell.v0), fill(ZERO), fill(ZERO)
    for s in range(size):
        at = s * SEGMENT
        # What gates push into the return line lifts it: towards the far end all of it, here a third.
        gates = load(point, at + NUMBER) * cell.gate * fade(load(point, at + RETURN_V) * cell.gate_source)
        reach = column.share * r * column.lengths[s]
        store(point, at + RISE, (drop * HALF + gates * THIRD) * reach)
        store(point, at + ACROSS, (drop + gates * HALF) * reach)
        drop = drop + gates
    for s in range(size - 1, -1, -1):
        at = s * SEGMENT
        rise = load(point, at + RISE) + lift
        store(point, at + RISE, rise)
        lift = lift + load(point, at + ACROSS)
        back = load(point, at + RETURN_V)
        bit = load(point, at + CELL_V) + back - v0
        each = fade(back * cell.leak_source - bit * cell.leak_drain) * cell.leak
        idle = (column.lengths[s] - load(point, at + NUMBER)) * column.weight[s] * each
        store(point, at + IDLE, idle - load(point, at + LOADED) * rise)


@numba.njit(**STEP)
def look_inward(point, size):
    """Admittance and short-circuit current that the read-out sees, from the far end on."""
    one, admittance, injected = fill(ONE), fill(ZERO), fill(ZERO)
    for s in range(size):
        at = s * SEGMENT
        part = one / (one + load(point, at + FAR) * admittance)
        y, j = admittance * part + load(point, at + LOADED), injected * part + load(point, at + IDLE)
        part = one / (one + load(point, at + NEAR) * y)
        admittance, injected = y * part, j * part
    return admittance, injected


@numba.njit(**STEP)
def close_loop(current, admittance, injected, read_out):
    """One step of Newton's method for the current I = Y·V(I) + J that the regulator settles at."""
    one = fill(ONE)
    v, slope, _ = curve_at(read_out.clamp, current * read_out.per_ua)
    return current - (current - admittance * v - injected) / (one - admittance * slope * read_out.per_ua)


@numba.njit(**STEP)
def look_outward(point, clamp, current, column):
    """Drops and voltages along the line, from the read-out on."""
    drop = fill(ZERO)
    for s in range(len(column.lengths) - 1, -1, -1):
        at = s * SEGMENT
        here = drop + load(point, at + NEAR) * current
        store(point, at + DROP, here)
        current = current - load(point, at + LOADED) * (clamp - here) - load(point, at + IDLE)
        drop = here + load(point, at + FAR) * current
        rise = load(point, at + RISE)
        store(point, at + CELL_V, clamp - here - rise)
        store(point, at + RETURN_V, here * column.share + rise)


@numba.njit(**PASS)
def solve_column(point, column, cell, read_out, group):
    """The ladder with what loads it ("Method", step 2), expanded about the voltages of an idle line, then about those found.

    Given are the rows CONDUCTANCE to FAR of ``point``; all others but the last two are found.
    """
    size = len(column.lengths)
    zero, v0 = fill(ZERO), fill(cell.v0)
    for s in range(size):
        at = s * SEGMENT
        store(point, at + CELL_V, v0)
        store(point, at + RETURN_V, zero)
        store(point, at + RISE, zero)
        store(point, at + IDLE, zero)
    resist_inside(point, column)
    clamp, current, admittance, slope = v0, zero, zero, zero
    for turn in range(PASSES):
        load_cells(point, ONE, column, cell, group)
        if cell.leaks:
            leak(point, column, cell)
        admittance, injected = look_inward(point, size)
        if turn == 0 or not read_out.regulated:
            current = admittance * v0 + injected
        if read_out.regulated:
            for _ in range(2 if turn == 0 else 1):
                current = close_loop(current, admittance, injected, read_out)
            clamp, slope, _ = curve_at(read_out.clamp, current * read_out.per_ua)
            slope = slope * read_out.per_ua
        look_outward(point, clamp, current, column)
    return Solved(clamp, current, admittance, slope)


@numba.njit(**STEP)
def keep_voltages(point, size):
    """Keep those of the column just solved: its multiples start from them."""
    for s in range(size):
        at = s * SEGMENT
        store(point, at + MEAN_CELL_V, load(point, at + CELL_V))
        store(point, at + MEAN_RETURN_V, load(point, at + RETURN_V))


@numba.njit(**PASS)
def solve_multiple(point, scale, column, cell, read_out, group):
    """Current of ``scale`` times the column ("Method", step 5): one pass, from voltages guessed from the column's own.

    Its rows RISE and IDLE, and INNER, must be there from ``solve_column``.
    """
    one, v0 = fill(ONE), fill(cell.v0)
    for s in range(len(column.lengths)):
        at = s * SEGMENT
        # A line that loads its own wire drops less than in proportion.
        fall = v0 - load(point, at + MEAN_CELL_V)
        more = fill(scale) / (one + fall * ((scale - ONE) / cell.v0))
        store(point, at + CELL_V, v0 - fall * more)
        store(point, at + RETURN_V, load(point, at + MEAN_RETURN_V) * more)
    load_cells(point, scale, column, cell, group)
    if cell.leaks:
        leak(point, column, cell)
    admittance, injected = look_inward(point, len(column.lengths))
    current = admittance * v0 + injected
    if read_out.regulated:
        current = close_loop(current, admittance, injected, read_out)
    return current
