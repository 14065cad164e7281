"""One column with linear cells, solved exactly: the step that Newton repeats in the node-by-node column.

The admittance seen towards the far end, Y <- A + (1 + Y R)^-1 Y, is carried to the read-out and the voltages
back: a block Thomas elimination written with resistances, so that a wire of 0 ohm is not a special case.
Batched over patterns; a block has K = lines + 1 nodes, the return line last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def solve_linear_ladder(
    a: Array, b: Array, r_ohm: Array, v_end: Array, slope_ohm: Array, *, near: bool, far: bool
) -> tuple[Array, Array, Array]:
    """Node voltages of a ladder whose cells take the current I = a V + b.

    a (rows, K, K, patterns) [S], b (rows, K, patterns) [A]; r_ohm (K,) wire per cell; the clamp of each bit
    line is at v_end + slope_ohm·I, (patterns, lines) each; ``near``, ``far``: ends where the return line
    is grounded.
    Returns node voltages (rows, K, patterns) and the currents from the read-out into each line and from its
    far end to ground, (K, patterns).
    """
    rows, k, _, count = a.shape
    r = r_ohm[:, None]
    eye = np.eye(k)[:, :, None]
    # Norton equivalent [Y | c] of everything beyond node i, seen from it: I = Y V + c.
    beyond = np.zeros((rows, k, k + 1, count))
    if far:
        beyond[0, -1, k - 1] = 2.0 / r_ohm[-1]
    for i in range(rows - 1):
        norton = beyond[i] + 0.0
        norton[:, :k] += a[i]
        norton[:, k] += b[i]
        beyond[i + 1] = _solve_small(eye + norton[:, :k] * r[None], norton)
    norton = beyond[-1].copy()
    norton[:, :k] += a[-1]
    norton[:, k] += b[-1]
    # V + R_end (Y V + c) = V_end at a clamp or ground, Y V + c = 0 at an open end.
    r_end = np.repeat(r / 2, count, axis=1)
    r_end[:-1] -= slope_ohm.T
    closed = np.ones((k, 1))
    if not near:
        closed[-1], r_end[-1] = 0.0, 1.0
    target = np.zeros((k, count))
    target[:-1] = v_end.T
    matrix = closed[:, None] * eye + r_end[:, None] * norton[:, :k]
    v = np.empty((rows, k, count))
    v[-1] = _solve_small(matrix, (target - r_end * norton[:, k])[:, None])[:, 0]
    end = (norton[:, :k] * v[-1]).sum(axis=1) + norton[:, k]
    for i in range(rows - 1, 0, -1):
        v[i - 1] = v[i] - r * ((beyond[i, :, :k] * v[i]).sum(axis=1) + beyond[i, :, k])
    return v, end, (beyond[0, :, :k] * v[0]).sum(axis=1)


def cell_blocks(a: Array, e: Array, injected_slope: Array) -> Array:
    """Derivatives to bit and return (patterns, lines, rows) as blocks (rows, K, K, patterns).

    injected_slope (patterns, rows): derivative of what else enters the return line to its voltage.
    """
    patterns, lines, rows = a.shape
    y = np.zeros((rows, lines + 1, lines + 1, patterns))
    for line in range(lines):
        bit, ret = a[:, line].T, e[:, line].T
        y[:, line, line], y[:, line, -1] = bit, ret
        y[:, -1, line] = -bit
        y[:, -1, -1] -= ret
    y[:, -1, -1] -= injected_slope.T
    return y


def _solve_small(m: Array, rhs: Array) -> Array:
    """Gauss-Jordan for a batch of 2x2 or 3x3: m (K, K, patterns), rhs (K, n, patterns).

    No pivoting: 1 + Y R is the identity plus a passive ladder's positive part.
    """
    x = np.concatenate([m, rhs], axis=1)
    for k in range(len(m)):
        x[k, k + 1 :] /= x[k, k]
        for j in range(len(m)):
            if j != k:
                x[j, k + 1 :] -= x[j, k] * x[k, k + 1 :]
    return x[:, len(m) :]
