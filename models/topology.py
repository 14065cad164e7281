"""Which tile model a card's topology takes: a small registry."""

from __future__ import annotations

from collections.abc import Callable

from aimcard.models.card import Card
from aimcard.models.checks import check_choice
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel

Tile = TileModel | TiedTile
TILES: dict[str, Callable[[Card], Tile]] = {"gated": TileModel, "tied": TiedTile}
TOPOLOGIES = tuple(TILES)


def tile_of(card: Card) -> Tile:
    """The tile model of a card, by its topology; CardError as the model raises it, InputError for an unknown one."""
    return TILES[check_choice("topology", card.meta["topology"], TOPOLOGIES)](card)
