"""Cards of one tile at several corners, temperatures and supplies, and a card between two of their temperatures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import attrs
import numpy as np
import torch

from aimcard.models.card import Card, FitSummary, Interval, Parameter, Provenance, Spread, Table
from aimcard.models.checks import check_choice
from aimcard.models.errors import InputError
from aimcard.models.lut import lookup
from aimcard.models.temperature import check_between, interpolate, interpolated_error, node_weights

#: What all cards of a set share; the rest of a card's meta may differ in numbers, not in texts.
KIND = ("technology", "topology", "mode", "v_read_v", "t_lsb_s", "code_max", "rows", "n_phases", "mirror_ratio", "w_select_um",
        "apparent_weight")  # fmt: skip
#: What makes a card of the set.
PLACE = ("corner", "temperature_c", "vdd_v")
#: Law of each parameter and table that does not take DEFAULT_LAW; chosen on held-out temperatures (docs/corners.md).
PARAMETER_LAWS: dict[str, str] = {
    "r_on_ohm": "power-quadratic", "i_leak_a": "arrhenius-quadratic", "i_gate_a": "log-quadratic",
}  # fmt: skip
DEFAULT_LAW = "quadratic"
_Known = TypeVar("_Known", str, float)


class CardSet:
    """Cards that differ in corner, temperature and supply only.

    >>> cards = CardSet.read("sweep")                       # doctest: +SKIP
    >>> TileModel(cards.at(55.0, corner="ff")).respond(...)  # doctest: +SKIP
    """

    def __init__(self, cards: Iterable[Card], source: str = "card set") -> None:
        """Raises InputError without a card, for cards of different kinds, or two of one place."""
        self.source = source
        self.cards = tuple(sorted(cards, key=lambda c: (str(c.meta["corner"]), float(c.meta["vdd_v"]), _celsius(c))))
        if not self.cards:
            raise InputError(f"{source}: expected model cards, *.card.h5; got none")
        first = self.cards[0]
        for card in self.cards[1:]:
            for key in KIND:
                if card.meta.get(key) != first.meta.get(key):
                    raise InputError(
                        f"{source}: expected cards of one kind; {first.source} has {key} {first.meta.get(key)!r}, "
                        f"{card.source} has {card.meta.get(key)!r}; make a set of each"
                    )
        places = [tuple(card.meta[key] for key in PLACE) for card in self.cards]
        for place in places:
            if places.count(place) > 1:
                corner, celsius, vdd = place
                raise InputError(f"{source}: expected one card of {corner}, {celsius:g} degC, {vdd:g} V; got several")

    @classmethod
    def read(cls, paths: str | Path | Sequence[str | Path]) -> CardSet:
        """All ``*.card.h5`` of a folder, or the files named. Raises InputError or CardError."""
        if not isinstance(paths, str | Path):
            return cls(map(Card.read, paths))
        if not Path(paths).is_dir():
            raise InputError(f"card set: expected a folder of model cards; got {paths}")
        return cls(map(Card.read, sorted(Path(paths).glob("*.card.h5"))), source=str(paths))

    @property
    def corners(self) -> tuple[str, ...]:
        """Names of the corners, in the order of the cards."""
        return tuple(dict.fromkeys(str(c.meta["corner"]) for c in self.cards))

    @property
    def supplies_v(self) -> tuple[float, ...]:
        """Supply voltages [V], ascending."""
        return tuple(sorted({float(c.meta["vdd_v"]) for c in self.cards}))

    def temperatures_c(self, corner: str | None = None, vdd_v: float | None = None) -> tuple[float, ...]:
        """Rising temperatures [°C] of the cards of one corner and supply."""
        return tuple(_celsius(c) for c in self.of(corner, vdd_v))

    def of(self, corner: str | None = None, vdd_v: float | None = None) -> tuple[Card, ...]:
        """The cards of one corner and supply by rising temperature; None where the set has but one.

        Raises InputError for a corner or supply that it has not, or if it has several and none is named: cards of
        different corners are different circuits, with nothing between them.
        """
        corner = _the_one("corner", corner, self.corners, self.source)
        vdd = float(_the_one("vdd", vdd_v, self.supplies_v, self.source))
        found = tuple(c for c in self.cards if c.meta["corner"] == corner and c.meta["vdd_v"] == vdd)
        if not found:
            raise InputError(f"{self.source}: expected cards of {corner} at {vdd:g} V; got none")
        return found

    def without(self, card: Card) -> CardSet:
        """The set less one card, for a comparison at a temperature that the interpolation has not seen."""
        return CardSet((c for c in self.cards if c is not card), self.source)

    def at(
        self, temperature_c: float, corner: str | None = None, vdd_v: float | None = None,
        laws: Mapping[str, str] | None = None, default_law: str = DEFAULT_LAW,
    ) -> Card:  # fmt: skip
        """A card at ``temperature_c``: the set's own, if it has one there, else interpolated between its neighbours.

        ``laws`` gives the law of parameters and tables by name (PARAMETER_LAWS by default), ``default_law`` that of all
        others (models/temperature.py has them). The card holds from the lowest to the highest temperature that it was
        made from. Raises InputError outside the set's temperatures, or as `of`.
        """
        cards = self.of(corner, vdd_v)
        nodes = [_celsius(c) for c in cards]
        check_between(temperature_c, nodes, f"{self.source}: temperature")
        for card in cards:
            if _celsius(card) == temperature_c:
                return card
        chosen = PARAMETER_LAWS if laws is None else laws
        # Cards that no law gives a weight are no part of it.
        every = {*chosen.values(), default_law}
        used = [k for k in range(len(cards)) if any(node_weights(law, nodes, temperature_c)[k] for law in every)]
        return _between([cards[k] for k in used], float(temperature_c), chosen, default_law)

    def __repr__(self) -> str:
        return f"<CardSet {self.source}: {len(self.cards)} cards; corners {', '.join(self.corners)}>"


def _celsius(card: Card) -> float:
    return float(card.meta["temperature_c"])


def _the_one(name: str, value: _Known | None, known: Sequence[_Known], source: str) -> _Known:
    shown = ", ".join(f"{k:g}" if isinstance(k, float) else str(k) for k in known)
    if value is None and len(known) > 1:
        raise InputError(f"{name}: expected one of {shown}, for {source} has several; got none")
    if value is None:
        return known[0]
    if isinstance(value, str):
        return check_choice(name, value, [str(k) for k in known])
    if value not in known:
        raise InputError(f"{name}: expected one of {shown}; got {value:g}")
    return value


def _between(cards: Sequence[Card], celsius: float, laws: Mapping[str, str], default_law: str) -> Card:
    first, nodes = cards[0], [_celsius(c) for c in cards]
    for kind, names in (
        ("parameters", [list(c.values()) for c in cards]),
        ("tables", [[t.name for t in c.tables] for c in cards]),
    ):
        for card, found in zip(cards, names, strict=True):
            if odd := set(found) ^ set(names[0]):
                raise InputError(f"{card.source}: {kind}: expected those of {first.source}; differing: {', '.join(sorted(odd))}")
    parameters = [
        _parameter([c.parameter(p.name) for c in cards], nodes, celsius, laws.get(p.name, default_law)) for p in first.parameters
    ]
    tables = [_table([c.table(t.name) for c in cards], nodes, celsius, laws.get(t.name, default_law)) for t in first.tables]
    weights = np.abs(node_weights(default_law, nodes, celsius))
    one_fit = all(c.correlation_names == first.correlation_names for c in cards)
    spreads, notes = _spreads(cards, nodes, celsius)
    shown = ", ".join(f"{t:g}" for t in nodes)
    return Card(
        meta=_meta(cards, nodes, celsius) | {"interpolated_from": f"{shown} degC", "interpolation": default_law},
        parameters=parameters,
        domain=_domain(cards) | {"temperature_c": Interval(nodes[0], nodes[-1], "degC")},
        fit=FitSummary(
            first.fit.n_parameters, sum(c.fit.n_decks for c in cards), sum(c.fit.n_columns for c in cards),
            all(c.fit.converged for c in cards),
            (f"interpolated to {celsius:g} degC between cards at {shown} degC, not fitted", *notes),
        ),
        provenance=Provenance(
            first.provenance.simulator, first.provenance.software_version,
            {f"card_{_celsius(c):g}_degC": c.content_hash for c in cards},
        ),
        tables=tables,
        spreads=spreads,
        correlation_names=first.correlation_names if one_fit else (),
        # A mean of correlation matrices is one.
        correlation=np.average([c.correlation for c in cards], axis=0, weights=weights) if one_fit else np.zeros((0, 0)),
        source=f"{first.meta['corner']} at {celsius:g} degC, interpolated",
    )  # fmt: skip


def _parameter(found: Sequence[Parameter], nodes: Sequence[float], celsius: float, law: str) -> Parameter:
    first, values = found[0], [p.value for p in found]
    errors = [p.stderr for p in found if p.stderr is not None]
    value = float(interpolate(law, nodes, np.array(values), celsius))
    return attrs.evolve(
        first,
        # A parabola may leave the bounds that its points respect.
        value=min(max(value, max(p.min for p in found)), min(p.max for p in found)),
        stderr=interpolated_error(law, nodes, values, errors, celsius) if len(errors) == len(found) else None,
        min=max(p.min for p in found), max=min(p.max for p in found),
        at_bound=any(p.at_bound for p in found), identified=all(p.identified for p in found),
    )  # fmt: skip


def _table(found: Sequence[Table], nodes: Sequence[float], celsius: float, law: str) -> Table:
    """On the union of all knots within the range that every table covers; linear in temperature if the law would leave
    a table not monotone, or not of one sign, whose neighbours are."""
    first = found[0]
    lo, hi = max(t.x[0] for t in found), min(t.x[-1] for t in found)
    if not lo < hi:
        raise InputError(f"tables/{first.name}: expected tables that overlap in {first.x_name}; they do not")
    knots = np.unique(np.concatenate([t.x for t in found]))
    # Knots of equal grids that differ by rounding are one.
    x = knots[(knots >= lo) & (knots <= hi)]
    x = x[np.concatenate([[True], np.diff(x) > 1e-9 * (hi - lo)])]
    y = np.stack([lookup(torch.tensor(t.x), torch.tensor(t.y), torch.tensor(x)).numpy() for t in found])
    value = interpolate(law, nodes, y, celsius)
    for sign in (1, -1):
        bent = (sign * np.diff(y, axis=1) > 0).all() and not (sign * np.diff(value) > 0).all()
        crossed = (sign * y > 0).all() and not (sign * value > 0).all()
        if bent or crossed:
            value = interpolate("linear", nodes, y, celsius)
    return attrs.evolve(first, x=x, y=value)


def _spreads(cards: Sequence[Card], nodes: Sequence[float], celsius: float) -> tuple[list[Spread], list[str]]:
    """Chip-to-chip spreads that all cards have alike, linear between the two neighbours (a mean of covariances is one),
    and what must be said of the others."""
    weights, out, notes = node_weights("linear", nodes, celsius), [], []
    for name in dict.fromkeys(s.name for c in cards for s in c.spreads):
        found = [s for c in cards for s in c.spreads if s.name == name]
        first = found[0]
        alike = [(s.names, s.units, s.constants) == (first.names, first.units, first.constants) for s in found]
        if len(found) < len(cards) or not all(alike):
            notes.append(f"{name}: left out, for the cards do not all have the same spread")
            continue
        mean = np.tensordot(weights, [s.mean for s in found], axes=1)
        covariance = np.tensordot(weights, [s.covariance for s in found], axes=1)
        out.append(attrs.evolve(first, mean=mean, covariance=covariance, samples=min(s.samples for s in found)))
    return out, notes


def _domain(cards: Sequence[Card]) -> dict[str, Interval]:
    """Where all cards hold."""
    out = {}
    for name, interval in cards[0].domain.items():
        every = [c.domain[name] for c in cards if name in c.domain]
        lo, hi = max(i.lo for i in every), min(i.hi for i in every)
        if name != "temperature_c" and lo <= hi:
            out[name] = Interval(lo, hi, interval.unit)
    return out


def _meta(cards: Sequence[Card], nodes: Sequence[float], celsius: float) -> dict[str, str | int | float | bool]:
    out: dict[str, str | int | float | bool] = {}
    for key, value in cards[0].meta.items():
        every = [c.meta.get(key) for c in cards]
        if key == "temperature_c":
            out[key] = celsius
        elif all(v == value for v in every):
            out[key] = value
        elif all(isinstance(v, float) for v in every):
            out[key] = float(interpolate("linear", nodes, np.array(every, dtype=float), celsius))
        else:
            raise InputError(f"meta@{key}: expected one value in all cards; got {', '.join(map(repr, every))}")
    return out
