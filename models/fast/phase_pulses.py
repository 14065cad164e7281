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
from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.mean_ladder import convert
from aimcard.models.fast.phase_charges import bin_shares, product_charges, slot_charges
from aimcard.models.fast.phase_slots import Line, ended_in, later
from aimcard.models.fast.product import Columns
from aimcard.models.fast.weights import MIDDLE, Plan, apparent, apparent_slope, recharge_slope
from aimcard.models.modes import Mode

#: Conductances on which the functions are found, quantiles of the tile's own.
SAMPLE = 96
#: Points of the functions of the conductance, on even steps of its root.
POINTS = 1025
#: Variance that the functions may leave, over that of the cells' ideal charges, and over that of their slopes. Where the rate
#: bends, what voltage drops make of the charges is more than finer functions tell.
LEFT, LEFT_BENT, LEFT_SLOPE = 3e-7, 1e-5, 1e-6
MOST = 6
#: Shares of the rows that have a pulse on typical lines; the gradients' are those of the second.
SHARES = (0.1, 0.5, 1.0)


def typical_worth(plan: Plan, digit: Tensor, charge: Tensor, hold: float, share: float) -> Tensor:
    """Answers per µA·LSB drawn, in each slot of a phase's window, then the product's, in each bin, (slots + bins,).

    Of evenly spread codes in a ``share`` of the rows; digit (codes,); charge (codes, slots), of a mean cell's pulses; hold: how
    much of the last slot is not counted."""
    ref, each = plan.ref, share / len(digit)
    conv, size, rows = ref.conversion, float(ref.g.sum()), len(ref.g)
    n = (digit[:, None] > torch.arange(charge.shape[1])).double().sum(0) * each
    f = bin_shares(ref, digit[:, None])
    width = ref.grid.width
    busy = f.sum(0) * each
    by_slot = torch.ones_like(n)
    if conv.rate is not None:
        by_slot = conv.rate.line_at(Line.of(ref, n * size).current + charge.sum(0) * each * rows)[1]
    by_slot = torch.cat([by_slot[:-1], by_slot[-1:] * (1 - hold)])
    _, rate, bend = convert(ref, Line.of(ref, (busy * size).repeat_interleave(2)).current)
    ended = ended_in(busy * rows)
    at_edges = ref.e_const + ref.e_gain * (size / rows)
    extra = ended * (at_edges[1:] + at_edges[:-1]) / 2 / width
    rate = rate + bend * extra.repeat_interleave(2)
    return torch.cat([by_slot, later((rate[::2] + rate[1::2]) / 2)])


def taken_slope(plan: Plan, gain: Tensor, digit: Tensor, conductance_s: Tensor) -> Tensor:
    """What the backward pass of a phase's product has of the slope of a pulse's answer [per S], (codes, n), of digits and what
    the product has per µS (codes,): see ``product.cells_back``."""
    ref, circuit, cells = plan.ref, plan.ref.circuit, plan.cells
    mean = ref.s_gain + np.interp(np.arange(circuit.code_max + 1), ref.grid.edges.numpy(), ref.e_gain.numpy())
    middle = min(int(MIDDLE), circuit.code_max)
    over = cells.over_codes - torch.from_numpy(mean) * 1e6
    shape = over / over[middle] if float(over[middle]) != 0 else torch.ones_like(over)
    visible = apparent_slope(circuit, conductance_s)
    own = recharge_slope(circuit, conductance_s, MIDDLE) - float(mean[middle]) * visible
    # The own slope is taken at the mean rate of the whole table.
    return gain[:, None] * visible + (shape[digit.long()] * (digit > 0) * ref.conversion.ideal)[:, None] * own


@dataclass(frozen=True)
class Functions:
    """Functions of the conductance at even steps of its root, (points, r); step [√S]."""

    of_conductance: Tensor
    step: float

    def lines(self, conductance_s: Tensor) -> Tensor:
        """Of conductances (lines, rows) [S], (lines, rows·r)."""
        at = conductance_s.clamp(min=0.0).sqrt().div_(self.step)
        n = at.to(torch.int64).clamp_(max=len(self.of_conductance) - 2)
        table = self.of_conductance.to(at)
        return torch.lerp(table[n], table[n + 1], (at - n)[..., None]).flatten(-2)


@dataclass(frozen=True)
class CellCharges(Functions):
    """What a phase's product lacks of a pulse, as functions of code and conductance, Σ_r φ_r(x)·ψ_r(G), beside its mean.

    by_time (slots + bins, codes, r): what is drawn in each slot, less what the product takes at each bin's force; mean
    (slots + bins, codes): the same on average [µA·LSB].
    """

    by_time: Tensor
    mean: Tensor

    def tables(self, worth: Tensor) -> Tensor:
        """φ (..., codes, r) where charges are worth (..., slots + bins)."""
        return torch.tensordot(worth, self.by_time.to(worth), 1)

    def means(self, worth: Tensor) -> Tensor:
        """Mean (..., codes)."""
        return worth @ self.mean.to(worth)


