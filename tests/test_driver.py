"""The word line's driver: edges settle, depend on position only, and reduce to few straight lines."""

from dataclasses import replace

import numpy as np
import pytest
from PySpice.Spice.Netlist import Circuit

from aimcard.models.errors import InputError
from aimcard.netlists.cell import add_cell
from aimcard.netlists.column import Pulses
from aimcard.netlists.driver import LEAD_S, POSITIONS, TAIL_S, DriverDesign, driver_deck, edges, record_edges
from aimcard.netlists.ngspice import make_deck, run, run_many
from aimcard.netlists.piecewise import reduce_edge
from aimcard.netlists.technology import get_technology

TECHNOLOGY = get_technology("freepdk45")
DESIGN = DriverDesign()
CODES = (1, 2, 10)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("driver")


@pytest.fixture(scope="module")
def pulses(cache):
    """Simulated pulses by code."""
    decks = [driver_deck(TECHNOLOGY, DESIGN, code) for code in CODES]
    waves = run_many(decks, jobs=1, cache_dir=cache, progress=False)
    return dict(zip(CODES, waves, strict=True))


@pytest.fixture(scope="module")
def recorded(cache):
    return edges(TECHNOLOGY, cache_dir=cache)


def test_edges_do_not_depend_on_the_code(pulses, recorded):
    """So they are recorded once: the pulses of 1, 2 and 10 LSB rise and fall alike within 2 mV."""
    time = recorded.time_s + LEAD_S + recorded.common_delay_s
    for name in POSITIONS:
        for code in (2, 10):
            for shift, shift_1 in ((0.0, 0.0), (code * 1e-9, 1e-9)):
                one = np.interp(time + shift_1, pulses[1].time_s, pulses[1][f"v({name})"])
                many = np.interp(time + shift, pulses[code].time_s, pulses[code][f"v({name})"])
                assert np.abs(one - many).max() < 2e-3


def test_edges_settle_within_one_lsb_and_are_fast_at_the_far_column(pulses, recorded):
    assert recorded.transition_s[-1].max() <= 150e-12
    for name in POSITIONS:
        wave = pulses[1][f"v({name})"]
        assert abs(wave.max() - TECHNOLOGY.vdd_v) < 20e-3
        # Just before its fall a 1 LSB pulse is at V_DD.
        fall = np.interp(LEAD_S + 1e-9, pulses[1].time_s, wave)
        assert fall == pytest.approx(TECHNOLOGY.vdd_v, abs=1e-3)
        assert wave[-1] == pytest.approx(0.0, abs=1e-3)


def test_the_driver_does_not_invert_and_the_supply_bounds_the_word_line(pulses):
    for name in POSITIONS:
        wave = pulses[10][f"v({name})"]
        assert wave[0] == pytest.approx(0.0, abs=1e-3)
        # Feed-through of the last inverter's gate may overshoot a little, at the near column.
        assert wave.min() > -30e-3
        assert wave.max() < TECHNOLOGY.vdd_v + 30e-3


def test_delay_and_slope_grow_with_the_distance(recorded):
    assert recorded.column == (0, 256, 512)
    assert np.all(np.diff(recorded.delay_s, axis=0) > 0)
    assert np.all(np.diff(recorded.transition_s, axis=0) > 0)


def test_the_middle_column_rises_at_zero(recorded):
    edge = recorded.at("middle")
    assert np.interp(0.0, edge.rise_s, edge.rise) == pytest.approx(0.5, abs=2e-4)
    assert recorded.delay_s[1, 0] == pytest.approx(0.0, abs=1e-14)
    assert 20e-12 < recorded.common_delay_s < 200e-12


def test_few_straight_lines_reproduce_the_record(recorded):
    for p, edge in enumerate(recorded.edge):
        for k, (x, y, wave) in enumerate(
            ((edge.rise_s, edge.rise, recorded.rise_v[p]), (edge.fall_s, edge.fall, recorded.fall_v[p]))
        ):
            assert len(x) <= 15
            assert np.all(np.diff(x) > 0)
            line = np.interp(recorded.time_s, x, y) * TECHNOLOGY.vdd_v
            assert np.abs(line - wave).max() <= 5e-3 + 1e-9
            crossing = np.interp(recorded.delay_s[p, k], x, y)
            assert crossing == pytest.approx(0.5, abs=2e-3)
        assert (edge.rise[0], edge.rise[-1], edge.fall[0], edge.fall[-1]) == (0.0, 1.0, 1.0, 0.0)
    assert recorded.error_v <= 5e-3


