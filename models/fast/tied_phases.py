"""A tied tile in any PWM mode: a product for each phase, or the slow twin in one window.

A tied column is linear and constant in time, and nothing is left of a phase when the next begins but the column's own charge,
which comes back within a slot: the phases' products are the whole answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aimcard.models.fast.phases import check_products, digits, holds, phase_models
from aimcard.models.fast.tied_exact import solve_slots

if TYPE_CHECKING:
    from aimcard.models.fast.tied import TiedProduct
    from aimcard.models.fast.tied_circuit import Curve


class TiedPhases:
    """The phases of a TiedProduct whose mode is not conventional."""

    def __init__(
        self, product: TiedProduct, wire_scale: float, w_select_um: float | None, position: float, rate: Curve | None
    ) -> None:
        """Raises InputError for a mode that is no sum of products, unless the product is exact."""
        self.product, self.mode = product, product.tile.mode
        self.products: list[TiedProduct] = []
        if product.accuracy == "exact":
            return
        check_products(self.mode)
        kind, work = type(product), product.work
        self.products = [
            kind(tile, product.accuracy, wire_scale, work, w_select_um, position, product.effects, rate)
            for tile in phase_models(product.tile)
        ]

    def answers(self, plus: Tensor, minus: Tensor, codes: Tensor, *, counts: bool, idle: bool) -> Tensor:
        """Charges [C] or counts of each phase, (phases, ..., batch, lines), of pairs (..., lines, rows) and signed codes."""
        if not self.products:
            return self._exact(plus, minus, codes, counts=counts, idle=idle)
        found = []
        work = codes.to(self.product.work)
        for product, digit, hold_s in zip(self.products, digits(self.mode, work), holds(self.product.tile), strict=True):
            answer = product.phase if counts else product.charge
            out = answer(plus, minus, digit, idle=idle)
            if counts and idle and hold_s:
                # A held ring misses what the line counts at rest.
                rest = answer(plus, minus, torch.zeros_like(digit[..., :1, :]))
                out = out - rest * (hold_s / (product.circuit.slots * product.circuit.t_lsb_s))
            found.append(out)
        return torch.stack(found)

    def _exact(self, plus: Tensor, minus: Tensor, codes: Tensor, *, counts: bool, idle: bool) -> Tensor:
        if plus.ndim > 2:
            tiles = zip(plus, minus, codes, strict=True)
            return torch.stack([self._exact(*tile, counts=counts, idle=idle) for tile in tiles], 1)
        tile, circuit = self.product.tile, self.product.circuit
        guard = tile.guard_slots

        def phases(x: Tensor) -> Tensor:
            slots = solve_slots(circuit, plus, minus, x, counts=counts, mode=self.mode, guard=guard)
            parts = zip(self.mode.windows(guard), holds(tile), strict=True)
            return torch.stack(
                [
                    slots[..., a:b].sum(-1) - (slots[..., b - 1] * (hold_s / circuit.t_lsb_s) if counts else 0.0)
                    for (a, b), hold_s in parts
                ]
            )

        out = phases(codes)
        return out if idle else out - phases(torch.zeros_like(codes[..., :1, :]))
