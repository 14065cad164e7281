"""The element-wise passes of ``tied_modes`` and ``tied_weights`` compiled with numba: each reads and writes memory once.

Products in bfloat16 come and go as their upper 16 bits (uint16).
"""

from __future__ import annotations

import numba
import numpy as np

HALF, SHIFT, ONE = np.uint32(0x7FFF), np.uint32(16), np.uint32(1)
_OPTIONS = {"fastmath": True, "nogil": True, "boundscheck": False, "error_model": "numpy", "cache": True}


@numba.njit(**_OPTIONS)
def features(x, odd, low, out):
    """Odd polynomials of codes: out[q, b, i] = v·Σ_n odd[q, n]·v^2n, v = x[b, i]·odd[q, -1]; as uint16 if ``low``, else float32.

    x (batch, rows) float32; odd (functions, terms + 1), the scale last; out (functions, batch, rows) uint32 or uint16.
    """
    rows, last = x.shape[1], odd.shape[1] - 1
    line, v, z = np.empty(rows, np.float32), np.empty(rows, np.float32), np.empty(rows, np.float32)
    bits = line.view(np.uint32)
    scale = odd[0, last]
    for b in range(x.shape[0]):
        for i in range(rows):
            v[i] = x[b, i] * scale
            z[i] = v[i] * v[i]
        for q in range(odd.shape[0]):
            # Term by term, so that the loops over the rows become vector instructions.
            line[:] = odd[q, last - 1]
            for n in range(last - 2, 0, -1):
                c = odd[q, n]
                for i in range(rows):
                    line[i] = line[i] * z[i] + c
            c = odd[q, 0]
            for i in range(rows):
                line[i] = (line[i] * z[i] + c) * v[i]
            if low:
                for i in range(rows):
                    w = bits[i]
                    out[q, b, i] = (w + HALF + ((w >> SHIFT) & ONE)) >> SHIFT
            else:
                for i in range(rows):
                    out[q, b, i] = bits[i]


@numba.njit(**_OPTIONS)
def bend(u, low, coefficients, weight, out):
    """Add weight·Σ_q Σ_n c_n·u_q^(n + 2), |u| up to 1, to ``out`` (batch, lines).

    u (functions, batch, lines) as ``features``' out; coefficients (terms, lines) and out float32.
    """
    lines, terms = out.shape[1], coefficients.shape[0]
    bits = np.empty(lines, np.uint32)
    line, p = bits.view(np.float32), np.empty(lines, np.float32)
    one = np.float32(1)
    for b in range(out.shape[0]):
        for q in range(u.shape[0]):
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


@numba.njit(**_OPTIONS)
def widen(x, delta, rows_of, even, idle, wide):
    """Fill wide (batch, rows + 8): lengthened codes, and the sums of ``tied_weights.answers`` behind them.

    rows_of (3, rows); even: r(x) = |x| − Σ_n even[n]·v^(2n + 2), the scale of v last; one number where nothing bends.
    idle: factor of the lines' idle answer.
    """
    rows, last = x.shape[1], len(even) - 1
    zero, one = np.float32(0), np.float32(1)
    z, p = np.empty(rows, np.float32), np.empty(rows, np.float32)
    scale = even[last]
    for b in range(x.shape[0]):
        first, second, third = zero, zero, zero
        for i in range(rows):
            v = x[b, i]
            size = abs(v)
            on = one if size > zero else zero
            wide[b, i] = v + (delta if v > zero else -delta) * on
            first += size * rows_of[0, i]
            second += on * rows_of[1, i]
        if last > 0:
            for i in range(rows):
                v = x[b, i] * scale
                z[i] = v * v
                p[i] = even[last - 1]
            for n in range(last - 2, -1, -1):
                c = even[n]
                for i in range(rows):
                    p[i] = p[i] * z[i] + c
            for i in range(rows):
                third += (abs(x[b, i]) - p[i] * z[i]) * rows_of[2, i]
        wide[b, rows] = first
        wide[b, rows + 1] = second
        wide[b, rows + 2] = third
        wide[b, rows + 3] = idle
        for i in range(rows + 4, wide.shape[1]):
            wide[b, i] = zero
