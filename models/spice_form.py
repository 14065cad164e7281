"""What the card's ngspice netlists of either topology share: a deck's settings, parameter lines, and long lines."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from aimcard.models.card import Card
from aimcard.models.modes import get_mode
from aimcard.models.spice_readout import TABLE_ERROR

#: Time before the window, in which the circuit rests in its operating point [s].
LEAD_S = 1e-9
#: Ramp by which a cell or a source line moves [s]: its middle is the instant that the card gives.
RAMP_S = 20e-12
#: What no netlist of a card carries.
LEFT_OUT = (
    "standard errors and units other than as comments; bounds, correlations, decisions, validation figures",
    "the validity domain: ngspice does not warn outside it",
    "mismatch, noise and energy",
)


def library_head(card: Card) -> list[str]:
    """Comment lines: which card this is."""
    meta = card.meta
    return [
        f"* aimcard: {meta['topology']} column of {meta['technology']}, {meta['corner']}, {meta['temperature_c']:g} degC.",
        f"* Card {card.content_hash}, written by aimcard {card.provenance.software_version}.",
        f"* SI units, but for widths in um. Tables follow the card's within {TABLE_ERROR:g} of their largest value.",
        "",
    ]


def parameter_lines(card: Card, given: list[tuple[str, Any, str]], names: Iterable[str]) -> str:
    """``.param aim_...`` lines: ``given`` as (name, value, what it is), then the card's parameters ``names``."""
    known = {p.name: p for p in card.parameters}
    rows = list(given)
    for name in names:
        p = known[name]
        error = "" if p.stderr is None else f" +- {p.stderr:.2g}"
        unit = "" if p.unit == "1" else f" [{p.unit}]"
        rows.append((name, p.value, f"{p.description or name}{unit}{error}"))
    lines = ["* Parameters of the card: value, and behind the semicolon what it is, its unit and its standard error."]
    for name, value, text in rows:
        number = float(torch.as_tensor(value, dtype=torch.float64))
        assert math.isfinite(number)
        lines.append(f".param aim_{name}={number:.13g} ; {text}")
    return "\n".join(lines) + "\n"


def window_slots(card: Card, guard: int) -> int:
    """Slots of a window of conventional PWM, which is what the netlists' pulses are."""
    return get_mode("conventional", int(card.meta["code_max"])).window_slots(guard)


def mode_left_out(card: Card) -> list[str]:
    """A card of another mode says that the pulses are not its own."""
    mode = str(card.meta["mode"])
    return [] if mode == "conventional" else [f"the PWM mode {mode}: pulses are conventional ones, one a code"]


def continued(lines: list[str], width: int = 100) -> list[str]:
    """Long lines broken by SPICE's continuation."""
    out: list[str] = []
    for line in lines:
        current = ""
        for word in line.split():
            if current and len(current) + len(word) > width:
                out.append(current)
                current = "+"
            current = f"{current} {word}".strip()
        out.append(current)
    return out
