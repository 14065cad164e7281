"""A column in ngspice: charge balance, the node-by-node ladder, grounds, codes, edges and solver settings."""

import dataclasses

import numpy as np
import pytest
from PySpice.Spice.Netlist import Circuit

from aimcard.models.errors import InputError
from aimcard.models.ladder import OhmicCell, solve_ladder
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import LEAD_S, Edge, Pulses, Wire, add_line, add_word_lines
from aimcard.netlists.column_decks import ColumnBench, column_deck, overlay, slot_currents
from aimcard.netlists.driver import edges
from aimcard.netlists.ngspice import ACCURATE, TIGHT, make_deck, run
from aimcard.netlists.readout import default_readout
from aimcard.netlists.technology import get_technology

TECHNOLOGY = get_technology("freepdk45")
BENCH = ColumnBench(TECHNOLOGY, "nom", 27.0, default_readout(TECHNOLOGY))
ROWS = 24
PULSES = Pulses(code_max=6, guard=12)
CELL = CellDesign()
# So long a wire that 24 cells lose a tenth of their current to it.
R_LONG_OHM = 150.0
LONG = Wire(r_bit_ohm=R_LONG_OHM, r_return_ohm=R_LONG_OHM)
RNG = np.random.default_rng(3)
G_S = RNG.uniform(0.2e-6, 6e-6, (2, ROWS))
CODES = RNG.integers(0, PULSES.code_max + 1, ROWS)
SLOT = 3  # of a long pulse: edges and settling are over


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("columns")


@pytest.fixture(scope="module")
def line(cache):
    """Slot currents [A] of one line by `column_deck`, with an ideal clamp."""

    def simulate(g=G_S[0], codes=CODES, wire=LONG, pulses=PULSES, cell=CELL, options=ACCURATE, clamp="ideal"):
        deck = column_deck(
            BENCH, "line", conductance_s=g, codes=codes, cell=cell, wire=wire, pulses=pulses, clamp=clamp,
            options=options,
        )  # fmt: skip
        return slot_currents(run(deck, cache=cache), pulses)["current_a"]

    return simulate


@pytest.fixture(scope="module")
def pair(cache):
    """Waveforms of two lines in one deck; ``back`` is the prefix of the line whose return the second uses."""

    def simulate(back, wire=LONG, codes=CODES, options=ACCURATE):
        circuit = Circuit("pair")
        add_word_lines(circuit, codes, PULSES, TECHNOLOGY.vdd_v)
        for k, (prefix, other) in enumerate((("p", None), ("n", back))):
            add_line(
                circuit, TECHNOLOGY, CELL, wire, conductance_s=G_S[k], codes=codes, end=f"{prefix}end", prefix=prefix,
                shared_return=other,
            )  # fmt: skip
            circuit.V(f"{prefix}clamp", f"{prefix}end", "0", 0.2)
        analysis, names = f".tran 1n {PULSES.stop_s:.9g}", ("i(vpclamp)", "i(vnclamp)")
        return run(make_deck(circuit, "pair", TECHNOLOGY, "nom", 27.0, analysis, names, options), cache=cache)

    return simulate


@pytest.fixture(scope="module")
def apparent_s(line):
    """Conductance [S] of each cell with its transistor, (2, rows): one cell at a time on a line without resistance."""
    short = Wire(r_bit_ohm=0.0, r_return_ohm=0.0)
    grid = np.geomspace(0.2e-6, 6e-6, 6)
    # One row each; the others have no PCM and their pulse is the same.
    current = [line(g=np.array([g]), codes=np.array([6]), wire=short)[SLOT] for g in grid]
    return np.interp(G_S, grid, np.array(current) / 0.2 / grid) * G_S


