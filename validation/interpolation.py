"""A card interpolated in temperature against simulations at that temperature, beside the card calibrated there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aimcard.data.reference import ReferenceSet
from aimcard.models.card import Card
from aimcard.models.card_set import PARAMETER_LAWS, CardSet
from aimcard.models.card_text import rows_of_text
from aimcard.models.errors import InputError
from aimcard.models.temperature import LAWS, interpolate
from aimcard.validation.data_sets import figure
from aimcard.validation.report import ValidationResult, validate
from aimcard.validation.sweep_style import label_of

QUANTITIES = ("current", "charge", "phase", "line_charge")


@dataclass(frozen=True, eq=False)
class HeldOutTemperature:
    """Scores at a temperature that the interpolation has not seen.

    results: validation of each card by name: "interpolated", "calibrated there", and "nearest", the set's card of the
    nearest temperature as it is. interpolated, there: the cards. laws: for every law, rms phase error [counts] and charge
    1 − R² of the card with it for all that has none of its own (``phase_rms_count``, ``charge_one_minus_r2``), and the
    relative errors that it leaves in the parameters that have one; empty if not asked for.
    """

    interpolated: Card
    there: Card
    results: Mapping[str, ValidationResult]
    laws: Mapping[str, Mapping[str, float]]

    def rows(self) -> list[tuple[str, ...]]:
        """Texts of the table, its headings first: 1 − R² by data set and quantity, then rms errors."""
        names = list(self.results)
        rows = [("data set", "quantity, 1-R2", *names, "ideal MAC, affine")]
        counts: list[tuple[str, ...]] = [("data set", "rms error", *names, "sigma")]
        first = self.results[names[0]]
        for name, data_set in first.data_sets.items():
            summaries = [r.data_sets[name].summary for r in self.results.values()]
            for q in QUANTITIES:
                values = [figure(s, q, "one_minus_r2") for s in summaries]
                if values[0] is not None:
                    affine = figure(data_set.summary, q, "one_minus_r2", "ideal_affine")
                    rows.append((name, q.replace("_", " "), *map(_short, values), _short(affine)))
            if figure(data_set.summary, "phase", "rms_count") is not None:
                phase = [_short(figure(s, "phase", "rms_count")) for s in summaries]
                counts.append((name, "phase, counts", *phase, _short(figure(data_set.summary, "phase", "sigma_count"))))
            ppm = [_short(figure(s, "charge", "rmse_ppm")) for s in summaries]
            counts.append((name, "charge, ppm", *ppm, ""))
        return [*rows, *counts]

    def parameter_rows(self) -> list[tuple[str, ...]]:
        """Each parameter interpolated and calibrated, its error, and their difference over that error."""
        rows = [("parameter", "unit", "interpolated", "calibrated there", "its error", "difference / error")]
        for p in self.there.parameters:
            value = self.interpolated.value(p.name)
            ratio = "" if not p.stderr else f"{(value - p.value) / p.stderr:+.1f}"
            rows.append((p.name, p.unit, f"{value:.5g}", f"{p.value:.5g}", "" if p.stderr is None else f"{p.stderr:.2g}", ratio))
        return rows

    def to_json(self) -> dict[str, Any]:
        """Validations of all three cards, the laws, and each parameter interpolated and calibrated."""
        return {
            "interpolated_from": self.interpolated.meta["interpolated_from"],
            "temperature_c": self.interpolated.meta["temperature_c"], "corner": self.interpolated.meta["corner"],
            "vdd_v": self.interpolated.meta["vdd_v"],
            "validation": {name: r.to_json() for name, r in self.results.items()},
            "laws": {name: dict(figures) for name, figures in self.laws.items()},
            "parameters": {
                p.name: {"interpolated": self.interpolated.value(p.name), "calibrated": p.value, "stderr": p.stderr}
                for p in self.there.parameters
            },
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [
            f"{label_of(self.there)}: interpolated between cards at {self.interpolated.meta['interpolated_from']}, "
            "judged on the columns simulated there; nearest: the card of the nearest temperature left, as it is"
        ]
        lines += rows_of_text(self.rows())
        if self.laws:
            lines.append("laws: of all parameters and tables that have none of their own, and what each leaves in those")
            rows = [("law", "rms phase error, counts", "mirror charge 1-R2", *(f"{n}, %" for n in PARAMETER_LAWS))]
            for law, f in self.laws.items():
                own = [f"{100 * f[n]:+.2f}{' *' if PARAMETER_LAWS[n] == law else ''}" for n in PARAMETER_LAWS]
                rows.append((law, f"{f['phase_rms_count']:.3g}", f"{f['charge_one_minus_r2']:.2g}", *own))
            lines += rows_of_text(rows)
        lines += rows_of_text(self.parameter_rows())
        return "\n".join(lines)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def hold_out(
    cards: CardSet, temperature_c: float, reference: ReferenceSet, corner: str | None = None, vdd_v: float | None = None,
    *, compare_laws: bool = False,
) -> HeldOutTemperature:  # fmt: skip
    """Leave the set's card at ``temperature_c`` out, interpolate there, and judge both on ``reference``.

    Raises InputError if the set has no card there, or none on both sides of it; as `validate` if the set's mode differs.
    """
    chosen = cards.of(corner, vdd_v)
    there = [c for c in chosen if c.meta["temperature_c"] == temperature_c]
    if not there:
        known = ", ".join(f"{c.meta['temperature_c']:g}" for c in chosen)
        raise InputError(f"temperature: expected one of the set's cards, {known} degC, to leave out; got {temperature_c:g}")
    for key in ("corner", "temperature_c", "vdd_v"):
        if reference.meta[key] != there[0].meta[key]:
            raise InputError(f"{reference.source}: {key}: expected the card's {there[0].meta[key]}; got {reference.meta[key]}")
    corner, vdd_v = str(there[0].meta["corner"]), float(there[0].meta["vdd_v"])
    rest = cards.without(there[0])
    interpolated = rest.at(temperature_c, corner, vdd_v)
    nearest = min(rest.of(corner, vdd_v), key=lambda c: abs(float(c.meta["temperature_c"]) - temperature_c))
    named = {"interpolated": interpolated, "calibrated there": there[0], "nearest": nearest}
    results = {name: validate(card, reference, progress=False) for name, card in named.items()}
    laws = {}
    left = rest.of(corner, vdd_v)
    nodes = [float(c.meta["temperature_c"]) for c in left]
    for law in LAWS if compare_laws else ():
        result = validate(rest.at(temperature_c, corner, vdd_v, default_law=law), reference, progress=False)
        laws[law] = {
            "phase_rms_count": _median(result, "phase", "rms_count"),
            "charge_one_minus_r2": _median(result, "charge", "one_minus_r2"),
        }
        for name in PARAMETER_LAWS:
            value = interpolate(law, nodes, np.array([c.value(name) for c in left]), temperature_c)
            laws[law][name] = float(value) / there[0].value(name) - 1
    return HeldOutTemperature(interpolated, there[0], results, laws)


def _median(result: ValidationResult, quantity: str, name: str) -> float:
    """Over the data sets with a read-out."""
    found = [figure(s.summary, quantity, name) for s in result.data_sets.values() if s.clamp == "ota"]
    known = [v for v in found if v is not None]
    return float(np.median(known)) if known else float("nan")
