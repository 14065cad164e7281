"""A tied tile whose columns and cells carry the mismatch of one chip."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimcard.models.card import Card
from aimcard.models.checks import check_of_chip
from aimcard.models.tied import Clamp, on_resistance, regulated_clamp
from aimcard.models.tied_mismatch import TiedChip, TiedMismatch, draw_tied_chip
from aimcard.models.tied_readout import TiedReadout
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import Response


class TiedChipTile(TiedTile):
    """A tied tile whose columns and cells are those of one chip (`TiedTile.chip`)."""

    def __init__(self, card: Card, chip: TiedChip) -> None:
        super().__init__(card)
        self.drawn = chip

    @classmethod
    def draw(cls, card: Card, seed: int, lines: int, rows: int, w_select_um: float | None = None) -> TiedChipTile:
        """The chip of this seed out of the card's population; w_select_um None: the card's width."""
        w = float(card.meta["w_select_um"]) if w_select_um is None else float(w_select_um)
        return cls(card, draw_tied_chip(TiedMismatch.of(card), seed, lines, rows, w))

    def regulated(self, offset_v: float = 0.0) -> Clamp:
        """As `TiedTile.regulated`, with the bias and the curve of each column."""
        current_a, clamp_v = self.tables["clamp"]
        level = clamp_v - self.v_common_v + offset_v
        return regulated_clamp(current_a, level, shift_a=self.drawn.shift_a, departs=self.drawn.departure("clamp"))

    def readout(self, y_s: Tensor, w_select_um: float) -> TiedReadout:
        """As `TiedTile.readout`, one number a column."""
        return self.drawn.readouts(super().readout(y_s, w_select_um))

    def conducting(self, g_plus_s: Tensor, g_minus_s: Tensor, w_select_um: float) -> tuple[Tensor, Tensor]:
        """As `TiedTile.conducting`, with each cell's own on-resistance."""
        return self.drawn.cells(g_plus_s, g_minus_s, float(on_resistance(self.parameters()[0], w_select_um)))

    def judged(self, current_a: Tensor) -> Tensor:
        """As `TiedTile.judged`; a column whose shifted bias leaves the read-out's tables is judged by what it carries."""
        # A shifted bias matters where it leads beyond the read-out's tables: below them the regulator lets go.
        table, carried = self.tables["clamp"][0], current_a + self.drawn.shift_a
        return torch.where((carried < table[0]) | (carried > table[-1]), carried, current_a)

    def respond(self, conductance_s: np.ndarray, codes: np.ndarray, **options: Any) -> Response:
        """As `TiedTile.respond`; InputError if the conductances are not of this chip's columns and rows."""
        check_of_chip(conductance_s, self.drawn.shape)
        return super().respond(conductance_s, codes, **options)