def test_the_charge_that_enters_leaves(cache):
    """Over a window that starts and ends at rest wires and transistors keep nothing: bit line plus gates = return."""
    wire = dataclasses.replace(LONG, c_bit_f=3e-15, c_return_f=3e-15)
    deck = column_deck(
        BENCH, "balance", conductance_s=G_S[0], codes=CODES, cell=CELL, wire=wire, pulses=PULSES, clamp="ideal"
    )
    words = [f"i(vw{code})" for code in np.unique(CODES)]
    saves = f".save i(vclamp) @rr{ROWS - 1}[i] v(b0) v(r0) {' '.join(words)}"
    waves = run(dataclasses.replace(deck, text=deck.text.replace(".save i(vclamp)", saves)), cache=cache)
    end = PULSES.stop_s

    def charge(signal, last=end):
        return waves.slot_means(signal, [LEAD_S, last])[0] * (last - LEAD_S)

    taken = -charge("i(vclamp)") - sum(charge(w) for w in words)
    returned = charge(f"i(@rr{ROWS - 1}[i])")
    # What is left is the junctions' and bulk's share of the leakage.
    assert taken == pytest.approx(returned, rel=2e-4)
    assert -sum(charge(w) for w in words) < 5e-3 * taken
    # While pulses last, wires hold charge: the line's far end is then well below, the return well above, its rest.
    middle = LEAD_S + 2.5e-9
    assert np.interp(middle, waves.time_s, waves["v(b0)"]) < 0.19
    assert np.interp(middle, waves.time_s, waves["v(r0)"]) > 5e-3


@pytest.mark.parametrize("ground", ["near", "far", "both"])
def test_a_line_is_the_node_by_node_ladder(line, apparent_s, ground):
    codes = np.where(CODES > 0, 6, 0)
    wire = dataclasses.replace(LONG, ground=ground)
    settled = line(codes=codes, wire=wire)[SLOT]
    ladder = solve_ladder(
        OhmicCell(0.8e-9), apparent_s[0], codes > 0, r_bit_ohm=R_LONG_OHM, r_return_ohm=R_LONG_OHM, v_clamp_v=0.2,
        return_ground=ground,
    )  # fmt: skip
    no_wire = 0.2 * apparent_s[0][codes > 0].sum()
    assert settled < 0.93 * no_wire
    # A cell's source voltage shifts R_on by some per cent, that is some 1e-4 of a current at 1e-2 of G·R_on.
    assert settled == pytest.approx(ladder.line_current_a[0], rel=5e-4)


def test_grounding_both_ends_drops_least_and_the_far_end_balances_the_rows(line):
    codes = np.full(ROWS, 6)
    wires = [dataclasses.replace(LONG, ground=g) for g in ("near", "far", "both")]
    near, far, both = (line(codes=codes, wire=wire)[SLOT] for wire in wires)
    assert both > 1.01 * max(near, far)
    # One cell at the far end: its way is the whole bit line, and with it the whole return or next to nothing of it.
    alone = np.zeros(ROWS)
    alone[0] = 25e-6
    near, far, both = (line(g=alone, codes=codes, wire=wire)[SLOT] for wire in wires)
    assert near < far
    assert both == pytest.approx(far, rel=1e-3)


@pytest.mark.parametrize("ground", ["near", "far", "both"])
def test_a_shared_return_is_the_ladder_with_a_shared_return(pair, apparent_s, ground):
    codes = np.where(CODES > 0, 6, 0)
    waves = pair("p", dataclasses.replace(LONG, ground=ground), codes)
    window = [LEAD_S + SLOT * 1e-9, LEAD_S + (SLOT + 1) * 1e-9]
    settled = [-waves.slot_means(f"i(v{p}clamp)", window)[0] for p in "pn"]
    ladder = solve_ladder(
        OhmicCell(0.8e-9), apparent_s, codes > 0, r_bit_ohm=R_LONG_OHM, r_return_ohm=R_LONG_OHM, v_clamp_v=0.2,
        return_ground=ground, shared_return=True,
    )  # fmt: skip
    np.testing.assert_allclose(settled, ladder.line_current_a[0], rtol=1e-3)


def test_a_pair_with_its_own_returns_is_two_lines(pair, line):
    waves = pair(None, options=TIGHT)
    edges_s = LEAD_S + PULSES.slot_edge_s
    for k, prefix in enumerate("pn"):
        together = -waves.slot_means(f"i(v{prefix}clamp)", edges_s)
        alone = line(g=G_S[k], options=TIGHT)
        assert together.sum() == pytest.approx(alone.sum(), rel=3e-5)
        assert np.abs(together - alone).max() < 1e-3 * alone.max()


def test_a_shared_return_couples_the_lines(pair, line):
    waves = pair("p")
    window = [LEAD_S, PULSES.stop_s]
    for k, prefix in enumerate("pn"):
        assert -waves.slot_means(f"i(v{prefix}clamp)", window)[0] < 0.99 * line(g=G_S[k]).mean()


