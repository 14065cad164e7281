"""From bins to rows in one pass (Triton): the rows' weights y and z of ``mean_rows``, without an intermediate of all bins."""

# Triton compiles these functions, of its own types; Python never calls them.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportMissingImports=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

#: Vectors and rows of a program.
VECTORS = 4
ROWS = 64


@triton.jit
def weigh_rows(x, by_bin, y, z, y_rate, z_rate, rows, segments, window, sizes, ideal, EXTRA: tl.constexpr,
               SEGMENTS: tl.constexpr, SQUARES: tl.constexpr, RATES: tl.constexpr, VECTORS: tl.constexpr,
               ROWS: tl.constexpr):  # fmt: skip
    """Weights of the rows of one segment, for one group and some vectors of codes x (batch, rows) [LSB].

    Into y (groups, batch, rows + EXTRA), z (squares, batch, rows), and with RATES y_rate (groups, batch, rows) and z_rate (batch,
    rows); ideal: answer per LSB and µS.
    """
    batch, size, bins, groups = sizes.batch, sizes.rows, sizes.bins, sizes.groups
    vector = tl.program_id(0) * VECTORS + tl.arange(0, VECTORS)
    segment, group = tl.program_id(1), tl.program_id(2)
    here = vector < batch
    plane, z_plane = SEGMENTS * groups * batch * bins, SEGMENTS * batch * bins
    table = by_bin.y + ((segment * groups + group) * batch + vector) * bins
    z_table = by_bin.z + (segment * batch + vector) * bins
    begins = tl.load(by_bin.of_row + group * batch + vector, mask=here, other=0.0)[:, None]
    last = tl.load(segments.bounds + segment + 1)
    for first in range(tl.load(segments.bounds + segment), last, ROWS):
        row = first + tl.arange(0, ROWS)
        some = here[:, None] & (row < last)[None, :]
        at = vector[:, None] * size + row[None, :]
        code = tl.load(x + at, mask=some, other=0.0)
        distance = tl.load(rows.distance + row, mask=row < last, other=0.0)[None, :]
        weight = code * ideal + tl.where(code > 0, begins, 0.0)
        rate, z_slope = code * 0.0 + ideal, code * 0.0
        square = z_slope
        for q in range(bins):
            edge, inverse = tl.load(window.edges + q), tl.load(window.inverse + q)
            f = tl.minimum(tl.maximum((code - edge) * inverse, 0.0), 1.0)
            by_f = tl.load(table + q, mask=here, other=0.0)[:, None]
            by_place = tl.load(table + plane + q, mask=here, other=0.0)[:, None]
            by_h = tl.load(table + 2 * plane + q, mask=here, other=0.0)[:, None]
            line = by_f + distance * by_place
            weight += f * (line + (f - 1) * by_h)
            # The longest code belongs to the last bin.
            inside = (code >= edge) & ((code < tl.load(window.edges + q + 1)) | (q + 1 == bins))
            if RATES:
                rate += tl.where(inside, (line + (2 * f - 1) * by_h) * inverse, 0.0)
            if SQUARES > 0:
                part, closes = tl.load(window.part + q), tl.load(window.closes + q)
                scale = tl.load(by_bin.z_scale + part * batch + vector, mask=here, other=0.0)[:, None]
                z_f = tl.load(z_table + q, mask=here, other=0.0)[:, None] * scale
                z_h = tl.load(z_table + z_plane + q, mask=here, other=0.0)[:, None] * scale
                square += f * (z_f + (f - 1) * z_h)
                # z is the first group's, a part of it whole with the part's last bin.
                whole = some & (closes >= 0) & (group == 0)
                tl.store(z + closes * batch * size + at, square.to(z.dtype.element_ty), mask=whole)
                square = tl.where(closes >= 0, 0.0, square)
                if RATES:
                    z_slope += tl.where(inside, (z_f + (2 * f - 1) * z_h) * inverse, 0.0)
        tl.store(y + (group * batch + vector[:, None]) * (size + EXTRA) + row[None, :], weight, mask=some)
        if RATES:
            tl.store(y_rate + group * batch * size + at, rate, mask=some)
            tl.store(z_rate + at, z_slope, mask=some & (group == 0))
