"""Fast, differentiable matrix products of a card's columns, beside their slow twin."""

from aimcard.models.fast.effects import Effects
from aimcard.models.fast.tied import TiedProduct
from aimcard.models.fast.tile import FastTile

__all__ = ["Effects", "FastTile", "TiedProduct"]
