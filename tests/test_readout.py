"""The read-out at transistor level: regulator, mirror and oscillator, run in ngspice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PySpice.Spice.Netlist import Circuit

from aimcard.models.errors import InputError, SimulationError, TechnologyError
from aimcard.netlists.deck import make_deck
from aimcard.netlists.ngspice import run, run_many
from aimcard.netlists.oscillator import (
    COUNTS_PER_PERIOD,
    STAGES,
    add_readout,
    edge_times_s,
    phase_at,
    stage_nodes,
)
from aimcard.netlists.oscillator_decks import (
    RING_OPTIONS,
    oscillator_drive_deck,
    oscillator_rate,
    oscillator_rate_deck,
)
from aimcard.netlists.readout import ReadoutDesign, add_supplies, default_readout
from aimcard.netlists.readout_decks import (
    conductance_steps,
    loop_gain,
    loop_gain_deck,
    readout_static,
    readout_static_deck,
    readout_step_deck,
    readout_steps,
)
from aimcard.netlists.technology import Technology, get_technology
from aimcard.netlists.waveforms import Waveforms

CORNERS = [("nom", 27.0), ("ss", 85.0), ("ff", 85.0)]
#: Largest departure of the clamp [V], of the bleed and of the mirror (relative), to 400 uA and over the corners.
STATIC = {"freepdk45": (7e-3, 0.05, 0.1), "sky130": (9e-3, 0.08, 0.16)}
both = pytest.mark.parametrize("technology", ["freepdk45", "sky130"], indirect=True)


@pytest.fixture(scope="module")
def technology(request: pytest.FixtureRequest) -> Technology:
    return get_technology(getattr(request, "param", "freepdk45"))


@pytest.fixture(scope="module")
def design(technology: Technology) -> ReadoutDesign:
    return default_readout(technology)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readout")


def _ring_waves(edges_s: np.ndarray, stop_s: float) -> Waveforms:
    """Square-ish stage waveforms whose edges lie at ``edges_s``, one stage after the other."""
    time = np.arange(0.0, stop_s, 1e-12)
    start = np.array([1.0 if k % 2 == 0 else 0.0 for k in range(STAGES)])
    values = np.empty((STAGES, time.size))
    for k in range(STAGES):
        flips = np.searchsorted(edges_s[k::STAGES], time, side="right")
        values[k] = np.where(flips % 2 == 0, start[k], 1 - start[k])
    names = tuple(f"v({node})" for node in stage_nodes())
    return Waveforms(names, "time", time, values, "none", "none")


def test_phase_counts_every_edge_and_interpolates():
    edges = 1e-9 + np.array([0.1, 0.2, 0.4, 0.5, 0.7, 0.9, 1.0, 1.4]) * 1e-9
    waves = _ring_waves(edges, 3e-9)
    found = edge_times_s(waves, 0.5)
    np.testing.assert_allclose(found, edges, atol=1.1e-12)
    at = np.array([0.5e-9, 1e-9, edges[0], edges[4], 0.5 * (edges[6] + edges[7])])
    phase = phase_at(waves, at, released_s=1e-9, level_v=0.5)
    np.testing.assert_allclose(phase, [0, 0, 1, 5, 7.5], atol=0.02)
    with pytest.raises(InputError, match="simulate a little longer"):
        phase_at(waves, [2.9e-9], released_s=1e-9, level_v=0.5)


@both
@pytest.mark.parametrize(("corner", "temperature_c"), CORNERS)
def test_static_curve_is_stiff_and_monotone(technology, design, cache, corner, temperature_c):
    deck = readout_static_deck(technology, design, corner=corner, temperature_c=temperature_c)
    static = readout_static(run(deck, cache=cache))
    assert static.current_a.size == 41
    assert static.current_a[[0, -1]] == pytest.approx([0.0, 400e-6], abs=1e-12)
    # The follower needs more gate voltage for more current, so the clamp falls, by less than 10 mV in all.
    assert np.all(np.diff(static.clamp_v) < 0)
    clamp_v, bleed, mirror = STATIC[technology.name]
    assert np.all(np.abs(static.clamp_v - 0.2) < clamp_v)
    assert np.all(static.r_out_ohm[10:] < 20)
    # Kirchhoff: what the regulator draws from the mirror is the column's current and the bleed.
    np.testing.assert_allclose(static.regulator_a - static.current_a, static.regulator_a[0], rtol=3e-3)
    assert static.regulator_a[0] == pytest.approx(design.bleed_a, rel=bleed)
    assert np.all(np.diff(static.mirror_a) > 0)
    np.testing.assert_allclose(static.mirror_a * design.mirror_ratio, static.regulator_a, rtol=mirror)


@both
def test_regulator_survives_a_column_with_every_cell_on(technology, design, cache):
    deck = readout_static_deck(technology, design, current_max_a=2e-3, points=21)
    static = readout_static(run(deck, cache=cache))
    assert np.all(np.abs(static.clamp_v - 0.2) < 10e-3)
    assert np.all(np.diff(static.mirror_a) > 0)


@both
@pytest.mark.parametrize(("corner", "temperature_c"), CORNERS)
def test_loop_is_stable_over_the_load_range(technology, design, cache, corner, temperature_c):
    currents = (0.0, 5e-6, 60e-6, 300e-6, 600e-6)
    decks = [
        loop_gain_deck(technology, design, i, corner=corner, temperature_c=temperature_c) for i in currents
    ]
    for i, waves in zip(currents, run_many(decks, jobs=1, cache_dir=cache, progress=False), strict=True):
        loop = loop_gain(waves, i)
        assert abs(loop.gain[0]) > 14
        assert loop.phase_margin_deg > 55
        assert loop.gain_margin_db > 20


@both
def test_lead_network_is_what_makes_the_loop_stable(technology, design, cache):
    bare = replace(design, lead_c_f=1e-18)
    margin = [
        loop_gain(run(loop_gain_deck(technology, d, 0.0), cache=cache), 0.0).phase_margin_deg
        for d in (design, bare)
    ]
    assert margin[0] > margin[1] + 10


@both
def test_loop_gain_agrees_with_the_static_resistance(technology, design, cache):
    # R_out = (1/g_m of the follower) / (1 + T), T the loop's gain; at bleed the follower is weakly inverted,
    # g_m = I/nV_T with n between 1 and 1.7.
    gain = abs(loop_gain(run(loop_gain_deck(technology, design, 0.0), cache=cache), 0.0).gain[0])
    deck = readout_static_deck(technology, design, current_max_a=1e-6, points=11)
    r_out = readout_static(run(deck, cache=cache)).r_out_ohm[0]
    v_t = 25.85e-3
    open_loop = r_out * (1 + gain)
    assert v_t / design.bleed_a < open_loop < 1.7 * v_t / design.bleed_a


def test_bit_line_settles_in_about_a_nanosecond_without_ringing(technology, design, cache):
    levels = np.array([0.0, 1.0, 0.9, 0.5, 0.1, 0.0]) * 1e-3
    hold = 8e-9
    time_s, conductance_s = conductance_steps(levels, hold)
    waves = run(readout_step_deck(technology, design, time_s, conductance_s), cache=cache)
    steps = readout_steps(waves, levels, hold)
    assert [step.settle_s < 1.2e-9 for step in steps[:-1]] == [True] * 4
    # Only the bleed pulls an idle line back.
    assert steps[-1].settle_s < 2.5e-9
    for k, step in enumerate(steps):
        part = (waves.time_s > (k + 1) * hold) & (waves.time_s < (k + 2) * hold - 1e-12)
        error = waves["v(bl)"][part] - step.final_v
        error = error[np.abs(error).argmax() :]
        away = np.sign(step.final_v - step.extreme_v)
        # One overshoot, largest (14 %) where the bleed alone damps it, and nothing after it.
        overshoot = (away * error).max()
        assert overshoot < 0.2 * abs(step.extreme_v - step.final_v)
        after = error[(away * error).argmax() :]
        assert (-away * after).max() < 0.03 * abs(step.extreme_v - step.final_v)


def test_a_step_that_does_not_settle_is_said(technology, design, cache):
    levels, hold = np.array([0.0, 1.0e-3]), 0.5e-9
    waves = run(readout_step_deck(technology, design, *conductance_steps(levels, hold)), cache=cache)
    with pytest.raises(SimulationError, match="expected a step to settle within 5e-10 s"):
        readout_steps(waves, levels, hold, band_v=1e-6)


def test_oscillator_gain_is_monotone_and_a_counter_can_follow(technology, design, cache):
    currents = design.mirror_ratio * np.array([1.25e-6, 5e-6, 10e-6, 20e-6, 38.75e-6])
    decks = [oscillator_rate_deck(technology, design, i) for i in currents]
    waves = run_many(decks, jobs=1, cache_dir=cache, progress=False)
    rates = [oscillator_rate(w, i, technology.vdd_v) for i, w in zip(currents, waves, strict=True)]
    frequency = np.array([r.frequency_hz for r in rates])
    assert np.all(np.diff(frequency) > 0)
    assert frequency[-1] < 5e9
    gain = frequency / np.array([r.mirror_a for r in rates])
    assert np.ptp(gain) / gain.mean() < 0.2
    # A window ends at bleed: equal edge intervals there, or the phase between two edges is skewed.
    assert rates[0].unevenness < 0.02
    assert all(r.unevenness < 0.06 for r in rates)
    # The stages rest as the reset holds them until it lets go.
    first = np.array([waves[0][f"v({node})"][0] for node in stage_nodes()])
    np.testing.assert_allclose(first, [1, 0, 1, 0, 1], atol=0.05)


@pytest.mark.parametrize("corner", ["ss", "ff"])
def test_oscillator_runs_hot_at_the_corners(technology, design, cache, corner):
    for current in (10e-6, 310e-6):
        deck = oscillator_rate_deck(technology, design, current, corner=corner, temperature_c=85.0)
        rate = oscillator_rate(run(deck, cache=cache), current, technology.vdd_v)
        assert 0.6e14 < rate.frequency_hz / rate.mirror_a < 1.4e14
        assert rate.frequency_hz < 5e9


def test_rate_does_not_depend_on_the_window_or_the_solver(technology, design, cache):
    current = 80e-6
    variants = [{}, {"periods": 14}, {"step_s": 1e-12, "options": "reltol=1e-5 chgtol=1e-18 abstol=1e-14"}]
    decks = [oscillator_rate_deck(technology, design, current, **kw) for kw in variants]
    waves = run_many(decks, jobs=1, cache_dir=cache, progress=False)
    rate = [oscillator_rate(w, current, technology.vdd_v).rate_hz for w in waves]
    assert rate[1] == pytest.approx(rate[0], rel=1e-5)
    assert rate[2] == pytest.approx(rate[0], rel=1e-4)


def test_ring_in_the_same_deck_and_driven_by_the_recorded_current_give_one_phase(technology, design, cache):
    start = 1e-9
    time_s = np.array([0, 1, 1.1, 10, 20, 20.1, 40, 40.1, 60, 80, 80.1, 115, 127, 127.1, 131]) * 1e-9
    conductance_s = np.array([0, 0, 0.9, 0.85, 0.7, 0.6, 0.45, 0.35, 0.35, 0.2, 0.1, 0.05, 0.02, 0, 0]) * 1e-3
    column = run(readout_step_deck(technology, design, time_s, conductance_s), cache=cache)
    whole = run(
        readout_step_deck(
            technology, design, time_s, conductance_s, run_s=start, step_s=design.ring_step_s, options=RING_OPTIONS
        ),
        cache=cache,
    )
    drive = oscillator_drive_deck(technology, design, column.time_s, column["i(vreg)"], release_s=start)
    alone = run(drive, cache=cache)
    at = np.array([20, 40, 80, 128, 130]) * 1e-9
    level = technology.vdd_v / 2
    together = phase_at(whole, at, released_s=start, level_v=level)
    split = phase_at(alone, at, released_s=start, level_v=level)
    assert together[-1] > 100 * COUNTS_PER_PERIOD
    np.testing.assert_allclose(split, together, atol=0.05)
    # The input load stands for the ring: the mirror's charge is the same.
    window = [start, 128e-9]
    charge = [w.slot_means("i(vmir)", window)[0] for w in (column, whole)]
    assert charge[0] == pytest.approx(charge[1], rel=1e-4)


def test_a_technology_without_sizes_is_said(technology):
    with pytest.raises(TechnologyError, match="read-out: sizes exist for freepdk45, sky130; got 'other'"):
        default_readout(replace(technology, name="other"))


def test_bad_drive_is_said(technology, design):
    with pytest.raises(InputError, match="expected a positive current"):
        oscillator_rate_deck(technology, design, 0.0)
    with pytest.raises(InputError, match="increasing times"):
        oscillator_drive_deck(technology, design, np.array([0.0, 0.0]), np.array([1e-6, 1e-6]), release_s=0.0)


def test_a_pair_of_lines_shares_the_supplies_and_nothing_else(technology, design, cache):
    circuit = Circuit("pair")
    add_supplies(circuit, technology)
    for prefix, ohm in (("p", 1e3), ("n", 4e3)):
        add_readout(circuit, technology, design, bit_line=f"{prefix}bl", prefix=prefix)
        circuit.R(f"{prefix}cells", f"{prefix}bl", "0", ohm)
    save = ["v(pbl)", "v(nbl)"]
    save += [f"i(v{p}{meter})" for p in "pn" for meter in ("col", "reg", "mir")]
    waves = run(make_deck(circuit, "pair", technology, "nom", 27.0, ".op", save), cache=cache)
    for prefix, ohm in (("p", 1e3), ("n", 4e3)):
        column = waves[f"i(v{prefix}col)"][0]
        assert column == pytest.approx(waves[f"v({prefix}bl)"][0] / ohm, rel=1e-4)
        alone = readout_static(run(readout_static_deck(technology, design), cache=cache))
        for signal, curve in (("reg", alone.regulator_a), ("mir", alone.mirror_a)):
            expected = np.interp(column, alone.current_a, curve)
            assert waves[f"i(v{prefix}{signal})"][0] == pytest.approx(expected, rel=2e-3)
