"""From rows to bins and back, compiled: sums of what conducts in each bin, and the rows' weights from the bins'.

The plain twin is ``mean_rows``.
"""

from __future__ import annotations

import numba

from aimcard.models.fast.jit import HALF, LANES, ONE, PASS, STEP, TINY, TWO, ZERO
from aimcard.models.fast.lanes import fill, high, load, low, rounded, store, store_bytes, where_less


@numba.njit(**PASS)
def read_codes(x, first, count, column, rows):
    """Codes of the ``count`` vectors from ``first`` on, turned for the sums and padded for the rows' weights."""
    bounds, padded = column.bounds, column.padded
    even = padded[len(column.lengths)] == len(column.g)
    for lane in range(count):
        for i in range(len(column.g)):
            rows.across[i * LANES + lane] = x[first + lane, i]
        # Segments of whole sixteens need no padding: rows are then read and written where they are.
        if not even:
            for s in range(len(column.lengths)):
                for i in range(bounds[s + 1] - bounds[s]):
                    rows.along[lane, padded[s] + i] = x[first + lane, bounds[s] + i]


@numba.njit(**PASS)
def sum_rows(codes, column, bins, sums):
    """Sums over the rows of each segment and bin of ``codes`` (rows · LANES,): the conductance's least-squares line in time
    ("Method", step 1) from f and f² − f of each row."""
    zero, one = fill(ZERO), fill(ONE)
    g, distance, bounds, padded = column.g, column.distance, column.bounds, column.padded
    for s in range(len(bounds) - 1):
        on, g_on = zero, zero
        for i in range(bounds[s], bounds[s + 1]):
            up = where_less(zero, load(codes, i * LANES), one, zero)
            on = on + up
            g_on = g_on + up * g[i]
        store(sums.started, s * LANES, on)
        store(sums.g_started, s * LANES, g_on)
        for q in range(len(bins.inverse)):
            edge, inverse = bins.edges[q], bins.inverse[q]
            conduct, moment, n, ramp, n_ramp = zero, zero, zero, zero, zero
            for i in range(bounds[s], bounds[s + 1]):
                f = low(high((load(codes, i * LANES) - edge) * inverse, zero), one)
                h = f * f - f
                gf = f * g[i]
                conduct = conduct + gf
                moment = moment + gf * distance[padded[s] + i - bounds[s]]
                n = n + f
                ramp = ramp + h * g[i]
                n_ramp = n_ramp + h
            at = (s * len(bins.inverse) + q) * LANES
            store(sums.conduct, at, conduct)
            store(sums.moment, at, moment)
            store(sums.n, at, n)
            store(sums.ramp, at, ramp)
            store(sums.n_ramp, at, n_ramp)


@numba.njit(**STEP)
def ended_in(n, at, q, bins):
    """Pulses that end in bin q, from one bin's middle to the next one's; all that is left ends in the last."""
    before = load(n, at - LANES) if q > 0 else load(n, at)
    after = load(n, at + LANES) if q < bins - 1 else fill(ZERO) - load(n, at)
    return (before - after) * HALF


@numba.njit(**PASS)
def place_charges(sums, column, bins, pulse):
    """Where the segments' conductance is on the wire, and the pulses that end there with what they draw per volt of drop.

    To the adjoint, what idle cells store on the bit line is one more charge of the pulses' ends.
    """
    count = len(bins.width)
    for q in range(count):
        drawn = fill(ZERO)
        for s in range(len(column.lengths)):
            at = (s * count + q) * LANES
            conduct, middle = load(sums.conduct, at), fill(HALF * column.lengths[s])
            centre = where_less(fill(TINY), conduct, load(sums.moment, at) / high(conduct, fill(TINY)), middle)
            store(sums.near, at, centre * column.r)
            ended = ended_in(sums.n, at, q, count)
            drawn = drawn + ended
            charge = ended * ((pulse.end_drop + (ONE - column.share) * pulse.node) * bins.inverse[q])
            if q == 0:
                charge = charge + load(sums.started, s * LANES) * pulse.start_drop
            store(sums.ends, at, charge)
        store(sums.drawn, q * LANES, drawn * bins.inverse[q])


