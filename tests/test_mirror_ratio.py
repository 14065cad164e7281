"""The mirror ratio as a design option: its laws in ngspice, what it leaves alone, and who notices another one."""

import dataclasses
import warnings

import attrs
import numpy as np
import pytest
from numpy.testing import assert_allclose

from aimcard.calibrate.counter_reach import LARGEST_A, counter_meta, counter_reach_a
from aimcard.calibrate.mode_sets import _main as mode_sets
from aimcard.calibrate.plan import Options, ring_cpu_s
from aimcard.calibrate.simulate import rate_record
from aimcard.calibrate.statistics import bench_of
from aimcard.data import shipped_card, shipped_cards, shipped_reference
from aimcard.data.reference import Record, ReferenceSet
from aimcard.data.shipped import mode_references, nominal_card_for, reference_for
from aimcard.models.card import Card
from aimcard.models.card_set import CardSet
from aimcard.models.errors import InputError
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.counter import follows, toggle_deck, toggles
from aimcard.netlists.deck import deck_hash
from aimcard.netlists.ngspice import run_many
from aimcard.netlists.oscillator_decks import oscillator_rate_deck
from aimcard.netlists.readout import DEFAULT_READOUT, default_readout
from aimcard.netlists.readout_decks import readout_static, readout_static_deck
from aimcard.netlists.readout_report import FULL_REGULATOR_A, oscillator_currents
from aimcard.netlists.technology import get_technology
from aimcard.netlists.tied_readout import tied_static_deck
from aimcard.validation.jobs import compare
from aimcard.validation.mode_table import labels, mode_table

TECHNOLOGIES = pytest.mark.parametrize("technology", ["freepdk45", "sky130"])
BAD = ("0", "-4", "0.01", "4.5", "1", "33", "nan", "inf")


def bench(technology: str, ratio: int | None = None) -> ColumnBench:
    t = get_technology(technology)
    return ColumnBench(t, t.corners[0], 27.0, default_readout(t, ratio))


def of_ratio(card: Card, ratio: float) -> Card:
    return attrs.evolve(card, meta=card.meta | {"mirror_ratio": ratio})


@pytest.fixture(scope="module")
def four() -> Card:
    return of_ratio(Card.read(shipped_card("sky130_gated")), 4.0)


class TestOption:
    @TECHNOLOGIES
    @pytest.mark.parametrize("topology", ["gated", "tied"])
    def test_nothing_but_the_mirror_differs(self, technology, topology):
        own = DEFAULT_READOUT[technology]
        plain, four = (Options(technology=technology, topology=topology, mirror_ratio=r) for r in (None, 4))
        assert plain.readout == own
        assert Options(technology=technology, mirror_ratio=own.mirror_ratio).readout == own
        assert four.readout == dataclasses.replace(own, mirror_ratio=4)
        assert ring_cpu_s(four) == ring_cpu_s(plain)
        assert Options(technology=technology, mirror_ratio=4, lsb_ns=7.0).readout.t_lsb_s == pytest.approx(7e-9)

    @pytest.mark.parametrize("value", BAD)
    def test_a_ratio_that_is_none_is_one_line(self, value):
        with pytest.raises(InputError, match=r"mirror ratio: expected a whole number from 2 to 32, .*; got "):
            Options(mirror_ratio=float(value))

    @pytest.mark.parametrize(
        "command", [("calibrate",), ("simulate", "--out", "s.h5"),
                    ("sweep", "--corners", "nom", "--temperatures", "27", "--out", "sweep")],
    )  # fmt: skip
    def test_commands_take_it(self, command, tmp_path, monkeypatch, capsys):
        from aimcard.__main__ import main

        monkeypatch.chdir(tmp_path)
        for value, words in (("0.01", "got 0.01"), ("-4", "got -4"), ("four", "unable to convert")):
            assert main([*command, "--mirror-ratio", value]) == 2
            out, err = capsys.readouterr()
            assert (out, err.count("\n")) == ("", 1)
            assert words in err
        assert not any(tmp_path.iterdir())

    def test_mode_sets_take_it(self, tmp_path):
        for value, words in (("0", "whole number from 2 to 32"), ("four", "expected a number; got 'four'")):
            with pytest.raises(InputError, match=words):
                mode_sets(["split", "--mirror-ratio", value, "--out", str(tmp_path)])

    @pytest.mark.parametrize("name", shipped_cards())
    def test_decks_of_the_shipped_sets_keep_their_hashes(self, name):
        """So what ships is not simulated again: the static curves, from the card's own circuits."""
        reference, b = ReferenceSet.read(shipped_reference(name)), bench_of(Card.read(shipped_card(name)))
        where = {"corner": b.corner, "temperature_c": b.temperature_c}
        static = reference.select(kind="readout_dc")[0]
        least, most, points = (float(static["current_a"][0]), float(static["current_a"][-1]), static["current_a"].size)
        if reference.meta["topology"] == "tied":
            deck = tied_static_deck(
                b.technology, b.readout, current_min_a=round(least, 9), current_max_a=round(most, 9), points=points, **where
            )
        else:
            deck = readout_static_deck(
                b.technology, b.readout, read_v=b.v_read_v, current_max_a=round(most, 9), points=points, **where
            )
        assert deck_hash(deck, str(reference.meta["simulator"])) == static.deck_hash


