"""``meanfield.prepare`` compiled with numba: the same steps, sixteen input vectors at a time, in the processor's first cache.

Sums over rows and the ladder run with sixteen vectors side by side, the weights of the rows with sixteen rows of one vector.
Every number comes from an array of the working precision: a literal would make them double. Arrays of the workspace are
flat; (segment, bin) numbers lie at (s·bins + q)·16, the vectors behind.
"""

from __future__ import annotations

import numba
import numpy as np

from aimcard.models.fast.lanes import curve_at, fill, high, load, low, rounded, store, store_bytes, where_less

#: Names of the scalars, in the order of the array ``k``.
SCALARS = (
    "zero", "one", "two", "three", "half", "root3", "r", "share", "v0", "source_k", "d_source", "d_drain", "leak", "leak_drain",
    "leak_source", "gate", "gate_source", "sixteenth", "start_drop", "end_drop", "start_square", "end_square", "end_clamp",
    "line", "node", "start_gain", "step", "rest", "idle_v", "sixth", "third", "tiny", "ideal", "s_const", "s_gain", "reach",
    "quarter", "bytes", "g_mean", "per_row",
)  # fmt: skip
#: Rows of the workspace for one point of one scale: so many numbers a segment, sixteen vectors each.
KINDS = 14


@numba.njit(fastmath=True, inline="always")
def _fade(a, k):
    """exp(−a) for a of order one: (1 − b + b²/2)^16 with b = a/16, within a³/1500."""
    b = a * k[17]
    q = k[1] - b + b * b * k[4]
    q = q * q
    q = q * q
    q = q * q
    return q * q


@numba.njit(fastmath=True, nogil=True, boundscheck=False, error_model="numpy", cache=True)
def _sums(xt, g, distance, bounds, padded, edges, inverse, conduct, moment, n, ramp, n_ramp, started, g_started):
    """Sums over the rows of each segment and bin, of sixteen vectors: xt (rows·16,)."""
    bins = len(inverse)
    zero, one = fill(np.float32(0)), fill(np.float32(1))
    for s in range(len(bounds) - 1):
        on, gon = zero, zero
        for i in range(bounds[s], bounds[s + 1]):
            up = where_less(zero, load(xt, i * 16), one, zero)
            on = on + up
            gon = gon + up * g[i]
        store(started, s * 16, on)
        store(g_started, s * 16, gon)
        for q in range(bins):
            e, iw = edges[q], inverse[q]
            c, m, cn, rc, rn = zero, zero, zero, zero, zero
            for i in range(bounds[s], bounds[s + 1]):
                f = low(high((load(xt, i * 16) - e) * iw, zero), one)
                h = f * f - f
                gf = f * g[i]
                c = c + gf
                m = m + gf * distance[padded[s] + i - bounds[s]]
                cn = cn + f
                rc = rc + h * g[i]
                rn = rn + h
            at = (s * bins + q) * 16
            store(conduct, at, c)
            store(moment, at, m)
            store(n, at, cn)
            store(ramp, at, rc)
            store(n_ramp, at, rn)


