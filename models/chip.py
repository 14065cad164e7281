"""A tile whose lines and cells carry the mismatch of one chip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from aimcard.models.adc import AdcParameters
from aimcard.models.card import Card
from aimcard.models.checks import check_of_chip
from aimcard.models.line import LineParameters
from aimcard.models.mismatch import Chip, Mismatch, draw_chip
from aimcard.models.readout import ReadoutParameters
from aimcard.models.tile import Response, TileModel


class ChipModel(TileModel):
    """A tile whose lines and cells are those of one chip (`TileModel.chip`)."""

    def __init__(self, card: Card, chip: Chip) -> None:
        super().__init__(card)
        self.drawn = chip

    @classmethod
    def draw(cls, card: Card, seed: int, lines: int, rows: int, w_select_um: float | None = None) -> ChipModel:
        """The chip of this seed out of the card's population; w_select_um None: the card's width."""
        w = float(card.meta["w_select_um"]) if w_select_um is None else float(w_select_um)
        return cls(card, draw_chip(Mismatch.of(card), seed, lines, rows, w))

    def line(self, wire_scale: float = 1.0) -> LineParameters:
        """As `TileModel.line`, with the cells of this chip."""
        nominal = super().line(wire_scale)
        return replace(nominal, cell=self.drawn.cell(nominal.cell))

    def readout(self) -> ReadoutParameters:
        """As `TileModel.readout`, one number a line."""
        return self.drawn.line_readout(super().readout())

    def adc(self) -> AdcParameters:
        """As `TileModel.adc`, one number a line."""
        return self.drawn.adc(super().adc())

    def respond(self, conductance_s: np.ndarray, codes: np.ndarray, **options: Any) -> Response:
        """As `TileModel.respond`; InputError if the conductances are not of this chip's lines and rows."""
        check_of_chip(conductance_s, self.drawn.shape)
        return super().respond(conductance_s, codes, **options)
