"""A reference column as the compiled preparation takes it: float32 arrays and numbers by name.

Units of the fast path: µS, V, µA and LSB; charges in µA·LSB, resistances in MΩ; the answer in µA·LSB or counts. Beside each
array stands its shape. The tuples are what numba knows fields of.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import torch

from aimcard.models.cell import gate_current, leakage_current
from aimcard.models.fast.jit import LANES
from aimcard.models.fast.meanfield import idle_answer, parts
from aimcard.models.fast.reference import Reference


class MeanColumn(NamedTuple):
    """The mean column, its wire, and the multiples of it that are solved."""

    g: np.ndarray  # (rows,) apparent conductance [µS]
    distance: np.ndarray  # (padded rows,) cells between a row and its segment's near end
    bounds: np.ndarray  # (segments + 1,) first row of each segment, and the number of rows
    padded: np.ndarray  # (segments + 1,) the same with every segment filled up to whole vectors
    lengths: np.ndarray  # (segments,) rows
    source: np.ndarray  # (segments,) fall of the conductance with the return line's voltage [1/V]
    drain: np.ndarray  # (segments,) fall of the conductance with the cells' voltage [1/V]
    weight: np.ndarray  # (segments,) idle weight
    spread: np.ndarray  # (segments,) number over effective number of conducting cells
    ratio: np.ndarray  # (segments,) variance over conductance of the columns' departures [µS]
    scales: np.ndarray  # (groups,) what the groups' middle columns are of this one, the first 1
    multiples: np.ndarray  # (4,) 1 + h/2, 1 + h, 1 − h/2, 1 − h
    reach: np.float32  # h: how far the columns' totals are from the first group's middle; 0 leaves the multiples out
    g_mean: np.float32  # [µS]
    per_row: np.float32  # 1/rows
    r: np.float32  # bit and return line, of a row [MΩ]
    share: np.float32  # the return line's part of it


class TimeBins(NamedTuple):
    """The window in bins, and the parts of it of which each has its own square."""

    edges: np.ndarray  # (bins + 1,) [LSB]
    width: np.ndarray  # (bins,) [LSB]
    inverse: np.ndarray  # (bins,) 1/width
    tops: np.ndarray  # (bins,) codes up to which a pulse's end counts to the bin
    cuts: np.ndarray  # (parts + 1,) first bin of each part, and the number of bins
    times: np.ndarray  # (bins + 2, bins) force at the bins' edges and at the pulses' begin, from the bins' own


class CellLaw(NamedTuple):
    """How a cell's current goes with its voltages."""

    v0: np.float32  # read voltage [V]
    k_source: np.float32  # saturation of the fall with the return line's voltage [1/V]
    d_source: np.float32  # as ``source`` of the column, of a departure from it
    d_drain: np.float32
    leaks: bool
    leak: np.float32  # current of an idle cell at the read voltage [µA]
    leak_drain: np.float32  # its exponent per volt of the cell [1/V]
    leak_source: np.float32  # the same, of the return line
    gate: np.float32  # gate current of a conducting cell [µA]
    gate_source: np.float32  # its exponent per volt of the return line [1/V]


class PulseCharge(NamedTuple):
    """What pulses draw by themselves [µA·LSB], beside what their cells conduct; ``gain`` is per µS."""

    counted: bool
    end_const: np.ndarray  # (bins + 1,) of a pulse that ends at a bin's edge
    end_gain: np.ndarray  # (bins + 1,)
    bow_const: np.ndarray  # (bins,) its curvature inside the bin, the coefficient of f² − f
    bow_gain: np.ndarray  # (bins,)
    start_const: np.float32  # of a pulse's begin
    start_gain: np.float32
    start_drop: np.float32  # per volt of drop, and per volt squared
    start_square: np.float32
    end_drop: np.float32
    end_square: np.float32
    end_clamp: np.float32  # per volt of the clamp
    line: np.float32  # stored per volt of the bit line by a row's wire
    node: np.float32  # and by an idle cell


class ReadOut(NamedTuple):
    """How the line's current becomes the answer; curves are cubics in grid steps, (pieces, 4)."""

    regulated: bool
    clamp: np.ndarray  # voltage of the regulator [V] against the current
    idle_lift: np.float32  # its voltage on an idle line less the read voltage [V]
    curved: bool
    rate: np.ndarray  # answer per LSB against the current
    start: np.ndarray  # answer of the whole first slot
    per_ua: np.float32  # grid steps of all curves per µA
    start_gain: np.float32  # of the first slot's answer where nothing is curved
    ideal: np.float32  # answer per µS and LSB of the straight line between the ends of the rate's curve
    rest: np.float32  # answer that no code changes


