"""Charges of the pulses themselves in a gated mode of several phases: as exact in the conductance as the slow twin's.

The product of one phase takes a pulse's charge as a straight line in the conductance, whose error averages out over the rows.
A phase's weight multiplies it, and its windows are short: what a small cell's recharge (C/G is 8 ns at 0.1 µS) leaves for later
is cut off, or falls into the next phases, until the cell's next pulse. All of that is a function of code and conductance
alone, T(x, G), while no voltage has dropped; what the product of a phase has of it already is taken off, and a singular
value decomposition, T ≈ Σ_r φ_r(x)·ψ_r(G), makes the rest one more product, of few functions. Its slope in the conductance is
treated alike: what the product's backward pass has of it is taken off, and the rest is one product more in the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimcard.models.fast.autocast import without_autocast
from aimcard.models.fast.columns import low_precision
from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.product import Columns
from aimcard.models.fast.weights import MIDDLE, Plan, apparent, apparent_slope, pulse_charge, recharge_slope
from aimcard.models.modes import Mode
from aimcard.models.pulse import fall_delay, node_capacitance, recharge_amount, recharging, rise_delay

#: Conductances on which the functions are found, quantiles of the tile's own.
SAMPLE = 96
#: Points of the functions of the conductance, on even steps of its root.
POINTS = 1025
#: Variance that the functions may leave, over that of the cells' ideal charges, and over that of their slopes.
LEFT, LEFT_SLOPE = 3e-7, 1e-6
MOST = 6


@dataclass(frozen=True)
class CellCharges:
    """Charges of the pulses of one cell in each phase's window [µA·LSB], (phases, codes, conductances): all that it draws beside
    the static current, and how much of that comes in the window's last slot."""

    whole: Tensor
    last: Tensor


def cell_charges(circuits: list[Circuit], mode: Mode, guard: int, table: np.ndarray, conductance_s: Tensor) -> CellCharges:
    """Of conductances (n,) [S], in double, for digits ``table`` (phases, codes); circuits: each phase's."""
    c, g = circuits[0], conductance_s
    p, e, w, t = c.line.pulse, c.edges, c.w_select_um, c.t_lsb_s
    digit = torch.from_numpy(table)[..., None]
    zero = g.new_zeros(1)
    amount = recharge_amount(p, e, g, zero + c.v_read_v, zero, w) * (1e6 / t)
    rate = recharging(g) / node_capacitance(p, w)
    rise, fall = float(rise_delay(p, e)), float(fall_delay(p, e))
    windows = mode.windows(guard)

    def left(since_s: Tensor) -> Tensor:
        return torch.exp(-since_s.clamp(min=0.0) * rate)

    whole, last = [], []
    for k, (first, beyond) in enumerate(windows):
        own = digit[k].to(g.dtype)
        on = (own > 0).to(g.dtype)
        after = (beyond - first - own) * t - fall
        charge = pulse_charge(circuits[k], g, own) * on
        late = amount * (left(after - t) - left(after)) * on
        # Cells whose last pulse was in an earlier phase still recharge, until their next pulse begins.
        idle = torch.ones_like(on)
        for j in reversed(range(k)):
            there = (digit[j] > 0).to(g.dtype) * idle
            start = (first - windows[j][0] - digit[j].to(g.dtype)) * t - fall
            end = torch.where(on > 0, start + rise, start + (beyond - first) * t)
            charge = charge + amount * (left(start) - left(end)) * there
            late = late + amount * (left(end - t) - left(end)) * there * (1 - on)
            idle = idle * (digit[j] == 0)
        whole.append(charge)
        last.append(late)
    return CellCharges(torch.stack(whole), torch.stack(last))


def taken(plan: Plan, digit: Tensor, conductance_us: Tensor) -> Tensor:
    """What a phase's product has of a pulse's charge [µA·LSB], (codes, n), of digits (codes,) and apparent conductances (n,)."""
    ref = plan.ref
    edges, width = ref.grid.edges, ref.grid.width
    f = ((digit[:, None] - edges[:-1]) / width).clamp(0.0, 1.0)
    parts = []
    for at_edges, bend, begin in ((ref.e_const, ref.c_const, ref.s_const), (ref.e_gain, ref.c_gain, ref.s_gain)):
        parts.append(begin + at_edges[0] + f @ (at_edges[1:] - at_edges[:-1]) + (f * f - f) @ bend)
    const, gain = parts
    return (const[:, None] + gain[:, None] * conductance_us) * (digit > 0)[:, None]


