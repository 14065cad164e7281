"""The adjoint of the fused ladder (Triton): what a departure in each segment adds to the answer, ``mean_ladder.solve_fields``."""

# Triton compiles these functions, of its own types; Python never calls them.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportMissingImports=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from aimcard.models.fast.fused_points import beside, cells_at, ended_in, voltages


@triton.jit
def ends_of(column, started, s, count, lane, q, bins, width, pulse, wire):
    """Charge per volt of drop by which a segment's pulses act in a bin, per LSB.

    To the adjoint, what idle cells store on the bit line is one more charge of the pulses' ends.
    """
    mask = column[3]
    ended = ended_in(column[0] + 2 * column[1], s * count + lane, q, bins, mask)
    begun = tl.load(started + s * (count // bins), mask=mask & (q == 0), other=0.0)
    return (pulse.end_drop + (1 - wire.share) * pulse.node) * ended / width + pulse.start_drop * begun


@triton.jit
def weigh(column, count, lane, q, bins, line, step, fields, fields_step, started, segments, wire, pulse, scale, width, clamp,
          current, slope, y, rate, bend, SEGMENTS: tl.constexpr, PULSES: tl.constexpr):  # fmt: skip
    """``mean_ladder.solve_fields`` of one column, from its solved ladder; segments lie ``step`` and ``fields_step`` apart.

    y: admittance that the read-out sees [µS]; rate, bend: the answer's derivatives at the current that the pulses' own adds to.
    """
    none, mask = current * 0.0, column[3]
    kind, field = 2 * SEGMENTS * step, 2 * SEGMENTS * fields_step
    # The regulator lets less through; what pulses' ends add when their cells' voltage drops acts like a current drawn there.
    loop = 1 / (1 - y * slope)
    _y, j = none, none
    if PULSES:
        for s in range(SEGMENTS):
            ends = ends_of(column, started, s, count, lane, q, bins, width, pulse, wire)
            near, cond = tl.load(line + s * step + 3 * kind, mask=mask, other=0.0), tl.load(line + s * step, mask=mask, other=0.0)
            _y, j = beside(_y, j, cond, -ends / loop, near, wire.r_ohm * tl.load(segments.lengths + s) - near)
    i, iv, fall, place, move = y + j, current, none, none, none
    for k in range(SEGMENTS):
        s = SEGMENTS - 1 - k
        g, _number, near, self_r = cells_at(column, s * count + lane, s, segments, wire)
        g, length = g * scale, tl.load(segments.lengths + s)
        v, back = voltages(line + s * step, kind, clamp, wire, mask, True)
        cond, drop = tl.load(line + s * step, mask=mask, other=0.0), tl.load(line + s * step + 4 * kind, mask=mask, other=0.0)
        seen = place + wire.r_ohm * length / 2
        place += wire.r_ohm * length
        fall += near * i
        a = 1 - fall
        before, before_v = i, iv
        i -= cond * a
        if PULSES:
            i += ends_of(column, started, s, count, lane, q, bins, width, pulse, wire) / loop
        iv -= cond * v
        fall += (wire.r_ohm * length - near) * i
        loaded = 1 + self_r * g
        spread = 1 - wire.d_source * back / (1 - wire.k_source * back) - wire.d_drain * (v - wire.v_read_v)
        spread = spread / (loaded * loaded)
        first = a * spread * v
        by_y = rate * loop * first
        move += first * g
        tilt = -rate * loop * spread * (a * (iv + before_v) + v * (i + before)) * wire.r_ohm / 2
        # The diagonal of the quadratic form: the resistance that a cell sees between its node and the clamp.
        own = by_y * first / wire.v_read_v * (seen * a - slope) - bend * loop * loop * first * first / 2
        to = fields + s * fields_step
        tl.store(to, by_y, mask=mask)
        tl.store(to + field, tilt, mask=mask)
        # Loaded drop and regulator; the rate's bend is added when all segments' are known.
        tl.store(to + 2 * field, by_y * (drop - slope * current) / wire.v_read_v, mask=mask)
        tl.store(to + 3 * field, first, mask=mask)
        tl.store(to + 4 * field, own, mask=mask)
    tl.debug_barrier()
    for s in range(SEGMENTS):
        to = fields + s * fields_step
        shift = tl.load(to + 2 * field, mask=mask, other=0.0)
        bent = -bend * loop * loop * move * tl.load(to + 3 * field, mask=mask, other=0.0) / 2
        tl.store(to + 2 * field, shift + tl.abs(bent), mask=mask)
        tl.store(to + 3 * field, shift + bent, mask=mask)
