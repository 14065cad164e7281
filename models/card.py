"""The model card: what a calibration leaves behind, and all that the fast model reads."""

import json
import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from aimcard.models.card_parts import Decision, FitSummary, Interval, Parameter, Provenance, Spread, Table, check_name
from aimcard.models.card_text import card_json, card_table
from aimcard.models.checks import did_you_mean
from aimcard.models.errors import CardError
from aimcard.models.h5 import read_tree, sealed_tree, write_tree
from aimcard.models.tree import Form, Tree, TreeReader, Value

__all__ = ["Card", "Decision", "FitSummary", "Interval", "Parameter", "Provenance", "Spread", "Table"]

CARD_FORM = Form("aimcard-resistive-card", "model card", 1, CardError, frozenset({"min", "max"}))

# What every card says of its tile; more keys are allowed.
REQUIRED_META: dict[str, type] = {
    "topology": str,
    "mode": str,
    "technology": str,
    "corner": str,
    "temperature_c": float,
    "vdd_v": float,
    "v_read_v": float,
    "t_lsb_s": float,
    "code_max": int,
    "rows": int,
    "segments": int,
    "r_bit_ohm": float,
    "r_return_ohm": float,
    "r_end_ohm": float,
    "n_phases": int,
    "mirror_ratio": float,
}

# The dimensions of every card's validity domain and their units; more are allowed.
DOMAIN_UNITS: dict[str, str] = {
    "conductance_s": "S",
    "line_current_a": "A",
    "code": "1",
    "wire_scale": "1",
    "temperature_c": "degC",
    "w_select_um": "um",
    "position": "1",
}

_PARAMETER_ATTRIBUTES: dict[str, type] = {
    "min": float,
    "max": float,
    "group": str,
    "description": str,
    "at_bound": bool,
    "identified": bool,
}
_TABLE_ATTRIBUTES = ("description", "x_name", "y_name")


def _plain_meta(meta: Mapping[str, Any]) -> dict[str, Value]:
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in meta.items()}
    return {
        key: float(value) if REQUIRED_META.get(key) is float and type(value) is int else value for key, value in plain.items()
    }


def plain_numbers(value: object, where: str = "validation") -> Any:
    """Nested dicts and lists of numbers and texts, numpy's made Python's; else CardError."""
    if isinstance(value, Mapping):
        return {str(key): plain_numbers(part, f"{where}/{key}") for key, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain_numbers(part, f"{where}[{i}]") for i, part in enumerate(value)]
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float) and not math.isfinite(plain):
        raise CardError(f"{where}: expected a finite number, got {plain}")
    if not isinstance(plain, str | bool | int | float):
        raise CardError(f"{where}: expected numbers and texts, got {type(plain).__name__}")
    return plain


def _square(values: object) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


@attrs.frozen(eq=False, repr=False)
class Card:
    """Parameters, look-up tables, validity domain and what stands behind them.

    `meta` holds REQUIRED_META and may hold more; `domain` the dimensions of DOMAIN_UNITS and may hold more;
    `correlation` has shape (n, n) for the n parameters of `correlation_names`; `validation` is a nested dict
    of plain numbers and texts; `spreads` what differs from chip to chip (most cards have none). `source` is the file in
    error messages and no part of the content. Two cards are equal if their content is. Raises CardError on anything that
    does not fit.
    """

    meta: dict[str, Value] = attrs.field(converter=_plain_meta)
    parameters: tuple[Parameter, ...] = attrs.field(converter=tuple)
    domain: dict[str, Interval] = attrs.field(converter=dict)
    fit: FitSummary
    provenance: Provenance
    tables: tuple[Table, ...] = attrs.field(default=(), converter=tuple)
    decisions: tuple[Decision, ...] = attrs.field(default=(), converter=tuple)
    validation: dict[str, Any] = attrs.field(factory=dict, converter=plain_numbers)
    correlation_names: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    correlation: np.ndarray = attrs.field(factory=lambda: np.zeros((0, 0)), converter=_square)
    spreads: tuple[Spread, ...] = attrs.field(default=(), converter=tuple)
    source: str = attrs.field(default="card", converter=str)

    @cached_property
    def content_hash(self) -> str:
        """sha256 of the content, as the file has it."""
        return sealed_tree(CARD_FORM, card_tree(self)).content_hash()

    def __attrs_post_init__(self) -> None:
        _check_card(self)

    def __eq__(self, other: object) -> bool:
        return self.content_hash == other.content_hash if isinstance(other, Card) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def __repr__(self) -> str:
        return f"<Card {self.content_hash[:12]}: {len(self.parameters)} parameters, {len(self.tables)} tables>"

    def __str__(self) -> str:
        return card_table(self)

    def to_json(self) -> str:
        """The whole card as JSON text; an absent bound is null."""
        return card_json(self, CARD_FORM.schema_version)

    def parameter(self, name: str) -> Parameter:
        """A parameter by name; CardError if the card has none."""
        return _named(self, "parameters", name, self.parameters)

    def table(self, name: str) -> Table:
        """A look-up table by name; CardError if the card has none."""
        return _named(self, "tables", name, self.tables)

    def decision(self, name: str) -> Decision:
        """A decision by name; CardError if the card has none."""
        return _named(self, "decisions", name, self.decisions)

    def value(self, name: str) -> float:
        """A parameter's value in its unit; CardError if the card has none."""
        return self.parameter(name).value

    def values(self) -> dict[str, float]:
        """All parameter values by name, each in its unit."""
        return {p.name: p.value for p in self.parameters}

    def write(self, path: str | Path) -> str:
        """Write the card, whole or not at all, and return its content hash. Equal cards make equal files."""
        return write_tree(path, CARD_FORM, card_tree(self))

    @classmethod
    def read(cls, path: str | Path) -> "Card":
        """Read a card and check every field and byte; CardError names the file and the field."""
        return _card_from(TreeReader(read_tree(path, CARD_FORM), CARD_FORM, path))