def taken_slope(plan: Plan, digit: Tensor, conductance_s: Tensor) -> Tensor:
    """What the backward pass of a phase's product has of a pulse's slope [µA·LSB/S], (codes, n): see ``product.cells_back``."""
    ref, circuit, cells = plan.ref, plan.ref.circuit, plan.cells
    mean = ref.s_gain + np.interp(np.arange(circuit.code_max + 1), ref.grid.edges.numpy(), ref.e_gain.numpy())
    middle = min(int(MIDDLE), circuit.code_max)
    over = cells.over_codes - torch.from_numpy(mean) * 1e6
    shape = over / over[middle] if float(over[middle]) != 0 else torch.ones_like(over)
    visible = apparent_slope(circuit, conductance_s)
    own = recharge_slope(circuit, conductance_s, MIDDLE) - float(mean[middle]) * visible
    gain = taken(plan, digit, torch.ones(1, dtype=torch.float64)) - taken(plan, digit, torch.zeros(1, dtype=torch.float64))
    # The own slope is taken at the mean rate of the whole table.
    return gain * visible + (shape[digit.long()] * (digit > 0) * (ref.conversion.ideal / _slope(plan)))[:, None] * own


def split_functions(table: Tensor, tolerance: float) -> Tensor:
    """Functions of the code (codes, r) that, times as many of the conductance, leave ``tolerance`` of mean square."""
    u, s, _ = torch.linalg.svd(table, full_matrices=False)
    left = s.square().flip(0).cumsum(0).flip(0) / table.numel()
    count = min(int((left > tolerance).sum()), MOST)
    return u[:, :count] * s[:count]


@dataclass(frozen=True)
class CellFunctions:
    """T(x, G) beside what a phase's product has of it, as functions: of the code (codes, r), and of the conductance at even
    steps of its root (points, r); step [√S]."""

    of_code: Tensor
    of_conductance: Tensor
    step: float

    def lines(self, conductance_s: Tensor) -> Tensor:
        """The functions of conductances (lines, rows) [S], (lines, rows·r)."""
        at = conductance_s.clamp(min=0.0).sqrt().div_(self.step)
        n = at.to(torch.int64).clamp_(max=len(self.of_conductance) - 2)
        table = self.of_conductance.to(at)
        return torch.lerp(table[n], table[n + 1], (at - n)[..., None]).flatten(-2)

    def vectors(self, codes: Tensor) -> Tensor:
        """The functions of whole codes (batch, rows), (batch, rows·r)."""
        return self.of_code.float().to(codes.device)[codes].flatten(-2)


class PhasePulses:
    """The pulses of phase ``k`` for conductances up to ``top_s`` [S], about those of ``sample`` (n,) [S].

    circuits: each phase's; hold_s: how long the ring is held at the phase's end.
    """

    def __init__(self, circuits: list[Circuit], mode: Mode, guard: int, table: np.ndarray, k: int, hold_s: float, sample: Tensor,
                 top_s: float) -> None:  # fmt: skip
        self.digit = torch.from_numpy(table[k]).double()
        self.weight, self.share = mode.phases[k].weight, 1 / len(mode.phases)
        self.step = top_s**0.5 / (POINTS - 1)
        grid = (torch.arange(POINTS, dtype=torch.float64) * self.step).square().clamp(min=1e-9)
        self.at = torch.cat([sample.double().cpu().clamp(min=1e-9), grid])
        self.circuit, self.samples = circuits[k], len(sample)
        charges = cell_charges(circuits, mode, guard, table, self.at)
        # What still flows in the slots in which the ring is held is not counted.
        self.charge = charges.whole[k] - hold_s / self.circuit.t_lsb_s * charges.last[k]
        self.visible = apparent(self.circuit, self.at)
        self._charges = lambda g: cell_charges(circuits, mode, guard, table, g).whole[k]

    def functions(self, plan: Plan) -> CellFunctions:
        """What the product of this plan lacks [µA·LSB]."""
        return self._split(self.charge - taken(plan, self.digit, self.visible), self.visible, LEFT)

    def slopes(self, plan: Plan) -> CellFunctions:
        """What its backward pass lacks [µA·LSB/S]."""
        slope = torch.func.jvp(self._charges, (self.at,), (torch.ones_like(self.at),))[1]
        return self._split(slope - taken_slope(plan, self.digit, self.at), apparent_slope(self.circuit, self.at), LEFT_SLOPE)

    def _split(self, lacks: Tensor, per_volt: Tensor, left: float) -> CellFunctions:
        """``per_volt`` (n,) times code and read voltage is the ideal answer, or its slope."""
        codes = torch.arange(len(self.digit), dtype=torch.float64)
        ideal = float(codes.square().mean() * per_volt[: self.samples].square().mean()) * self.circuit.v_read_v**2
        u = split_functions(lacks[:, : self.samples], left * ideal * self.share / self.weight**2)
        grid = torch.linalg.lstsq(u, lacks[:, self.samples :])[0]
        return CellFunctions(u, grid.T.contiguous(), self.step)


