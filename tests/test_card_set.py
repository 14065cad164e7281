"""Interpolation in temperature: known answers of the laws, and sets of made-up cards that follow them."""

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimcard.models.card import Card, Interval
from aimcard.models.card_set import CardSet
from aimcard.models.errors import InputError
from aimcard.models.temperature import LAWS, interpolate, interpolated_error, node_weights
from aimcard.models.tile import TileModel

NODES = (-40.0, 0.0, 27.0, 85.0)
KELVIN = 273.15


@pytest.fixture
def card_at(card_of):
    """A made-up card at a temperature: R_on a power, leakage with a barrier, the ADC's rate linear in temperature."""

    def make(celsius: float, corner: str = "nom", vdd_v: float = 1.0, **meta) -> Card:
        base = card_of()
        r_on = 500 * ((celsius + KELVIN) / 300) ** 2.4
        leak = 1e-9 * np.exp(4000 * (1 / 300 - 1 / (celsius + KELVIN)))
        changed = {"r_on_ohm": r_on, "i_leak_a": leak}
        parameters = [attrs.evolve(p, value=changed.get(p.name, p.value), stderr=0.01) for p in base.parameters]
        tables = [attrs.evolve(t, y=t.y * (1 - 1e-3 * celsius)) if t.name == "adc" else t for t in base.tables]
        return attrs.evolve(
            base, parameters=parameters, tables=tables, source=f"{corner} {celsius:g}",
            meta=base.meta | {"temperature_c": float(celsius), "corner": corner, "vdd_v": vdd_v} | meta,
            domain=base.domain | {"temperature_c": Interval(celsius, celsius, "degC")},
        )  # fmt: skip

    return make


@settings(max_examples=60, deadline=None)
@given(st.floats(-40, 85), st.sampled_from(LAWS))
def test_weights_sum_to_one_and_are_exact_at_the_nodes(celsius, law):
    assert node_weights(law, NODES, celsius).sum() == pytest.approx(1, abs=1e-9)
    for k, node in enumerate(NODES):
        np.testing.assert_allclose(node_weights(law, NODES, node), np.eye(len(NODES))[k], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.floats(-40, 85), st.floats(-2, 2), st.floats(-0.02, 0.02), st.floats(-1e-4, 1e-4))
def test_each_law_is_exact_for_what_it_describes(t, a, b, c):
    x = np.array(NODES)
    assert interpolate("linear", NODES, a + b * x, t) == pytest.approx(a + b * t, abs=1e-9)
    assert interpolate("quadratic", NODES, a + b * x + c * x**2, t) == pytest.approx(a + b * t + c * t**2, abs=1e-9)
    assert interpolate("log", NODES, -np.exp(a + b * x), t) == pytest.approx(-np.exp(a + b * t), rel=1e-9)
    parabola = np.exp(a + b * x + c * x**2)
    assert interpolate("log-quadratic", NODES, parabola, t) == pytest.approx(np.exp(a + b * t + c * t**2), rel=1e-9)
    power = (x + KELVIN) ** a
    assert interpolate("power", NODES, power, t) == pytest.approx((t + KELVIN) ** a, rel=1e-9)
    assert interpolate("power-quadratic", NODES, power, t) == pytest.approx((t + KELVIN) ** a, rel=1e-9)
    barrier = np.exp(1e3 * a / (x + KELVIN))
    assert interpolate("arrhenius-quadratic", NODES, barrier, t) == pytest.approx(np.exp(1e3 * a / (t + KELVIN)), rel=1e-9)
    assert interpolate("arrhenius", NODES, barrier, t) == pytest.approx(np.exp(1e3 * a / (t + KELVIN)), rel=1e-9)


def test_a_current_that_changes_sign_has_no_logarithm():
    values = np.array([-1.0, 1.0, 2.0, 4.0])
    assert interpolate("log", NODES, values, 10.0) == pytest.approx(interpolate("linear", NODES, values, 10.0))
    # Element by element: the other one keeps its law.
    both = np.stack([values, np.exp(np.array(NODES) / 50)], axis=1)
    assert interpolate("log", NODES, both, 10.0)[1] == pytest.approx(np.exp(10 / 50))


def test_errors_are_an_upper_bound_of_what_the_nodes_can_do():
    values, errors = np.array([2.0, 3.0, 3.5, 5.0]), np.array([0.1, 0.2, 0.1, 0.3])
    rng = np.random.default_rng(0)
    for law in LAWS:
        bound = interpolated_error(law, NODES, values, errors, 50.0)
        moved = [interpolate(law, NODES, values + 1e-4 * errors * rng.choice([-1, 1], 4), 50.0) for _ in range(64)]
        change = np.abs(np.array(moved) - interpolate(law, NODES, values, 50.0)).max() / 1e-4
        assert change == pytest.approx(bound, rel=1e-3), law


