"""The slow twin of tied products: the slot-by-slot equations of ``models/tied.py``, whole codes only, in double precision."""

from __future__ import annotations

import torch
from torch import Tensor

from aimcard.models.fast.tied_circuit import TiedCircuit
from aimcard.models.lut import lookup
from aimcard.models.modes import Mode
from aimcard.models.tied import edge_charges, effective_column, fixed_clamp, regulated_clamp, signs, solve_column
from aimcard.models.tied_tile import row_pulses


def solve(c: TiedCircuit, plus: Tensor, minus: Tensor, codes: Tensor, *, counts: bool = False) -> Tensor:
    """Charges [C], or counts before rounding, (..., batch, lines); arguments as ``TiedProduct``'s."""
    if plus.ndim > 2:
        tiles = zip(plus, minus, codes, strict=True)
        return torch.stack([solve(c, *tile, counts=counts) for tile in tiles])
    return solve_slots(c, plus, minus, codes, counts=counts).sum(-1)


def solve_slots(
    c: TiedCircuit, plus: Tensor, minus: Tensor, codes: Tensor, *, counts: bool, mode: Mode | None = None, guard: int = 0
) -> Tensor:
    """Charges [C] or counts of every slot of the window, (batch, lines, slots), in a PWM mode; None is the conventional one."""
    g = plus.double(), minus.double()
    clamp = fixed_clamp() if c.clamp is None else regulated_clamp(*c.clamp)
    column = effective_column(c.cell, c.wire, *g, c.w_um)
    at, rows = torch.arange(plus.shape[-1]), []
    for x in codes.round().long():
        each = x[None].expand(len(plus), -1)
        pulses = None if mode is None else row_pulses(mode, guard, each, at)
        static = solve_column(column, signs(each, c.slots, g[0].dtype, pulses), clamp)
        edges = edge_charges(c.cell, column, c.wire, c.pulse, c.edges, *g, each, static, c.w_um, c.t_lsb_s, pulses)
        seen = static.current_a + edges / c.t_lsb_s
        if counts:
            assert c.rate is not None
            idle = lookup(*c.rate, seen.new_zeros(()))
            seen = lookup(*c.rate, seen) if c.effects.adc else seen * c.counts_per_coulomb + idle
        rows.append(seen * c.t_lsb_s)
    return torch.stack(rows)
