"""Element-wise passes of the phases' products, compiled with numba: each reads and writes its arrays once."""

from __future__ import annotations

import numba
import numpy as np

_options = {"fastmath": True, "nogil": True, "boundscheck": False, "error_model": "numpy", "cache": True}


@numba.njit(**_options)
def digits_of(codes, table, out):
    """out (phases, n) ← ``phases.digits`` of codes (n,): table (phases, codes), straight in between."""
    top = np.float32(table.shape[1] - 2)
    for k in range(table.shape[0]):
        values, to = table[k], out[k]
        for i in range(codes.shape[0]):
            size = abs(codes[i])
            below = np.int32(min(size, top))
            value = values[below] + (size - np.float32(below)) * (values[below + 1] - values[below])
            to[i] = value if codes[i] >= np.float32(0) else -value


@numba.njit(**_options)
def count_codes(codes, out):
    """out (codes, vectors) ← how often each vector (vectors, rows) has the nearest whole code."""
    half = np.float32(0.5)
    out[:] = np.float32(0)
    for b in range(codes.shape[0]):
        row = codes[b]
        for i in range(row.shape[0]):
            out[np.int32(row[i] + half), b] += np.float32(1)


@numba.njit(**_options)
def take_codes(table, codes, out):
    """out (vectors, rows, r) ← table (vectors, codes, r) at the nearest whole code of each row."""
    half = np.float32(0.5)
    for b in range(codes.shape[0]):
        row, values, to = codes[b], table[b], out[b]
        for i in range(row.shape[0]):
            n = np.int32(row[i] + half)
            for r in range(to.shape[1]):
                to[i, r] = values[n, r]


@numba.njit(**_options)
def correct(out, pulses, found, share, base):
    """out ← base + pulses − out − share·found; share, base (vectors,)."""
    for b in range(out.shape[0]):
        row, own, answers, s, c = out[b], pulses[b], found[b], share[b], base[b]
        for i in range(row.shape[0]):
            row[i] = c + own[i] - row[i] - s * answers[i]
