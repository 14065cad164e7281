"""Energy of a tied tile: what rails and columns exchange, laws of it, and recorded supplies of small circuits."""

from dataclasses import replace

import attrs
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from aimcard.calibrate.energy import has_supplies, oscillator_rows, run_energy, supply_residual
from aimcard.calibrate.fit import tensors
from aimcard.calibrate.stages import Stages
from aimcard.data.reference import Record, ReferenceSet
from aimcard.data.shipped import find_card
from aimcard.models import tied
from aimcard.models.card import Card, Parameter, Table
from aimcard.models.energy import OSCILLATOR_TABLE, EnergyParameters, driver_energy, line_energy
from aimcard.models.errors import CardError
from aimcard.models.modes import get_mode, mode_names
from aimcard.models.source_line import SourceLine, with_source_line
from aimcard.models.tied_energy import mode_signs, rail_currents, tied_charges
from aimcard.models.tied_tile import TiedTile
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, slot_currents
from aimcard.netlists.ngspice import run
from aimcard.netlists.readout import ReadoutDesign
from aimcard.netlists.technology import get_technology
from aimcard.netlists.tied import tied_column_deck
from aimcard.netlists.tied_driver import TiedDriverDesign, tied_driver_deck
from aimcard.netlists.tied_readout import tied_static_deck
from aimcard.netlists.tied_supply import rail_charges, source_supply
from aimcard.validation.energy import energy_study, energy_table

OHMIC = tied.TiedCell(1e-3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.5, 0.2)
CELL = tied.TiedCell(1300.0, 0.007, 6.6, 5.0, 47.0, 0.0, 0.14, 0.5, 0.2)
RAILS_V = torch.tensor([-0.2, 0.0, 0.2], dtype=torch.float64)
ROWS, SUPPLIES = 64, {
    "q_pulse_c": 1.8e-12, "i_pulse_a": 0.0, "i_driver_a": 3.9e-6, "i_bias_a": 212e-6, "i_bleed_a": 202e-6,
    "q_low_c": -234e-15, "q_mid_c": 8e-15, "q_high_c": 227e-15,
}  # fmt: skip


def drawn(seed: int = 1, lines: int = 2, slots: int = 6) -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(seed)
    g = torch.tensor(rng.uniform(0.1e-6, 25e-6, (2, lines, ROWS)))
    s = torch.tensor(rng.integers(-1, 2, (slots, ROWS)), dtype=torch.float64).expand(lines, -1, -1)
    return g[0], g[1], s


def solved(cell: tied.TiedCell, plus, minus, s) -> tuple[torch.Tensor, torch.Tensor]:
    """Rails' currents and the column's, by slot."""
    c = tied.effective_column(cell, tied.TiedWire(0.15, 0.0), plus, minus, 0.5)
    found = tied.solve_column(c, s, tied.fixed_clamp())
    return rail_currents(cell, plus, minus, s, found.v_node, 0.5), found.current_a


@pytest.mark.parametrize(("cell", "tolerance"), [(OHMIC, 1e-12), (CELL, 2e-5)])
def test_what_rails_deliver_the_column_takes_back(cell, tolerance):
    behind = with_source_line(cell, SourceLine(0.15, 2.9, 2.9, 512, 3.4e-6), 1.0)
    for p in (cell, behind):
        rails, column = solved(p, *drawn())
        assert_allclose(rails.sum(-1), -column, rtol=0, atol=tolerance * float(rails.abs().max()))


def test_cells_dissipate_in_every_slot():
    """Power from all rails and from the read-out, about the common mode, is never negative."""
    for seed in range(3):
        rails, _ = solved(CELL, *drawn(seed))
        power = rails @ RAILS_V
        assert torch.all(power > 0)
        assert torch.all(rails[..., 0] <= 0)
        assert torch.all(rails[..., 2] >= 0)


def test_idle_lines_exchange_nothing():
    plus, minus, s = drawn()
    rails, column = solved(CELL, plus, minus, 0 * s)
    assert float(rails.abs().max()) == 0
    assert float(column.abs().max()) == 0


