"""A card as JSON."""

import math

from aimcard.models.card import Card
from aimcard.models.export_form import Exported


def to_json(card: Card) -> Exported:
    """All numbers and texts of the card as JSON.

    JSON has no infinity, so an absent bound is null; and nothing in it lets a reader find a changed byte.
    """
    left_out = ["the sha256 of each field: a byte changed in the JSON goes unseen"]
    open_ended = [p.name for p in card.parameters if math.isinf(p.min) or math.isinf(p.max)]
    if open_ended:
        left_out.append(f"infinite bounds, written as null: {', '.join(open_ended)}")
    return Exported(card.to_json() + "\n", left_out)
