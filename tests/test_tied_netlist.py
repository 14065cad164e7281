"""The tied circuits in ngspice: cells and a small column against the equations, the regulator on its bias."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from aimcard.calibrate.fit import minimise, tensors
from aimcard.calibrate.tied_parameters import TIED_SPECS
from aimcard.calibrate.tied_targets import TiedSetting, tied_cells
from aimcard.data.reference import Record
from aimcard.models import tied
from aimcard.models.errors import InputError, TechnologyError
from aimcard.models.tied_tile import CELL, tied_parameters
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, slot_currents
from aimcard.netlists.ngspice import run
from aimcard.netlists.readout import ReadoutDesign
from aimcard.netlists.readout_decks import loop_gain
from aimcard.netlists.technology import get_technology
from aimcard.netlists.tied import V_COMMON_V, SourceEdge, tied_column_deck
from aimcard.netlists.tied_cell_decks import tied_cell_arrays, tied_cell_deck
from aimcard.netlists.tied_readout import (
    default_tied_readout,
    sink_diode_deck,
    tied_loop_gain_deck,
    tied_static_deck,
    tied_step_deck,
)

FREEPDK45 = get_technology("freepdk45")
BENCH = ColumnBench(FREEPDK45, "nom", 27.0, ReadoutDesign())
PULSES = Pulses(code_max=15, guard=3)
ROWS = 24


@pytest.fixture(scope="module")
def cells() -> dict[str, float]:
    """Cell parameters fitted to single cells in ngspice."""
    grids = ((0.38, 0.42, 5), (0.2, 0.6, 3))
    g, w = np.geomspace(0.1e-6, 30e-6, 8), np.array([0.3, 0.5])
    waves = run(tied_cell_deck(FREEPDK45, "nom", 27.0, g, w, *grids))
    record = Record("cell-dc", "cell_dc", "fit", {}, tied_cell_arrays(waves, 1.0, g, w, *grids))
    setting = TiedSetting(0.5, 0.2, V_COMMON_V, 1e-9, {})
    fit = minimise("cells", CELL, {n: s.start for n, s in TIED_SPECS.items()}, tied_cells(record, setting)[0], TIED_SPECS)
    assert fit.rms < 3  # 30 ppm of a read current
    return fit.values


@pytest.fixture(scope="module")
def drawn() -> SimpleNamespace:
    rng = np.random.default_rng(5)
    plus, minus = rng.uniform(0.1e-6, 25e-6, (2, ROWS))
    return SimpleNamespace(plus=plus, minus=minus, codes=rng.integers(-15, 16, ROWS))


def current(drawn, scale: float = 1.0, **options) -> np.ndarray:
    how = {"cell": CellDesign(0.5), "wire": Wire(scale=scale), "pulses": PULSES} | options
    deck = tied_column_deck(BENCH, "tied", g_plus_s=drawn.plus, g_minus_s=drawn.minus, codes=drawn.codes, **how)
    return slot_currents(run(deck), PULSES)["current_a"]


def model(cells, drawn, scale: float = 1.0, offset_v: float = 0.0, clamp=None) -> np.ndarray:
    cell, wire, pulse = tied_parameters(tensors(cells), w_ref_um=0.5, v_read_v=0.2, wire_scale=scale)
    delay = PULSES.delay_s + SourceEdge().delay_s
    plus, minus, codes = (torch.tensor(a)[None] for a in (drawn.plus, drawn.minus, drawn.codes))
    edges = tied.TiedEdges(*(4 * [delay]))
    args = (cell, wire, pulse, edges, plus, minus, codes, PULSES.slots, 1e-9, 0.5, clamp or tied.fixed_clamp(offset_v))
    return tied.slot_currents(*args)[0][0].numpy()


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_a_column_follows_from_its_cells_and_its_wire(cells, drawn, scale):
    """No parameter of the column is fitted: charge to 2e-4 of the window's current, slots without edges to 3e-4."""
    spice, fast = current(drawn, scale), model(cells, drawn, scale)
    size = np.abs(spice).sum()
    assert abs(fast.sum() - spice.sum()) < 2e-4 * size
    assert_allclose(fast[1:], spice[1:], rtol=0, atol=1e-3 * np.abs(spice).max())
    ideal = 0.2 * float((drawn.plus - drawn.minus) @ drawn.codes)
    assert abs(fast.sum() - spice.sum()) < 0.02 * abs(ideal - spice.sum())