def test_signs_of_every_mode_last_as_long_as_their_pulses():
    codes = np.random.default_rng(2).integers(-127, 128, (3, 40))
    for name in mode_names():
        mode = get_mode(name)
        signs = mode_signs(mode, codes, 4)
        assert signs.shape == (3, mode.window_slots(4), 40)
        widths = sum(np.asarray(b) - np.asarray(a) for a, b in mode.pulses(codes, np.arange(40)))
        assert_allclose(signs.sum(1), np.sign(codes) * widths)
    weighted = sum(
        phase.weight * mode_signs(get_mode("split"), codes, 4)[:, first:beyond].sum(1)
        for phase, (first, beyond) in zip(get_mode("split").phases, get_mode("split").windows(4), strict=True)
    )
    assert_allclose(weighted, codes)


@pytest.fixture(scope="module")
def card() -> Card:
    """The shipped tied card with supplies put in by hand; its oscillator draws a tenth of the regulator's current."""
    bare = find_card("freepdk45_tied")
    without = [p for p in bare.parameters if p.name not in SUPPLIES]
    line = np.array([-170e-6, 0.0, 200e-6])
    oscillator = Table(OSCILLATOR_TABLE, line, 0.1 * (line + 200e-6), "A", "A", "line current", "supply current")
    return attrs.evolve(
        bare, meta={**bare.meta, "word_columns": 512},
        parameters=tuple(without) + tuple(Parameter(n, v, unit="C", group="energy") for n, v in SUPPLIES.items()),
        tables=(*(t for t in bare.tables if t.name != OSCILLATOR_TABLE), oscillator),
    )  # fmt: skip


def test_charges_go_with_on_time_and_rows(card):
    tile, rng, mode = TiedTile(card), np.random.default_rng(3), get_mode("conventional")
    g = rng.uniform(1e-6, 5e-6, (2, 1, 32))
    codes = rng.integers(-40, 41, (1, 32))

    def rails(g, codes) -> np.ndarray:
        return tied_charges(tile, *g, codes, mode, wire_scale=0.0)[0].rail_c[0, 0, [0, 2]]

    one = rails(g, codes)
    assert one[0] < 0 < one[1]
    # The clamp's few millivolts follow the column's current, so this holds to a percent.
    assert_allclose(rails(g, 3 * codes), 3 * one, rtol=1e-2)
    assert_allclose(rails(np.tile(g, 4), np.tile(codes, 4)), 4 * one, rtol=2e-2)
    assert_allclose(tied_charges(tile, *g, 0 * codes, mode)[0].pulses, 0)


def test_energy_of_rails_is_voltage_times_charge_and_linear_ones_cost_more(card):
    p = EnergyParameters.of(card)
    assert p.lines == 1
    assert_allclose(p.rail_v, (0.2, 0.4, 0.6))
    rail = np.array([-3e-12, 1e-12, 2e-12])
    e = line_energy(p, np.array(1e-12), np.array(0.0), np.array(0.0), 1e-9, rail)
    assert e["array"] == pytest.approx(1e-12 * p.vdd_v - 0.6e-12 + 0.4e-12 + 1.2e-12)
    assert p.linear_excess(rail) == pytest.approx(3e-12 * p.vdd_v - 1.0e-12)
    one = driver_energy(p, np.array(1), np.array(0.0), 1, 0.0)
    assert one == pytest.approx(1.8e-12 * p.vdd_v - 0.2 * 234e-15 + 0.4 * 8e-15 + 0.6 * 227e-15)
    assert driver_energy(p, np.array(0), np.array(0.0), 2, 1e-7) == pytest.approx(3.9e-6 * p.vdd_v * 2e-7)


def test_every_mode_has_a_table_and_its_contract(card):
    studies = [energy_study(card, name, pairs=1, vectors=1) for name in ("conventional", "split", "staggered")]
    text = energy_table(studies)
    assert "1 sign phase of" in text
    assert "pair of cells on one line" in text
    assert "ideal regulators" in text
    conventional, split, _ = studies
    assert 0 < split.energy.total_j < 0.3 * conventional.energy.total_j
    assert all(j > 0 for study in studies for j in study.energy.parts_j.values())
    assert conventional.energy.linear_excess_j > 0
    # OTA and bias alone: 512 columns, 414 uA, 131 ns.
    assert conventional.energy.parts_j["read-out"] > 512 * 414e-6 * 131e-9 * 1.0