@dataclass
class PulseProduct:
    """What one phase's product lacks, for one version of the weights.

    Of each plan: its functions, the lines' (lines, rows·r), what the product has of each line's mean pulse (lines,), and the
    answer per µA·LSB.
    """

    parts: list[tuple[CellFunctions, Tensor, Tensor, float]]
    back: Tensor | None

    @classmethod
    def of(cls, pulses: PhasePulses, functions: list[CellFunctions], columns: Columns, conductance_s: Tensor) -> PulseProduct:
        """Of the conductances (lines, rows) [S] that the columns were made of; functions: of each plan."""
        g = conductance_s.detach()
        ordered = [g] if columns.order is None else g[columns.order].split(columns.sizes)
        low = torch.bfloat16 if g.dtype == torch.float32 and low_precision(g.device) else g.dtype
        parts = []
        for plan, each, some in zip(columns.plans, functions, ordered, strict=True):
            mean = plan.pulses(apparent(pulses.circuit, some))
            parts.append((each, each.lines(some).to(low), mean, _slope(plan)))
        return cls(parts, columns.back)

    def answers(self, codes: Tensor, pulses: Tensor) -> Tensor:
        """Answers (batch, lines) of whole codes (batch, rows), in the units of ``Columns.answers``; pulses (batch,): how many."""
        out = []
        for functions, lines, mean, slope in self.parts:
            found = (functions.vectors(codes).to(lines.dtype) @ lines.T).to(mean.dtype)
            out.append(found.sub_(torch.outer(pulses.to(mean), mean)).mul_(slope))
        whole = torch.cat(out, 1) if len(out) > 1 else out[0]
        return whole if self.back is None else whole.index_select(1, self.back)


class PulseSlopes(torch.autograd.Function):
    """``apply(g, codes, columns, functions)``: zeros (batch, lines), whose gradient in the conductances ``g`` (lines, rows) [S]
    is what ``columns`` lack for whole codes (batch, rows); functions: of each plan, from ``PhasePulses.slopes``."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, g: Tensor, codes: Tensor, columns: Columns, functions: list[CellFunctions]
    ) -> Tensor:
        """Keeps the arguments only."""
        ctx.columns, ctx.functions = columns, functions
        ctx.save_for_backward(g, codes)
        return g.new_zeros(len(codes), len(g))

    @staticmethod
    @without_autocast
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """One product a function of each plan."""
        (grad,) = grads
        g, codes = ctx.saved_tensors
        columns: Columns = ctx.columns
        out = torch.zeros_like(g)
        order = torch.arange(len(g), device=g.device) if columns.order is None else columns.order
        for lines, plan, functions in zip(order.split(columns.sizes), columns.plans, ctx.functions, strict=True):
            ours = functions.lines(g[lines]).unflatten(-1, (g.shape[1], -1))
            theirs = functions.vectors(codes).unflatten(-1, (g.shape[1], -1)).to(grad)
            slope = _slope(plan)
            for r in range(ours.shape[-1]):
                out[lines] += slope * (grad[:, lines].T @ theirs[..., r]) * ours[..., r]
        return out, None, None, None


def _slope(plan: Plan) -> float:
    """Answer per µA·LSB at the current of a quarter of the rows."""
    rate = plan.ref.conversion.rate
    if rate is None:
        return 1.0
    current = plan.ref.idle_ua + 0.25 * plan.ref.circuit.v_read_v * float(plan.ref.g.sum())
    return float(rate.at(torch.tensor([current], dtype=torch.float64))[1])
