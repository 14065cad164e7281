"""One chip's mismatch in a layer: each cell's transistor and each line's read-out, to first order about the nominal tile.

A select transistor off by a factor is a resistance R_on·(factor − 1) in series with its PCM. A line's regulator, rate table and
start depart from the nominal ones (``models.departure``); what that does to a count is taken along the ideal current of a few
time bins. ``models.chip.ChipModel`` is the slow twin, slot by slot.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.cell import on_resistance
from aimcard.models.departure import departure
from aimcard.models.lut import lookup
from aimcard.models.mismatch import Chip, Mismatch, draw_chip
from aimcard.models.nn.options import NonIdealities
from aimcard.models.tile import TileModel

#: Time bins of the window along which a line's departure is averaged.
BINS = 8


def tile_seed(chip: int, place: str) -> int:
    """Seed of the tile at ``place`` of a chip."""
    return int.from_bytes(hashlib.sha256(f"{chip}/{place}".encode()).digest()[:6], "big")


@dataclass(frozen=True)
class TileChip:
    """The mismatch of one tile's lines and rows; tiles that are written one after the other on the same place share it."""

    model: TileModel
    chip: Chip

    @classmethod
    def draw(cls, model: TileModel, chip: int, place: str, lines: int, rows: int) -> TileChip:
        """The tile at ``place`` of this chip of the card's population. Raises CardError if the card has none."""
        w = float(model.card.meta["w_select_um"])
        return cls(model, draw_chip(Mismatch.of(model.card), tile_seed(chip, place), lines, rows, w))

    def cells(self, conductance_s: Tensor, n: NonIdealities) -> Tensor:
        """Conductances (..., lines, rows) [S] that with the nominal transistor act as these do with their own."""
        if not n.apparent_weight:
            return conductance_s
        r_on = float(on_resistance(self.model.line().cell, float(self.model.card.meta["w_select_um"])))
        more = (r_on * (self.chip.on_factor - 1)).to(conductance_s)
        return conductance_s / (1 + conductance_s * more)

    def leakage(self, codes: Tensor) -> Tensor:
        """Charge that the idle cells leak beyond the nominal [C], (..., batch, lines)."""
        cell, t = self.model.line().cell, self.model.t_lsb_s
        more = (self.chip.leak_factor - 1).to(codes)
        idle = self.model.slots * more.sum(1) - codes.abs() @ more.mT
        return float(cell.i_leak_a) * t * idle

    @torch.no_grad()
    def readout(self, lines: Tensor, codes: Tensor, n: NonIdealities, converts: bool) -> tuple[Tensor, Tensor | float]:
        """Factor on a line's answer, (..., batch, lines), and counts added to it."""
        model = self.model
        v, levels = model.v_read_v, torch.arange(BINS, dtype=torch.float64)
        times = (levels + 0.5) * model.code_max / BINS
        on = (codes.abs().double().cpu()[..., None, :] / model.code_max * BINS - levels[:, None]).clamp(0.0, 1.0)
        # Without a guard bin the bleed's counts after the last pulse would go uncorrected.
        guard = model.slots - model.code_max
        on = torch.cat([on, torch.zeros_like(on[..., :1, :])], -2)
        width = torch.cat([torch.full_like(times, model.code_max / BINS), times.new_tensor([guard])])
        current = v * (on @ lines.double().cpu().mT[..., None, :, :]).mT
        actual = current
        if n.regulator:
            actual = current * (1 + departure(self.chip.departure("clamp"), current) / v)
        if converts and n.adc:
            adc = model.adc()
            rate = lookup(adc.i_adc_a, adc.rate_hz, current)
            seen = lookup(adc.i_adc_a, adc.rate_hz, actual) * torch.exp(departure(self.chip.departure("rate"), current))
            return _ratio(seen @ width, rate @ width).to(codes), self.chip.readout["count_offset"].to(codes)
        return _ratio(actual @ width, current @ width).to(codes), 0.0


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 1.0)
