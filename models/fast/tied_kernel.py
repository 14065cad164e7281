"""The element-wise passes of ``tied_modes`` and ``tied_weights`` compiled with numba: each reads and writes memory once.

Products in bfloat16 come and go as their upper 16 bits (uint16).
"""

from __future__ import annotations

import numba
import numpy as np

HALF, SHIFT, ONE = np.uint32(0x7FFF), np.uint32(16), np.uint32(1)
OPTIONS = {"fastmath": True, "nogil": True, "boundscheck": False, "error_model": "numpy", "cache": True}


@numba.njit(**OPTIONS)
def warped(x, warp, v, z):
    """v = u·√(1 + c)/√(1 + c·u²) with u = x/T, and its square; warp: 1/T, c, √(1 + c)."""
    inverse, c, root, one = warp[0], warp[1], warp[2], np.float32(1)
    for i in range(len(x)):
        u = x[i] * inverse
        v[i] = u * root / np.sqrt(one + c * u * u)
        z[i] = v[i] * v[i]


@numba.njit(**OPTIONS)
def odd_values(factors, v, z, line):
    """line = v·Σ_n factors[n]·z^n, term by term, so that the loops over the rows become vector instructions."""
    last = len(factors) - 1
    line[:] = factors[last]
    for n in range(last - 1, 0, -1):
        c = factors[n]
        for i in range(len(v)):
            line[i] = line[i] * z[i] + c
    c = factors[0]
    for i in range(len(v)):
        line[i] = (line[i] * z[i] + c) * v[i]


@numba.njit(**OPTIONS)
def features(x, odd, warp, low, out):
    """Odd functions of codes x (batch, rows) float32, polynomials odd (functions, terms) in the warped code.

    out (functions, batch, rows): their upper 16 bits as uint16 if ``low``, else float32 as uint32.
    """
    rows = x.shape[1]
    line, v, z = np.empty(rows, np.float32), np.empty(rows, np.float32), np.empty(rows, np.float32)
    bits = line.view(np.uint32)
    for b in range(x.shape[0]):
        warped(x[b], warp, v, z)
        for q in range(odd.shape[0]):
            odd_values(odd[q], v, z, line)
            if low:
                for i in range(rows):
                    w = bits[i]
                    out[q, b, i] = (w + HALF + ((w >> SHIFT) & ONE)) >> SHIFT
            else:
                for i in range(rows):
                    out[q, b, i] = bits[i]


@numba.njit(**OPTIONS)
def feature_bytes(x, odd, warp, weights, units, profile, out, left):
    """As ``features``, as int8 ``out`` (functions, batch, rows) in units of units[q], a 127th of its largest value.

    left (batch,): Σ_i profile[i]·(|x_i| − Σ_q weights[q]·F_q(x_i)²).
    """
    rows = x.shape[1]
    line, v, z = np.empty(rows, np.float32), np.empty(rows, np.float32), np.empty(rows, np.float32)
    rest = np.empty(rows, np.float32)
    for b in range(x.shape[0]):
        warped(x[b], warp, v, z)
        for i in range(rows):
            rest[i] = abs(x[b, i])
        for q in range(odd.shape[0]):
            odd_values(odd[q], v, z, line)
            w, unit, to = weights[q], np.float32(1) / units[q], out[q, b]
            for i in range(rows):
                rest[i] -= w * line[i] * line[i]
                to[i] = np.int8(np.int32(np.rint(line[i] * unit)))
        total = np.float32(0)
        for i in range(rows):
            total += rest[i] * profile[i]
        left[b] = total


@numba.njit(**OPTIONS)
def bend(u, low, coefficients, weights, out):
    """Add Σ_q weights[q]·Σ_n c_n·u_q^(n + 2), |u| up to 1, to ``out`` (batch, lines).

    u (functions, batch, lines) as ``features``' out; coefficients (terms, lines), weights (functions,) and out float32.
    """
    lines, terms = out.shape[1], coefficients.shape[0]
    bits = np.empty(lines, np.uint32)
    line, p = bits.view(np.float32), np.empty(lines, np.float32)
    one = np.float32(1)
    for b in range(out.shape[0]):
        for q in range(u.shape[0]):
            weight = weights[q]
            if low:
                for i in range(lines):
                    bits[i] = np.uint32(u[q, b, i]) << SHIFT
            else:
                for i in range(lines):
                    bits[i] = u[q, b, i]
            for i in range(lines):
                line[i] = min(max(line[i], -one), one)
                p[i] = coefficients[terms - 1, i]
            for n in range(terms - 2, -1, -1):
                for i in range(lines):
                    p[i] = p[i] * line[i] + coefficients[n, i]
            for i in range(lines):
                out[b, i] += weight * p[i] * line[i] * line[i]


@numba.njit(**OPTIONS)
def bend_bytes(u, units, scale, coefficients, weights, left, factor, out):
    """As ``bend``, and add left[b]·factor[i].

    u int32 products of ``feature_bytes``' out, in units of units[q], and of lines' bytes, in units of scale[i].
    """
    lines, terms = out.shape[1], coefficients.shape[0]
    line, p = np.empty(lines, np.float32), np.empty(lines, np.float32)
    one = np.float32(1)
    # In a nest of its own: inside the other, none of the loops would become vector instructions.
    for b in range(out.shape[0]):
        for i in range(lines):
            out[b, i] += left[b] * factor[i]
    for b in range(out.shape[0]):
        for q in range(u.shape[0]):
            weight, unit = weights[q], units[q]
            for i in range(lines):
                line[i] = np.float32(u[q, b, i]) * scale[i] * unit
            for i in range(lines):
                line[i] = min(max(line[i], -one), one)
                p[i] = coefficients[terms - 1, i]
            for n in range(terms - 2, -1, -1):
                for i in range(lines):
                    p[i] = p[i] * line[i] + coefficients[n, i]
            for i in range(lines):
                out[b, i] += weight * p[i] * line[i] * line[i]


@numba.njit(**OPTIONS)
def widen(x, delta, rows_of, idle, wide):
    """Fill wide (tiles, batch, rows + 8): lengthened codes, and the sums of ``tied_weights.answers`` behind them, but the third.

    x (tiles, batch, rows); delta (tiles,); rows_of (tiles, 3, rows); idle: factor of the lines' idle answer.
    """
    rows, zero, one = x.shape[2], np.float32(0), np.float32(1)
    for t in range(x.shape[0]):
        longer, sizes, steps = delta[t], rows_of[t, 0], rows_of[t, 1]
        for b in range(x.shape[1]):
            code, to, first, second = x[t, b], wide[t, b], zero, zero
            for i in range(rows):
                v = code[i]
                on = one if v != zero else zero
                to[i] = v + (longer if v > zero else -longer) * on
                first += abs(v) * sizes[i]
                second += on * steps[i]
            to[rows], to[rows + 1], to[rows + 2], to[rows + 3] = first, second, zero, idle
            for i in range(rows + 4, wide.shape[2]):
                to[i] = zero