def test_a_tied_card_without_supplies_says_what_is_missing(card):
    bare = attrs.evolve(
        card, parameters=tuple(p for p in card.parameters if p.name != "q_low_c"), correlation_names=(),
        correlation=np.zeros((0, 0)),
    )  # fmt: skip
    with pytest.raises(CardError, match="q_low_c: missing"):
        EnergyParameters.of(bare)
    without = attrs.evolve(card, tables=tuple(t for t in card.tables if t.name != OSCILLATOR_TABLE))
    with pytest.raises(CardError, match="oscillator_supply: missing"):
        energy_study(without, pairs=1, vectors=1)


def test_a_columns_supplies_follow_from_its_cells_and_its_regulators_static_curves(card):
    """24 rows on the regulator in ngspice: rails, column and V_DD, predicted with no column parameter fitted to them."""
    technology, rows = get_technology("freepdk45"), 24
    bench, pulses = ColumnBench(technology, "nom", 27.0, ReadoutDesign()), Pulses(code_max=15, guard=3)
    rng = np.random.default_rng(5)
    plus, minus = rng.uniform(0.1e-6, 25e-6, (2, rows))
    codes = rng.integers(-15, 16, rows)
    deck = tied_column_deck(bench, "supplies", g_plus_s=plus, g_minus_s=minus, codes=codes, cell=CellDesign(0.5), wire=Wire(),
                            pulses=pulses, clamp="ota", save_supply=True)  # fmt: skip
    waves = run(deck)
    slots, t = slot_currents(waves, pulses), pulses.t_lsb_s
    rails, line = rail_charges(waves, codes, pulses), slots["current_a"].sum() * t
    # All charge that the rails and the read-out deliver meets in the column; gates add 0.15 nA a cell.
    tunnelled = 2 * rows * 0.15e-9 * pulses.slots * t
    assert rails.sum() + line == pytest.approx(-tunnelled, abs=2e-4 * rails[2])

    static = run(tied_static_deck(technology, bench.readout, current_max_a=150e-6))
    own = {"clamp": static["v(bl)"], "mirror": static["i(vmir)"], OSCILLATOR_TABLE: 0 * static.scale}
    tables = tuple(Table(n, static.scale, y, "A", "A", "line current", n) for n, y in own.items())
    ideal = tuple(replace_value(p) for p in card.parameters)
    small = attrs.evolve(card, parameters=ideal, meta={**card.meta, "code_max": 15, "guard_slots": 3},
                         tables=tuple(x for x in card.tables if x.name not in own) + tables)  # fmt: skip
    (found,) = tied_charges(TiedTile(small), plus[None], minus[None], codes[None], get_mode("conventional", 15))
    assert_allclose(found.rail_c[0, 0, [0, 2]], rails[[0, 2]], rtol=1e-2)
    supply = -static["i(vdd)"]
    zero = int(np.argmin(np.abs(static.scale)))
    p = replace(
        EnergyParameters.of(card), i_bias_a=float((supply - static["i(vreg)"] - static["i(vmir)"])[zero]),
        i_bleed_a=float((static["i(vreg)"] - static.scale)[zero]),
    )  # fmt: skip
    window = pulses.slots * t
    model = line_energy(p, found.line_c, found.mirror_c, found.oscillator_c, window, found.rail_c)
    vdd = -float(waves.slot_means("i(vdd)", [1e-9, pulses.stop_s])[0]) * window
    assert model["array"][0, 0] == pytest.approx(line * p.vdd_v + float(p.rail_energy(rails)), rel=1e-2)
    assert model["read-out"][0, 0] == pytest.approx((vdd - line) * p.vdd_v, rel=2e-3)


def replace_value(p: Parameter) -> Parameter:
    """Source lines of the deck above are ideal."""
    return attrs.evolve(p, value=0.0) if p.group == "source" else p