@pytest.mark.parametrize("code", CODES)
def test_cells_on_reduced_edges_draw_the_charge_of_cells_on_the_real_word_line(code, pulses, recorded, cache):
    """What the reduction is for: the three cells' charge, to a thousandth of that of one LSB."""
    circuit = Circuit("cells on recorded edges")
    circuit.raw_spice += "Vbl bl 0 0.2\n"
    for name in POSITIONS:
        source = Pulses(edge=recorded.at(name)).waveform(code, TECHNOLOGY.vdd_v)
        circuit.raw_spice += f"Vw{name} {name} 0 {source}\n"
        add_cell(circuit, TECHNOLOGY, DESIGN.cell, name, conductance_s=5e-6, bit="bl", word=name, back="0")
    analysis = f".tran 10p {2e-9 + code * 1e-9 + TAIL_S:.4e}"
    deck = make_deck(circuit, f"cells, code {code}", TECHNOLOGY, "nom", 27.0, analysis, ("i(vbl)",))
    waves = run(deck, cache=cache)

    def charge(w, start):
        return -w.slot_means("i(vbl)", [start, start + (code + 1.5) * 1e-9])[0] * (code + 1.5) * 1e-9

    real = charge(pulses[code], LEAD_S + recorded.common_delay_s - 0.3e-9)
    line = charge(waves, 1e-9 - 0.3e-9)
    one_lsb = 3 * 0.2 * 5e-6 * 1e-9
    assert real > 0.9 * code * one_lsb
    assert abs(line - real) < 1e-3 * one_lsb


@pytest.mark.parametrize(("corner", "temperature_c"), [("ss", 85.0), ("ff", -20.0)])
def test_other_corners_drive_the_line_in_time(corner, temperature_c, recorded, cache):
    other = edges(TECHNOLOGY, corner, temperature_c, cache_dir=cache)
    assert other.transition_s.max() < 200e-12
    slower = other.common_delay_s > recorded.common_delay_s
    assert slower == (corner == "ss")


def test_more_wire_means_later_and_slower_edges_at_the_far_column_only(recorded, cache):
    more = edges(TECHNOLOGY, design=replace(DESIGN, r_word_ohm=0.45), cache_dir=cache)
    spread = recorded.delay_s[2] - recorded.delay_s[0]
    assert np.all(more.delay_s[2] - more.delay_s[0] > 1.15 * spread)
    assert np.all(more.transition_s[2] > 1.2 * recorded.transition_s[2])


def test_a_line_too_slow_for_the_lsb_is_refused(cache):
    with pytest.raises(InputError, match="LSB longer"):
        edges(TECHNOLOGY, design=replace(DESIGN, r_word_ohm=1.5), cache_dir=cache)


@pytest.mark.parametrize(
    ("change", "names"),
    [({"stages": 3}, "stages"), ({"w_last_um": 0}, "w_last_um"), ({"sections": 30}, "sections")],
)
def test_bad_designs_are_refused(change, names):
    with pytest.raises(InputError, match=names):
        DriverDesign(**change)


def test_a_pulse_of_zero_is_refused():
    with pytest.raises(InputError, match="code"):
        driver_deck(TECHNOLOGY, DESIGN, 0)


def test_an_unknown_position_is_refused(recorded):
    with pytest.raises(InputError, match="near, middle, far"):
        recorded.at("west")


def test_reduction_keeps_area_and_crossing_and_needs_fewer_lines_for_more_tolerance():
    time = np.linspace(-0.3e-9, 0.7e-9, 2001)
    wave = 0.5 * (1 + np.tanh((time - 0.1e-9) / 50e-12))
    counts = []
    for tolerance in (2e-3, 5e-3, 20e-3):
        x, y = reduce_edge(time, wave, start=0.0, end=1.0, tolerance=tolerance)
        line = np.interp(time, x, y)
        assert np.abs(line - wave).max() <= tolerance
        assert np.interp(0.1e-9, x, y) == pytest.approx(0.5, abs=1e-4)
        # The tails outside the first and last breakpoint are all that is lost.
        assert abs(np.trapezoid(line - wave, time)) < 0.4 * tolerance * 100e-12
        counts.append(len(x))
    assert counts[0] > counts[1] > counts[2]


def test_an_edge_that_does_not_settle_is_refused():
    time = np.linspace(0, 1e-9, 1001)
    with pytest.raises(InputError, match="settles"):
        reduce_edge(time, 1 - np.exp(-time / 0.3e-9), start=0.0, end=1.0, tolerance=5e-3)


def test_a_record_without_a_pulse_is_refused(pulses):
    empty = replace(pulses[1], values=np.zeros_like(pulses[1].values))
    with pytest.raises(InputError, match="one pulse"):
        record_edges(empty, 1, TECHNOLOGY, DESIGN)
