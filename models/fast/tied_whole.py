"""Compiled passes of ``tied_bytes`` for whole codes, which are bytes themselves: their product with lines of two bytes each has
the digits of a float32 one at half its time, and the bent part's functions share the first byte.
"""

from __future__ import annotations

import numba
import numpy as np

from aimcard.models.fast.tied_kernel import OPTIONS, odd_values, warped


@numba.njit(**OPTIONS)
def whole(x, out):
    """Whether all codes x (tiles, batch, rows) are whole numbers up to 127 in size; if so, ``out`` has them as int8."""
    most = np.float32(127)
    for t in range(x.shape[0]):
        for b in range(x.shape[1]):
            row, to, wrong = x[t, b], out[t, b], 0
            for i in range(len(row)):
                near = min(max(np.rint(row[i]), -most), most)
                wrong += near != row[i]
                to[i] = np.int8(np.int32(near))
            if wrong:
                return False
    return True


@numba.njit(**OPTIONS)
def two_bytes(values, small, fine, scale):
    """Rows of ``values`` (lines, rows) as int8 with a scale each, and what that leaves in a 254th of it."""
    for b in range(values.shape[0]):
        row, to, rest = values[b], small[b], fine[b]
        most = np.float32(1e-30)
        for i in range(len(row)):
            most = max(most, abs(row[i]))
        inverse = np.float32(127) / most
        scale[b] = most / np.float32(127)
        for i in range(len(row)):
            v = row[i] * inverse
            near = np.rint(v)
            to[i] = np.int8(np.int32(near))
            rest[i] = np.int8(np.int32(np.rint((v - near) * np.float32(254))))


@numba.njit(**OPTIONS)
def code_bytes(x, odd, warp, weights, units, profiles, out, sums):
    """Fill out (functions + 1, batch, rows): the functions as ``tied_kernel.feature_bytes``' and, last, the whole codes.

    sums (3, batch): of |x|, of the rows that are on and of what the functions leave of the pulses' squares, each over its
    profile of profiles (3, rows).
    """
    rows, last = x.shape[1], odd.shape[0]
    line, v, z = np.empty(rows, np.float32), np.empty(rows, np.float32), np.empty(rows, np.float32)
    rest, zero, one = np.empty(rows, np.float32), np.float32(0), np.float32(1)
    sizes, steps, lefts = profiles[0], profiles[1], profiles[2]
    for b in range(x.shape[0]):
        code, to = x[b], out[last, b]
        warped(code, warp, v, z)
        first, second, third = zero, zero, zero
        for i in range(rows):
            size = abs(code[i])
            rest[i] = size
            first += size * sizes[i]
            second += (one if code[i] != zero else zero) * steps[i]
            to[i] = np.int8(np.int32(code[i]))
        for q in range(last):
            odd_values(odd[q], v, z, line)
            w, unit, to = weights[q], one / units[q], out[q, b]
            for i in range(rows):
                rest[i] -= w * line[i] * line[i]
                to[i] = np.int8(np.int32(np.rint(line[i] * unit)))
        for i in range(rows):
            third += rest[i] * lefts[i]
        sums[0, b], sums[1, b], sums[2, b] = first, second, third


@numba.njit(**OPTIONS)
def whole_linear(coarse, fine, scale, factors, sums, idle, out):
    """Fill ``out`` (batch, lines) with the linear part and the rank-one terms that do not bend.

    coarse, fine (batch, lines): int32 products of the codes with the lines' first and second bytes; scale (lines,): the answer
    of one unit of the first; factors (4, lines): of the two first rows of sums and, last, of ``idle``. ``fine`` may lie in the
    memory of ``out``.
    """
    part, sizes, steps, rests = np.float32(1 / 254), factors[0], factors[1], factors[3]
    line = np.empty(out.shape[1], np.float32)
    for b in range(out.shape[0]):
        first, second = sums[0, b], sums[1, b]
        for i in range(out.shape[1]):
            line[i] = np.float32(fine[b, i]) * part
        for i in range(out.shape[1]):
            out[b, i] = (np.float32(coarse[b, i]) + line[i]) * scale[i]
        for i in range(out.shape[1]):
            out[b, i] += first * sizes[i] + second * steps[i] + idle * rests[i]
