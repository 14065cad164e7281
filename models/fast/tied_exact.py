"""The slow twin of tied products: the slot-by-slot equations of ``models/tied.py``, whole codes only, in double precision."""

from __future__ import annotations

import torch
from torch import Tensor

from aimcard.models.fast.tied_circuit import TiedCircuit
from aimcard.models.lut import lookup
from aimcard.models.tied import fixed_clamp, regulated_clamp, slot_currents


def currents(c: TiedCircuit, plus: Tensor, minus: Tensor, codes: Tensor) -> Tensor:
    """Slot currents [A], (lines, slots), of one vector of codes (rows,) on pairs (lines, rows) [S]."""
    clamp = fixed_clamp() if c.clamp is None else regulated_clamp(*c.clamp)
    x = codes.round().long()[None].expand(len(plus), -1)
    current, _ = slot_currents(c.cell, c.wire, c.pulse, c.edges, plus, minus, x, c.slots, c.t_lsb_s, c.w_um, clamp)
    return current


def solve(c: TiedCircuit, plus: Tensor, minus: Tensor, codes: Tensor, *, counts: bool = False) -> Tensor:
    """Charges [C], or counts before rounding, (..., batch, lines); arguments as ``TiedProduct``'s."""
    if plus.ndim > 2:
        tiles = zip(plus, minus, codes, strict=True)
        return torch.stack([solve(c, *tile, counts=counts) for tile in tiles])
    gp, gm = plus.double(), minus.double()
    rows = []
    for x in codes.double():
        current = currents(c, gp, gm, x)
        if counts:
            gain = c.counts_per_coulomb
            assert c.rate is not None
            current = lookup(*c.rate, current) if c.effects.adc else current * gain + lookup(*c.rate, current.new_zeros(()))
        rows.append(current.sum(-1) * c.t_lsb_s)
    return torch.stack(rows)
