"""What the commands on cards do, from files to files: a judgement, its figures, a card between two temperatures, a trim."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from aimcard.data.reference import ReferenceSet
from aimcard.data.shipped import find_card, nominal_card_for
from aimcard.models.card import Card
from aimcard.models.card_set import CardSet
from aimcard.models.console import write_json
from aimcard.validation.adc_trim import TrimReport, trim_figure, trim_report
from aimcard.validation.interpolation import HeldOutTemperature, hold_out
from aimcard.validation.report import ValidationResult, validate
from aimcard.validation.style import save
from aimcard.validation.sweep_report import reference_at

Say = Callable[[str], None]


def compare(card: Card, reference: ReferenceSet) -> ValidationResult:
    """Scores on the set's held-out columns; warns if card and set differ in what they are for."""
    for key in ("technology", "corner", "temperature_c", "vdd_v", "mirror_ratio"):
        # A set of one's own may say nothing of its mirror.
        simulated = reference.meta.get(key, card.meta[key])
        if card.meta[key] != simulated:
            warnings.warn(
                f"{key}: the card is for {card.meta[key]}, the reference set for {simulated}; "
                "the figures show that difference too",
                stacklevel=2,
            )
    return validate(card, reference, progress=True)


def draw(card: Card, reference: ReferenceSet, result: ValidationResult, folder: Path, say: Say) -> None:
    """Draw all figures into `folder`."""
    from aimcard.validation.figures import write_all

    paths = write_all(card, reference, result, folder)
    say(f"figures: {len(paths)} in {folder}")


def between(
    folder: Path, temperature_c: float, corner: str | None, vdd_v: float | None, out: Path | None, say: Say
) -> Card:
    """The card of a sweep's folder at a temperature, written to ``out`` if that is given."""
    card = CardSet.read(folder).at(temperature_c, corner, vdd_v)
    if out is not None:
        card.write(out)
        say(f"card: {out}")
    return card


def judge_between(
    folder: Path, temperature_c: float, corner: str | None, vdd_v: float | None, out: Path | None,
    document: Path | None, laws: bool, say: Say,
) -> HeldOutTemperature:  # fmt: skip
    """The same without the folder's card at this temperature, judged on that card's simulations."""
    cards = CardSet.read(folder)
    reference = reference_at(cards, temperature_c, corner, vdd_v)
    result = hold_out(cards, temperature_c, reference, corner, vdd_v, compare_laws=laws)
    if out is not None:
        result.interpolated.write(out)
        say(f"card: {out}")
    if document is not None:
        write_json(document, result.to_json())
    return result


def trim_to(
    card: str, nominal: str | None, against: Path | None, full_scale_a: float | None, second_a: float | None,
    document: Path | None, figure: Path | None, say: Say,
) -> TrimReport:  # fmt: skip
    """A card's ADC trimmed to the nominal card's; figures of merit and drawing where files are given.

    Without a name the nominal card is the one that ships for the card's technology and topology; InputError if none does.
    """
    trimmed, reference = find_card(card), None if against is None else ReferenceSet.read(against)
    known = nominal_card_for(trimmed) if nominal is None else find_card(nominal)
    report = trim_report(known, [trimmed], [reference], full_scale_a, second_a)
    if document is not None:
        write_json(document, report.to_json())
    if figure is not None:
        save(trim_figure(report), figure)
        say(f"figure: {figure}")
    return report