def test_an_offset_drives_the_whole_columns_conductance(cells, drawn):
    change = current(drawn, offset_v=1e-3) - current(drawn)
    expected = model(cells, drawn, offset_v=1e-3) - model(cells, drawn)
    assert_allclose(change[1:], expected[1:], rtol=5e-3)
    assert expected[-1] == pytest.approx(1e-3 * (drawn.plus + drawn.minus).sum(), rel=0.1)


def test_north_is_south_of_the_reversed_rows(drawn):
    turned = SimpleNamespace(plus=drawn.plus[::-1], minus=drawn.minus[::-1], codes=drawn.codes[::-1])
    assert_allclose(current(drawn, 20.0, read_out="north"), current(turned, 20.0), rtol=0, atol=1e-11)
    assert np.abs(current(drawn, 20.0, read_out="north") - current(drawn, 20.0)).max() > 1e-8


def test_swapped_cells_and_inputs_are_the_same_column(drawn):
    swapped = SimpleNamespace(plus=drawn.minus, minus=drawn.plus, codes=-drawn.codes)
    assert_allclose(current(swapped), current(drawn), rtol=0, atol=1e-10)


def test_equal_area_delay_of_an_edge():
    assert SourceEdge().delay_s == pytest.approx(50e-12)
    assert SourceEdge((10e-12, 10.001e-12), (0.0, 1.0)).delay_s == pytest.approx(10e-12, rel=1e-3)


def test_a_bad_code_is_one_line(drawn):
    drawn = SimpleNamespace(plus=drawn.plus, minus=drawn.minus, codes=np.full(ROWS, -16))
    with pytest.raises(InputError, match="codes from -15 to 15; got -16"):
        current(drawn)


def test_regulator_holds_the_column_for_both_signs():
    waves = run(tied_static_deck(FREEPDK45, ReadoutDesign(), current_max_a=150e-6))
    r_out = -np.gradient(waves["v(bl)"], waves.scale)
    assert np.all(r_out > 0)
    assert r_out.max() < 20
    assert np.all(np.diff(waves["i(vmir)"]) > 0)
    assert_allclose(waves["i(vreg)"] - waves.scale, default_tied_readout(FREEPDK45).bias_a, rtol=0.03)


def test_a_column_on_its_regulator(cells, drawn):
    """Rest and the mean current follow from the regulator's static table; steps it follows late."""
    static = run(tied_static_deck(FREEPDK45, ReadoutDesign(), current_max_a=150e-6))
    clamp = tied.regulated_clamp(torch.tensor(static.scale), torch.tensor(static["v(bl)"] - V_COMMON_V))
    spice, fast, held = current(drawn, clamp="ota"), model(cells, drawn, clamp=clamp), model(cells, drawn)
    assert fast[-1] == pytest.approx(spice[-1], rel=5e-3)
    assert abs(held[-1] - spice[-1]) > 20 * abs(fast[-1] - spice[-1])
    assert abs(fast.sum() - spice.sum()) < 0.1 * abs(held.sum() - spice.sum())


@pytest.mark.parametrize("current_a", [-150e-6, 0.0, 150e-6])
def test_regulator_is_stable(current_a):
    for conductance_s in (1e-3, 8e-3):
        deck = tied_loop_gain_deck(FREEPDK45, ReadoutDesign(), current_a, conductance_s=conductance_s)
        assert loop_gain(run(deck), current_a).phase_margin_deg > 50


def test_regulator_settles_through_zero():
    waves = run(tied_step_deck(FREEPDK45, ReadoutDesign(), [0.0, 1e-4, -1e-4], 10e-9))
    late = (waves.time_s > 22e-9) & (waves.time_s < 30e-9)
    assert np.ptp(waves["v(bl)"][late]) < 1e-3


def test_a_push_pull_stage_has_no_room():
    """The NMOS diode of the second mirror, as wide as the first, leaves its regulating PMOS less than 0.1 V of 0.4 V."""
    waves = run(sink_diode_deck(FREEPDK45))
    assert V_COMMON_V - waves["v(diode)"][-1] < 0.1


def test_a_technology_without_sizes_is_named():
    with pytest.raises(TechnologyError, match="sizes exist for freepdk45, sky130; got 'other'"):
        default_tied_readout(SimpleNamespace(name="other"))  # type: ignore[arg-type]