@dataclass(frozen=True)
class CellSlopes(Functions):
    """The slope in the conductance that the product's backward pass lacks, as functions: of_code (codes, r)."""

    of_code: Tensor


def by_code(table: Tensor, codes: Tensor) -> Tensor:
    """Functions of the code (codes, r), or each vector's own (batch, codes, r), at whole codes (batch, rows): (batch, rows·r)."""
    if table.ndim == 2:
        return table[codes].flatten(-2)
    return table.gather(1, codes[..., None].expand(-1, -1, table.shape[-1])).flatten(-2)


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
        self.mean = self.charge[..., : self.samples].mean(-1)

    def worth(self, plan: Plan, share: float) -> Tensor:
        """``typical_worth`` of a plan's lines."""
        return typical_worth(plan, self.digit, self.mean, self.hold, share)

    def functions(self, plan: Plan) -> CellCharges:
        """What the product of this plan lacks."""
        whole, mean = self._by_time(plan, self.charge)
        typical = [self.worth(plan, share) for share in SHARES]
        lacks = torch.cat([torch.tensordot(w / w[: self.charge.shape[1]].mean(), whole - mean[..., None], 1) for w in typical])
        axes, grid = self._split(lacks, self.visible, LEFT if plan.ref.conversion.rate is None else LEFT_BENT)
        return CellCharges(grid, self.step, (whole[..., : self.samples] - mean[..., None]) @ axes, mean)

    def slopes(self, plan: Plan) -> CellSlopes:
        """What its backward pass lacks."""
        worth, slots = self.worth(plan, SHARES[1]), self.charge.shape[1]
        whole = lambda g: torch.einsum("csn,s->cn", self._charges(g), worth[:slots])  # noqa: E731
        slope = torch.func.jvp(whole, (self.at,), (torch.ones_like(self.at),))[1]
        gain = product_charges(plan.ref, self.digit)[1] @ worth[slots:]
        slope = slope - taken_slope(plan, gain, self.digit, self.at)
        axes, grid = self._split(slope, apparent_slope(self.circuit, self.at), LEFT_SLOPE * float(worth[:slots].mean()) ** 2)
        return CellSlopes(grid, self.step, slope[:, : self.samples] @ axes)

    def _by_time(self, plan: Plan, charge: Tensor) -> tuple[Tensor, Tensor]:
        """Charges (codes, slots, n) and, negative, the product's, (slots + bins, codes, n), and their means over the samples."""
        const, gain = product_charges(plan.ref, self.digit)
        whole = torch.cat([charge.transpose(0, 1), -(const.T[..., None] + gain.T[..., None] * self.visible)])
        return whole, whole[..., : self.samples].mean(-1)

    def _split(self, lacks: Tensor, per_volt: Tensor, left: float) -> tuple[Tensor, Tensor]:
        """Directions (samples, r) that leave little of ``lacks`` (m, n) on the samples, and the functions along them on the grid
        (points, r). ``per_volt`` (n,) times code and read voltage is the ideal answer, or its slope."""
        codes = torch.arange(len(self.digit), dtype=torch.float64)
        ideal = float(codes.square().mean() * per_volt[: self.samples].square().mean()) * self.circuit.v_read_v**2
        u, s, vh = torch.linalg.svd(lacks[:, : self.samples], full_matrices=False)
        missed = s.square().flip(0).cumsum(0).flip(0) / (len(lacks) * self.samples)
        count = min(int((missed > left * ideal * self.share / self.weight**2).sum()), MOST)
        return vh[:count].T.contiguous(), (lacks[:, self.samples :].T @ (u[:, :count] / s[:count])).contiguous()


class PulseSlopes(torch.autograd.Function):
    """``apply(g, codes, columns, functions)``: zeros (batch, lines), whose gradient in the conductances ``g`` (lines, rows) [S]
    is what ``columns`` lack for whole codes (batch, rows); functions: of each plan, from ``PhasePulses.slopes``."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, g: Tensor, codes: Tensor, columns: Columns, functions: list[CellSlopes]
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
        for lines, functions in zip(order.split(columns.sizes), ctx.functions, strict=True):
            ours = functions.lines(g[lines]).unflatten(-1, (g.shape[1], -1))
            theirs = by_code(functions.of_code.float().to(codes.device), codes).unflatten(-1, (g.shape[1], -1)).to(grad)
            for r in range(ours.shape[-1]):
                out[lines] += (grad[:, lines].T @ theirs[..., r]) * ours[..., r]
        return out, None, None, None
