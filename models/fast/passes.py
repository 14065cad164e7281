"""Element-wise passes around the byte products, compiled with numba: each reads and writes its arrays once."""

from __future__ import annotations

import numba
import numpy as np

from aimcard.models.fast.lanes import fill, lines_at, load, load_half, root, store

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
def slope_bytes(grad, root, by_vector, by_line, sign, cubic, ends, middle, inverse, row, own, own_scale, vectors, vector_scale,
                total):  # fmt: skip
    """Derivative of ``bend`` to δ·z in the first group's scale, times ``grad``, as bytes for the products with z and departures.

    own (vectors, lines) int8 with own_scale (vectors,): times ``inverse`` (lines,), a line's scale; vectors (vectors, lines) int8
    with vector_scale (vectors,): times by_line; total (vectors,): its sum times ``middle``. row (lines,) is working memory.
    """
    full, tiny, none = np.float32(127), np.float32(1e-30), np.float32(0)
    two, three = np.float32(2), np.float32(3)
    for b in range(grad.shape[0]):
        start, most, most_own, sums = 0, tiny, tiny, none
        unit = by_vector[0, b]
        for g in range(len(ends)):
            scale, s, c = by_vector[g, b], sign[g, b], cubic[g, b]
            part = s * scale / unit if unit > none else none
            values, whole, to = grad[b][start : ends[g]], root[b][start : ends[g]], row[start : ends[g]]
            scales, middles, each = by_line[start : ends[g]], middle[start : ends[g]], inverse[start : ends[g]]
            for i in range(to.shape[0]):
                m = np.float32(whole[i]) * scale * scales[i]
                t = values[i] * part * m * (two + three * c * m)
                to[i] = t
                sums += t * middles[i]
                most = max(most, abs(t) * scales[i])
                most_own = max(most_own, abs(t) * each[i])
            start = ends[g]
        own_scale[b], vector_scale[b], total[b] = most_own / full, most / full, sums
        to_own, to_vector, one, other = own[b], vectors[b], full / most_own, full / most
        for i in range(row.shape[0]):
            to_own[i] = np.int8(np.int32(np.rint(row[i] * inverse[i] * one)))
            to_vector[i] = np.int8(np.int32(np.rint(row[i] * by_line[i] * other)))


@numba.njit(**_options)
def lessen(z, scale):
    """Rows of bytes z in units of the largest of ``scale`` (rows of z,), which is returned, instead of their own."""
    most = np.float32(1e-30)
    for b in range(scale.shape[0]):
        most = max(most, scale[b])
    for b in range(z.shape[0]):
        row, share = z[b], scale[b] / most
        for i in range(row.shape[0]):
            row[i] = np.int8(np.int32(np.rint(np.float32(row[i]) * share)))
    return most


@numba.njit(**_options)
def by_code(x, table, out):
    """out ← table at the nearest whole code, behind a first number that is x's where it is 0; (vectors, rows)."""
    half, none = np.float32(0.5), np.float32(0)
    for b in range(out.shape[0]):
        codes, to = x[b], out[b]
        for i in range(codes.shape[0]):
            to[i] = table[np.uint64(np.int32(codes[i] + half) + np.int32(codes[i] > none))]


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
def through_cells(to_weight, pulses, half, weight, mean, bow, by, conductance, lines, pieces, inverse, out):
    """out[lines] ← (to_weight + by_0 + by_1·weight + by_2·mean + by_3·bow)·weight′(G) + pulses·charge′(G).

    (lines, rows) each, pulses in bits of bfloat16 if ``half``, then rows in whole sixteens; mean, bow (rows,), by (4, lines);
    ``conductance`` [S] and ``out`` hold the lines of ``lines``. The slopes go straight between points at even
    steps of √G, 1/``inverse`` wide: pieces (points, 4) hold value and rise of the first, value and rise of the second.
    """
    last = np.float32(pieces.shape[0] - 1)
    rows = to_weight.shape[1]
    whole = rows - rows % 16
    for a in range(to_weight.shape[0]):
        row, q, w, g, to = to_weight[a], pulses[a], weight[a], conductance[lines[a]], out[lines[a]]
        first, second, third, fourth = fill(by[0, a]), fill(by[1, a]), fill(by[2, a]), fill(by[3, a])
        for i in range(0, whole, 16):
            t = load(row, i) + first + second * load(w, i) + third * load(mean, i) + fourth * load(bow, i)
            to_apparent, to_charge = lines_at(pieces, root(load(g, i)) * inverse)
            own = load_half(q, i) if half else load(q, i)
            store(to, i, t * to_apparent + own * to_charge)
        for i in range(whole, rows):
            t = row[i] + by[0, a] + by[1, a] * w[i] + by[2, a] * mean[i] + by[3, a] * bow[i]
            u = np.sqrt(g[i]) * inverse
            n = np.int64(min(u, last))
            u -= np.float32(n)
            to[i] = t * (pieces[n, 0] + u * pieces[n, 1]) + q[i] * (pieces[n, 2] + u * pieces[n, 3])