@pytest.mark.parametrize("ground", ["near", "far", "both"])
def test_a_wire_without_resistance_adds_its_cells(line, apparent_s, ground):
    codes = np.full(ROWS, 6)
    ideal = Wire(r_bit_ohm=0.0, r_return_ohm=0.0, ground=ground)
    for wire in (ideal, dataclasses.replace(LONG, scale=0.0, ground=ground)):
        assert line(codes=codes, wire=wire)[SLOT] == pytest.approx(0.2 * apparent_s[0].sum(), rel=3e-4)


def test_the_scale_multiplies_resistance_only(line):
    assert Wire(scale=3.0).c_bit_f == Wire().c_bit_f
    tripled = Wire(r_bit_ohm=3 * Wire().r_bit_ohm, r_return_ohm=3 * Wire().r_return_ohm)
    np.testing.assert_allclose(line(wire=Wire(scale=3.0)), line(wire=tripled), rtol=1e-9)
    assert line(wire=Wire(scale=3.0)).sum() < line(wire=Wire()).sum()


def test_code_zero_leaves_the_leakage(line):
    idle = line(codes=np.zeros(ROWS, dtype=int))
    # 0.8 nA a cell, in every slot.
    assert np.all((idle > 0.4e-9 * ROWS) & (idle < 1.2e-9 * ROWS))
    assert np.ptp(idle) < 1e-3 * idle.mean()


def test_the_longest_code_fills_the_window_and_the_charge_follows_the_code(line):
    pulses = Pulses()
    charge = [line(codes=np.full(ROWS, c), pulses=pulses).sum() * 1e-9 for c in (0, 1, 64, 127)]
    full = line(codes=np.full(ROWS, 127), pulses=pulses)
    assert full.size == 131
    assert np.ptp(full[2:127]) < 1e-3 * full[60]
    # After the fall the cells' inner nodes recharge through their PCM, all within the guard slots.
    assert np.all(np.diff(full[127:]) < 0)
    assert full[-1] < 0.01 * full[60]
    # Equal pulses but for their length: 63 LSB make the same difference anywhere, the idle cells' leakage apart.
    per_lsb = np.diff(charge[1:]) / 63
    assert per_lsb[0] == pytest.approx(per_lsb[1], rel=2e-4)
    assert per_lsb[0] == pytest.approx((full[60] - charge[0] / 131e-9) * 1e-9, rel=1e-3)


def test_tighter_settings_move_the_charge_by_less_than_50_ppm(line):
    rng = np.random.default_rng(8)
    g, codes = rng.uniform(0.1e-6, 12e-6, 32), rng.integers(0, 32, 32)
    pulses = Pulses(code_max=31)
    usual, tight = (line(g=g, codes=codes, wire=Wire(), pulses=pulses, options=o) for o in (ACCURATE, TIGHT))
    assert usual.sum() == pytest.approx(tight.sum(), rel=50e-6)
    assert np.sqrt(np.mean((usual - tight) ** 2)) < 1e-3 * tight.max()


def test_a_later_fall_is_a_longer_pulse(line):
    codes = np.full(ROWS, 4)
    edge = Edge()
    later = Edge(fall_s=tuple(t + 100e-12 for t in edge.fall_s))
    charge = [line(codes=codes, pulses=dataclasses.replace(PULSES, edge=e)).sum() * 1e-9 for e in (edge, later)]
    settled = line(codes=codes)[2]
    assert charge[1] - charge[0] == pytest.approx(100e-12 * settled, rel=5e-3)