class TestCircuit:
    @TECHNOLOGIES
    def test_less_ratio_is_as_much_more_mirror_current(self, technology):
        """But for the error of a unit that carries twice as much, 3.4 % at most (sky130, 300 uA); the clamp sees no mirror."""
        own, half = bench(technology), bench(technology, DEFAULT_READOUT[technology].mirror_ratio // 2)
        decks = [
            readout_static_deck(b.technology, b.readout, corner=b.corner, temperature_c=27.0, current_max_a=300e-6, points=7)
            for b in (own, half)
        ]
        a, b = (readout_static(w) for w in run_many(decks, 1, None, progress=False))
        assert_allclose(b.mirror_a / a.mirror_a, 2.0, rtol=0.04)
        assert_allclose(b.clamp_v, a.clamp_v, atol=0.5e-3)
        assert_allclose(b.regulator_a, a.regulator_a, rtol=1e-3)

    @TECHNOLOGIES
    def test_the_ring_runs_as_its_current_says(self, technology):
        """Half the ratio at half the regulator's current feeds the same ring: equal rates but for the mirror's own error."""
        own, half = bench(technology), bench(technology, DEFAULT_READOUT[technology].mirror_ratio // 2)
        regulator_a = np.array([40e-6, 160e-6])
        a, b = (
            rate_record(one, regulator_a, share * regulator_a, 1, None, False) for one, share in ((own, 1.0), (half, 0.5))
        )
        gain = [r["count_rate_hz"] / r["mirror_a"] for r in (a, b)]
        assert_allclose(gain[1], gain[0], rtol=2e-3)
        assert_allclose(b["count_rate_hz"], a["count_rate_hz"], rtol=0.03)
        assert_allclose(b["supply_a"], a["supply_a"], rtol=0.03)

    def test_the_rate_deck_lasts_as_many_periods(self):
        """Decks of a faster ring are shorter by as much."""
        stops = []
        for ratio in (8, 4):
            b = bench("freepdk45", ratio)
            text = oscillator_rate_deck(b.technology, b.readout, 40e-6).text
            stops.append(float(next(line for line in text.splitlines() if line.startswith(".tran")).split()[2]) - 0.1e-9)
        assert stops[0] == pytest.approx(2 * stops[1], rel=1e-6)

    @pytest.mark.parametrize("ratio", [2, 4, 8, 32])
    def test_the_report_s_ring_reaches_full_scale(self, ratio):
        current = oscillator_currents(ratio)
        assert current[0] == pytest.approx(ratio * 0.5e-6)
        assert current[-1] >= FULL_REGULATOR_A * (1 - 1e-9)
        assert np.all(np.diff(current) > 0)


class TestCounter:
    @TECHNOLOGIES
    def test_a_flip_flop_follows_the_limit_with_room(self, technology):
        t = get_technology(technology)
        limit_hz = DEFAULT_READOUT[technology].counter_max_hz
        assert follows(t, 2 * limit_hz, corner=t.corners[0])
        assert follows(t, limit_hz, corner="ss", temperature_c=85.0)

    def test_a_flip_flop_divides_by_two_until_it_cannot(self):
        t = get_technology("freepdk45")
        slow, fast = run_many([toggle_deck(t, 2e9), toggle_deck(t, 40e9)], 1, None, progress=False)
        assert toggles(slow, t.vdd_v) in (15, 16)
        assert toggles(fast, t.vdd_v) < 8

    def test_the_reach_of_a_straight_rate(self):
        current = np.linspace(0.0, 400e-6, 9)
        # Ten counts a period: 5 GHz at 250 uA.
        assert counter_reach_a(current, 10 * 2e13 * current, 5e9) == pytest.approx(250e-6)
        assert counter_reach_a(current, 10 * 1e13 * current, 5e9) == np.inf
        assert counter_reach_a(current, 10 * (1e13 * current + 6e9), 5e9) == 0.0

    def test_a_fast_ring_is_said_in_one_line_that_tells_what_to_do(self):
        current = np.linspace(0.0, 500e-6, 11)

        def ring(ratio: int) -> Record:
            # 100 MHz/uA, 10 uA of bleed: 7.75 GHz at 300 uA with 4:1, 3.875 GHz with 8:1, and 4.43 GHz with 7:1.
            mirror_a = (current + 10e-6) / ratio
            arrays = {"current_a": current, "count_rate_hz": 10 * 1e14 * mirror_a, "mirror_a": mirror_a}
            return Record("oscillator", "oscillator", "fit", {}, arrays)

        with pytest.warns(UserWarning, match=r"mirror_ratio 4: at a line of 300 uA the ring runs at 7.75 GHz, more than") as seen:
            found = counter_meta(ring(4), bench("freepdk45", 4), "gated")
        assert found == {"counter_reach_a": pytest.approx(190e-6)}
        said = str(seen[0].message)
        assert "up to 190 uA" in said
        assert "--mirror-ratio 7 or more" in said
        assert "\n" not in said
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for ratio in (7, 8):
                assert counter_meta(ring(ratio), bench("freepdk45", ratio), "gated") == {}
        with pytest.warns(UserWarning, match="--mirror-ratio"):
            counter_meta(ring(6), bench("freepdk45", 6), "gated")

    @pytest.mark.parametrize("name", shipped_cards())
    def test_shipped_designs_stay_within_their_counter(self, name):
        reference = ReferenceSet.read(shipped_reference(name))
        topology = str(reference.meta["topology"])
        (ring,) = reference.select(kind="oscillator")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert counter_meta(ring, bench(str(reference.meta["technology"])), topology) == {}
        assert ring["current_a"][-1] >= LARGEST_A[topology]

    def test_freepdk45_at_4_to_1_is_too_fast_at_full_scale(self):
        """docs/modes.md: 5.97 GHz at 300 uA."""
        b = bench("freepdk45", 4)
        line_a = np.array([0.0, 150e-6, 200e-6, 250e-6, 300e-6, 350e-6])
        rates = rate_record(b, line_a, line_a + 9.8e-6, 1, None, False)
        with pytest.warns(UserWarning, match="5.97 GHz"):
            reach = counter_meta(rates, b, "gated")["counter_reach_a"]
        assert 215e-6 < reach < 230e-6


class TestJudging:
    """A card of another mirror is not judged on counts of the technology's own."""

    def test_shipped_sets_are_not_its_own(self, four):
        assert mode_references(four) == {}
        with pytest.raises(InputError, match=r"no reference set for sky130, tt, 27.0, 1.8, gated, 4.0, conventional ships"):
            reference_for(four)

    def test_nor_is_the_shipped_card_its_nominal_one(self, four):
        with pytest.raises(InputError, match=r"sky130_gated, which ships, has a mirror of 6:1, this card one of 4:1"):
            nominal_card_for(four)

    def test_cards_of_one_set_share_it(self, four):
        hot = attrs.evolve(of_ratio(four, 6.0), meta=four.meta | {"mirror_ratio": 6.0, "temperature_c": 85.0})
        with pytest.raises(InputError, match=r"has mirror_ratio 4\.0"):
            CardSet([four, hot])

    def test_a_set_of_another_mirror_is_named_where_it_is_asked_for(self, four):
        reference = ReferenceSet.read(shipped_reference("sky130_gated"))
        with pytest.raises(InputError, match=r"expected a set of .*mirror 4:1, a card's; got .*mirror 6:1"):
            mode_table([four], [reference], ("conventional",))
        chosen = reference.select(kind="column", role="held_out", clamp="ideal", distribution="gaussian", wire_scale=1.0)
        with pytest.warns(UserWarning, match="mirror_ratio: the card is for 4.0, the reference set for 6.0"):
            compare(four, ReferenceSet(reference.meta, chosen, reference.source))

    def test_two_mirrors_stay_apart_in_a_table(self, four):
        own = of_ratio(four, 6.0)
        assert labels([own, four]) == ["gated sky130 6:1", "gated sky130 4:1"]
        assert labels([own, Card.read(shipped_card("freepdk45_gated"))]) == ["gated sky130", "gated freepdk45"]
        assert labels([four, Card.read(shipped_card("sky130_tied"))]) == ["gated", "tied"]

    def test_statistics_are_of_the_card_s_own_circuits(self, four):
        assert bench_of(four).readout == default_readout(get_technology("sky130"), 4)
        low = attrs.evolve(four, meta=four.meta | {"vdd_v": 1.7})
        assert bench_of(low).technology.vdd_v == 1.7
        with pytest.raises(InputError, match="mirror ratio: expected a whole number"):
            bench_of(of_ratio(four, 4.5))
