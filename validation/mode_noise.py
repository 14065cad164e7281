"""How far a product scatters when it is read again and again in a PWM mode, on the tile whose counts ``mode_counts`` judges."""

from __future__ import annotations

import warnings

import torch

from aimcard.models.card import Card
from aimcard.models.errors import OutsideDomainWarning
from aimcard.models.modes import Mode
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile_noise import tile_noise
from aimcard.models.topology import tile_of
from aimcard.validation.mode_counts import drawn_inputs

#: Vectors and columns of the tile.
VECTORS, COLUMNS = 4, 2


def product_noise(card: Card, mode: Mode, rule: str, signed: bool = True) -> float:
    """σ of a product's weighted counts [counts], rms over vectors and columns: circuit, clock and PCM, truncation apart.

    Readings as ``mode_counts`` takes them: one of a tied column, four of a gated pair (two of inputs of one sign: ``signed``
    False), of which the two sign phases of a line share the slow noise. Raises CardError for a card without noise tables.
    """
    tile, inputs = tile_of(card), drawn_inputs(card, COLUMNS, VECTORS, signed=signed)
    how = {"mode": mode, "phase_rule": rule}
    with warnings.catch_warnings():
        # Drawn lines may peak beyond the validated current for a slot.
        warnings.simplefilter("ignore", OutsideDomainWarning)
        if isinstance(tile, TiedTile):
            lines = [tile_noise(tile, inputs.plus_s, inputs.codes, inputs.minus_s, **how)]
        else:
            lines = [tile_noise(tile, side, inputs.codes, **how) for side in (inputs.plus_s, inputs.minus_s)]
    parts = [s.square() for line in lines for name, s in line.sigma.items() if name != "quantisation"]
    return float(torch.stack(parts).sum(0).mean().sqrt())