@numba.njit(fastmath=True, nogil=True, boundscheck=False, error_model="numpy", cache=True)
def _ladder(w, scale, turns, lengths, source, drain, weight, spread, k, clamp_c, modes):
    """Solve one point for conductances times ``scale``.

    The workspace ``w`` holds, for each segment from row KINDS·s on: conductance, number, near, far (given); cond, self_r, v,
    back, ladder, rise, inject, gates (found); v and back of scale one, from which a single one of the ``turns`` starts, and then
    only the current is found. Returns clamp, current, admittance and the clamp's slope.
    """
    size = len(lengths)
    zero, one, v0 = fill(np.float32(0)), fill(np.float32(1)), fill(k[8])
    r, share = k[6], k[7]
    leaks, regulated = modes[0], modes[3]
    for s in range(size):
        at = s * KINDS * 16
        if turns == 1:
            # A line that loads its own wire drops less than in proportion.
            fall = v0 - load(w, at + 12 * 16)
            more = fill(scale) / (one + fall * ((scale - k[1]) / k[8]))
            store(w, at + 6 * 16, v0 - fall * more)
            store(w, at + 7 * 16, load(w, at + 13 * 16) * more)
        else:
            store(w, at + 6 * 16, v0)
            store(w, at + 7 * 16, zero)
        inv = low(spread[s] / high(load(w, at + 16), fill(k[31])), one)
        store(w, at + 5 * 16, (inv - one) * (r * lengths[s] * k[29]))
    clamp, current, ya, slope = v0, zero, zero, zero
    for turn in range(turns):
        drop = zero
        for s in range(size):
            at = s * KINDS * 16
            back, v = load(w, at + 7 * 16), load(w, at + 6 * 16)
            fac = one - back * source[s] / (one - back * k[9]) - (v - v0) * drain[s]
            inner = load(w, at) * scale * fac
            store(w, at + 4 * 16, inner / (one + load(w, at + 5 * 16) * inner))
            if leaks:
                # What gates push into the return line lifts it: towards the far end all of it, here a third.
                gates = load(w, at + 16) * k[15] * _fade(back * k[16], k)
                reach = share * r * lengths[s]
                store(w, at + 9 * 16, (drop * k[4] + gates * k[30]) * reach)
                store(w, at + 11 * 16, (drop + gates * k[4]) * reach)
                drop = drop + gates
            else:
                store(w, at + 9 * 16, zero)
                store(w, at + 10 * 16, zero)
        if leaks:
            lift = zero
            for s in range(size - 1, -1, -1):
                at = s * KINDS * 16
                rise = load(w, at + 9 * 16) + lift
                store(w, at + 9 * 16, rise)
                lift = lift + load(w, at + 11 * 16)
                back = load(w, at + 7 * 16)
                bit = load(w, at + 6 * 16) + back - v0
                leak = _fade(back * k[14] - bit * k[13], k) * k[12]
                idle = (lengths[s] - load(w, at + 16)) * weight[s] * leak
                store(w, at + 10 * 16, idle - load(w, at + 4 * 16) * rise)
        ya, ja = zero, zero
        for s in range(size):
            at = s * KINDS * 16
            q1 = one / (one + load(w, at + 3 * 16) * ya)
            yy, jj = ya * q1 + load(w, at + 4 * 16), ja * q1 + load(w, at + 10 * 16)
            q2 = one / (one + load(w, at + 2 * 16) * yy)
            ya, ja = yy * q2, jj * q2
        if turn == 0 or not regulated:
            current = ya * v0 + ja
        if regulated:
            for _newton in range(2 if turns == 2 and turn == 0 else 1):
                vc, sl, _b = curve_at(clamp_c, current * k[26])
                current = current - (current - ya * vc - ja) / (one - ya * sl * k[26])
            if turns == 1:
                return clamp, current, ya, slope
            vc, sl, _b = curve_at(clamp_c, current * k[26])
            clamp, slope = vc, sl * k[26]
        if turns == 1:
            return clamp, current, ya, slope
        drop, i = zero, current
        for s in range(size - 1, -1, -1):
            at = s * KINDS * 16
            dd = drop + load(w, at + 2 * 16) * i
            store(w, at + 8 * 16, dd)
            i = i - load(w, at + 4 * 16) * (clamp - dd) - load(w, at + 10 * 16)
            drop = dd + load(w, at + 3 * 16) * i
            rise = load(w, at + 9 * 16)
            store(w, at + 6 * 16, clamp - dd - rise)
            store(w, at + 7 * 16, dd * share + rise)
    return clamp, current, ya, slope