def card_tree(card: Card) -> Tree:
    """The card as the groups, attributes and datasets of its file (docs/card.md)."""
    tree = Tree()
    tree.group("meta", **card.meta)
    for p in card.parameters:
        values = {name: getattr(p, name) for name in _PARAMETER_ATTRIBUTES}
        known = p.stderr is not None
        values |= {"has_stderr": known, "stderr": p.stderr if p.stderr is not None else 0.0}
        tree.array(f"parameters/{p.name}", p.value, p.unit, p.description or p.name, **values)
    for t in card.tables:
        tree.group(f"tables/{t.name}", **{name: getattr(t, name) for name in _TABLE_ATTRIBUTES})
        tree.array(f"tables/{t.name}/x", t.x, t.x_unit, t.x_name)
        tree.array(f"tables/{t.name}/y", t.y, t.y_unit, t.y_name)
    for name, interval in card.domain.items():
        tree.array(
            f"domain/{name}",
            [interval.lo, interval.hi],
            interval.unit,
            f"validity of {name}: lowest, highest",
        )
    for d in card.decisions:
        tree.group(f"decisions/{d.name}", winner=d.winner, measure=d.measure, margin=d.margin)
        tree.text(f"decisions/{d.name}/candidates", tuple(d.candidates), "variants compared")
        tree.array(f"decisions/{d.name}/scores", list(d.candidates.values()), "1", d.measure)
    for group in ("parameters", "tables", "domain", "decisions"):
        tree.group(group)
    validation = json.dumps(card.validation, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    tree.text("validation", validation, "validation figures as JSON")
    tree.text("correlation/names", card.correlation_names, "parameters of the rows and columns")
    tree.array("correlation/matrix", card.correlation, "1", "correlation of the fitted parameters")
    for s in card.spreads:
        tree.group(f"spreads/{s.name}", samples=s.samples, description=s.description)
        tree.group(f"spreads/{s.name}/constants", **s.constants)
        tree.text(f"spreads/{s.name}/names", s.names, "numbers that differ from chip to chip")
        tree.text(f"spreads/{s.name}/units", s.units, "their units")
        tree.array(f"spreads/{s.name}/mean", s.mean, "1", "means, each in its unit")
        tree.array(f"spreads/{s.name}/covariance", s.covariance, "1", "covariances, in products of the units")
    fit = attrs.asdict(card.fit)
    tree.text("fit/messages", fit.pop("messages"), "what the fit said")
    tree.group("fit", **fit)
    made = card.provenance
    tree.group("provenance", simulator=made.simulator, software_version=made.software_version)
    tree.group("provenance", deck_set_hash=made.deck_set_hash)
    tree.group("provenance/reference_hashes", **made.reference_hashes)
    return tree


def _card_from(r: TreeReader) -> Card:
    parameters, tables, decisions = [], [], []
    try:
        for name in r.group("parameters"):
            at = f"parameters/{name}"
            values = {key: r.value(at, key, kind) for key, kind in _PARAMETER_ATTRIBUTES.items()}
            error = r.value(at, "stderr", float) if r.value(at, "has_stderr", bool) else None
            value = float(r.array(at, ndim=0))
            parameters.append(Parameter(name, value, error, unit=r.value(at, "units", str), **values))
        for name in r.group("tables"):
            at = f"tables/{name}"
            axes = {axis: r.array(f"{at}/{axis}", ndim=1) for axis in ("x", "y")}
            units = {f"{axis}_unit": r.value(f"{at}/{axis}", "units", str) for axis in ("x", "y")}
            tables.append(Table(name, **axes, **units, **{key: r.value(at, key, str) for key in _TABLE_ATTRIBUTES}))
        domain = {}
        for name in r.group("domain"):
            bounds = r.array(f"domain/{name}", ndim=1)
            if bounds.shape != (2,):
                raise r.fail(f"domain/{name}", f"expected two numbers, lowest and highest; got shape {bounds.shape}")
            domain[name] = Interval(bounds[0], bounds[1], r.value(f"domain/{name}", "units", str))
        for name in r.group("decisions"):
            at = f"decisions/{name}"
            names, scores = r.texts(f"{at}/candidates"), r.array(f"{at}/scores", ndim=1, unit="1")
            if len(names) != len(scores):
                raise r.fail(f"{at}/scores", f"expected {len(names)} scores, one a candidate; got {len(scores)}")
            measure, margin = r.value(at, "measure", str), r.value(at, "margin", float)
            candidates = dict(zip(names, scores, strict=True))
            decisions.append(Decision(name, r.value(at, "winner", str), candidates, measure, margin))
        counts = {key: r.value("fit", key, int) for key in ("n_parameters", "n_decks", "n_columns")}
        fit = FitSummary(**counts, converged=r.value("fit", "converged", bool), messages=r.texts("fit/messages"))
        hashes = r.values("provenance/reference_hashes")
        made = {key: r.value("provenance", key, str) for key in ("simulator", "software_version", "deck_set_hash")}
        return Card(
            meta=r.values("meta"),
            parameters=parameters,
            domain=domain,
            fit=fit,
            provenance=Provenance(reference_hashes={key: str(value) for key, value in hashes.items()}, **made),
            tables=tables,
            decisions=decisions,
            validation=_validation(r),
            correlation_names=r.texts("correlation/names"),
            correlation=r.array("correlation/matrix", ndim=2, unit="1"),
            spreads=_spreads(r),
            source=str(r.path),
        )
    except CardError as error:
        # The parts name their field, only the reader knows the file.
        text = str(error)
        raise error if text.startswith(f"{r.path}: ") else CardError(f"{r.path}: {text}") from None


def _spreads(r: TreeReader) -> list[Spread]:
    """The optional group of spreads: a card without mismatch has none."""
    spreads = []
    for name in r.group("spreads") if "spreads" in r.tree.groups else ():
        at = f"spreads/{name}"
        texts = {key: r.texts(f"{at}/{key}") for key in ("names", "units")}
        arrays = {key: r.array(f"{at}/{key}", ndim=n, unit="1") for key, n in (("mean", 1), ("covariance", 2))}
        constants = {key: r.value(f"{at}/constants", key, float) for key in r.values(f"{at}/constants")}
        samples, text = r.value(at, "samples", int), r.value(at, "description", str)
        spreads.append(Spread(name, **texts, **arrays, samples=samples, constants=constants, description=text))
    return spreads


def _validation(r: TreeReader) -> Any:
    try:
        figures = json.loads(r.text("validation"))
    except ValueError as error:
        raise r.fail("validation", f"expected JSON, got {error}") from None
    if not isinstance(figures, dict):
        raise r.fail("validation", f"expected a JSON object, got {type(figures).__name__}")
    return figures


def _named(card: Card, kind: str, name: str, parts: Iterable[Any]) -> Any:
    known = {part.name: part for part in parts}
    if name not in known:
        listed = ", ".join(known) or "none"
        raise CardError(f"{card.source}: {kind}/{name}: missing{did_you_mean(name, known)}; this card has {listed}")
    return known[name]


def _check_card(card: Card) -> None:
    def fail(field: str, message: str) -> CardError:
        return CardError(f"{card.source}: {field}: {message}")

    names = {str: "a text", float: "a number", int: "an integer"}
    for key, kind in REQUIRED_META.items():
        if key not in card.meta:
            raise fail(f"meta@{key}", "missing")
        if type(card.meta[key]) is not kind:
            raise fail(f"meta@{key}", f"expected {names[kind]}, got {card.meta[key]!r}")
    for key in ("v_read_v", "t_lsb_s", "code_max", "rows", "segments", "n_phases", "mirror_ratio"):
        if not card.meta[key] > 0:  # type: ignore[operator]
            raise fail(f"meta@{key}", f"expected a number above 0, got {card.meta[key]}")
    for kind, parts in (
        ("parameters", card.parameters),
        ("tables", card.tables),
        ("decisions", card.decisions),
        ("spreads", card.spreads),
    ):
        known = [part.name for part in parts]
        if len(set(known)) != len(known):
            raise fail(kind, f"expected each name once, got {max(known, key=known.count)!r} twice")
    for name, unit in DOMAIN_UNITS.items():
        if name not in card.domain:
            raise fail(f"domain/{name}", "missing")
        if card.domain[name].unit != unit:
            raise fail(f"domain/{name}@units", f"expected {unit!r}, got {card.domain[name].unit!r}")
    for name in card.domain:
        check_name("domain", name)
    n = len(card.correlation_names)
    unknown = [name for name in card.correlation_names if name not in card.values()]
    if unknown or len(set(card.correlation_names)) != n:
        raise fail(
            "correlation/names",
            f"expected names of parameters, each once; got {', '.join(card.correlation_names)}",
        )
    matrix = card.correlation
    if matrix.shape != (n, n):
        raise fail("correlation/matrix", f"expected shape {(n, n)}, got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise fail("correlation/matrix", "expected finite numbers, got NaN or inf")
    if n and (np.abs(matrix) > 1 + 1e-6).any() | ~np.isclose(matrix, matrix.T).all() | ~np.isclose(np.diag(matrix), 1).all():
        raise fail("correlation/matrix", "expected a symmetric matrix from -1 to 1 with ones on its diagonal")