@numba.njit(**PASS)
def weigh_rows(x, lane, rates, column, bins, ideal, weights, y, z, y_rate, z_rate):
    """Weights y of the rows of one vector x, and bytes z (parts, ·) if there are; with ``rates`` their derivatives to the codes.

    All rows are padded. ``lane``: the vector's place in the block. Each row is full in the bins before the one in which its
    pulse ends; there it is f·(full + distance·place) + (f² − f)·ramp.
    """
    count, parts, cuts, distance = len(bins.inverse), z.shape[0], bins.cuts, column.distance
    zero, one = fill(ZERO), fill(ONE)
    for s in range(len(column.lengths)):
        for chunk in range(column.padded[s], column.padded[s + 1], LANES):
            code, d = load(x, chunk), load(distance, chunk)
            sum_y = code * ideal + where_less(zero, code, fill(weights.begun[lane]), zero)
            sum_z, y_slope, z_slope = zero, fill(ideal), zero
            part = 0
            for q in range(count):
                at = (s * count + q) * LANES + lane
                f = low(high((code - bins.edges[q]) * bins.inverse[q], zero), one)
                y_ramp, z_full, z_ramp = weights.y_ramp[at], weights.z_full[at], weights.z_ramp[at]
                line = d * weights.y_place[at] + weights.y_full[at]
                sum_y = sum_y + f * (line + (f - one) * y_ramp)
                if parts > 0:
                    sum_z = sum_z + f * ((f - one) * z_ramp + z_full)
                    if q + 1 == cuts[part + 1]:
                        store_bytes(z[part], chunk, rounded(sum_z))
                        sum_z = zero
                        part += 1
                if rates:
                    inside = where_less(code, fill(bins.tops[q]), one, zero) * (
                        one - where_less(code, fill(bins.edges[q]), one, zero)
                    )
                    y_slope = y_slope + inside * ((line + (f * TWO - one) * y_ramp) * bins.inverse[q])
                    bent = inside * ((f * TWO - one) * z_ramp + z_full)
                    z_slope = z_slope + bent * bins.inverse[q] * weights.byte[at]
            store(y, chunk, sum_y)
            if rates:
                store(y_rate, chunk, y_slope)
                store(z_rate, chunk, z_slope)


@numba.njit(**PASS)
def write_rows(x, at, lane, group, column, bins, ideal, work, out):
    """Rows of vector ``at`` into the answers' arrays, and what stands behind them; only the first group writes z."""
    rates, rows, buffers = out.z_rate.shape[0] > 0, len(column.g), work.rows
    parts = out.z.shape[0] if group == 0 else 0
    bounds, padded = column.bounds, column.padded
    y = out.y[group, at]
    if padded[len(column.lengths)] == rows:
        y_rate, z_rate = buffers.y_rate, buffers.z_rate
        if rates:
            y_rate = out.y_rate[group, at]
            if group == 0:
                z_rate = out.z_rate[at]
        weigh_rows(x[at], lane, rates, column, bins, ideal, work.weights, y, out.z[:parts, at], y_rate, z_rate)
    else:
        weigh_rows(buffers.along[lane], lane, rates, column, bins, ideal, work.weights, buffers.y, buffers.z[:parts, 0],
                   buffers.y_rate, buffers.z_rate)  # fmt: skip
        for s in range(len(column.lengths)):
            for i in range(bounds[s + 1] - bounds[s]):
                y[bounds[s] + i] = buffers.y[padded[s] + i]
            for j in range(parts):
                for i in range(bounds[s + 1] - bounds[s]):
                    out.z[j, at, bounds[s] + i] = buffers.z[j, 0, padded[s] + i]
            if rates:
                for i in range(bounds[s + 1] - bounds[s]):
                    out.y_rate[group, at, bounds[s] + i] = buffers.y_rate[padded[s] + i]
                    if group == 0:
                        out.z_rate[at, bounds[s] + i] = buffers.z_rate[padded[s] + i]
    for i in range(y.shape[0] - rows):
        y[rows + i] = work.behind[i * LANES + lane]