@pytest.mark.parametrize("celsius", [-40.1, 85.5, np.nan])
def test_nothing_is_extrapolated(card_at, celsius):
    cards = CardSet([card_at(t) for t in NODES], "mine")
    with pytest.raises(InputError, match=r"mine: temperature: expected .* -40 to 85 degC; got .*; calibrate") as caught:
        cards.at(celsius)
    assert "\n" not in str(caught.value)


def test_the_card_between_follows_the_laws(card_at):
    cards = CardSet([card_at(t) for t in NODES])
    between, truth = cards.at(50.0), card_at(50.0)
    assert between.value("r_on_ohm") == pytest.approx(truth.value("r_on_ohm"), rel=1e-12)
    linear = cards.at(50.0, laws={}, default_law="linear").value("i_leak_a")
    assert between.value("i_leak_a") == pytest.approx(truth.value("i_leak_a"), rel=1e-9)
    assert abs(linear / truth.value("i_leak_a") - 1) > 0.2
    np.testing.assert_allclose(between.table("adc").y, truth.table("adc").y, rtol=1e-12)
    np.testing.assert_allclose(between.table("adc").x, truth.table("adc").x, rtol=1e-12)
    assert between.meta["temperature_c"] == 50.0
    # 50 lies between 27 and 85; 0 is the third of the parabola and counts as a source, -40 does not.
    assert between.domain["temperature_c"] == Interval(0.0, 85.0, "degC")
    hashes = {f"card_{t:g}_degC": card_at(t).content_hash for t in (0.0, 27.0, 85.0)}
    assert between.provenance.reference_hashes == hashes
    assert between.meta["interpolated_from"] == "0, 27, 85 degC"
    assert "not fitted" in between.fit.messages[0]


def test_it_runs_writes_and_reads(card_at, tmp_path):
    between = CardSet([card_at(0), card_at(85)]).at(40.0)
    g, codes = np.full((1, 24), 5e-6), np.full((2, 24), 7)
    counts = [TileModel(c).respond(g, codes).phase_count for c in (card_at(0), between, card_at(85))]
    assert (counts[0] > counts[1]).all()
    assert (counts[1] > counts[2]).all()
    between.write(tmp_path / "between.card.h5")
    assert Card.read(tmp_path / "between.card.h5") == between


def test_at_a_card_s_temperature_it_is_that_card(card_at):
    cards = [card_at(t) for t in NODES]
    assert CardSet(cards).at(27.0) is cards[2]


def test_tables_of_unequal_grids_share_one_and_stay_monotone(card_at):
    cold, hot = card_at(0), card_at(85)
    adc = hot.table("adc")
    x = np.linspace(5e-6, 90e-6, 7)
    other = attrs.evolve(adc, x=x, y=np.interp(x, adc.x, adc.y))
    hot = attrs.evolve(hot, tables=[other if t.name == "adc" else t for t in hot.tables])
    table = CardSet([cold, hot]).at(40.0).table("adc")
    assert (table.x[0], table.x[-1]) == (5e-6, 90e-6)
    assert set(np.round(x, 12)) <= set(np.round(table.x, 12))
    assert (np.diff(table.y) > 0).all()


def test_corners_do_not_mix(card_at):
    cards = CardSet([card_at(t, corner) for t in (0, 85) for corner in ("nom", "ff")], "mine")
    with pytest.raises(InputError, match="corner: expected one of ff, nom, for mine has several; got none"):
        cards.at(40.0)
    with pytest.raises(InputError, match=r"corner: expected one of ff, nom; got 'fs'"):
        cards.at(40.0, "fs")
    assert cards.at(40.0, "ff").meta["corner"] == "ff"
    with pytest.raises(InputError, match=r"vdd: expected one of 1; got 0\.9"):
        cards.at(40.0, "ff", 0.9)


@pytest.mark.parametrize(("key", "value"), [("topology", "tied"), ("mode", "split"), ("technology", "sky130"), ("rows", 12)])
def test_a_set_has_one_kind(card_at, key, value):
    with pytest.raises(InputError, match=f"expected cards of one kind; .* has {key} ") as caught:
        CardSet([card_at(0), card_at(85, **{key: value})])
    assert "\n" not in str(caught.value)


def test_a_set_has_one_card_a_place(card_at):
    with pytest.raises(InputError, match="expected one card of nom, 0 degC, 1 V; got several"):
        CardSet([card_at(0), card_at(0)])
    with pytest.raises(InputError, match="expected model cards"):
        CardSet([])


def test_read(card_at, tmp_path):
    for t in (0, 85):
        card_at(t).write(tmp_path / f"{t}.card.h5")
    assert CardSet.read(tmp_path).temperatures_c() == (0.0, 85.0)
    assert CardSet.read([tmp_path / "0.card.h5"]).temperatures_c() == (0.0,)
    with pytest.raises(InputError, match="expected a folder of model cards"):
        CardSet.read(tmp_path / "0.card.h5")
