"""What the fused kernels are given of a reference column: tables as one tensor on the device, and scalars by name.

Units as in ``reference``: µS, V, µA, LSB, MΩ.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aimcard.models.cell import gate_current, leakage_current
from aimcard.models.fast.meanfield import idle_answer, parts
from aimcard.models.fast.reference import Reference

#: Tables begin at multiples of so many numbers, 16 bytes: kernels are compiled anew for a pointer that is not aligned.
ALIGNED = 4


class Rows(NamedTuple):
    """Per row (rows,): conductance of the reference column and distance to its segment's near end."""

    g: Any
    distance: Any


class Segments(NamedTuple):
    """Per segment (segments,): as in ``Reference``; ratio: variance over conductance; bounds: first row (segments + 1,)."""

    lengths: Any
    source: Any
    drain: Any
    weight: Any
    spread: Any
    ratio: Any
    bounds: Any


class Window(NamedTuple):
    """edges (bins + 1,), width (bins,) and its inverse; what pulses draw that end at the edges and in the bins, as in
    ``Reference``; part (bins,): of each bin, as of the squares; closes (bins,): the part that ends with the bin, or −1."""

    edges: Any
    width: Any
    inverse: Any
    e_const: Any
    e_gain: Any
    c_const: Any
    c_gain: Any
    times: Any
    part: Any
    closes: Any


class Cases(NamedTuple):
    """Columns that are solved, as multiples of the reference: the groups' middle ones, then multiples of the first.

    fall (cases,): by how much more than the reference's their conductance falls with its voltages."""

    scale: Any
    fall: Any


class Wire(NamedTuple):
    """Line and cells; step_ua: of the curves' grid; ideal: answer per LSB and µS; start_gain: of the first slot."""

    r_ohm: float
    share: float
    v_read_v: float
    k_source: float
    d_source: float
    d_drain: float
    leak_ua: float
    leak_drain_v: float
    leak_source_v: float
    gate_ua: float
    gate_source_v: float
    step_ua: float
    ideal: float
    start_gain: float
    g_mean: float


class Pulse(NamedTuple):
    """Charges of pulses as in ``Reference``; lifted: idle clamp above the read voltage [V]; rest: answer without pulses."""

    start_drop: float
    start_square: float
    end_drop: float
    end_square: float
    end_clamp: float
    s_const: float
    s_gain: float
    line: float
    node: float
    lifted: float
    rest: float


class Sizes(NamedTuple):
    """How many there are; cases: columns that are solved, the groups' middle ones and multiples of the first."""

    batch: int
    rows: int
    bins: int
    groups: int
    cases: int


class Sums(NamedTuple):
    """Sums over the rows of what conducts in a bin, f its share of the bin. by_bin (5, segments, batch, bins): Σ g·f [µS],
    Σ g·f·distance, Σ f, Σ g·(f² − f), Σ (f² − f); started (2, segments, batch): number and conductance of rows with a pulse."""

    by_bin: Any
    started: Any


class Solved(NamedTuple):
    """What the ladder comes to at the bins' Gauss points.

    answer (2, cases, batch, bins): of each half of a bin, beside the ideal product's. line (5, 2, segments, cases, batch, bins):
    conductance [µS], current fed in [µA], rise of the return line [V], wire to the near end [MΩ], drop [V]. Of the groups' middle
    columns, clamp (3, 2, groups, batch, bins): the answer's derivatives to the current, first and second, and the clamp above the
    read voltage [V]; fields (5, 2, segments, groups, batch, bins): y, tilt, z, z_sign and own of ``mean_ladder.Fields``.
    """

    answer: Any
    line: Any
    clamp: Any
    fields: Any


class ByBin(NamedTuple):
    """Rows' weights bin by bin. y (3, segments, groups, batch, bins): by f, by place, by f² − f; z (2, segments, batch, bins): of
    the first group, by f, by f² − f, to be scaled by z_scale (squares, batch); of_row (groups, batch): what a row adds to y that
    starts at all."""

    y: Any
    z: Any
    z_scale: Any
    of_row: Any


class Squares(NamedTuple):
    """scale, sign and cubic of ``meanfield.Prepared``, (groups, squares, batch)."""

    scale: Any
    sign: Any
    cubic: Any


