"""From rows to bins in one pass (Triton): sums over the rows of what conducts in each bin of the window."""

# Triton compiles these functions, of its own types; Python never calls them.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportMissingImports=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

#: Vectors and rows of a program.
VECTORS = 4
ROWS = 16


@triton.jit
def sum_rows(x, sums, rows, segments, window, sizes, SEGMENTS: tl.constexpr, BINS: tl.constexpr, VECTORS: tl.constexpr,
             ROWS: tl.constexpr):  # fmt: skip
    """``Sums`` of one segment and some vectors of codes x (batch, rows) [LSB]."""
    batch, bins = sizes.batch, sizes.bins
    vector = tl.program_id(0) * VECTORS + tl.arange(0, VECTORS)
    segment = tl.program_id(1)
    here = vector < batch
    q = tl.arange(0, BINS)
    edge = tl.load(window.edges + q, mask=q < bins, other=0.0)[None, None, :]
    inverse = tl.load(window.inverse + q, mask=q < bins, other=0.0)[None, None, :]
    conduct = tl.zeros((VECTORS, ROWS, BINS), tl.float32)
    moment, n, ramp, n_ramp = conduct, conduct, conduct, conduct
    on = tl.zeros((VECTORS, ROWS), tl.float32)
    g_on = on
    last = tl.load(segments.bounds + segment + 1)
    for first in range(tl.load(segments.bounds + segment), last, ROWS):
        row = first + tl.arange(0, ROWS)
        code = tl.load(x + vector[:, None] * sizes.rows + row[None, :], mask=here[:, None] & (row < last)[None, :], other=0.0)
        g = tl.load(rows.g + row, mask=row < last, other=0.0)[None, :]
        distance = tl.load(rows.distance + row, mask=row < last, other=0.0)[None, :, None]
        f = tl.minimum(tl.maximum((code[:, :, None] - edge) * inverse, 0.0), 1.0)
        h = f * f - f
        gf = f * g[:, :, None]
        conduct += gf
        moment += gf * distance
        n += f
        ramp += h * g[:, :, None]
        n_ramp += h
        pulse = tl.where(code > 0, 1.0, 0.0)
        on += pulse
        g_on += pulse * g
    plane = SEGMENTS * batch * bins
    to = sums.by_bin + (segment * batch + vector[:, None]) * bins + q[None, :]
    some = here[:, None] & (q < bins)[None, :]
    tl.store(to, tl.sum(conduct, 1), mask=some)
    tl.store(to + plane, tl.sum(moment, 1), mask=some)
    tl.store(to + 2 * plane, tl.sum(n, 1), mask=some)
    tl.store(to + 3 * plane, tl.sum(ramp, 1), mask=some)
    tl.store(to + 4 * plane, tl.sum(n_ramp, 1), mask=some)
    tl.store(sums.started + segment * batch + vector, tl.sum(on, 1), mask=here)
    tl.store(sums.started + (SEGMENTS + segment) * batch + vector, tl.sum(g_on, 1), mask=here)
