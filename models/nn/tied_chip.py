"""One chip's mismatch in a layer on tied tiles: each pair's transistors and each column's read-out, to first order.

A transistor off by a factor is a resistance in series with its PCM. What a column's own regulator, bias and rate table make of
a product, less what they make of the resting column, is taken along the window in a few bins of the effective weights' current.
``models.tied_chip.TiedChipTile`` is the slow twin, slot by slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.departure import departure
from aimcard.models.fast.tied_circuit import TiedCircuit
from aimcard.models.lut import lookup
from aimcard.models.nn.chip import BINS, tile_seed
from aimcard.models.nn.options import NonIdealities
from aimcard.models.tied import EffectiveColumn, effective_column, fixed_clamp, on_resistance, regulated_clamp
from aimcard.models.tied_mismatch import TiedChip, TiedMismatch, draw_tied_chip
from aimcard.models.tied_tile import TiedTile

#: Currents about rest between which a column's gain is taken [A]: of the order of a product's.
SMALL_A = 20e-6


@dataclass(frozen=True)
class TiedTileChip:
    """The mismatch of one tile's columns and rows; tiles that are written one after the other on the same place share it."""

    model: TiedTile
    chip: TiedChip

    @classmethod
    def draw(cls, model: TiedTile, chip: int, place: str, lines: int, rows: int) -> TiedTileChip:
        """The tile at ``place`` of this chip of the card's population. Raises CardError if the card has none."""
        w = float(model.card.meta["w_select_um"])
        return cls(model, draw_tied_chip(TiedMismatch.of(model.card), tile_seed(chip, place), lines, rows, w))

    def cells(self, g_plus_s: Tensor, g_minus_s: Tensor, n: NonIdealities) -> tuple[Tensor, Tensor]:
        """Conductances (..., lines, rows) [S] that with the nominal transistor act as these do with their own."""
        if not n.apparent_weight:
            return g_plus_s, g_minus_s
        r_on = float(on_resistance(self.model.parameters()[0], float(self.model.card.meta["w_select_um"])))
        return self.chip.cells(g_plus_s, g_minus_s, r_on)

    @torch.no_grad()
    def readout(self, c: TiedCircuit, lines: tuple[Tensor, Tensor], codes: Tensor, converts: bool) -> tuple[Tensor, Tensor]:
        """Gain of every column's answer at small current, (..., 1, lines), and what its read-out adds, (..., batch, lines).

        In counts or [C]; nothing for a column at rest. lines: G+ and G− (..., lines, rows) [S]; codes (..., batch, rows).
        """
        plus, minus = (g.double().cpu() for g in lines)
        column = effective_column(c.cell, c.wire, plus, minus, c.w_um)
        x, levels = codes.double().cpu(), torch.arange(BINS, dtype=torch.float64)
        on = (x.abs()[..., None, :] / c.code_max * BINS - levels[:, None]).clamp(0.0, 1.0)
        odd, even = (w.mT[..., None, :, :] for w in (column.weight_a, column.even_a))
        rest = column.rest_a[..., None, :, None]
        j = ((on * torch.sign(x)[..., None, :]) @ odd + on @ even).mT + rest
        small = rest + torch.tensor([-SMALL_A, SMALL_A], dtype=torch.float64)
        sums, steps = [], []
        for own in (True, False):
            at_rest, moved, both = (self._rate(c, column, at, own, converts) for at in (rest, j, small))
            sums.append((moved - at_rest).sum(-1) * (c.code_max * c.t_lsb_s / BINS))
            steps.append(both.diff()[..., 0])
        gain = steps[0] / steps[1]
        return gain.to(codes), (sums[0] - gain * sums[1]).to(codes)

    def _rate(self, c: TiedCircuit, column: EffectiveColumn, j: Tensor, own: bool, converts: bool) -> Tensor:
        """Counts a second, or line current [A], at the short-circuit currents ``j`` (..., batch, lines, bins), of this chip's
        read-outs or of nominal ones."""
        shift, chip = (self.chip.shift_a, self.chip) if own else (0.0, None)
        departs = None if chip is None else chip.departure("clamp")
        clamp = fixed_clamp() if c.clamp is None else regulated_clamp(*c.clamp, shift_a=shift, departs=departs)
        current = clamp(column.y_s[..., None, :, None], j)[1]
        if not converts:
            return current
        if not c.effects.adc:
            return current * c.counts_per_coulomb
        assert c.rate is not None
        rate = lookup(*c.rate, current + shift)
        return rate if chip is None else rate * torch.exp(departure(chip.departure("rate"), current + shift))