class CompiledReference(NamedTuple):
    """All of it."""

    column: MeanColumn
    bins: TimeBins
    cell: CellLaw
    pulse: PulseCharge
    read_out: ReadOut


def _array(values: Any) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(values, dtype=np.float32))


def compiled_reference(ref: Reference, squares: int) -> CompiledReference:
    """``ref`` for so many squares; the time bins may be too few to have all of them."""
    return CompiledReference(_column(ref), _bins(ref, squares), _cell(ref), _pulse(ref), _read_out(ref))


def _column(ref: Reference) -> MeanColumn:
    bounds, reach = np.array(ref.grid.bounds), np.float32(ref.reach)
    padded = np.concatenate([[0], np.cumsum(-(-np.diff(bounds) // LANES) * LANES)])
    distance = np.zeros(padded[-1], np.float32)
    for at, (low, high) in zip(padded, itertools.pairwise(ref.grid.bounds), strict=False):
        distance[at : at + high - low] = ref.distance[low:high].numpy()
    return MeanColumn(
        g=_array(ref.g), distance=distance, bounds=bounds, padded=padded, lengths=_array(ref.lengths),
        source=_array(ref.source), drain=_array(ref.drain), weight=_array(ref.weight), spread=_array(ref.spread),
        ratio=_array(ref.ratio()), scales=_array(ref.scales), multiples=1 + reach * _array([0.5, 1, -0.5, -1]), reach=reach,
        g_mean=np.float32(ref.g.mean()), per_row=np.float32(1 / len(ref.g)), r=np.float32(ref.r_ohm), share=np.float32(ref.share),
    )  # fmt: skip


def _bins(ref: Reference, squares: int) -> TimeBins:
    edges, width = ref.grid.edges, ref.grid.width
    cuts = [a for a, _ in parts(len(width), squares)] + [len(width)] if squares else [0]
    # The longest code belongs to the last bin.
    tops = torch.cat([edges[1:-1], 2 * edges[-1:]])
    return TimeBins(
        edges=_array(edges), width=_array(width), inverse=_array(1 / width), tops=_array(tops), cuts=np.array(cuts),
        times=_array(ref.times),
    )  # fmt: skip


def _cell(ref: Reference) -> CellLaw:
    c, cell = ref.circuit, ref.circuit.line.cell
    zero = torch.zeros(1, dtype=torch.float64)
    leak_a = leakage_current(cell, zero + c.v_read_v, zero, c.w_select_um)
    return CellLaw(
        v0=np.float32(c.v_read_v), k_source=np.float32(ref.k_source), d_source=np.float32(ref.d_source),
        d_drain=np.float32(ref.d_drain), leaks=c.effects.leakage, leak=np.float32(float(leak_a) * 1e6),
        leak_drain=np.float32(1 / float(cell.v_leak_drain_v)), leak_source=np.float32(1 / float(cell.v_leak_source_v)),
        gate=np.float32(float(gate_current(cell, zero, c.w_select_um)) * 1e6),
        gate_source=np.float32(1 / float(cell.v_gate_source_v)),
    )  # fmt: skip


def _pulse(ref: Reference) -> PulseCharge:
    return PulseCharge(
        counted=ref.circuit.effects.pulse, end_const=_array(ref.e_const), end_gain=_array(ref.e_gain),
        bow_const=_array(ref.c_const), bow_gain=_array(ref.c_gain), start_const=np.float32(ref.s_const),
        start_gain=np.float32(ref.s_gain), start_drop=np.float32(ref.start_drop), start_square=np.float32(ref.start_square),
        end_drop=np.float32(ref.end_drop), end_square=np.float32(ref.end_square), end_clamp=np.float32(ref.end_clamp),
        line=np.float32(ref.line), node=np.float32(ref.node),
    )  # fmt: skip


def _read_out(ref: Reference) -> ReadOut:
    c, conv = ref.circuit, ref.conversion
    none = np.zeros((1, 4), np.float32)
    rate, start, clamp = (none if q is None else _array(q.pieces) for q in (conv.rate, conv.start, conv.clamp))
    lift = 0.0 if conv.clamp is None else float(conv.clamp.pieces[0, 0]) - c.v_read_v
    return ReadOut(
        regulated=conv.clamp is not None, clamp=clamp, idle_lift=np.float32(lift), curved=conv.rate is not None, rate=rate,
        start=start, per_ua=np.float32(1.0 if conv.rate is None else 1 / conv.rate.step_ua),
        start_gain=np.float32(conv.start_gain), ideal=np.float32(conv.ideal * c.v_read_v),
        rest=np.float32(conv.offset + conv.guard * idle_answer(ref)),
    )  # fmt: skip