def test_word_lines_carry_the_recorded_edges(cache):
    driver = edges(TECHNOLOGY, cache_dir=cache)
    for p, name in enumerate(driver.position):
        pulses = dataclasses.replace(PULSES, edge=driver.at(name))
        deck = column_deck(
            BENCH, name, conductance_s=G_S[0], codes=np.full(ROWS, 4), cell=CELL, wire=LONG, pulses=pulses,
            clamp="ideal",
        )  # fmt: skip
        deck = dataclasses.replace(deck, text=deck.text.replace(".save i(vclamp)", ".save i(vclamp) v(w4)"))
        waves = run(deck, cache=cache)
        start = LEAD_S + pulses.delay_s
        rise, fall = (driver.rise_v[p], start, "rise", 0), (driver.fall_v[p], start + 4e-9, "fall", 1)
        for wave, ideal, way, k in (rise, fall):
            at = waves.crossings("v(w4)", TECHNOLOGY.vdd_v / 2, way)
            assert at - ideal == pytest.approx([driver.delay_s[p, k]], abs=1e-12)
            # Points of the simulation inside the record lie on it.
            since = waves.time_s - ideal
            inside = (since > driver.time_s[0]) & (since < driver.time_s[-1])
            assert inside.sum() > 10
            recorded = np.interp(since[inside], driver.time_s, wave)
            assert np.abs(waves["v(w4)"][inside] - recorded).max() < driver.error_v + 1e-3


def test_the_regulator_holds_the_line_that_the_ideal_clamp_holds(line, cache):
    """The same line on the read-out: a little less or more current, by the clamp voltage's distance from 0.2 V."""
    codes, pulses = np.full(ROWS, 6), PULSES
    deck = column_deck(
        BENCH, "ota", conductance_s=G_S[0], codes=codes, cell=CELL, wire=LONG, pulses=pulses, clamp="ota"
    )
    waves = run(deck, cache=cache)
    slots = slot_currents(waves, pulses)
    window = LEAD_S + pulses.slot_edge_s[SLOT : SLOT + 2]
    clamp_v = waves.slot_means("v(end)", window)[0]
    ideal = line(codes=codes)[SLOT]
    assert 0.195 < clamp_v < 0.205
    assert slots["current_a"][SLOT] == pytest.approx(ideal * clamp_v / 0.2, rel=1e-3)
    # The mirror copies column and bleed at 1/8, a few per cent off.
    regulator = waves.slot_means("i(vreg)", window)[0]
    assert slots["mirror_a"][SLOT] == pytest.approx(regulator / BENCH.readout.mirror_ratio, rel=0.1)
    shown = overlay(waves, pulses)
    assert shown["waveform_time_s"][-1] == pytest.approx(pulses.slots * pulses.t_lsb_s)
    part = slice(SLOT * 100, (SLOT + 1) * 100 + 1)
    assert np.trapezoid(shown["waveform_a"][part], dx=0.01) == pytest.approx(slots["current_a"][SLOT], rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": np.full(ROWS, 7)}, r"^codes: expected codes from 0 to 6; got 7 at \[0, 0\]"),
        ({"codes": np.full(ROWS, -1)}, r"^codes: expected codes from 0 to 6; got -1"),
        ({"codes": np.full(ROWS, 1.5)}, r"^codes: expected whole codes; got 1.5"),
        ({"codes": np.zeros(ROWS + 1, dtype=int)}, rf"^codes: expected {ROWS} rows.*got {ROWS + 1}"),
        ({"codes": np.zeros((2, ROWS), dtype=int)}, rf"^codes: expected shape \(rows,\).*got shape \(2, {ROWS}\)"),
        ({"conductance_s": G_S}, rf"^conductance_s: expected shape \(rows,\).*got shape \(2, {ROWS}\)"),
        ({"conductance_s": -G_S[0]}, "^conductance_s: expected conductances of at least 0 S"),
        ({"conductance_s": np.full(ROWS, np.nan)}, "^conductance_s: expected finite"),
        ({"clamp": "otta"}, r"^clamp: expected one of ideal, ota, full; got 'otta' \(did you mean 'ota'\?\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(change, message):
    good = {
        "conductance_s": G_S[0], "codes": CODES, "cell": CELL, "wire": LONG, "pulses": PULSES, "clamp": "ideal",
    }  # fmt: skip
    with pytest.raises(InputError, match=message) as error:
        column_deck(BENCH, "bad", **(good | change))
    assert "\n" not in str(error.value)


def test_impossible_wires_and_pulses_are_refused():
    with pytest.raises(InputError, match=r"^ground: expected one of near, far, both; got 'end'"):
        Wire(ground="end")
    with pytest.raises(InputError, match=r"^r_bit_ohm: expected zero or more; got -1"):
        Wire(r_bit_ohm=-1)
    with pytest.raises(InputError, match="leaves no room for the word line's edges"):
        Pulses(t_lsb_s=50e-12).waveform(1, 1.0)
