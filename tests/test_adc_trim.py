"""The two-point trim: known answers, and what it can and cannot take out of an ADC."""

import attrs
import numpy as np
import pytest

from aimcard.data import shipped_card, shipped_reference
from aimcard.data.reference import ReferenceSet
from aimcard.data.shipped import nominal_card_for
from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.models.trim import two_point_trim, window_counts
from aimcard.validation.adc_trim import trim_report

CURRENT_A = np.linspace(0, 100e-6, 11)


def with_rate(card, change):
    """The card with its ADC's rates changed by a function of rate and current."""
    return attrs.evolve(card, tables=[attrs.evolve(t, y=change(t.y, t.x)) if t.name == "adc" else t for t in card.tables])


def test_two_points_are_exact():
    trim = two_point_trim((10.0, 110.0), (0.0, 50.0))
    assert trim.gain == pytest.approx(0.5)
    assert trim.offset_count == pytest.approx(-5)
    np.testing.assert_allclose(trim(np.array([10.0, 60.0, 110.0])), [0, 25, 50])
    with pytest.raises(InputError, match="trim: expected two different readings; got 3 twice"):
        two_point_trim((3.0, 3.0), (0.0, 1.0))


def test_counts_are_rate_times_window(card_of):
    card = card_of()
    table = card.table("adc")
    np.testing.assert_allclose(window_counts(card, table.x), table.y * 17e-9)


def test_gain_and_offset_errors_vanish(card_of):
    nominal = card_of()
    other = with_rate(nominal, lambda y, x: 1.1 * y + 2e7)
    (trim,) = trim_report(nominal, [other], full_scale_a=100e-6).trims
    np.testing.assert_allclose(trim.before_count, 0.1 * window_counts(nominal, trim.current_a) + 2e7 * 17e-9)
    np.testing.assert_allclose(trim.after_count, 0, atol=1e-9)
    assert trim.trim.gain == pytest.approx(1 / 1.1)


def test_a_bend_stays_and_is_zero_at_the_trim_points(card_of):
    nominal = card_of()
    other = with_rate(nominal, lambda y, x: y * (1 - 1e3 * x))
    (trim,) = trim_report(nominal, [other], full_scale_a=100e-6).trims
    assert trim.current_a[0] == 0
    assert trim.current_a[60] == pytest.approx(50e-6)
    assert abs(trim.after_count[0]) < 1e-9
    assert abs(trim.after_count[60]) < 1e-9
    assert np.abs(trim.after_count).max() > 0.05
    # A slower ADC's curve bends down, and so lies above the chord between the trim points and below it beyond.
    assert (trim.after_count[5:55] > 0).all()
    assert (trim.after_count[65:] < 0).all()


def test_columns_are_trimmed_too(card_of, column_of, set_of):
    nominal = card_of()
    other = with_rate(nominal, lambda y, x: 1.05 * y)
    record = column_of("c", clamp="ota")
    read = attrs.evolve(record, arrays={**record.arrays, "phase_count": 1.05 * record["phase_count"], "count": record["count"]})
    report = trim_report(nominal, [other], [set_of(read)], 100e-6)
    tile = report.trims[0].tile
    assert tile.before == pytest.approx(0.05 * np.sqrt(np.mean(record["phase_count"] ** 2)))
    assert tile.after < 1e-9 * tile.before + 1e-9
    assert "1.05" not in str(report)
    assert report.to_json()["trims"][0]["tile"]["vectors"] == record["phase_count"].size


def test_full_scale_is_within_the_tables(card_of):
    with pytest.raises(InputError, match=r"full scale: expected a current above 0 and up to 100 uA"):
        trim_report(card_of(), [card_of()], full_scale_a=1e-3)
    with pytest.raises(InputError, match=r"second trim current: expected a current above 0 and up to 100 uA, .*; got 0"):
        trim_report(card_of(), [card_of()], second_a=0.0)


@pytest.mark.parametrize("name", ["sky130_gated", "freepdk45_tied"])
def test_the_nominal_card_is_of_the_same_technology_and_topology(name):
    card = Card.read(shipped_card(name))
    assert nominal_card_for(card).content_hash == card.content_hash
    with pytest.raises(InputError, match=r"nominal: expected a card of (technology 'sky130'|topology 'tied'), as "):
        trim_report(Card.read(shipped_card("freepdk45_gated")), [card])
    alien = attrs.evolve(card, meta=card.meta | {"technology": "else"})
    with pytest.raises(InputError, match="--nominal: no card for else_"):
        nominal_card_for(alien)


def test_a_tied_lines_current_has_both_signs():
    nominal = Card.read(shipped_card("freepdk45_tied"))
    other = with_rate(nominal, lambda y, x: 1.1 * y + 2e7)
    reference = ReferenceSet.read(shipped_reference("freepdk45_tied"))
    (trim,) = trim_report(nominal, [other], [reference], full_scale_a=100e-6).trims
    assert trim.current_a[0] == pytest.approx(-100e-6)
    np.testing.assert_allclose(trim.after_count, 0, atol=1e-8)
    # The circuit is the nominal one: its columns are as the nominal card says, and the other card's own answer is what is off.
    assert trim.tile.before < 0.1
    assert trim.tile.card > 100
