"""The compiled preparation's frame: blocks of sixteen vectors through the steps of ``kernel``."""

from __future__ import annotations

import numba
import numpy as np

from aimcard.models.fast.kernel import KINDS, _adjoint, _ladder, _rows, _sums
from aimcard.models.fast.lanes import curve_at, fill, high, load, low, root, store, where_less


@numba.njit(fastmath=True, inline="always")
def _size(a):
    return high(a, fill(np.float32(0)) - a)


@numba.njit(fastmath=True, nogil=True, boundscheck=False, error_model="numpy", cache=True)
def _answer(current, clamp_free, p, k, curved, rate_c, start_c):
    """Answer per LSB at a point, its slope and its bend, for currents in sixteen vectors."""
    if curved:
        if p < 2:
            a0, a1, a2 = curve_at(start_c, current * k[26])
        else:
            a0, a1, a2 = curve_at(rate_c, current * k[26])
        return a0, a1 * k[26], a2 * (k[26] * k[26])
    gain = fill(k[25]) if p < 2 else fill(k[1])
    return gain * current, gain, clamp_free * k[0]


@numba.njit(fastmath=True, nogil=True, boundscheck=False, error_model="numpy", cache=True)
def prepare(x, g, distance, bounds, padded, edges, inverse, width, lengths, source, drain, weight, spread, ratio, cells, times, k,
            scales, rate_c, start_c, clamp_c, modes, cuts, y, z, z_scale, sign_of, cubic_of, y_rate, z_rate):  # fmt: skip
    """Fill y (groups, batch, rows + 8), bytes z (parts, batch, rows), z_scale, sign, cubic (groups, parts, batch), y_rate
    (groups, batch, rows) and z_rate (batch, rows) if they are not empty.

    ``scales``: what the groups' mean columns are of g, the first 1: z is its. ``distance`` is padded; cells (5, bins + 1): const
    and gain of a pulse at the bins' edges, their curvatures, and the codes up to which the last of each bin counts. cuts: first
    bin of each part, and the number of bins.
    """
    batch, rows = x.shape
    size, bins, parts = len(lengths), len(width), z.shape[0]
    points = 2 * bins
    rates = z_rate.shape[0] > 0
    pulses, curved = modes[1], modes[2]
    share, reach = k[7], k[35]
    zero, one, v0 = fill(np.float32(0)), fill(np.float32(1)), fill(k[8])
    half, root3 = k[4], k[5]
    grid = size * bins * 16
    conduct, moment, n, ramp, n_ramp = (np.empty(grid, x.dtype), np.empty(grid, x.dtype), np.empty(grid, x.dtype),
                                        np.empty(grid, x.dtype), np.empty(grid, x.dtype))  # fmt: skip
    ends, drops, near = np.empty(grid, x.dtype), np.empty(grid, x.dtype), np.empty(grid, x.dtype)
    weights = np.empty(6 * grid, x.dtype)
    started, g_started = np.empty(size * 16, x.dtype), np.empty(size * 16, x.dtype)
    found, w = np.empty(5 * points * size * 16, x.dtype), np.empty(KINDS * size * 16, x.dtype)
    drawn_at = np.empty(bins * 16, x.dtype)
    extra, lift, force, bends = (np.empty(bins * 16, x.dtype), np.empty(bins * 16, x.dtype), np.empty(bins * 16, x.dtype),
                                 np.empty(bins * 16, x.dtype))  # fmt: skip
    knots = np.empty((bins + 2) * 16, x.dtype)
    nodes = np.empty(max(parts, 1) * 5 * 16, x.dtype)
    of_row = np.empty(16, x.dtype)
    base, left, square_, fourth = np.empty(16, x.dtype), np.empty(16, x.dtype), np.empty(16, x.dtype), np.empty(16, x.dtype)
    ended_, bias, arched = np.empty(16, x.dtype), np.empty(16, x.dtype), np.empty(16, x.dtype)
    zs, sg, cu = np.empty(16, x.dtype), np.empty(16, x.dtype), np.empty(16, x.dtype)
    xt, xs = np.zeros(rows * 16, x.dtype), np.zeros((16, padded[size]), x.dtype)
    # Segments of whole sixteens need no padding: rows are then read and written where they are.
    even = padded[size] == rows
    yb, zb = np.empty(padded[size], x.dtype), np.empty((parts, 1, padded[size]), np.int8)
    yr, zr = np.empty(padded[size], x.dtype), np.empty(padded[size], x.dtype)
    step = points * size * 16
    node = np.empty(4, x.dtype)
    node[0], node[1] = k[1] + reach * half, k[1] + reach
    node[2], node[3] = k[1] - reach * half, k[1] - reach
    along = np.zeros(max(parts, 1) * 80, x.dtype)
    scaled, ratio_of = np.empty(size, x.dtype), np.empty(size, x.dtype)
    drain_of = np.empty(size, x.dtype)
    for b in range(0, batch, 16):
        count = min(16, batch - b)
        for lane in range(count):
            for i in range(rows):
                xt[i * 16 + lane] = x[b + lane, i]
            if not even:
                for s in range(size):
                    for i in range(bounds[s + 1] - bounds[s]):
                        xs[lane, padded[s] + i] = x[b + lane, bounds[s] + i]
        _sums(xt, g, distance, bounds, padded, edges, inverse, conduct, moment, n, ramp, n_ramp, started, g_started)
        for q in range(bins):
            drawn = zero
            for s in range(size):
                at = (s * bins + q) * 16
                c = load(conduct, at)
                middle = fill(half * lengths[s])
                centre = where_less(fill(k[31]), c, load(moment, at) / high(c, fill(k[31])), middle)
                store(near, at, centre * k[6])
                before = load(n, at - 16) if q > 0 else load(n, at)
                after = load(n, at + 16) if q < bins - 1 else zero - load(n, at)
                ended = (before - after) * half
                drawn = drawn + ended
                u = ended * ((k[19] + (k[1] - share) * k[24]) * inverse[q])
                if q == 0:
                    u = u + load(started, s * 16) * k[18]
                store(ends, at, u)
            store(drawn_at, q * 16, drawn * inverse[q])
        for group in range(len(scales)):
            sc = scales[group]
            more = sc / scales[group - 1] if group > 0 else sc
            off = sc - k[1]
            for s in range(size):
                # A line of larger cells falls more with its voltages, and its variance is told against the first group's.
                scaled[s], drain_of[s], ratio_of[s] = source[s] * sc, drain[s] * sc, ratio[s] / sc
                if group > 0:
                    store(g_started, s * 16, load(g_started, s * 16) * more)
                    for q in range(bins):
                        at = (s * bins + q) * 16
                        store(conduct, at, load(conduct, at) * more)
                        store(moment, at, load(moment, at) * more)
                        store(ramp, at, load(ramp, at) * more)
            for q in range(bins):
                mean = (cells[0, q] + cells[0, q + 1] + (cells[1, q] + cells[1, q + 1]) * k[38] * sc) * half
                store(extra, q * 16, load(drawn_at, q * 16) * mean)
            total = fill(k[27])
            for j in range(max(parts, 1) * 5):
                store(nodes, j * 16, zero)
            for q in range(bins):
                part = 0
                while part + 1 < parts and q >= cuts[part + 1]:
                    part += 1
                rate_q, lift_q, bend_q = zero, zero, zero
                for d in range(2):
                    p = 2 * q + d
                    t = root3 if d else -root3
                    whole = zero
                    for s in range(size):
                        at, to = (s * bins + q) * 16, s * KINDS * 16
                        here = load(conduct, at) + load(ramp, at) * t
                        whole = whole + here
                        store(w, to, here)
                        store(w, to + 16, high(load(n, at) + load(n_ramp, at) * t, zero))
                        store(w, to + 32, load(near, at))
                        store(w, to + 48, fill(k[6] * lengths[s]) - load(near, at))
                    clamp, current, ya, slope = _ladder(w, k[1], 2, lengths, scaled, drain_of, weight, spread, k, clamp_c, modes)
                    a0, a1, a2 = _answer(current, zero, p, k, curved, rate_c, start_c)
                    rate = a1 + a2 * load(extra, q * 16)
                    _adjoint(w, ends, q * 16, bins * 16, clamp, current, ya, slope, rate, a2, lengths, k, modes, found, p, points)
                    rate_q, lift_q, bend_q = rate_q + rate * half, lift_q + (clamp - v0) * half, bend_q + a2 * half
                    for s in range(size):
                        at = (s * bins + q) * 16
                        dd = load(w, (s * KINDS + 8) * 16) * half
                        store(drops, at, dd if d == 0 else load(drops, at) + dd)
                    a0 = (a0 - whole * k[32]) * (half * width[q])
                    total = total + a0
                    if parts > 0 and reach > k[0] and group == 0:
                        for s in range(size):
                            at = s * KINDS * 16
                            store(w, at + 12 * 16, load(w, at + 6 * 16))
                            store(w, at + 13 * 16, load(w, at + 7 * 16))
                        store(nodes, part * 80, load(nodes, part * 80) + a0)
                        for j in range(4):
                            _c, current, _y, _s = _ladder(
                                w, node[j], 1, lengths, scaled, drain_of, weight, spread, k, clamp_c, modes
                            )
                            a0, a1, a2 = _answer(current, zero, p, k, curved, rate_c, start_c)
                            at = part * 80 + (j + 1) * 16
                            store(nodes, at, load(nodes, at) + (a0 - whole * (k[32] * node[j])) * (half * width[q]))
                store(force, q * 16, rate_q)
                store(lift, q * 16, lift_q)
                store(bends, q * 16, bend_q)
            if bins > 1:
                store(force, 0, load(force, 16))
                store(bends, 0, load(bends, 16))
            for j in range(bins + 2):
                at = zero
                for q in range(bins):
                    at = at + load(force, q * 16) * times[j, q]
                store(knots, j * 16, at)
            begin, drawn_all = load(knots, (bins + 1) * 16), zero
            row = zero
            if pulses:
                row = begin * k[34] + load(knots, 0) * cells[1, 0]
                for q in range(bins):
                    drawn = load(extra, q * 16)
                    total = total - load(bends, q * 16) * drawn * drawn * (half * width[q])
            store(of_row, 0, row)
            for s in range(size):
                if pulses:
                    on, gon = load(started, s * 16), load(g_started, s * 16)
                    total = total + begin * (on * k[33] + gon * k[34]) + load(knots, 0) * (on * cells[0, 0] + gon * cells[1, 0])
                    dd = load(drops, s * bins * 16)
                    total = total + begin * on * (dd * k[20] + k[18]) * dd
                    volts_before = fill(k[28])
                    for q in range(bins):
                        at = (s * bins + q) * 16
                        before = load(n, at - 16) if q > 0 else load(n, at)
                        after = load(n, at + 16) if q < bins - 1 else zero - load(n, at)
                        ended = (before - after) * half
                        dd, up, fq = load(drops, at), load(lift, q * 16), load(force, q * 16)
                        drawn_all = drawn_all + fq * ended
                        total = total + fq * ended * ((dd * k[21] + k[19]) * dd + up * k[22])
                        k0, k1 = load(knots, q * 16), load(knots, q * 16 + 16)
                        total = total + (k1 * cells[0, q + 1] - k0 * cells[0, q]) * load(n, at)
                        total = total + fq * cells[2, q] * load(n_ramp, at)
                        total = total + (k1 * cells[1, q + 1] - k0 * cells[1, q]) * load(conduct, at)
                        total = total + fq * cells[3, q] * load(ramp, at)
                        volts = up - dd * (k[1] - share)
                        busy = (load(n, at - 16) + load(n, at)) * half if q > 0 else load(n, at)
                        side = fq if q == 0 else (load(force, q * 16 - 16) + fq) * half
                        total = total + side * (volts - volts_before) * ((lengths[s] - busy) * k[24] + k[23] * lengths[s])
                        volts_before = volts
                    total = total + load(force, (bins - 1) * 16) * (k[28] - volts_before) * ((k[23] + k[24]) * lengths[s])
                total = total - row * load(g_started, s * 16)
                for q in range(bins):
                    at, to = (s * bins + q) * 16, (2 * q * size + s) * 16
                    wide = half * width[q]
                    by_p = (load(found, step + to) + load(found, step + to + size * 16)) * wide
                    y0, y1 = load(found, to), load(found, to + size * 16)
                    by_f = ((y0 - k[32]) + (y1 - k[32])) * wide - load(near, at) / k[6] * by_p if k[6] > k[0] else (
                        ((y0 - k[32]) + (y1 - k[32])) * wide)  # fmt: skip
                    by_h = (y1 - y0) * (root3 * wide)
                    if pulses:
                        by_f = by_f + load(knots, q * 16 + 16) * cells[1, q + 1] - load(knots, q * 16) * cells[1, q]
                        by_h = by_h + load(force, q * 16) * cells[3, q]
                    total = total - (by_f * load(conduct, at) + by_p * load(moment, at) + by_h * load(ramp, at))
                    store(weights, at, by_f)
                    store(weights, grid + at, by_p)
                    store(weights, 2 * grid + at, by_h)
            store(base, 0, total)
            store(ended_, 0, drawn_all)
            remains, arches, second, thirds, rest, last = zero, zero, zero, zero, zero, zero
            for j in range(parts):
                own, signed, most, lost, spare = zero, zero, zero, zero, zero
                for s in range(size):
                    sum_z, prefix = zero, zero
                    for q in range(cuts[j], cuts[j + 1]):
                        at, to = (s * bins + q) * 16, (2 * q * size + s) * 16
                        wide = half * width[q]
                        c, rc = load(conduct, at), load(ramp, at)
                        z0, z1 = load(found, 2 * step + to), load(found, 2 * step + to + size * 16)
                        s0, s1 = load(found, 3 * step + to), load(found, 3 * step + to + size * 16)
                        o0, o1 = load(found, 4 * step + to), load(found, 4 * step + to + size * 16)
                        zf, zh = (z0 + z1) * wide, (z1 - z0) * (root3 * wide)
                        own = own + zf * c + zh * rc
                        signed = signed + ((s0 + s1) * c + (s1 - s0) * rc * root3) * wide
                        spare = spare + ((o0 + o1) * c + (o1 - o0) * rc * root3) * (wide * ratio_of[s])
                        lost = lost + (zf * zf * (c + rc) + zf * prefix * c * k[2]) * ratio_of[s]
                        prefix = prefix + zf
                        sum_z = sum_z + _size(zf) + _size(zh) * k[36]
                        store(weights, 3 * grid + at, zf)
                        store(weights, 4 * grid + at, zh)
                    most = high(most, sum_z)
                some = where_less(zero, own, one, zero)
                sign = where_less(signed, zero, zero - one, one) * some
                # The form may be weaker than its probe where its parts differ in sign: that goes into the scale.
                scale = root(_size(signed)) / high(own, fill(k[31])) * some
                tall = high(most, fill(k[31]))
                here = spare - sign * scale * scale * lost
                remains = remains + here
                whole, squared = fill(k[31]), zero
                for q in range(cuts[j], cuts[j + 1]):
                    busy = zero
                    for s in range(size):
                        busy = busy + load(n, (s * bins + q) * 16)
                    whole, squared = whole + busy * width[q], squared + busy * busy * width[q]
                arches = arches + here * squared / whole
                bytes_ = fill(k[37]) / tall
                strong = high(_size(signed), fill(k[31]))
                if group == 0:
                    byte = tall / k[37] * scale
                    store(along, j * 80, strong)
                    store(along, j * 80 + 16, byte)
                    if reach > k[0]:
                        f0, fa, fb = load(nodes, j * 80), load(nodes, j * 80 + 16), load(nodes, j * 80 + 32)
                        fc, fd = load(nodes, j * 80 + 48), load(nodes, j * 80 + 64)
                        h2, sixteen = reach * reach, k[1] / k[17]
                        even1, even2 = fb + fd - f0 * k[2], fa + fc - f0 * k[2]
                        store(along, j * 80 + 32, (even2 * sixteen - even1) / fill(h2 * (k[3] * k[2])))
                        store(along, j * 80 + 48, ((fb - fd) - (fa - fc) * k[2]) / fill(reach * h2 * (k[1] + half)))
                        store(along, j * 80 + 64, (even1 - even2 * (k[2] * k[2])) / fill(h2 * h2 * (k[1] + half)))
                else:
                    # The first group's z, as strong as this one's square.
                    byte = load(along, j * 80 + 16) * root(strong / load(along, j * 80)) / sc
                cubic = zero
                if reach > k[0]:
                    c2, c3, c4 = load(along, j * 80 + 32), load(along, j * 80 + 48), load(along, j * 80 + 64)
                    third = (c3 + c4 * (k[2] * k[2] * off)) * (sc * sc * sc)
                    second, thirds = second + signed, thirds + third
                    rest = rest + (c2 + c3 * (k[3] * off) + c4 * (k[3] * k[2] * off * off)) * (sc * sc)
                    last = last + c4 * (sc * sc * sc * sc)
                    # Third order above the second is rounding.
                    cubic = low(high((zero - third) / strong, zero - one), one) / root(strong)
                store(zs, 0, byte)
                store(sg, 0, sign)
                store(cu, 0, cubic * sign)
                for lane in range(count):
                    at = b + lane
                    z_scale[group, j, at], sign_of[group, j, at], cubic_of[group, j, at] = zs[lane], sg[lane], cu[lane]
                for s in range(size):
                    for q in range(cuts[j], cuts[j + 1]):
                        at = (s * bins + q) * 16
                        store(weights, 3 * grid + at, load(weights, 3 * grid + at) * bytes_)
                        store(weights, 4 * grid + at, load(weights, 4 * grid + at) * bytes_)
                        store(weights, 5 * grid + at, byte)
            growth = low(high((zero - thirds) * k[3] / high(second, fill(k[31])), fill(-k[3])), fill(k[3]))
            store(left, 0, remains)
            store(bias, 0, remains * growth)
            store(arched, 0, arches * k[39])
            store(fourth, 0, last)
            store(square_, 0, second + rest)
            for lane in range(count):
                at = b + lane
                # Only the first group writes z.
                own_z = parts if group == 0 else 0
                if even:
                    slope_y, slope_z = (y_rate[group, at], z_rate[at] if group == 0 else zr) if rates else (yr, zr)
                    _rows(x[at], distance, bounds, padded, edges, inverse, weights, lane, cuts, y[group, at], z[:own_z, at],
                          rates, slope_y, slope_z, cells[4], k, of_row)  # fmt: skip
                else:
                    _rows(xs[lane], distance, bounds, padded, edges, inverse, weights, lane, cuts, yb, zb[:own_z, 0], rates, yr,
                          zr, cells[4], k, of_row)  # fmt: skip
                    for s in range(size):
                        for i in range(bounds[s + 1] - bounds[s]):
                            y[group, at, bounds[s] + i] = yb[padded[s] + i]
                        for j in range(own_z):
                            for i in range(bounds[s + 1] - bounds[s]):
                                z[j, at, bounds[s] + i] = zb[j, 0, padded[s] + i]
                        if rates:
                            for i in range(bounds[s + 1] - bounds[s]):
                                y_rate[group, at, bounds[s] + i] = yr[padded[s] + i]
                                if group == 0:
                                    z_rate[at, bounds[s] + i] = zr[padded[s] + i]
                behind = y[group, at]
                behind[rows], behind[rows + 1], behind[rows + 2] = base[lane], left[lane], square_[lane]
                behind[rows + 3], behind[rows + 4], behind[rows + 5] = fourth[lane], ended_[lane], bias[lane]
                behind[rows + 6] = arched[lane]
                for i in range(rows + 7, y.shape[2]):
                    behind[i] = np.float32(0)
