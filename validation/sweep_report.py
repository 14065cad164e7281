"""What a sweep leaves beside its cards: a table of all parameters, the ADC's trim, figures, and all of it as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aimcard.data.reference import ReferenceSet
from aimcard.models.card import Card
from aimcard.models.card_set import CardSet
from aimcard.models.card_text import rows_of_text
from aimcard.models.errors import InputError
from aimcard.models.h5 import write_bytes
from aimcard.validation.adc_trim import TrimReport, trim_figure, trim_report
from aimcard.validation.style import save
from aimcard.validation.sweep_figures import groups, parameters
from aimcard.validation.sweep_style import label_of

SCHEMA, SCHEMA_VERSION = "aimcard.sweep", 1
#: Temperature of a chip that is called nominal [°C].
ROOM_C = 27.0


def nominal_of(cards: CardSet) -> Card:
    """The card that the digital side knows: the first corner's (nominal ones go by nom or tt) nearest to 27 °C, at the
    middle supply."""
    corner = next((c for c in ("nom", "tt") if c in cards.corners), cards.corners[0])
    found = [c for c in cards.cards if c.meta["corner"] == corner]
    middle = float(np.median(cards.supplies_v))
    return min(found, key=lambda c: (abs(float(c.meta["vdd_v"]) - middle), abs(float(c.meta["temperature_c"]) - ROOM_C)))


def reference_beside(card: Card) -> ReferenceSet | None:
    """``x.reference.h5`` beside the file ``x.card.h5`` that a card was read from; None if there is none."""
    path = Path(card.source)
    beside = path.with_name(path.name.replace(".card.h5", ".reference.h5"))
    return ReferenceSet.read(beside) if beside != path and beside.exists() else None


def reference_at(cards: CardSet, temperature_c: float, corner: str | None, vdd_v: float | None) -> ReferenceSet:
    """The reference set beside the set's card of this place. InputError if there is no such card or file."""
    found = [c for c in cards.of(corner, vdd_v) if c.meta["temperature_c"] == temperature_c]
    if not found:
        known = ", ".join(f"{t:g}" for t in cards.temperatures_c(corner, vdd_v))
        raise InputError(f"--temperature: expected one of the cards' {known} degC to leave out; got {temperature_c:g}")
    if (reference := reference_beside(found[0])) is None:
        raise InputError(f"{found[0].source}: expected its reference set beside it, *.reference.h5; there is none; sweep again")
    return reference


def table(cards: CardSet) -> str:
    """Every parameter (rows) of every card (columns), with marginal ones marked: ! at a bound, ? not identified."""
    rows = [("parameter", "unit", *(label_of(c) for c in cards.cards))]
    for p in cards.cards[0].parameters:
        marks = []
        for card in cards.cards:
            q = card.parameter(p.name)
            marks.append(f"{q.value:.4g}{'!' if q.at_bound else ''}{'' if q.identified else '?'}")
        rows.append((p.name, p.unit, *marks))
    return "\n".join([f"parameters of {len(cards.cards)} cards; ! at a bound, ? not identified", *rows_of_text(rows)])


def quality(cards: CardSet) -> str:
    """How well each card does on its own held-out columns, as its validation has it."""
    rows = [("card", "data set", "quantity", "card 1-R2", "ideal MAC, affine", "phase error, counts rms")]
    for card in cards.cards:
        for name, figures in card.validation.get("data_sets", {}).items():
            for quantity in ("charge", "phase"):
                if quantity in figures:
                    f = figures[quantity]
                    affine = f.get("ideal_affine", {}).get("one_minus_r2")
                    counts = f["model"].get("rms_count")
                    rows.append(
                        (label_of(card), name, quantity, f"{f['model'].get('one_minus_r2', np.nan):.2g}",
                         "-" if affine is None else f"{affine:.2g}", "-" if counts is None else f"{counts:.3g}")
                    )  # fmt: skip
    return "\n".join(["each card on the held-out columns simulated with it", *rows_of_text(rows)])


def to_json(cards: CardSet, trims: TrimReport | None) -> dict[str, Any]:
    """Parameters with errors of all cards, their validation, and the trims."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "cards": [
            {
                **{key: c.meta[key] for key in ("technology", "topology", "mode", "corner", "temperature_c", "vdd_v")},
                "content_hash": c.content_hash,
                "parameters": {
                    p.name: {
                        key: getattr(p, key) for key in ("value", "stderr", "unit", "at_bound", "identified")
                    }
                    for p in c.parameters
                },
                "validation": c.validation,
            }
            for c in cards.cards
        ],
        "adc_trim": None if trims is None else trims.to_json(),
    }  # fmt: skip


def write_report(cards: CardSet, folder: str | Path, say: Callable[[str], None]) -> str:
    """Write ``sweep.json`` and the figures into the folder; the tables as text."""
    out = Path(folder)
    trims = None
    if any(t.name == "adc" for t in cards.cards[0].tables):
        trims = trim_report(nominal_of(cards), cards.cards, [reference_beside(c) for c in cards.cards])
    document = json.dumps(to_json(cards, trims), indent=2, allow_nan=False, ensure_ascii=False)
    write_bytes(out / "sweep.json", (document + "\n").encode())
    figures = {f"parameters_{group.replace(' ', '_')}": parameters(cards, group) for group in groups(cards)}
    if trims is not None:
        figures["adc_trim"] = trim_figure(trims)
    for name, figure in figures.items():
        save(figure, out / f"{name}.png")
    say(f"sweep: {len(cards.cards)} cards, sweep.json and {len(figures)} figures in {out}")
    return "\n\n".join([table(cards), quality(cards), *([str(trims)] if trims is not None else [])])
