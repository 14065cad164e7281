"""Element-wise passes around the byte products, compiled with numba: each reads and writes its arrays once."""

from __future__ import annotations

import numba
import numpy as np

_options = {"fastmath": True, "nogil": True, "boundscheck": False, "error_model": "numpy", "cache": True}


@numba.njit(**_options)
def bend(out, first, root, by_vector, by_line, sign, cubic, ends):
    """out −= sign·m²·(1 + cubic·m) with m = root·by_vector·by_line.

    out (vectors, ·) from line ``first`` on, root (vectors, lines) in int32; by_vector, sign, cubic (groups, vectors); ``ends``:
    the lines at which the groups end.
    """
    for b in range(out.shape[0]):
        start = 0
        for g in range(len(ends)):
            row, whole, scales = out[b][first + start : first + ends[g]], root[b][start : ends[g]], by_line[start : ends[g]]
            scale, s, c = by_vector[g, b], sign[g, b], cubic[g, b]
            for i in range(row.shape[0]):
                m = np.float32(whole[i]) * scale * scales[i]
                row[i] -= s * m * m * (np.float32(1) + c * m)
            start = ends[g]


@numba.njit(**_options)
def bend_pairs(out, first, plus, minus, by_plus, by_minus, by_vector, sign, cubic):
    """out −= the difference of ``bend``'s terms between a pair's lines, and out += the same of a second phase.

    out (vectors, ·) from pair ``first`` on; plus, minus (phases · vectors, pairs) int32; by_plus, by_minus (pairs,); by_vector,
    sign, cubic (phases · vectors,).
    """
    count, one = out.shape[0], np.float32(1)
    for v in range(plus.shape[0]):
        b = v % count
        row, p, n = out[b][first : first + plus.shape[1]], plus[v], minus[v]
        scale, s, c = by_vector[v], sign[v] if v < count else -sign[v], cubic[v]
        for i in range(row.shape[0]):
            a, d = np.float32(p[i]) * scale * by_plus[i], np.float32(n[i]) * scale * by_minus[i]
            row[i] -= s * (a * a * (one + c * a) - d * d * (one + c * d))


@numba.njit(**_options)
def slope_bytes(grad, root, by_vector, by_line, sign, cubic, ends, bent, lines, line_scale, vectors, vector_scale, total, middle):
    """Derivative of ``bend`` to δ·z in the first group's scale, times ``grad``, as bytes for the products with z and departures.

    bent (vectors, lines) is working memory. lines (lines, vectors) int8 with line_scale (lines,): the derivative for z's bytes;
    vectors (vectors, lines) int8 with vector_scale (vectors,): times by_line; total (vectors,): its sum times ``middle``.
    """
    full, tiny, none = np.float32(127), np.float32(1e-30), np.float32(0)
    for i in range(line_scale.shape[0]):
        line_scale[i] = tiny
    for b in range(grad.shape[0]):
        start, most, sums = 0, tiny, none
        unit = by_vector[0, b]
        for g in range(len(ends)):
            scale, s, c = by_vector[g, b], sign[g, b], cubic[g, b]
            part = s * scale / unit if unit > none else none
            row, whole, to = grad[b][start : ends[g]], root[b][start : ends[g]], bent[b][start : ends[g]]
            scales, middles, widest = by_line[start : ends[g]], middle[start : ends[g]], line_scale[start : ends[g]]
            for i in range(row.shape[0]):
                m = np.float32(whole[i]) * scale * scales[i]
                t = row[i] * part * m * (np.float32(2) + np.float32(3) * c * m)
                to[i] = t
                sums += t * middles[i]
                most = max(most, abs(t) * scales[i])
                widest[i] = max(widest[i], abs(t) * unit)
            start = ends[g]
        vector_scale[b] = most / full
        total[b] = sums
    for b in range(grad.shape[0]):
        to, small = bent[b], vectors[b]
        inverse, unit = np.float32(1) / vector_scale[b], by_vector[0, b]
        for i in range(to.shape[0]):
            small[i] = np.int8(np.rint(to[i] * by_line[i] * inverse))
        for i in range(to.shape[0]):
            lines[i, b] = np.int8(np.rint(to[i] * unit * full / line_scale[i]))
    for i in range(line_scale.shape[0]):
        line_scale[i] /= full


@numba.njit(**_options)
def take(out, product, scale):
    """out −= product·scale, a scale per row; product int32."""
    for b in range(out.shape[0]):
        row, whole, s = out[b], product[b], scale[b]
        for i in range(row.shape[0]):
            row[i] -= np.float32(whole[i]) * s


@numba.njit(**_options)
def take_within(out, product, scale, total, mean, rate, x, begin, end):
    """out −= (product·scale + total·mean)·rate where begin ≤ x < end; (vectors, rows), product int32, mean (rows,)."""
    for b in range(out.shape[0]):
        row, whole, slope, codes, s, t = out[b], product[b], rate[b], x[b], scale[b], total[b]
        for i in range(row.shape[0]):
            part = (np.float32(whole[i]) * s + t * mean[i]) * slope[i]
            row[i] -= part if begin <= codes[i] < end else np.float32(0)


@numba.njit(**_options)
def through_cells(to_weight, pulses, conductance, tables, step):
    """to_weight ← to_weight·weight(G) + pulses·charge(G).

    Both go straight between the points of ``tables`` (points, 2), every ``step`` of √G.
    """
    last = np.float32(tables.shape[0] - 2)
    inverse = np.float32(1) / step
    for a in range(to_weight.shape[0]):
        row, q, g = to_weight[a], pulses[a], conductance[a]
        for i in range(row.shape[0]):
            u = np.sqrt(g[i]) * inverse
            n = np.int64(min(u, last))
            t = u - np.float32(n)
            w = tables[n, 0] + t * (tables[n + 1, 0] - tables[n, 0])
            c = tables[n, 1] + t * (tables[n + 1, 1] - tables[n, 1])
            row[i] = row[i] * w + q[i] * c
