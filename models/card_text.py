"""A model card for people: a text table, and JSON."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

if TYPE_CHECKING:
    from aimcard.models.card import Card

# Correlations above this are worth a line.
STRONG = 0.95


def rows_of_text(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Rows of cells as aligned lines; a row of one cell (a heading) does not widen its column."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max((len(row[i]) for row in rows if len(row) > i and len(row) > 1), default=0) for i in range(columns)]
    return [(indent + "  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row))).rstrip() for row in rows]


def card_table(card: "Card") -> str:
    """The card as text: meta, parameters, tables, domain, decisions, validation, fit, provenance."""
    m, fit, made = card.meta, card.fit, card.provenance
    shown = ("topology", "mode", "technology", "corner")
    lines = [f"model card {card.content_hash[:12]}: {', '.join(str(m[key]) for key in shown)}"]
    lines += rows_of_text([(key, _text(value)) for key, value in m.items() if key not in shown])
    lines.append(f"parameters ({len(card.parameters)})")
    lines += rows_of_text([_parameter_row(p) for p in card.parameters])
    lines += [f"  strongly correlated: {pair}" for pair in _strong_pairs(card)]
    if card.tables:
        lines.append("look-up tables")
        lines += rows_of_text([_table_row(t) for t in card.tables])
    lines.append("validity domain")
    units = {"1": ""}
    rows = [(n, f"{_text(i.lo)} to {_text(i.hi)}", units.get(i.unit, i.unit)) for n, i in card.domain.items()]
    lines += rows_of_text(rows)
    for s in card.spreads:
        lines.append(f"spread {s.name}, from {s.samples} specimens: {s.description}")
        numbers = zip(s.names, s.units, s.mean, s.sigma, strict=True)
        lines += rows_of_text([(n, f"{m:.4g}", f"sigma {d:.3g}", units.get(u, u)) for n, u, m, d in numbers])
        lines += rows_of_text([(name, f"{value:.6g}") for name, value in s.constants.items()])
    if card.decisions:
        lines.append("decisions")
    for d in card.decisions:
        scores = ", ".join(f"{name} {score:.4g}" for name, score in d.candidates.items())
        lines.append(f"  {d.name}: {d.winner} won by {d.margin:.4g} ({d.measure}: {scores})")
    if card.validation:
        lines.append("validation")
        lines += rows_of_text(list(_validation_rows(card.validation)))
    state = "converged" if fit.converged else "DID NOT CONVERGE"
    lines.append(f"fit: {fit.n_parameters} parameters from {fit.n_decks} decks, {fit.n_columns} columns; {state}")
    if fit.converged and any(": not converged" in message for message in fit.messages):
        lines.append("  (the last fit of every parameter converged: what a stage below did not settle, a later one did)")
    lines += [f"  {message}" for message in fit.messages]
    lines.append(f"made by aimcard {made.software_version} from {made.simulator}")
    lines += rows_of_text([(name, digest[:12]) for name, digest in made.reference_hashes.items()])
    return "\n".join(lines)


def card_json(card: "Card", schema_version: int) -> str:
    """The card as indented JSON, rows of numbers on one line each."""
    document = {
        "schema_version": schema_version,
        "content_hash": card.content_hash,
        "meta": card.meta,
        "parameters": [_finite(attrs.asdict(p)) for p in card.parameters],
        "tables": [attrs.asdict(t, value_serializer=_plain) for t in card.tables],
        "domain": {name: attrs.asdict(interval) for name, interval in card.domain.items()},
        "decisions": [attrs.asdict(d) for d in card.decisions],
        **({"spreads": [attrs.asdict(s, value_serializer=_plain) for s in card.spreads]} if card.spreads else {}),
        "validation": card.validation,
        "correlation": {"names": list(card.correlation_names), "matrix": card.correlation.tolist()},
        "fit": attrs.asdict(card.fit),
        "provenance": attrs.asdict(card.provenance),
    }
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
    return re.sub(r"\[\s+([-+\d.eE,\s]+?)\s+\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", text)


def _plain(_owner: object, _field: object, value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _parameter_row(p: Any) -> tuple[str, ...]:
    unit = "" if p.unit == "1" else p.unit
    error = "fixed" if p.stderr is None else f"± {p.stderr:.2g}"
    bounds = f"[{p.min:.4g}, {p.max:.4g}]" if math.isfinite(p.min) or math.isfinite(p.max) else ""
    flags = [text for text, on in (("AT BOUND", p.at_bound), ("NOT IDENTIFIED", not p.identified)) if on]
    return (
        p.name,
        f"{p.value:.6g}",
        error,
        unit,
        bounds,
        ", ".join([*flags, p.description] if p.description else flags),
    )


def _strong_pairs(card: "Card") -> Iterator[str]:
    for i, j in np.argwhere(np.triu(np.abs(card.correlation) > STRONG, 1)):
        yield f"{card.correlation_names[i]} and {card.correlation_names[j]} ({card.correlation[i, j]:+.3f})"


def _table_row(t: Any) -> tuple[str, ...]:
    axis = f"{t.y_name} [{t.y_unit}] against {t.x_name} [{t.x_unit}]"
    return t.name, f"{t.x.size} points", axis, f"{t.x[0]:.4g} to {t.x[-1]:.4g} {t.x_unit}", t.description


def _validation_rows(figures: dict[str, Any], path: str = "") -> Iterator[tuple[str, ...]]:
    """A row for each quantity with figures of model and ideal MAC; else path and value."""
    for key, value in figures.items():
        where = f"{path} {key}".strip()
        if isinstance(value, dict) and isinstance(value.get("model"), dict) and "one_minus_r2" in value["model"]:
            variants = [name for name in ("model", "ideal_affine", "ideal") if isinstance(value.get(name), dict)]
            scores = [f"{name} {_score(value[name].get('one_minus_r2'))}" for name in variants]
            yield where, "1-R2:", *scores
        elif isinstance(value, dict):
            yield from _validation_rows(value, where)
        elif isinstance(value, list):
            yield where, f"{len(value)} values"
        else:
            yield where, _text(value)


def _score(score: Any) -> str:
    if isinstance(score, dict):
        return ", ".join(f"{name} {_score(part)}" for name, part in score.items())
    return f"{score:.2e}" if isinstance(score, int | float) else str(score)
