"""What a lane of the fused ladder looks up (Triton): curves, and a segment's cells at a Gauss point of a bin."""

# Triton compiles these functions, of its own types; Python never calls them.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportMissingImports=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def curve_at(pieces, place, PIECES: tl.constexpr):
    """Value of a curve at ``place`` [grid steps], its first and second derivative per grid step: ``Curve.at``."""
    n = tl.minimum(tl.maximum(tl.floor(place), 0.0), PIECES - 1.0)
    piece = pieces + n.to(tl.int32) * 4
    a, b, c, d = tl.load(piece), tl.load(piece + 1), tl.load(piece + 2), tl.load(piece + 3)
    t = place - n
    s = tl.minimum(tl.maximum(t, 0.0), 1.0)
    cubic = s * d
    first = b + s * (2 * c + 3 * cubic)
    return a + s * (b + s * (c + cubic)) + (t - s) * first, first, tl.where(t == s, 2 * c + 6 * cubic, 0.0)


@triton.jit
def ended_in(n, at, q, bins, mask):
    """How many pulses end in bin q, of the numbers n that conduct: from its middle to the next one's, the rest in the last."""
    here = tl.load(n + at, mask=mask, other=0.0)
    before = tl.load(n + at - 1, mask=mask & (q > 0), other=0.0)
    after = tl.load(n + at + 1, mask=mask & (q + 1 < bins), other=0.0)
    return (tl.where(q > 0, before, here) - tl.where(q + 1 < bins, after, -here)) / 2


@triton.jit
def charge_of(window, q, g):
    """Mean charge [µA·LSB] of a pulse that ends in bin q, of a cell of apparent conductance g [µS]."""
    const = tl.load(window.e_const + q) + tl.load(window.e_const + q + 1)
    return (const + (tl.load(window.e_gain + q) + tl.load(window.e_gain + q + 1)) * g) / 2


@triton.jit
def number_at(column, at):
    """Number of a segment's conducting cells at a Gauss point; column: ``Sums.by_bin``, how far its kinds are apart, the Gauss
    point's place in the bin, and the mask."""
    sums, plane, t, mask = column
    n, ramp = tl.load(sums + 2 * plane + at, mask=mask, other=0.0), tl.load(sums + 4 * plane + at, mask=mask, other=0.0)
    return tl.maximum(n + t * ramp, 0.0)


@triton.jit
def cells_at(column, at, s, segments, wire):
    """Of the reference column at a Gauss point: conductance [µS] and number of a segment's conducting cells, wire from their
    centroid to the near end, and what the cells see of their own wire [MΩ]."""
    sums, plane, t, mask = column
    conduct = tl.load(sums + at, mask=mask, other=0.0)
    moment = tl.load(sums + plane + at, mask=mask, other=0.0)
    g = conduct + t * tl.load(sums + 3 * plane + at, mask=mask, other=0.0)
    length = tl.load(segments.lengths + s)
    centre = tl.where(conduct > 0, moment / tl.maximum(conduct, 1e-30), length / 2)
    number = number_at(column, at)
    evenly = 1 - 1 / tl.maximum(number / tl.load(segments.spread + s), 1.0)
    return g, number, wire.r_ohm * centre, -wire.r_ohm * length / 6 * evenly


@triton.jit
def voltages(line, kind, clamp, wire, mask, SOLVED: tl.constexpr):
    """Voltage of a segment's cells and of their return line, of the last turn or, not SOLVED, of an unloaded line [V]."""
    if SOLVED:
        rise, drop = tl.load(line + 2 * kind, mask=mask, other=0.0), tl.load(line + 4 * kind, mask=mask, other=0.0)
        return clamp - drop - rise, wire.share * drop + rise
    else:
        return clamp, clamp * 0.0


@triton.jit
def beside(y, j, cond, inject, near, far):
    """Admittance [µS] and short-circuit current [µA] at a segment's near end, from those at its far end."""
    k = 1 / (1 + far * y)
    y, j = y * k + cond, j * k + inject
    k = 1 / (1 + near * y)
    return y * k, j * k
