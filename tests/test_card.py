"""A card's content: what counts in its hash, what is refused, what it says, where it was validated."""

import json
import math
import warnings

import attrs
import numpy as np
import pytest
import torch

import aimcard.models.domain as domain_module
from aimcard.data import shipped_card, shipped_cards
from aimcard.models.adc import HOLD_S
from aimcard.models.card import Card, Decision, FitSummary, Interval, Parameter, Table
from aimcard.models.domain import check_domain
from aimcard.models.errors import CardError, InputError, OutsideDomainWarning
from aimcard.netlists.oscillator import COUNTS_PER_PERIOD
from made_card import make_card


def test_every_part_counts_in_the_hash():
    card = make_card()
    p = card.parameters
    changed = [
        attrs.evolve(card, meta=card.meta | {"rows": 513}),
        attrs.evolve(card, meta=card.meta | {"extra": 1}),
        attrs.evolve(card, parameters=[attrs.evolve(p[0], value=np.nextafter(556.0, 600)), *p[1:]]),
        attrs.evolve(card, parameters=[attrs.evolve(p[0], stderr=None), *p[1:]]),
        attrs.evolve(card, parameters=[*p[:2], attrs.evolve(p[2], identified=True)]),
        attrs.evolve(card, domain=card.domain | {"code": Interval(0, 11, "1")}),
        attrs.evolve(card, tables=()),
        attrs.evolve(card, validation={}),
        attrs.evolve(card, correlation=np.eye(2)),
        attrs.evolve(card, fit=attrs.evolve(card.fit, converged=False)),
        attrs.evolve(card, provenance=attrs.evolve(card.provenance, simulator="ngspice-40")),
    ]
    assert len({one.content_hash for one in [card, *changed]}) == len(changed) + 1
    assert attrs.evolve(card, source="elsewhere.h5") == card


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Parameter("a", math.nan), "parameters/a: expected a finite number, got nan"),
        (lambda: Parameter("a", 1.0, math.nan), "parameters/a@stderr"),
        (lambda: Parameter("a", 2.0, max=1.0), "parameters/a: expected a value from -inf to 1, got 2"),
        (lambda: Parameter("a/b", 2.0), "parameters: expected a name"),
        (lambda: Table("t", [0, 1], [0, math.inf], "A", "Hz", "i", "f"), "tables/t/y: expected finite"),
        (lambda: Table("t", [0, 0], [0, 1], "A", "Hz", "i", "f"), "tables/t/x: expected strictly increasing"),
        (lambda: Interval(2, 1, "S"), "domain: expected finite lo <= hi"),
        (
            lambda: Decision("d", "c", {"a": 1.0}, "bic", 0.1),
            "decisions/d@winner: expected one of a; got 'c'",
        ),
        (
            lambda: make_card(validation={"a": {"b": [1.0, math.nan]}}),
            "validation/a/b[1]: expected a finite number",
        ),
        (lambda: make_card(validation={"a": None}), "validation/a: expected numbers and texts, got NoneType"),
        (lambda: make_card(domain={}), "card: domain/conductance_s: missing"),
        (
            lambda: make_card(parameters=[Parameter("a", 1), Parameter("a", 2)]),
            "card: parameters: expected each name",
        ),
        (
            lambda: make_card(correlation_names=["r_on_ohm", "b"]),
            "card: correlation/names: expected names of param",
        ),
    ],
)
def test_what_cannot_be_a_card_is_refused_when_made(make, expected):
    with pytest.raises(CardError) as caught:
        make()
    assert str(caught.value).startswith(expected)


def test_a_stage_that_a_later_one_settled_does_not_contradict_the_verdict():
    message = "line: not converged: Tolerance seems to be too small."
    card = make_card(fit=FitSummary(3, 40, 12, True, [message]))
    settled = "(the last fit of every parameter converged: what a stage below did not settle, a later one did)"
    head = str(card).splitlines()
    k = head.index(f"  {message}")
    assert head[k - 2].endswith("12 columns; converged")
    assert head[k - 1] == f"  {settled}"
    for fit in (FitSummary(3, 40, 12, False, [message]), FitSummary(3, 40, 12, True, ["12 columns"])):
        assert settled not in str(make_card(fit=fit))


@pytest.mark.parametrize("name", shipped_cards())
def test_a_shipped_card_says_what_happens_at_a_phase_boundary_and_what_is_counted(name):
    meta = Card.read(shipped_card(name)).meta
    assert (meta["phase_rule"], meta["hold_s"], meta["n_phases"]) == ("reset", HOLD_S, COUNTS_PER_PERIOD)


def test_text_and_json_say_everything():
    card = make_card()
    text = str(card)
    for part in (
        "AT BOUND, NOT IDENTIFIED",
        "± 2.5",
        "fixed",
        "3 parameters from 40 decks",
        "ngspice-39",
    ):
        assert part in text
    assert "r_on_ohm and q_edge_c (-0.970)" in text
    assert "rational won by 1.9e-05" in text
    assert "gaussian charge" in text
    assert "2.00e-06" in text
    assert max(map(len, text.splitlines())) < 160
    assert "DID NOT CONVERGE" in str(make_card(fit=FitSummary(3, 40, 12, False)))
    document = json.loads(card.to_json())
    assert document["content_hash"] == card.content_hash
    assert {p["name"]: p["value"] for p in document["parameters"]} == card.values()
    assert document["parameters"][1]["max"] is None
    assert document["tables"][0]["y"] == [0.0, 7e7, 4e8]
    assert document["validation"] == card.validation
    assert document["domain"]["conductance_s"] == {"lo": 1e-7, "hi": 25e-6, "unit": "S"}
    assert len(card.to_json().splitlines()) < 250


def test_outside_the_domain_warns_once_and_says_by_how_much(monkeypatch):
    monkeypatch.setattr(domain_module, "_warned", set())
    card = make_card()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            check_domain(card, wire_scale=10, conductance_s=np.array([1e-7, 25e-6]), temperature_c=27.0) == []
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for scale, one in [(12, card), ((1, 30), card), (12.0, make_card())]:
            check_domain(one, wire_scale=scale)
    assert [w.category for w in caught] == [OutsideDomainWarning]
    assert str(caught[0].message).startswith("wire_scale 12 is 20 % above the validated 10; ")
    assert caught[0].filename == __file__
    with pytest.warns(OutsideDomainWarning, match="temperature_c 85 is 58 degC above the validated 27"):
        check_domain(card, temperature_c=85)
    g = torch.tensor([5e-8, 30e-6], requires_grad=True, dtype=torch.float64)
    with pytest.warns(
        OutsideDomainWarning, match="is 20 % above the validated 2.5e-05 and .* 50 % below the vali"
    ):
        check_domain(card, conductance_s=g)
    with pytest.warns(OutsideDomainWarning, match="wire_scale 12"):
        check_domain(make_card(tables=()), wire_scale=12)
    assert check_domain(card, wire_scale=12) == ["wire_scale 12 is 20 % above the validated 10"]
    with pytest.raises(InputError, match=r"wire_scael: .*did you mean 'wire_scale'\?"):
        check_domain(card, wire_scael=1)
    with pytest.raises(InputError, match="code: expected numbers; got NaN"):
        check_domain(card, code=[1.0, math.nan])
