"""The mean column about which a group of columns is expanded: all that does not depend on the inputs.

Units: µS, V, µA, LSB, MΩ. Rows are counted from the far end, as everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from aimcard.models.cell import expand, idle_weight, leakage_current
from aimcard.models.column import segment_bounds
from aimcard.models.fast.curve import Conversion, conversion
from aimcard.models.fast.effects import Circuit
from aimcard.models.pulse import (
    fall_charge,
    fall_delay,
    idle_capacitance,
    node_capacitance,
    recharge_amount,
    recharging,
    rise_charge,
    rise_delay,
)

#: Drops at which the voltage dependence of a pulse's charge is taken [V].
STEP_V = 0.01
#: First root of tan ω = ω above 0, and the first eigenvalue's part of that kernel's trace: 1/ω² of 1/10.
BOW = 4.493409457909064
BOW_SHARE = 10 / BOW**2


@dataclass(frozen=True)
class Grid:
    """Bins of the window, edges in LSB (bins + 1,), the first one LSB long; segments: row ranges (segments + 1,)."""

    edges: Tensor
    bounds: tuple[int, ...]

    @property
    def width(self) -> Tensor:
        """Widths of the bins, (bins,)."""
        return self.edges[1:] - self.edges[:-1]


def make_grid(rows: int, code_max: int, bins: int, segments: int) -> Grid:
    """``bins`` of the window: the first LSB, in which pulses begin, then some that are shorter where more pulses end."""
    u = torch.linspace(0, 1, bins, dtype=torch.float64) ** 1.2
    edges = torch.cat([torch.zeros(1, dtype=torch.float64), 1 + (code_max - 1) * u])
    pairs = segment_bounds(rows, segments)
    return Grid(edges, (0, *(b for _, b in pairs)))


@dataclass(frozen=True)
class Reference:
    """A mean column and its tile's constants.

    g: apparent conductance (rows,); distance: cells between a row and its segment's near end (rows,).
    source, drain: fall of the conductance with the return line's and the cell's voltage, per segment (segments,), of the
    column; d_source, d_drain: the same of a departure from it. weight: idle weight (segments,). spread: ratio of number
    to effective number of conducting cells. e_const, e_gain: charge of a pulse that ends at each bin's edge
    (bins + 1,), and its part per µS of apparent conductance.
    c_const, c_gain: the same charge's curvature inside each bin, its coefficient of f² − f (bins,).
    s_const, s_gain: charge of a pulse's begin, apart from the above. times: force at each bin's edge, when the pulses that
    end there draw their charge, and at the begin of the pulses, from the bins' forces (bins + 2, bins).
    start_drop, end_drop: charge per volt of drop at a pulse's begin and end, start_square, end_square: per volt squared;
    sizes: columns in each group; scales: what the groups' middle columns are of this one, the first 1; reaches: how far the
    totals of a group's columns are from its middle one's, in parts of it. reach: the same of all columns from this one: so far
    its multiples are solved.
    end_clamp: per volt of the clamp. line, node: charge per volt of the bit line, of a row's wire and of an idle cell.
    """

    grid: Grid
    circuit: Circuit
    conversion: Conversion
    g: Tensor
    variance: Tensor
    distance: Tensor
    owner: Tensor
    lengths: Tensor
    source: Tensor
    drain: Tensor
    d_source: float
    d_drain: float
    k_source: float
    weight: Tensor
    spread: Tensor
    r_ohm: float
    share: float
    e_const: Tensor
    e_gain: Tensor
    c_const: Tensor
    c_gain: Tensor
    s_const: float
    s_gain: float
    times: Tensor
    start_drop: float
    end_drop: float
    start_square: float
    end_square: float
    end_clamp: float
    line: float
    node: float
    idle_ua: float
    reach: float = 0.0
    sizes: tuple[int, ...] = ()
    scales: tuple[float, ...] = (1.0,)
    reaches: tuple[float, ...] = (0.0,)

    def ratio(self) -> Tensor:
        """Variance over conductance of the departures in each segment [µS], (segments,); without wire, places do not matter."""
        none = torch.zeros_like(self.lengths)
        square, total = (none.index_add(0, self.owner, q.to(none)) for q in (self.variance, self.g))
        if self.r_ohm == 0:
            square, total = square.sum().expand_as(square), total.sum().expand_as(total)
        return square / total.clamp(min=1e-30)

    def bow(self) -> Tensor:
        """Pattern along the wire of departures that the squares miss most, (rows,), mean square 1, none of the mean column in it.

        Of the Brownian kernel min(u, v) of the drops, u from 0 at the read-out to 1, less what a uniform column's probe takes, it
        is the first eigenfunction: 1 − cos(ω(1 − u))/cos ω with tan ω = ω.
        """
        rows = len(self.g)
        place = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
        found = 1 - torch.cos(BOW * place) / math.cos(BOW)
        found = found / found.square().mean().sqrt()
        return found - (found @ self.g) / self.g.sum().clamp(min=1e-30)

    def scaled(self, scale: float) -> Reference:
        """The same for a multiple of the mean column, whose larger cells fall more with their voltages."""
        return replace(self, g=self.g * scale, source=self.source * scale, drain=self.drain * scale)

    def like(self, x: Tensor) -> Reference:
        """This reference with its numbers in the type and on the device of ``x``."""
        moved = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        moved = {name: t.to(x) if t.is_floating_point() else t.to(x.device) for name, t in moved.items()}
        return replace(self, grid=Grid(self.grid.edges.to(x), self.grid.bounds), **moved)


def _slope(y: Tensor, x: Tensor, fallback: Tensor) -> Tensor:
    """Slope of the best line of y against x."""
    d = x - x.mean()
    square = (d * d).sum()
    return torch.where(square > 1e-18 * (x * x).sum(), ((y - y.mean()) * d).sum() / square.clamp(min=1e-300), fallback)


def middles_of(sums: Tensor, sizes: tuple[int, ...]) -> tuple[list[float], tuple[float, ...], float]:
    """Middles of the groups' totals, how far each reaches, and how far all of them from the first's middle.

    The middle, not the mean: error goes with the square of the distance, and the far columns are what is bounded. Reaches are
    0.2 to 0.6: third differences over less would be rounding, which lines of few cells, far from proportional, would multiply.
    """

    def reach(part: Tensor, middle: float) -> float:
        return min(max(1.02 * float((part - middle).abs().max()) / middle, 0.2), 0.6) if middle > 0 else 0.0

    parts = sums.split(list(sizes))
    middles = [float(p.min() + p.max()) / 2 for p in parts]
    return middles, tuple(reach(p, m) for p, m in zip(parts, middles, strict=True)), reach(sums, middles[0])


def _times(grid: Grid, delay: float) -> Tensor:
    """Weights (bins + 2, bins) that turn the bins' mean forces into those at the edges, ``delay`` LSB later, and at the begin.

    The first slot has turn-on in it: its own force is that of another curve, so the next bin's stands for it.
    """
    bins = len(grid.width)
    if bins < 3:
        return torch.eye(bins, dtype=torch.float64)[-1].expand(bins + 2, bins).clone()
    middle = ((grid.edges[1:] + grid.edges[:-1]) / 2)[1:]
    at = torch.cat([(grid.edges + delay).clamp(max=float(grid.edges[-1])), torch.full((1,), 0.5, dtype=torch.float64)])
    low = torch.bucketize(at, middle[1:-1])
    share = (at - middle[low]) / (middle[low + 1] - middle[low])
    found = torch.zeros(bins + 2, bins, dtype=torch.float64)
    rows = torch.arange(bins + 2)
    found[rows, low + 1] = 1 - share
    found[rows, low + 2] = share
    return found


@torch.no_grad()
def make_reference(circuit: Circuit, conductance_s: Tensor, grid: Grid, counts: bool, sizes: tuple[int, ...] = ()) -> Reference:
    """The mean column of ``conductance_s`` (lines, rows) [S], in double precision, scaled to the middle of the first group.

    ``sizes``: lines in each group, one behind the other; none: all of them in one.
    """
    cell, wire, pulse, e, w = circuit.line.cell, circuit.line.wire, circuit.line.pulse, circuit.edges, circuit.w_select_um
    big = conductance_s.double()
    cells = expand(cell, big, w)
    g = cells.g_s * 1e6
    rows = g.shape[1]
    bounds = grid.bounds
    owner = torch.cat([torch.full((b - a,), s) for s, (a, b) in enumerate(itertools.pairwise(bounds))])
    lengths = torch.tensor([b - a for a, b in itertools.pairwise(bounds)], dtype=torch.float64)
    distance = torch.tensor(bounds[1:], dtype=torch.float64)[owner] - 0.5 - torch.arange(rows, dtype=torch.float64)

    def by_segment(values: Tensor) -> Tensor:
        return torch.zeros(len(lengths), dtype=torch.float64).index_add(0, owner, values)

    mean = g.mean(0)
    total = by_segment(mean).clamp(min=1e-30)
    source, drain = (by_segment(q.mean(0) * 1e6) / total for q in (cells.source_s_per_v, cells.drain_s_per_v))
    square = by_segment((g * g).mean(0)).clamp(min=1e-300)
    spread = lengths * square / by_segment(mean).clamp(min=1e-30) ** 2
    r_bit, r_return = float(wire.r_bit_ohm), float(wire.r_return_ohm)
    r = (r_bit + r_return) * 1e-6
    share = r_return / max(r_bit + r_return, 1e-30)
    rise, fall = (float(f(pulse, e)) for f in (rise_delay, fall_delay)) if circuit.effects.pulse else (0.0, 0.0)
    charge_unit = 1e-6 * circuit.t_lsb_s
    e_const = torch.zeros(len(grid.edges), dtype=torch.float64)
    e_gain = e_const.clone()
    c_const, c_gain = e_const[1:].clone(), e_const[1:].clone()
    s_const = s_gain = delay = 0.0
    start_drop = end_drop = start_square = end_square = end_clamp = line = node = 0.0
    if circuit.effects.pulse:
        flat, at = big.flatten(), g.flatten()
        v, zero = circuit.v_read_v, torch.zeros(1, dtype=torch.float64)
        rate = recharging(flat) / node_capacitance(pulse, w)
        amount = recharge_amount(pulse, e, flat, zero + v, zero, w)
        # Of an almost open device only a part recharges within the window, of an amount that goes with 1/G.
        spans = circuit.slots * circuit.t_lsb_s * rate
        inside = -torch.expm1(-spans)
        begin = start_charge(circuit, at, zero)
        ends = fall_edge(circuit, flat, at, zero)
        s_gain = float(_slope(begin / charge_unit, at, zero[0]))
        s_const = float(begin.mean() / charge_unit - s_gain * at.mean())

        def ending(edge: float) -> tuple[Tensor, Tensor]:
            left = circuit.slots * circuit.t_lsb_s - (edge * circuit.t_lsb_s + fall)
            charge = (ends + amount * -torch.expm1(-left * rate)) / charge_unit
            gain = _slope(charge, at, zero[0])
            return charge.mean() - gain * at.mean(), gain

        for k, edge in enumerate(grid.edges.tolist()):
            e_const[k], e_gain[k] = ending(edge)
        for k, (a, b) in enumerate(zip(grid.edges.tolist(), grid.edges[1:].tolist(), strict=False)):
            const, gain = ending((a + b) / 2)
            c_const[k] = 2 * (e_const[k] + e_const[k + 1]) - 4 * const
            c_gain[k] = 2 * (e_gain[k] + e_gain[k + 1]) - 4 * gain

        # The recharge comes later by its time constant, and the slot at whose begin a pulse ends is half over on average.
        late = amount * (inside - spans * torch.exp(-spans)) / rate / circuit.t_lsb_s
        # Where positive and negative charges all but cancel there is no such time: it stays within the window.
        later = float(late.mean() / (ends + amount * inside).mean().clamp(min=1e-30))
        delay = 0.5 + min(max(later, 0.0), float(circuit.slots))

        def whole(drop: Tensor) -> Tensor:
            recharge = recharge_amount(pulse, e, flat, v - (1 - share) * drop, share * drop, w)
            return fall_edge(circuit, flat, at, drop) + recharge * inside

        start_drop, start_square = parabola(lambda drop: start_charge(circuit, at, drop).mean() / charge_unit)
        end_drop, end_square = parabola(lambda drop: whole(drop).mean() / charge_unit)
        lifted = recharge_amount(pulse, e, flat, zero + v + STEP_V, zero, w)
        end_clamp = float(((lifted - amount) * inside).mean()) / STEP_V / charge_unit
        line, node = float(wire.c_bit_f) / charge_unit, float(idle_capacitance(pulse, w)) / charge_unit
    idle = _idle_current(circuit, idle_weight(cell, big, w).mean(0))
    found = conversion(circuit, counts, rise, fall, idle)
    slope_of = {
        name: float(_slope(q.flatten() * 1e6, g.flatten(), 2 * ratio.mean()))
        for name, q, ratio in (("s", cells.source_s_per_v, source), ("d", cells.drain_s_per_v, drain))
    }
    sizes = sizes or (len(g),)
    middles, reaches, reach = middles_of(g.sum(1), sizes)
    if middles[0] > 0:
        mean = mean * (middles[0] / float(mean.sum()))
    return Reference(
        grid, circuit, found, mean, g.var(0, correction=0), distance, owner, lengths, source, drain, slope_of["s"], slope_of["d"],
        float(cell.k_source_per_v), by_segment(idle_weight(cell, big, w).mean(0)) / lengths, spread, r, share,
        e_const, e_gain, c_const, c_gain, s_const, s_gain, _times(grid, delay), start_drop, end_drop, start_square, end_square,
        end_clamp, line, node, idle, reach, sizes, tuple(m / middles[0] if middles[0] > 0 else 1.0 for m in middles), reaches,
    )  # fmt: skip


def start_charge(circuit: Circuit, g: Tensor, drop: Tensor) -> Tensor:
    """Charge of a rising edge [C] of cells of apparent conductance ``g`` [µS] whose voltage has fallen by ``drop`` [V]."""
    c, back = circuit, _back(circuit, drop)
    cell_a = g * 1e-6 * (c.v_read_v - drop)
    return rise_charge(c.line.pulse, c.edges, cell_a, back, c.w_select_um, float(c.line.wire.r_return_ohm))


def fall_edge(circuit: Circuit, conductance_s: Tensor, g: Tensor, drop: Tensor) -> Tensor:
    """The same of a falling edge, recharge apart."""
    c, back = circuit, _back(circuit, drop)
    cell_a = g * 1e-6 * (c.v_read_v - drop)
    return fall_charge(c.line.pulse, c.edges, conductance_s, cell_a, back, c.w_select_um, float(c.line.wire.r_return_ohm))


def _back(circuit: Circuit, drop: Tensor) -> Tensor:
    r_bit, r_return = float(circuit.line.wire.r_bit_ohm), float(circuit.line.wire.r_return_ohm)
    return drop * (r_return / max(r_bit + r_return, 1e-30))


def parabola(charge: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """Linear and square coefficient of a charge in the drop, from three drops."""
    none, one, two = (float(charge(torch.full((1,), k * STEP_V, dtype=torch.float64))) for k in range(3))
    square = (two - 2 * one + none) / (2 * STEP_V**2)
    return (one - none) / STEP_V - square * STEP_V, square


def _idle_current(circuit: Circuit, weight: Tensor) -> float:
    """Current of a line on which nothing conducts [µA]; its wire drops nothing to speak of."""
    v = torch.full((1,), circuit.v_read_v, dtype=torch.float64)
    if circuit.readout is not None:
        v = circuit.readout.v_clamp_v[:1].double()
    leak = leakage_current(circuit.line.cell, v, torch.zeros_like(v), circuit.w_select_um)
    return float(leak) * float(weight.sum()) * 1e6