@numba.njit(fastmath=True, nogil=True, boundscheck=False, error_model="numpy", cache=True)
def _adjoint(w, ends, base, stride, clamp, current, ya, slope, rate, bend, lengths, k, modes, found, p, points):
    """Weights of one point from its solved workspace.

    Into ``found`` (5, points, segments)·16 go y, tilt, z, z of either sign, own.
    """
    size = len(lengths)
    zero, one, v0 = fill(np.float32(0)), fill(np.float32(1)), fill(k[8])
    r = k[6]
    curved = modes[2]
    loop = one / (one - ya * slope)
    j = zero
    if modes[1]:
        y = zero
        for s in range(size):
            at = s * KINDS * 16
            q1 = one / (one + load(w, at + 3 * 16) * y)
            yy, j = y * q1 + load(w, at + 4 * 16), j * q1 - load(ends, base + s * stride) / loop
            q2 = one / (one + load(w, at + 2 * 16) * yy)
            y, j = yy * q2, j * q2
    ia, iv, drop, place, move = ya + j, current, zero, zero, zero
    gain = rate * loop
    for s in range(size - 1, -1, -1):
        at = s * KINDS * 16
        here = place + r * lengths[s] * k[4]
        place = place + r * lengths[s]
        g, cond, v, back = load(w, at), load(w, at + 4 * 16), load(w, at + 6 * 16), load(w, at + 7 * 16)
        fall = drop + load(w, at + 2 * 16) * ia
        a = one - fall
        i1, i2 = ia - cond * a, iv - cond * v
        if modes[1]:
            i1 = i1 + load(ends, base + s * stride) / loop
        ta, tv = (i1 + ia) * (-r * k[4]), (i2 + iv) * (-r * k[4])
        ia, iv = i1, i2
        drop = fall + load(w, at + 3 * 16) * i1
        fac = one - back * k[10] / (one - back * k[9]) - (v - v0) * k[11]
        d = one + load(w, at + 5 * 16) * g
        sp = fac / (d * d)
        first = a * sp * v
        wy = gain * first
        move = move + first * g
        to = (p * size + s) * 16
        step = points * size * 16
        store(found, to, wy)
        store(found, step + to, gain * sp * (a * tv + v * ta))
        store(found, 2 * step + to, wy * (load(w, at + 8 * 16) - slope * current) / v0)
        # Kept until the sum over the segments is known.
        store(found, 3 * step + to, first)
        store(found, 4 * step + to, wy * first / v0 * (here * a - slope) - bend * k[4] * loop * loop * first * first)
    for s in range(size):
        to = (p * size + s) * 16
        step = points * size * 16
        z = load(found, 2 * step + to)
        signed = z
        if curved:
            bent = bend * k[4] * loop * load(found, 3 * step + to) * move * loop
            signed = z - bent
            z = z + high(bent, zero - bent)
        store(found, 2 * step + to, z)
        store(found, 3 * step + to, signed)


@numba.njit(fastmath=True, nogil=True, boundscheck=False, error_model="numpy", cache=True)
def _rows(xs, distance, bounds, padded, edges, inverse, weights, lane, cuts, yb, zb, rates, y_rate, z_rate, tops, k, of_row):
    """Weights of the rows of one vector: y and bytes of z; xs, yb, zb (parts, ·) are padded, a segment to a multiple of 16.

    weights (6, segments, bins)·16: y's by f, by place, by h; z's by f and h, scaled to bytes; and what one
    byte of z is. ``of_row`` (16,): what a row that starts at all adds to y.
    """
    bins, parts = len(inverse), zb.shape[0]
    zero, one = fill(np.float32(0)), fill(np.float32(1))
    whole = (len(bounds) - 1) * bins * 16
    for s in range(len(bounds) - 1):
        for chunk in range(padded[s], padded[s + 1], 16):
            x = load(xs, chunk)
            d = load(distance, chunk)
            y = x * k[32] + where_less(zero, x, fill(of_row[lane]), zero)
            rate, z_slope = fill(k[32]), zero
            part = 0
            z = zero
            for q in range(bins):
                at = (s * bins + q) * 16 + lane
                f = low(high((x - edges[q]) * inverse[q], zero), one)
                by_f, by_p, by_h = weights[at], weights[whole + at], weights[2 * whole + at]
                line = d * by_p + by_f
                y = y + f * (line + (f - one) * by_h)
                zf, zh = weights[3 * whole + at], weights[4 * whole + at]
                if parts > 0:
                    z = z + f * ((f - one) * zh + zf)
                    if q + 1 == cuts[part + 1]:
                        store_bytes(zb[part], chunk, rounded(z))
                        z = zero
                        part += 1
                if rates:
                    none = fill(np.float32(0))
                    slope = (line + (f * k[2] - one) * by_h) * inverse[q]
                    inside = where_less(x, fill(tops[q]), one, none) * (one - where_less(x, fill(edges[q]), one, none))
                    rate = rate + inside * slope
                    z_slope = z_slope + inside * ((f * k[2] - one) * zh + zf) * inverse[q] * weights[5 * whole + at]
            store(yb, chunk, y)
            if rates:
                store(y_rate, chunk, rate)
                store(z_rate, chunk, z_slope)