def test_a_rows_pulse_takes_the_same_charge_whatever_its_length():
    sizes = {"low_n_um": 12, "low_p_um": 6, "mid_n_um": 10, "mid_p_um": 10, "high_n_um": 25, "high_p_um": 25}
    small = TiedDriverDesign(columns=64, sections=4, **sizes)
    technology = get_technology("freepdk45")
    found = [source_supply(run(tied_driver_deck(technology, small, code)), code, 1e-9) for code in (1, 4)]
    one, four = ((f.charge_c - f.rest_a * f.window_s, f.rail_c) for f in found)
    # 0.5 fF and more a µm of gate, to V_DD once.
    gates_f = 0.5e-15 * (12 + 6 + 2 * (10 + 10) + 25 + 25)
    assert gates_f * technology.vdd_v < one[0] < 8 * gates_f * technology.vdd_v
    assert four[0] == pytest.approx(one[0], rel=0.03)
    assert_allclose(four[1], one[1], atol=0.02 * np.abs(one[1]).max())
    # What one rail gives, another takes: a line ends where it began.
    assert abs(one[1].sum()) < 0.05 * np.abs(one[1]).max()
    assert float(one[1] @ [0.2, 0.4, 0.6]) > 0


def supplies() -> tuple[Record, Record]:
    """Records of a read-out and of source lines that follow SUPPLIES."""
    line, code = np.linspace(-1e-4, 1e-4, 5), np.array([1, 4, 12])
    regulator = line + SUPPLIES["i_bleed_a"]
    mirror = regulator / 8
    static = Record("s", "readout_dc", "fit", {}, {"current_a": line, "v_clamp_v": 0.4 - line, "mirror_a": mirror,
                    "regulator_a": regulator, "supply_a": regulator + mirror + SUPPLIES["i_bias_a"]})  # fmt: skip
    window, rest = np.array([3e-9, 6e-9, 14e-9]), SUPPLIES["i_driver_a"]
    rails = np.tile([SUPPLIES[n] for n in ("q_low_c", "q_mid_c", "q_high_c")], (3, 1))
    drivers = Record("d", "driver_supply", "fit", {}, {"code": code, "window_s": window, "rest_a": np.full(3, rest),
                     "charge_c": SUPPLIES["q_pulse_c"] + rest * window, "rail_c": rails})  # fmt: skip
    return static, drivers


def test_the_fits_residuals_vanish_for_supplies_that_follow_the_model():
    static, drivers = supplies()
    residual, owner = supply_residual(static, drivers, 1e-9)
    assert residual(tensors(SUPPLIES)).abs().max() < 1e-9
    assert len(owner) == len(residual(tensors(SUPPLIES)))
    for name in ("q_mid_c", "i_bias_a", "i_bleed_a"):
        assert residual(tensors(SUPPLIES | {name: 1.1 * SUPPLIES[name] + 1e-14})).abs().max() > 1


def test_the_fit_finds_the_supplies():
    line = np.linspace(-1e-4, 1e-4, 5)
    ring = Record("o", "oscillator", "fit", {}, {"current_a": line, "count_rate_hz": 1e9 + 1e13 * line, "supply_a": 2e-4 + line})
    meta = {"technology": "none", "corner": "nom", "temperature_c": 27.0, "vdd_v": 1.0, "v_read_v": 0.2, "t_lsb_s": 1e-9,
            "code_max": 15, "mode": "conventional", "topology": "tied", "simulator": "the equations", "w_min_um": 0.5,
            "w_ref_um": 0.5}  # fmt: skip
    reference = ReferenceSet(meta, [*supplies(), ring])
    assert has_supplies(reference)
    assert not oscillator_rows(ReferenceSet(meta, [ring]))
    s = Stages(reference, None, {}, specs={})  # type: ignore[arg-type]
    names, errors = run_energy(s, seed=1)
    assert set(names) == set(SUPPLIES)
    assert s.converged
    for name, value in SUPPLIES.items():
        assert s.values[name] == pytest.approx(value, rel=1e-6, abs=1e-20), name
    assert len(errors.stderr) == len(names)
    (table,) = oscillator_rows(reference)
    assert_allclose(table.y, 2e-4 + line)
