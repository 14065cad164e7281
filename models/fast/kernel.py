"""``meanfield.prepare`` compiled with numba: the same steps, one vector at a time, in the processor's first cache.

Loops run over the rows of a segment or over the Gauss points, so that they become vector instructions. Every number
comes from an array of the working precision: a literal would make them double.
"""

from __future__ import annotations

import numba
import numpy as np

#: Names of the scalars, in the order of the array ``k``.
SCALARS = (
    "zero", "one", "two", "three", "half", "root3", "r", "share", "v0", "source_k", "d_source", "d_drain", "leak", "leak_drain",
    "leak_source", "gate", "gate_source", "sixteenth", "start_drop", "end_drop", "start_square", "end_square", "end_clamp",
    "line", "node", "start_gain", "step", "rest", "idle_v", "sixth", "third", "tiny", "ideal",
)  # fmt: skip


@numba.njit(fastmath=True)
def _fade(a, k):
    """exp(−a) for a of order one: (1 − b + b²/2)^16 with b = a/16, within a³/1500."""
    b = a * k[17]
    q = k[1] - b + b * b * k[4]
    q = q * q
    q = q * q
    q = q * q
    return q * q


@numba.njit(fastmath=True)
def _curve(pieces, current, k):
    """Value, first and second derivative per grid step of a curve (pieces, 4) at a current in grid steps."""
    n = min(max(int(current), 0), pieces.shape[0] - 1)
    t = current - n * k[1]
    s = min(max(t, k[0]), k[1])
    a, b, c, d = pieces[n, 0], pieces[n, 1], pieces[n, 2], pieces[n, 3]
    first = b + s * (k[2] * c + k[3] * s * d)
    second = k[2] * (c + k[3] * s * d)
    if t != s:
        second = k[0]
    return a + s * (b + s * (c + s * d)) + (t - s) * first, first, second


