"""Validation: a card against the held-out columns of a reference set, as an object, a table, and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.card import Card
from aimcard.models.card_text import rows_of_text
from aimcard.models.errors import ReferenceSetError
from aimcard.models.h5 import write_bytes
from aimcard.models.modes import get_mode
from aimcard.models.topology import Tile, tile_of
from aimcard.validation.aims import AimResult, aims_table, judge
from aimcard.validation.data_sets import DataSet, RecordResult, data_sets, figure
from aimcard.validation.predictors import QUANTITIES, compare, gaussian_twin, truth_of
from aimcard.validation.scores import later_slots, sigma_mac

SCHEMA, SCHEMA_VERSION = "aimcard.validation", 1

#: "held_out" records are judged; "check" records (a saturated column) are scored, without aims.
SCORED_ROLES = ("held_out", "check")


@dataclass(frozen=True, eq=False, repr=False)
class ValidationResult:
    """Scores by data set. ``str(result)`` is the table, ``to_json()`` the document, ``aims`` the verdicts.

    card, reference: what was compared, as texts and numbers. notes: what was left out and why.
    """

    card: dict[str, Any]
    reference: dict[str, Any]
    data_sets: dict[str, DataSet]
    notes: tuple[str, ...] = ()

    @cached_property
    def aims(self) -> tuple[AimResult, ...]:
        """Verdict on every aim."""
        return judge(self.data_sets)

    def to_json(self) -> dict[str, Any]:
        """What ``aimcard validate --json`` writes: dicts, lists, texts and numbers; None where undefined.

        ``data_sets`` maps names (clamp-distribution-wire) to ``current``, ``charge``, ``phase`` (with a
        read-out), ``line_current`` and ``line_charge`` (where current and charge are the mirror's),
        ``columns``, ``lines`` a column, ``vectors`` a line (the fewest), and ``pair`` (the same quantities
        for G+ minus G−). Each quantity has ``model``, ``model_affine``, ``ideal``, ``ideal_affine`` and, where there is one,
        ``floor``; each of these the medians over lines of ``r2``, ``one_minus_r2``, ``nrmse``, ``eps_mac``
        [%], and more of scores.measures, the largest ``worst`` and ``worst_one_minus_r2``. Currents lack the
        first slot of the window: ``first_slot_*`` have it.
        """
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "card": self.card,
            "reference": self.reference,
            "data_sets": {name: s.summary for name, s in self.data_sets.items()},
            "aims": [r.to_json() for r in self.aims],
            "notes": list(self.notes),
        }

    def for_card(self) -> dict[str, Any]:
        """What a card keeps of it: the data sets' figures and the aims; what is undefined is left out.

        File names are left out too: equal content makes equal cards; and the affine-corrected model, which the cards that ship
        were made without.
        """
        whole = self.to_json()
        made = {key: value for key, value in self.reference.items() if key != "source"}
        kept = {k: {n: v for n, v in s.items() if n != "records"} for k, s in whole["data_sets"].items()}
        return _without_none({"reference": made, "data_sets": _without(kept, "model_affine"), "aims": whole["aims"]})

    def write_json(self, path: str | Path) -> Path:
        """Write ``to_json()`` to a file, whole or not at all."""
        text = json.dumps(self.to_json(), indent=2, allow_nan=False, ensure_ascii=False)
        write_bytes(path, (text + "\n").encode())
        return Path(path)

    def __repr__(self) -> str:
        marks = [r.mark for r in self.aims]
        met = f"{marks.count('pass')} of {len(marks)} aims met"
        return f"<ValidationResult {len(self.data_sets)} data sets, {met}>"

    def __str__(self) -> str:
        c, r = self.card, self.reference
        lines = [
            f"card {c['content_hash'][:12]}: {c['technology']}, {c['corner']}, {c['temperature_c']:g} degC",
            f"reference set {r['content_hash'][:12]}: {r['technology']}, {r['corner']}, "
            f"{r['temperature_c']:g} degC, {r['simulator']}",
            "held-out columns; 1-R2 about each line's own mean over vectors, median over lines, then worst",
            "currents: slot means, the first apart; affine: a scale and an offset a line, fitted to the scored vectors",
        ]
        rows: list[tuple[str, ...]] = [
            ("data set", "1-R2", "worst", "card, affine", "ideal, affine", "ideal", "floor", "RMSE/σ", "ε_MAC %", "max/σ", "ppm")
        ]
        for name, data_set in self.data_sets.items():
            rows += _rows(name, data_set)
        lines += rows_of_text(rows)
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, "aims", *aims_table(self.aims)])


def validate(card: Card, reference: ReferenceSet, progress: bool = True) -> ValidationResult:
    """Score ``card`` on the held-out columns of ``reference``.

    Raises ReferenceSetError if the set has no held-out column or was driven in another way than the card.
    ``progress`` shows a bar on a terminal's standard error.
    """
    model = tile_of(card)
    _check_same_drive(card, reference)
    # What repeats another column (a floor, a run with its supply recorded) is no data of its own.
    records = [r for role in SCORED_ROLES for r in reference.select(kind="column", role=role) if "of" not in r.attrs]
    if not reference.select(kind="column", role="held_out"):
        raise ReferenceSetError(
            f"{reference.source}: records: expected columns of role held_out, got none; "
            "simulate some, or give records that no fit has seen that role"
        )
    notes = []
    if not model.has_readout:
        left_out = [r for r in records if r.attrs["clamp"] == "ota"]
        records = [r for r in records if r.attrs["clamp"] != "ota"]
        if left_out:
            notes.append(f"columns with a read-out are left out ({len(left_out)}): the card has none")
    console = Console(stderr=True)
    shown = progress and sys.stderr.isatty()
    results = [
        score_record(record, model, reference)
        for record in track(records, "validation", console=console, disable=not shown, transient=True)
    ]
    return ValidationResult(_card_facts(card), _reference_facts(reference), data_sets(results), tuple(notes))


def score_record(record: Record, model: Tile, reference: ReferenceSet) -> RecordResult:
    """One record's comparisons."""
    twin = gaussian_twin(record, reference.records)
    mode = get_mode(str(reference.meta["mode"]), model.code_max)
    truth = {} if twin is None else truth_of(twin, mode, model.guard_slots)
    sigma = {q: sigma_mac(later_slots(v)) for q, v in truth.items()}
    full_scale = (float(model.tables["adc"][0][0]), float(model.tables["adc"][0][-1])) if model.has_readout else None
    return RecordResult(record, compare(record, model, reference), sigma, full_scale)


def _check_same_drive(card: Card, reference: ReferenceSet) -> None:
    # Not the mode: cell, wire and read-out carry over, and the figures then say how well.
    drive = {"topology": "topology", "v_read_v": "read voltage [V]", "t_lsb_s": "LSB time [s]", "code_max": "largest code"}
    for key, what in drive.items():
        expected, got = card.meta[key], reference.meta[key]
        same = np.isclose(got, expected, rtol=1e-9) if isinstance(expected, float) else got == expected
        if not same:
            raise ReferenceSetError(f"{reference.source}: {what}: expected the card's {expected!r}, got {got!r}")


def _card_facts(card: Card) -> dict[str, Any]:
    keys = ("technology", "corner", "temperature_c", "topology", "mode")
    return {"content_hash": card.content_hash, "source": card.source, **{key: card.meta[key] for key in keys}}


def _reference_facts(reference: ReferenceSet) -> dict[str, Any]:
    keys = ("technology", "corner", "temperature_c", "simulator")
    facts = {key: reference.meta[key] for key in keys}
    return {"content_hash": reference.content_hash, "source": reference.source, **facts}


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Nested mappings without entries of this name."""
    return {k: _without(v, name) if isinstance(v, Mapping) else v for k, v in values.items() if k != name}


def _rows(name: str, data_set: DataSet) -> list[tuple[str, ...]]:
    """A data set's lines of the table: its quantities, then those of the pair's difference."""
    s = data_set.summary
    size = f"{s['columns']} column{'s' * (s['columns'] > 1)}, {s['lines']} lines, {s['vectors']} vectors"
    rows: list[tuple[str, ...]] = [(f"{name}: {size}",)]
    for part, label in ((s, ""), (s.get("pair", {}), "pair ")):
        for quantity in QUANTITIES:
            if quantity in part:
                rows.append(("  " + label + quantity.replace("_", " "), *_row(part, quantity)))
    if (extra := figure(s, "phase", "rms_count")) is not None:
        counts = s["phase"]["model"]
        sigma = counts["sigma_count"]
        equal = f"; {counts['equal_counts']} of {counts['n_counts']} counts equal" if "n_counts" in counts else ""
        rows.append((f"    phase error {extra:.3g} counts rms at σ_MAC {'-' if sigma is None else f'{sigma:.4g}'}{equal}",))
    if (gaussian := figure(s, "charge", "one_minus_r2_gaussian")) is not None:
        rows.append((f"    charge over σ of the column's Gaussian inputs: 1-R2 {gaussian:.2g}",))
    if s.get("slots_beyond_full_scale"):
        rows.append((f"    {100 * s['slots_beyond_full_scale']:.0f} % of the slots are beyond the ADC's full scale",))
    return rows


def _row(part: Mapping[str, Any], quantity: str) -> tuple[str, ...]:
    def show(name: str, predictor: str = "model") -> str:
        value = figure(part, quantity, name, predictor)
        return "-" if value is None else f"{value:.2g}"

    columns = [("one_minus_r2", "model"), ("worst_one_minus_r2", "model"), ("one_minus_r2", "model_affine"),
               ("one_minus_r2", "ideal_affine"), ("one_minus_r2", "ideal"), ("one_minus_r2", "floor"), ("nrmse", "model"),
               ("eps_mac", "model"), ("worst", "model"), ("rmse_ppm", "model")]  # fmt: skip
    return tuple(show(*column) for column in columns)
