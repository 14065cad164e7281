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

from aimcard.models.fast.columns import low_precision
from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.mean_ladder import convert
from aimcard.models.fast.phase_charges import bin_shares, product_charges, slot_charges
from aimcard.models.fast.phase_slots import Line, later
from aimcard.models.fast.product import Columns
from aimcard.models.fast.weights import MIDDLE, Plan, apparent, apparent_slope, recharge_slope
from aimcard.models.modes import Mode

#: Conductances on which the functions are found, quantiles of the tile's own.
SAMPLE = 96
#: Points of the functions of the conductance, on even steps of its root.
POINTS = 1025
#: Variance that the functions may leave, over that of the cells' ideal charges, and over that of their slopes.
LEFT, LEFT_SLOPE = 3e-7, 1e-6
MOST = 6


@dataclass(frozen=True)
class Slopes:
    """Answers per µA·LSB on a typical line, over ``per_charge``, that of a quarter of the rows: in each slot of a phase's window
    (slots,), and the product's, of each bin (bins,)."""

    slots: Tensor
    bins: Tensor
    per_charge: float

    @classmethod
    def of(cls, plan: Plan, digit: Tensor, charge: Tensor, hold: float) -> Slopes:
        """Of evenly spread codes in half of the rows; digit (codes,); charge (codes, slots), of a mean cell's pulses; hold: how
        much of the last slot is not counted."""
        ref, share = plan.ref, 0.5 / len(digit)
        conv, per_charge = ref.conversion, _slope(plan)
        slots = torch.arange(charge.shape[1])
        n, busy = (digit[:, None] > slots).double().sum(0) * share, bin_shares(ref, digit[:, None]).sum(0) * share
        size, rows = float(ref.g.sum()), len(ref.g)
        if conv.rate is None:
            by_slot = torch.ones_like(n)
        else:
            by_slot = conv.rate.line_at(Line.of(ref, n * size).current + charge.sum(0) * share * rows)[1]
        by_slot = torch.cat([by_slot[:-1], by_slot[-1:] * (1 - hold)])
        rate = convert(ref, Line.of(ref, (busy * size).repeat_interleave(2)).current)[1]
        by_bin = later((rate[::2] + rate[1::2]) / 2)
        return cls(by_slot / per_charge, by_bin / per_charge, per_charge)


def taken_slope(plan: Plan, gain: Tensor, digit: Tensor, conductance_s: Tensor, per_charge: float) -> Tensor:
    """What the backward pass of a phase's product has of a pulse's slope [µA·LSB/S], (codes, n), of digits and the product's
    charge per µS (codes,): see ``product.cells_back``."""
    ref, circuit, cells = plan.ref, plan.ref.circuit, plan.cells
    mean = ref.s_gain + np.interp(np.arange(circuit.code_max + 1), ref.grid.edges.numpy(), ref.e_gain.numpy())
    middle = min(int(MIDDLE), circuit.code_max)
    over = cells.over_codes - torch.from_numpy(mean) * 1e6
    shape = over / over[middle] if float(over[middle]) != 0 else torch.ones_like(over)
    visible = apparent_slope(circuit, conductance_s)
    own = recharge_slope(circuit, conductance_s, MIDDLE) - float(mean[middle]) * visible
    # The own slope is taken at the mean rate of the whole table.
    return gain[:, None] * visible + (shape[digit.long()] * (digit > 0) * (ref.conversion.ideal / per_charge))[:, None] * own


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
        digits = torch.from_numpy(table)
        self.digit = digits[k].double()
        self.weight, self.share = mode.phases[k].weight, 1 / len(mode.phases)
        self.step = top_s**0.5 / (POINTS - 1)
        grid = (torch.arange(POINTS, dtype=torch.float64) * self.step).square().clamp(min=1e-9)
        self.at = torch.cat([sample.double().cpu().clamp(min=1e-9), grid])
        self.circuit, self.samples = circuits[k], len(sample)
        self.visible, self.hold = apparent(self.circuit, self.at), hold_s / self.circuit.t_lsb_s
        self._charges = lambda g: slot_charges(circuits, mode, guard, digits, k, g)
        self.charge = self._charges(self.at)

    def _typical(self, plan: Plan) -> tuple[Slopes, Tensor, Tensor]:
        """Typical slopes, and what the product has of a pulse: constant and per µS, (codes,)."""
        slopes = Slopes.of(plan, self.digit, self.charge[..., : self.samples].mean(-1), self.hold)
        const, gain = (part @ slopes.bins for part in product_charges(plan.ref, self.digit))
        return slopes, const, gain

    def functions(self, plan: Plan) -> CellFunctions:
        """What the product of this plan lacks [µA·LSB]."""
        slopes, const, gain = self._typical(plan)
        whole = torch.einsum("csn,s->cn", self.charge, slopes.slots)
        return self._split(whole - const[:, None] - gain[:, None] * self.visible, self.visible, LEFT)

    def slopes(self, plan: Plan) -> CellFunctions:
        """What its backward pass lacks [µA·LSB/S]."""
        slopes, _, gain = self._typical(plan)
        whole = lambda g: torch.einsum("csn,s->cn", self._charges(g), slopes.slots)  # noqa: E731
        slope = torch.func.jvp(whole, (self.at,), (torch.ones_like(self.at),))[1]
        slope = slope - taken_slope(plan, gain, self.digit, self.at, slopes.per_charge)
        return self._split(slope, apparent_slope(self.circuit, self.at), LEFT_SLOPE)

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
    answer per µA·LSB. sums: of each plan's lines, (lines, 2): apparent conductance of all rows [µS], and the same times the rows'
    place along the wire, from −1 to 1.
    """

    parts: list[tuple[CellFunctions, Tensor, Tensor, float]]
    back: Tensor | None
    sums: list[Tensor]

    @property
    def slopes(self) -> list[float]:
        """Answers per µA·LSB, of each plan."""
        return [slope for *_, slope in self.parts]

    @classmethod
    def of(cls, pulses: PhasePulses, functions: list[CellFunctions], columns: Columns, conductance_s: Tensor) -> PulseProduct:
        """Of the conductances (lines, rows) [S] that the columns were made of; functions: of each plan."""
        g = conductance_s.detach()
        ordered = [g] if columns.order is None else g[columns.order].split(columns.sizes)
        low = torch.bfloat16 if g.dtype == torch.float32 and low_precision(g.device) else g.dtype
        parts, sums = [], []
        place = torch.linspace(-1, 1, g.shape[1]).to(g)
        # The plans of a batch of tiles have one table.
        own = functions if len(functions) == len(ordered) else functions * len(ordered)
        for plan, each, some in zip(columns.plans, own, ordered, strict=True):
            weight = apparent(pulses.circuit, some)
            sums.append(weight @ torch.stack([torch.ones_like(place), place], 1))
            parts.append((each, each.lines(some).to(low), plan.pulses(weight), _slope(plan)))
        return cls(parts, columns.back, sums)

    def answers(self, codes: Tensor, pulses: Tensor) -> Tensor:
        """Answers (batch, lines) of whole codes (batch, rows), in the units of ``Columns.answers``; pulses (batch,): how many."""
        out = []
        for functions, lines, mean, slope in self.parts:
            found = (functions.vectors(codes).to(lines.dtype) @ lines.T).to(mean.dtype)
            # With no function worth its product, the lines' mean pulses are all there is.
            if lines.shape[1]:
                found.sub_(torch.outer(pulses.to(mean), mean))
            out.append(found.mul_(slope))
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
