"""Cards and reference sets by file or by the name under which they ship."""

from pathlib import Path

from aimcard.data import shipped_card, shipped_cards, shipped_reference, shipped_references
from aimcard.data.reference import ReferenceSet
from aimcard.models.card import Card
from aimcard.models.errors import InputError

# What a card and a reference set must share to be compared without a second thought.
_SAME = ("technology", "corner", "temperature_c", "vdd_v", "topology", "mirror_ratio", "mode")


def find_card(name: str | Path) -> Card:
    """The card of a file, or the shipped card of that name; a file of that name goes first.

    Raises CardError if it is no sound card.
    """
    if Path(name).exists() or str(name) not in shipped_cards():
        return Card.read(name)
    return Card.read(shipped_card(str(name)))


def nominal_card_for(card: Card) -> Card:
    """The shipped card of the card's technology and topology; InputError if none ships."""
    name = f"{card.meta['technology']}_{card.meta['topology']}"
    if name not in shipped_cards():
        raise InputError(f"--nominal: no card for {name} ships with aimcard (of {', '.join(shipped_cards())}); name one")
    nominal = Card.read(shipped_card(name))
    ratios = [c.meta["mirror_ratio"] for c in (nominal, card)]
    if ratios[0] != ratios[1]:
        raise InputError(
            f"--nominal: {name}, which ships, has a mirror of {ratios[0]:g}:1, this card one of {ratios[1]:g}:1; calibrate a "
            "nominal card of that ratio and name it"
        )
    return nominal


def mode_references(card: Card) -> dict[str, ReferenceSet]:
    """Shipped sets of the card's technology, corner, temperature, supply, topology and mirror, by their PWM mode."""
    found: dict[str, ReferenceSet] = {}
    for name in shipped_references():
        reference = ReferenceSet.read(shipped_reference(name))
        if all(reference.meta.get(key) == card.meta[key] for key in _SAME if key != "mode"):
            found.setdefault(str(reference.meta["mode"]), reference)
    return found


def reference_for(card: Card) -> ReferenceSet:
    """The shipped reference set of the card's technology, corner, temperature, supply, topology, mirror and mode.

    Raises InputError if none ships.
    """
    for name in shipped_references():
        reference = ReferenceSet.read(shipped_reference(name))
        if all(reference.meta.get(key) == card.meta[key] for key in _SAME):
            return reference
    wanted = ", ".join(str(card.meta[key]) for key in _SAME)
    raise InputError(f"--against: no reference set for {wanted} ships with aimcard; simulate one and name it")
