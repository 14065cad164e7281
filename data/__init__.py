"""The reference-set form, and the cards and recorded sets that ship with aimcard."""

from pathlib import Path

from aimcard.models.checks import check_choice
from aimcard.models.errors import InputError

_FOLDER = Path(__file__).parent
_CARD, _REFERENCE = ".card.h5", ".reference.h5"


def shipped_cards() -> list[str]:
    """Names of the cards that ship with aimcard."""
    return _names(_CARD)


def shipped_references() -> list[str]:
    """Names of the reference sets that ship with aimcard."""
    return _names(_REFERENCE)


def shipped_card(name: str = "freepdk45_gated") -> Path:
    """The file of a shipped card; InputError lists the choices if there is none of that name."""
    return _shipped("shipped card", name, shipped_cards(), _CARD)


def shipped_reference(name: str = "freepdk45_gated") -> Path:
    """The file of a shipped reference set; InputError lists the choices if there is none of that name."""
    return _shipped("shipped reference set", name, shipped_references(), _REFERENCE)


def _shipped(noun: str, name: str, names: list[str], suffix: str) -> Path:
    if not names:
        raise InputError(f"{noun}: expected files *{suffix} in {_FOLDER}; got none; install aimcard again")
    return _FOLDER / (check_choice(noun, name, names) + suffix)


def _names(suffix: str) -> list[str]:
    return sorted(path.name.removesuffix(suffix) for path in _FOLDER.glob(f"*{suffix}"))