@dataclass(frozen=True)
class Numbers:
    """All of them for one reference column; curves (3, pieces, 4): rate, start and clamp, zero where the circuit has none.

    group_of (lines,): group of each line. squares: parts of the window that have one; multiples: how far from the mean column the
    ladder is solved again, in parts of it, 0 for not at all.
    """

    rows: Rows
    segments: Segments
    window: Window
    cases: Cases
    wire: Wire
    pulse: Pulse
    curves: Tensor
    group_of: Tensor
    squares: int
    multiples: float

    @classmethod
    def of(cls, ref: Reference, squares: int, device: torch.device) -> Numbers:
        """Of a reference column, for a number of squares, on a device."""
        c, conv, grid, cell = ref.circuit, ref.conversion, ref.grid, ref.circuit.line.cell
        spans = parts(len(grid.width), squares) if squares else [(0, len(grid.width))]
        part = [k for k, (a, b) in enumerate(spans) for _ in range(a, b)]
        closes = [k if b - 1 == q else -1 for k, (a, b) in enumerate(spans) for q in range(a, b)]
        h = ref.reach if squares else 0.0
        more = (1 + h / 2, 1 - h / 2, 1 + h, 1 - h) if h > 0 else ()
        known = [curve for curve in (conv.rate, conv.start, conv.clamp) if curve is not None]
        step = known[0].step_ua if known else 1.0
        assert all(curve.step_ua == step for curve in known)
        none = torch.zeros_like(known[0].pieces) if known else torch.zeros(1, 4)
        curves = torch.stack([none if curve is None else curve.pieces for curve in (conv.rate, conv.start, conv.clamp)])
        real = _packed(
            [
                ref.g, ref.distance, ref.lengths, ref.source, ref.drain, ref.weight, ref.spread, ref.ratio(), grid.edges,
                grid.width, 1 / grid.width, ref.e_const, ref.e_gain, ref.c_const, ref.c_gain, ref.times,
                torch.tensor([*ref.scales, *more]), torch.tensor([*ref.scales, *(1.0 for _ in more)]), curves,
            ],
            torch.float32, device,
        )  # fmt: skip
        group_of = torch.repeat_interleave(torch.arange(len(ref.sizes)), torch.tensor(ref.sizes))
        whole = _packed([torch.tensor(q) for q in (grid.bounds, part, closes)] + [group_of], torch.int32, device)
        zero = torch.zeros(1, dtype=torch.float64)
        wire = Wire(
            ref.r_ohm, ref.share, c.v_read_v, ref.k_source, ref.d_source, ref.d_drain,
            float(leakage_current(cell, zero + c.v_read_v, zero, c.w_select_um)) * 1e6,
            float(cell.v_leak_drain_v), float(cell.v_leak_source_v),
            float(gate_current(cell, zero, c.w_select_um)) * 1e6, float(cell.v_gate_source_v),
            step, conv.ideal * c.v_read_v, conv.start_gain, float(ref.g.mean()),
        )  # fmt: skip
        pulse = Pulse(
            ref.start_drop, ref.start_square, ref.end_drop, ref.end_square, ref.end_clamp, ref.s_const, ref.s_gain, ref.line,
            ref.node, 0.0 if conv.clamp is None else float(conv.clamp.pieces[0, 0]) - c.v_read_v,
            conv.offset + conv.guard * idle_answer(ref),
        )  # fmt: skip
        return cls(
            Rows(*real[:2]), Segments(*[*real[2:8], whole[0]]), Window(*[*real[8:16], *whole[1:3]]), Cases(*real[16:18]),
            Wire(*map(float, wire)), Pulse(*map(float, pulse)), real[18], whole[3], len(spans) if squares else 0, h,
        )  # fmt: skip


def _packed(tables: list[Tensor], kind: torch.dtype, device: torch.device) -> list[Tensor]:
    """The tables on the device, moved in one copy, each at an aligned place of it."""
    lengths = [ALIGNED * math.ceil(t.numel() / ALIGNED) for t in tables]
    starts = [0, *itertools.accumulate(lengths)]
    whole = torch.zeros(starts[-1], dtype=kind)
    for start, table in zip(starts, tables, strict=False):
        whole[start : start + table.numel()] = table.flatten().to(kind)
    there = whole.to(device)
    return [there[a : a + t.numel()].view(t.shape) for a, t in zip(starts, tables, strict=False)]
