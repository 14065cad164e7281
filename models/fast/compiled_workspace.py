"""Memory of the compiled preparation for one block of sixteen vectors: made once, overwritten block by block.

All arrays are flat, with the block's vectors innermost: shape (segments, bins) stands for segments·bins·LANES numbers, of
which those of (s, q) begin at (s·bins + q)·LANES.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from aimcard.models.fast.jit import LANES, WHOLE
from aimcard.models.fast.meanfield import EXTRA

#: A segment's rows in ``Workspace.point``, the ladder at one Gauss point: what is given,
CONDUCTANCE, NUMBER, NEAR, FAR = (row * LANES for row in range(4))
#: what the passes over the line find: conductance at the voltages there, resistance among a segment's own cells, voltages of
#: cells and return line, drop below the clamp, rise of the return line by gate currents at the segment and across it, and what
#: the idle cells inject;
LOADED, INNER, CELL_V, RETURN_V, DROP, RISE, ACROSS, IDLE = (row * LANES for row in range(4, 12))
#: and the voltages of the mean column itself, from which its multiples start.
MEAN_CELL_V, MEAN_RETURN_V = (row * LANES for row in range(12, 14))
#: From one segment to the next.
SEGMENT = 14 * LANES

#: Rows of ``Workspace.behind``, in the order of the columns behind the rows of y.
BASE, LEFT, SQUARE, FOURTH, ENDED, BIAS, ARCHED = (row * LANES for row in range(7))

#: Places in ``Parts.answers``: of the mean column, and of its four multiples.
ANSWERS = 5


class Sums(NamedTuple):
    """Sums over the rows that conduct, (segments, bins) where nothing else is said; ``ramp`` weighs them by f² − f."""

    conduct: np.ndarray  # [µS]
    moment: np.ndarray  # times the distance in cells
    ramp: np.ndarray
    n: np.ndarray  # number
    n_ramp: np.ndarray
    near: np.ndarray  # wire between a segment's near end and its centroid [MΩ]
    ends: np.ndarray  # charge of the pulses' ends per volt of drop, per LSB
    started: np.ndarray  # (segments,) pulses that there are
    g_started: np.ndarray  # (segments,) and their conductance
    drawn: np.ndarray  # (bins,) pulses that end, per LSB


class Group(NamedTuple):
    """A group's middle column: what of ``MeanColumn`` goes with its size, (segments,) without vectors."""

    source: np.ndarray
    drain: np.ndarray
    ratio: np.ndarray


class Fields(NamedTuple):
    """What a departure adds to the answer at each Gauss point, (points, segments)."""

    y: np.ndarray  # to first order
    tilt: np.ndarray  # and its slope per row of distance
    z: np.ndarray  # to second order, where both signs are taken alike
    signed: np.ndarray  # and where they are not
    own: np.ndarray  # the quadratic form's diagonal


class Course(NamedTuple):
    """What the pulses' own charge needs to know of the solved line, means over each bin (bins,)."""

    extra: np.ndarray  # current of the pulses' own charge [µA]
    force: np.ndarray  # answer's rise with a current
    bend: np.ndarray  # and its second derivative
    lift: np.ndarray  # clamp above the read voltage [V]
    at_edge: np.ndarray  # (bins + 2,) force at the bins' edges, and at the pulses' begin
    drop: np.ndarray  # (segments, bins) below the clamp [V]


class Weights(NamedTuple):
    """Weights of the rows, by their share f of a bin, (segments, bins)."""

    y_full: np.ndarray  # of f
    y_place: np.ndarray  # of f times the distance in cells
    y_ramp: np.ndarray  # of f² − f
    z_full: np.ndarray
    z_ramp: np.ndarray
    byte: np.ndarray  # what one byte of z is
    begun: np.ndarray  # (1,) of a row that has a pulse


class Parts(NamedTuple):
    """The first group's squares, from which the others take theirs, (parts,)."""

    answers: np.ndarray  # (parts, ANSWERS) of the mean column and its multiples
    strength: np.ndarray
    byte: np.ndarray
    second: np.ndarray  # coefficients of e², e³ and e⁴ for 1 + e times the mean column
    third: np.ndarray
    fourth: np.ndarray


class RowBuffers(NamedTuple):
    """Rows of the block's vectors; padded rows are those of segments that are filled up to whole vectors of rows."""

    across: np.ndarray  # (rows · LANES,) codes, vectors innermost
    along: np.ndarray  # (LANES, padded rows) codes of one vector side by side
    y: np.ndarray  # (padded rows,)
    z: np.ndarray  # (parts, 1, padded rows) bytes
    y_rate: np.ndarray  # (padded rows,)
    z_rate: np.ndarray


class Workspace(NamedTuple):
    """All of it."""

    sums: Sums
    group: Group
    point: np.ndarray  # (segments, rows named above)
    fields: Fields
    course: Course
    weights: Weights
    parts: Parts
    rows: RowBuffers
    behind: np.ndarray  # (EXTRA,)
    lanes: np.ndarray  # (1,) on the way to places that are not side by side


@numba.njit(**WHOLE)
def make_workspace(column, bins, parts):
    """For ``parts`` squares of a reference's column and bins."""
    size, count, padded = len(column.lengths), len(bins.width), column.padded[len(column.lengths)]

    def per(numbers):
        return np.empty(numbers * LANES, np.float32)

    grid, points, some = size * count, 2 * count * size, max(parts, 1)
    sums = Sums(per(grid), per(grid), per(grid), per(grid), per(grid), per(grid), per(grid), per(size), per(size), per(count))
    group = Group(np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32))
    fields = Fields(per(points), per(points), per(points), per(points), per(points))
    course = Course(per(count), per(count), per(count), per(count), per(count + 2), per(grid))
    weights = Weights(per(grid), per(grid), per(grid), per(grid), per(grid), per(grid), per(1))
    of_parts = Parts(per(ANSWERS * some), per(some), per(some), per(some), per(some), per(some))
    rows = RowBuffers(
        per(len(column.g)), np.zeros((LANES, padded), np.float32), np.empty(padded, np.float32),
        np.empty((parts, 1, padded), np.int8), np.empty(padded, np.float32), np.empty(padded, np.float32),
    )  # fmt: skip
    behind = np.zeros(EXTRA * LANES, np.float32)
    return Workspace(sums, group, np.empty(size * SEGMENT, np.float32), fields, course, weights, of_parts, rows, behind, per(1))
