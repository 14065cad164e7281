"""Passes over the lines of a tile compiled with numba: each reads the conductances once."""

from __future__ import annotations

import numba
import numpy as np

_options = {"fastmath": True, "nogil": True, "boundscheck": False, "error_model": "numpy", "cache": True}


@numba.njit(**_options)
def moments(weight, sums, mean, variance):
    """Sums over the rows of ``weight`` (lines, rows) into sums (lines,) float32; its mean and variance over the lines into mean
    and variance (rows,) float64."""
    lines, rows = weight.shape
    shift = weight[0].copy()
    first, second = np.zeros(rows), np.zeros(rows)
    for c in range(lines):
        row, total = weight[c], np.float32(0)
        for i in range(rows):
            total += row[i]
        for i in range(rows):
            d = np.float64(row[i] - shift[i])
            first[i] += d
            second[i] += d * d
        sums[c] = total
    for i in range(rows):
        m = first[i] / lines
        mean[i] = shift[i] + m
        variance[i] = max(second[i] / lines - m * m, 0.0)


@numba.njit(**_options)
def beside(weight, sums, mean, out):
    """out (lines,): Σ of the squares of ``weight`` − sums·mean."""
    for c in range(weight.shape[0]):
        row, s, total = weight[c], sums[c], np.float32(0)
        for i in range(row.shape[0]):
            d = row[i] - s * mean[i]
            total += d * d
        out[c] = total


@numba.njit(**_options)
def mean_of_root(weight, table, step, out):
    """out (lines,): mean over the rows of ``table`` at the roots of ``weight``, straight between its even points."""
    inverse, top = np.float32(1) / step, np.float32(table.shape[0] - 2)
    for c in range(weight.shape[0]):
        row, total = weight[c], np.float32(0)
        for i in range(row.shape[0]):
            u = np.sqrt(max(row[i], np.float32(0))) * inverse
            n = np.int32(min(u, top))
            t = u - np.float32(n)
            total += table[n] + t * (table[n + 1] - table[n])
        out[c] = total / np.float32(row.shape[0])


@numba.njit(**_options)
def departures(weight, middle, mean, small, scale):
    """Rows of ``weight`` − middle·mean as int8 ``small`` with a ``scale`` each."""
    for c in range(weight.shape[0]):
        row, to, m = weight[c], small[c], middle[c]
        most = np.float32(1e-30)
        for i in range(row.shape[0]):
            most = max(most, abs(row[i] - m * mean[i]))
        inverse = np.float32(127) / most
        scale[c] = most / np.float32(127)
        for i in range(row.shape[0]):
            to[i] = np.int8(np.int32(np.rint((row[i] - m * mean[i]) * inverse)))