@numba.njit(fastmath=True, nogil=True, boundscheck=False, error_model="numpy", cache=True)
def prepare(x, g, distance, variance, bounds, edges, inverse, width, lengths, source, drain, weight, spread, ratio, cells, k,
            rate_c, start_c, clamp_c, modes, cuts, y, z, y_rate, z_rate, sign_of):  # fmt: skip
    """Fill y (batch, rows + 8), z (squares, batch, rows), their rates if they are not empty, and sign (squares, batch).

    Behind its rows y gets base and left, so that one product with a weight of ones and one of shares adds them.

    cells (4, bins + 1): const and gain of a pulse at the bins' edges, and their curvatures. modes: leakage, pulses, curves,
    regulator. cuts: first bin of each square, and the number of bins.
    """
    zero, one, two, half, root3 = k[0], k[1], k[2], k[4], k[5]
    r, share, v0 = k[6], k[7], k[8]
    leaks, pulses, curved, regulated = modes[0], modes[1], modes[2], modes[3]
    size, bins, squares = len(lengths), len(width), z.shape[0]
    points = 2 * bins
    rates = y_rate.shape[0] > 0
    shape = (size, points)
    conduct, moment, n = np.empty((size, bins), x.dtype), np.empty((size, bins), x.dtype), np.empty((size, bins), x.dtype)
    ramp, n_ramp = np.empty((size, bins), x.dtype), np.empty((size, bins), x.dtype)
    started, g_started = np.empty(size, x.dtype), np.empty(size, x.dtype)
    gp, np_ = np.empty(shape, x.dtype), np.empty(shape, x.dtype)
    near, far, self_r = np.empty(shape, x.dtype), np.empty(shape, x.dtype), np.empty(shape, x.dtype)
    cond, inject, rise = np.empty(shape, x.dtype), np.empty(shape, x.dtype), np.empty(shape, x.dtype)
    v, back, ladder = np.empty(shape, x.dtype), np.empty(shape, x.dtype), np.empty(shape, x.dtype)
    ends, gates = np.empty(shape, x.dtype), np.empty(shape, x.dtype)
    wy, wt, wz, wo = np.empty(shape, x.dtype), np.empty(shape, x.dtype), np.empty(shape, x.dtype), np.empty(shape, x.dtype)
    ws = np.empty(shape, x.dtype)
    ya, ja, cur, drop = (
        np.empty(points, x.dtype),
        np.empty(points, x.dtype),
        np.empty(points, x.dtype),
        np.empty(points, x.dtype),
    )
    iv, cl = np.empty(points, x.dtype), np.empty(points, x.dtype)
    answer, rate, bend, loop = (
        np.empty(points, x.dtype),
        np.empty(points, x.dtype),
        np.empty(points, x.dtype),
        np.empty(points, x.dtype),
    )
    reg, extra, move = np.empty(points, x.dtype), np.empty(bins, x.dtype), np.empty(points, x.dtype)
    force, knots = np.empty(bins, x.dtype), np.empty(bins + 1, x.dtype)
    for b in range(x.shape[0]):
        xb, yb = x[b], y[b]
        for s in range(size):
            lo, hi = bounds[s], bounds[s + 1]
            # Slices that count from 0: an index that might be negative costs the vector instructions.
            xs, gs, ds = xb[lo:hi], g[lo:hi], distance[lo:hi]
            on, gon = zero, zero
            for i in range(xs.shape[0]):
                up = one if xs[i] > zero else zero
                on += up
                gon += up * gs[i]
            started[s], g_started[s] = on, gon
            for q in range(bins):
                e, iw = edges[q], inverse[q]
                c, m, cn, rc, rn = zero, zero, zero, zero, zero
                for i in range(xs.shape[0]):
                    f = min(max((xs[i] - e) * iw, zero), one)
                    h = f * f - f
                    gf = gs[i] * f
                    c += gf
                    m += gf * ds[i]
                    cn += f
                    rc += gs[i] * h
                    rn += h
                conduct[s, q], moment[s, q], n[s, q], ramp[s, q], n_ramp[s, q] = c, m, cn, rc, rn
        for q in range(bins):
            extra[q] = zero
        for s in range(size):
            for q in range(bins):
                c = conduct[s, q]
                centre = moment[s, q] / c if c > k[31] else half * lengths[s]
                before = n[s, q - 1] if q > 0 else n[s, 0]
                after = n[s, q + 1] if q < bins - 1 else -n[s, q]
                ended = (before - after) * half
                extra[q] += ended
                u = (k[19] + (one - share) * k[24]) * ended * inverse[q]
                if q == 0:
                    u += k[18] * started[s]
                for d in range(2):
                    p = 2 * q + d
                    t = root3 if d else -root3
                    gp[s, p] = c + t * ramp[s, q]
                    np_[s, p] = max(n[s, q] + t * n_ramp[s, q], zero)
                    near[s, p], far[s, p] = r * centre, r * (lengths[s] - centre)
                    ends[s, p] = u
                    v[s, p], back[s, p] = v0, zero
            for p in range(points):
                inv = min(spread[s] / max(np_[s, p], k[31]), one)
                self_r[s, p] = -r * lengths[s] * k[29] * (one - inv)
        for q in range(bins):
            extra[q] *= (cells[4, q] + cells[4, q + 1]) * half * inverse[q]
        for _turn in range(2):
            for s in range(size):
                for p in range(points):
                    fac = one - source[s] * back[s, p] / (one - k[9] * back[s, p]) - drain[s] * (v[s, p] - v0)
                    inner = gp[s, p] * fac
                    cond[s, p] = inner / (one + self_r[s, p] * inner)
                    inject[s, p] = zero
                    rise[s, p] = zero
            if leaks:
                for s in range(size):
                    for p in range(points):
                        gates[s, p] = np_[s, p] * k[15] * _fade(back[s, p] * k[16], k)
                for p in range(points):
                    drop[p] = zero
                # What gates push into the return line lifts it: towards the far end all of it, here a third.
                for s in range(size):
                    for p in range(points):
                        rise[s, p] = share * r * lengths[s] * (drop[p] * half + gates[s, p] * k[30])
                        ya[p] = share * r * lengths[s] * (drop[p] + gates[s, p] * half)
                        inject[s, p] = ya[p]
                        drop[p] += gates[s, p]
                for p in range(points):
                    ya[p] = zero
                for s in range(size - 1, -1, -1):
                    for p in range(points):
                        rise[s, p] += ya[p]
                        ya[p] += inject[s, p]
                for s in range(size):
                    for p in range(points):
                        bit = v[s, p] + back[s, p] - v0
                        leak = k[12] * _fade(back[s, p] * k[14] - bit * k[13], k)
                        inject[s, p] = (lengths[s] - np_[s, p]) * weight[s] * leak - cond[s, p] * rise[s, p]
            for p in range(points):
                ya[p], ja[p] = zero, zero
            for s in range(size):
                for p in range(points):
                    q1 = one / (one + far[s, p] * ya[p])
                    yy, jj = ya[p] * q1 + cond[s, p], ja[p] * q1 + inject[s, p]
                    q2 = one / (one + near[s, p] * yy)
                    ya[p], ja[p] = yy * q2, jj * q2
            for p in range(points):
                cl[p] = v0
                cur[p] = ya[p] * v0 + ja[p]
                drop[p] = zero
            if regulated:
                for p in range(points):
                    i = cur[p]
                    for _ in range(2):
                        vc, sl, _b = _curve(clamp_c, i * k[26], k)
                        i -= (i - ya[p] * vc - ja[p]) / (one - ya[p] * sl * k[26])
                    vc, sl, _b = _curve(clamp_c, i * k[26], k)
                    cl[p], cur[p] = vc, i
                    reg[p] = -sl * k[26]
            for p in range(points):
                iv[p] = cur[p]
            for s in range(size - 1, -1, -1):
                for p in range(points):
                    dd = drop[p] + near[s, p] * iv[p]
                    ladder[s, p] = dd
                    i = iv[p] - cond[s, p] * (cl[p] - dd) - inject[s, p]
                    iv[p] = i
                    drop[p] = dd + far[s, p] * i
                    v[s, p] = cl[p] - dd - rise[s, p]
                    back[s, p] = share * dd + rise[s, p]
        for p in range(points):
            loop[p] = one
            if regulated:
                loop[p] = one / (one + ya[p] * reg[p])
            else:
                reg[p] = zero
            if curved:
                if p < 2:
                    a0, a1, a2 = _curve(start_c, cur[p] * k[26], k)
                else:
                    a0, a1, a2 = _curve(rate_c, cur[p] * k[26], k)
                answer[p], bend[p] = a0, a2 * k[26] * k[26]
                rate[p] = a1 * k[26] + bend[p] * extra[p // 2]
            else:
                gain = k[25] if p < 2 else one
                answer[p], rate[p], bend[p] = gain * cur[p], gain, zero
            ja[p], drop[p], iv[p] = zero, zero, cur[p]
        # The elimination again, with what the pulses' ends draw; its admittances are those of before.
        if pulses:
            for p in range(points):
                cl[p] = cl[p] - v0
                move[p] = zero
            for s in range(size):
                for p in range(points):
                    q1 = one / (one + far[s, p] * move[p])
                    yy, jj = move[p] * q1 + cond[s, p], ja[p] * q1 - ends[s, p] / loop[p]
                    q2 = one / (one + near[s, p] * yy)
                    move[p], ja[p] = yy * q2, jj * q2
        else:
            for p in range(points):
                cl[p] = cl[p] - v0
                for s in range(size):
                    ends[s, p] = zero
        for p in range(points):
            ya[p] += ja[p]
            move[p] = zero
        place = zero
        for s in range(size - 1, -1, -1):
            here = place + r * lengths[s] * half
            place += r * lengths[s]
            for p in range(points):
                fall = drop[p] + near[s, p] * ya[p]
                a = one - fall
                i1 = ya[p] - cond[s, p] * a + ends[s, p] / loop[p]
                i2 = iv[p] - cond[s, p] * v[s, p]
                ta, tv = -r * half * (i1 + ya[p]), -r * half * (i2 + iv[p])
                ya[p], iv[p] = i1, i2
                drop[p] = fall + far[s, p] * i1
                fac = one - k[10] * back[s, p] / (one - k[9] * back[s, p]) - k[11] * (v[s, p] - v0)
                d = one + self_r[s, p] * gp[s, p]
                sp = fac / (d * d)
                gain = rate[p] * loop[p]
                first = a * sp * v[s, p]
                wy[s, p] = gain * first
                wt[s, p] = gain * sp * (a * tv + v[s, p] * ta)
                move[p] += first * gp[s, p]
                # Kept until the sum over the segments is known.
                wz[s, p] = wy[s, p] * (ladder[s, p] + reg[p] * cur[p]) / v0
                ws[s, p] = first
                wo[s, p] = wy[s, p] * first / v0 * (here * a + reg[p]) - half * bend[p] * loop[p] * loop[p] * first * first
        if squares > 0 and curved:
            for s in range(size):
                for p in range(points):
                    bent = half * bend[p] * loop[p] * ws[s, p] * move[p] * loop[p]
                    ws[s, p] = wz[s, p] - bent
                    wz[s, p] += abs(bent)
        else:
            for s in range(size):
                for p in range(points):
                    ws[s, p] = wz[s, p]
        for q in range(bins):
            force[q] = half * (rate[2 * q] + rate[2 * q + 1])
        force[0] = force[min(1, bins - 1)]
        knots[0], knots[bins] = force[0], force[bins - 1]
        for q in range(1, bins):
            knots[q] = half * (force[q] + force[q - 1])
        total = k[27]
        # The ideal product is left out here and added to every row's weight: its rounding would be the mean column's.
        for p in range(points):
            drop[p] = zero
        for s in range(size):
            for p in range(points):
                drop[p] += gp[s, p]
        for q in range(bins):
            total += half * ((answer[2 * q] - k[32] * drop[2 * q]) + (answer[2 * q + 1] - k[32] * drop[2 * q + 1])) * width[q]
        if pulses:
            for s in range(size):
                total += knots[0] * (cells[0, 0] * started[s] + cells[1, 0] * g_started[s])
                dd = half * (ladder[s, 0] + ladder[s, 1])
                total += force[0] * started[s] * (k[18] + k[20] * dd) * dd
                volts_before = k[28]
                for q in range(bins):
                    before = n[s, q - 1] if q > 0 else n[s, 0]
                    after = n[s, q + 1] if q < bins - 1 else -n[s, q]
                    ended = (before - after) * half
                    dd = half * (ladder[s, 2 * q] + ladder[s, 2 * q + 1])
                    lift = half * (cl[2 * q] + cl[2 * q + 1])
                    total += force[q] * ended * ((k[19] + k[21] * dd) * dd + k[22] * lift)
                    sc = knots[q + 1] * cells[0, q + 1] - knots[q] * cells[0, q]
                    sg = knots[q + 1] * cells[1, q + 1] - knots[q] * cells[1, q]
                    total += sc * n[s, q] + force[q] * cells[2, q] * n_ramp[s, q]
                    total += sg * conduct[s, q] + force[q] * cells[3, q] * ramp[s, q]
                    volts = lift - (one - share) * dd
                    busy = half * (n[s, q - 1] + n[s, q]) if q > 0 else n[s, 0]
                    total += knots[q] * (volts - volts_before) * (k[23] * lengths[s] + k[24] * (lengths[s] - busy))
                    volts_before = volts
                total += knots[bins] * (k[28] - volts_before) * (k[23] + k[24]) * lengths[s]
        left = zero
        base = total
        for s in range(size):
            lo, hi = bounds[s], bounds[s + 1]
            og = knots[0] * cells[1, 0] if pulses else zero
            xs, ys, ds = xb[lo:hi], yb[lo:hi], distance[lo:hi]
            for i in range(xs.shape[0]):
                ys[i] = k[32] * xs[i] + (og if xs[i] > zero else zero)
            base -= og * g_started[s]
            for q in range(bins):
                c = conduct[s, q]
                if n[s, q] <= zero and not rates:
                    continue
                w = width[q]
                centre = moment[s, q] / c if c > k[31] else half * lengths[s]
                by_p = half * w * (wt[s, 2 * q] + wt[s, 2 * q + 1])
                by_f = half * w * ((wy[s, 2 * q] - k[32]) + (wy[s, 2 * q + 1] - k[32])) - centre * by_p
                by_h = half * root3 * w * (wy[s, 2 * q + 1] - wy[s, 2 * q])
                if pulses:
                    by_f += knots[q + 1] * cells[1, q + 1] - knots[q] * cells[1, q]
                    by_h += force[q] * cells[3, q]
                base -= by_f * c + by_p * moment[s, q] + by_h * ramp[s, q]
                e, iw = edges[q], inverse[q]
                for i in range(xs.shape[0]):
                    f = min(max((xs[i] - e) * iw, zero), one)
                    ys[i] += f * (by_f + ds[i] * by_p + (f - one) * by_h)
                if rates:
                    top = edges[q + 1] if q < bins - 1 else two * edges[q + 1]
                    for i in range(lo, hi):
                        if xb[i] >= e and xb[i] < top:
                            f = (xb[i] - e) * iw
                            y_rate[b, i] = k[32] + iw * (by_f + distance[i] * by_p + (two * f - one) * by_h)
                if squares > 0:
                    left += ratio[s] * w * half * (
                        (wo[s, 2 * q] + wo[s, 2 * q + 1]) * c + root3 * (wo[s, 2 * q + 1] - wo[s, 2 * q]) * ramp[s, q]
                    )  # fmt: skip
        for j in range(squares):
            zb = z[j, b]
            own, signed, square = zero, zero, zero
            for s in range(size):
                lo, hi = bounds[s], bounds[s + 1]
                xs, zs = xb[lo:hi], zb[lo:hi]
                for i in range(xs.shape[0]):
                    zs[i] = zero
                for q in range(cuts[j], cuts[j + 1]):
                    if n[s, q] <= zero and not rates:
                        continue
                    w = width[q]
                    by_f = half * w * (wz[s, 2 * q] + wz[s, 2 * q + 1])
                    by_h = half * root3 * w * (wz[s, 2 * q + 1] - wz[s, 2 * q])
                    own += by_f * conduct[s, q] + by_h * ramp[s, q]
                    signed += half * w * (
                        (ws[s, 2 * q] + ws[s, 2 * q + 1]) * conduct[s, q]
                        + root3 * (ws[s, 2 * q + 1] - ws[s, 2 * q]) * ramp[s, q]
                    )  # fmt: skip
                    e, iw = edges[q], inverse[q]
                    for i in range(xs.shape[0]):
                        f = min(max((xs[i] - e) * iw, zero), one)
                        zs[i] += f * (by_f + (f - one) * by_h)
                    if rates:
                        top = edges[q + 1] if q < bins - 1 else two * edges[q + 1]
                        for i in range(lo, hi):
                            if xb[i] >= e and xb[i] < top:
                                f = (xb[i] - e) * iw
                                z_rate[j, b, i] = iw * (by_f + (two * f - one) * by_h)
            scale, sign = zero, zero
            if own > zero:
                # The form may be weaker than its probe where its parts differ in sign: that goes into the scale.
                scale = np.sqrt(abs(signed)) / own
                sign = one if signed >= zero else -one
            for i in range(len(g)):
                t = zb[i] * scale
                zb[i] = t
                square += t * t * variance[i]
            if rates:
                for i in range(len(g)):
                    z_rate[j, b, i] *= scale
            left -= sign * square
            sign_of[j, b] = sign
        yb[len(g)], yb[len(g) + 1] = base, left
        for i in range(len(g) + 2, y.shape[1]):
            yb[i] = zero
