"""Cards for other programs: a registry of exporters, each of which says what its target cannot carry."""

import math
from collections.abc import Callable

from attrs import field, frozen

from aimcard.models.card import Card
from aimcard.models.checks import check_choice
from aimcard.models.errors import InputError


@frozen
class Exported:
    """A card in another form: the text of the file, and what of the card is not in it, one text each."""

    text: str
    left_out: tuple[str, ...] = field(converter=tuple)


Exporter = Callable[[Card], Exported]
_EXPORTERS: dict[str, Exporter] = {}


def register(name: str, exporter: Exporter) -> Exporter:
    """Add an exporter; InputError if the name is taken."""
    if name in _EXPORTERS:
        raise InputError(f"exporter: the name {name!r} is already registered; choose another name")
    _EXPORTERS[name] = exporter
    return exporter


def exporters() -> list[str]:
    """Names of the registered exporters."""
    return list(_EXPORTERS)


def export(card: Card, to: str) -> Exported:
    """The card in the form `to`; InputError lists the choices if there is no such exporter."""
    return _EXPORTERS[check_choice("--to", to, exporters())](card)


def to_json(card: Card) -> Exported:
    """All numbers and texts of the card as JSON.

    JSON has no infinity, so an absent bound is null; and nothing in it lets a reader find a changed byte.
    """
    left_out = ["the sha256 of each field: a byte changed in the JSON goes unseen"]
    open_ended = [p.name for p in card.parameters if math.isinf(p.min) or math.isinf(p.max)]
    if open_ended:
        left_out.append(f"infinite bounds, written as null: {', '.join(open_ended)}")
    return Exported(card.to_json() + "\n", left_out)


register("json", to_json)
