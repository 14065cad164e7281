"""How the cards of a sweep are named and drawn: colour by corner, line by supply, shade by temperature."""

from __future__ import annotations

from typing import Any

from matplotlib.colors import to_rgb

from aimcard.models.card import Card
from aimcard.validation.style import BLUE, GREEN, ORANGE, PURPLE, RED, SKY

_CORNER_COLORS = {"nom": BLUE, "tt": BLUE, "ff": RED, "ss": GREEN, "fs": ORANGE, "sf": PURPLE}


def corner_color(corner: str) -> str:
    """Colour of a process corner in all figures of sweeps."""
    return _CORNER_COLORS.get(corner, SKY)


def label_of(card: Card) -> str:
    """ "ff 85 degC", with the supply."""
    m = card.meta
    return f"{m['corner']} {m['temperature_c']:g} degC {m['vdd_v']:g} V"


def style_of(card: Card) -> dict[str, Any]:
    """Colour and line of a card's curve: colder is lighter."""
    color = to_rgb(corner_color(str(card.meta["corner"])))
    celsius = float(card.meta["temperature_c"])
    share = min(max((celsius + 40) / 165, 0.0), 1.0)
    shade = tuple(c + (1 - c) * 0.65 * (1 - share) for c in color)
    lines = {"nom": "-", "tt": "-", "ff": "--", "ss": ":"}
    return {"color": shade, "linestyle": lines.get(str(card.meta["corner"]), "-."), "linewidth": 1.6}
