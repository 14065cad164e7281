"""A card as one csv file in long form: a row for each number, so that one header fits all of its parts."""

import csv
import io
import math

import numpy as np

from aimcard.models.card import Card
from aimcard.models.export_form import Exported

#: What a row is comes first; cells that a section has no use for are empty.
COLUMNS = (
    "section", "name", "index", "x", "x_unit", "value", "unit", "stderr", "sigma", "min", "max", "group", "flags",
    "description",
)  # fmt: skip


def to_csv(card: Card) -> Exported:
    """Meta, parameters, tables and validity domain of the card (RFC 4180, numbers exact to the last bit).

    section: ``meta``, ``parameter``, ``table`` (a row a point: ``index``, ``x``, ``value``), ``domain`` (``min``,
    ``max``), ``decision`` (the winner), ``spread`` (of chips: ``group``, the mean as ``value``, ``sigma``). flags:
    ``at_bound``, ``not_identified``, separated by a blank. An absent error or bound is an empty cell.
    """
    text = io.StringIO()
    out = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    out.writeheader()
    out.writerow({"section": "meta", "name": "content_hash", "value": card.content_hash})
    out.writerows({"section": "meta", "name": key, "value": _cell(value)} for key, value in card.meta.items())
    for p in card.parameters:
        flags = (("at_bound", p.at_bound), ("not_identified", not p.identified))
        out.writerow({
            "section": "parameter", "name": p.name, "value": _cell(p.value), "unit": p.unit, "stderr": _cell(p.stderr),
            "min": _cell(p.min), "max": _cell(p.max), "group": p.group,
            "flags": " ".join(name for name, on in flags if on), "description": p.description,
        })  # fmt: skip
    for t in card.tables:
        about = f"{t.y_name} against {t.x_name}" + (f": {t.description}" if t.description else "")
        for index, (x, y) in enumerate(zip(t.x.tolist(), t.y.tolist(), strict=True)):
            out.writerow({
                "section": "table", "name": t.name, "index": index, "x": _cell(x), "x_unit": t.x_unit,
                "value": _cell(y), "unit": t.y_unit, "description": about,
            })  # fmt: skip
    for name, interval in card.domain.items():
        out.writerow({"section": "domain", "name": name, "min": _cell(interval.lo), "max": _cell(interval.hi),
                      "unit": interval.unit})  # fmt: skip
    for d in card.decisions:
        out.writerow({"section": "decision", "name": d.name, "value": d.winner, "description": d.measure})
    for spread in card.spreads:
        sigma = np.sqrt(np.diag(spread.covariance)).tolist()
        for name, unit, mean, each in zip(spread.names, spread.units, spread.mean.tolist(), sigma, strict=True):
            out.writerow({
                "section": "spread", "name": name, "value": _cell(mean), "unit": unit, "sigma": _cell(each),
                "group": spread.name, "description": spread.description,
            })  # fmt: skip
    spreads = ["covariances and constants of what differs from chip to chip: see json"] if card.spreads else []
    return Exported(text.getvalue(), [
        *spreads,
        "validation figures, correlation matrix, the losing candidates' scores and the fit's messages: nested, see json",
        "provenance and the sha256 of each field, but for the card's own hash",
        "the form of the equations: parameters mean nothing without them",
        "how points are joined: the card's tables are monotone cubic splines, straight beyond their ends",
    ])  # fmt: skip


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(value)
