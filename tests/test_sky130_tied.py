"""The tied column in the foundry technology: the regulator on its bias, and a small column against the equations."""

import numpy as np
import pytest
import torch

from aimcard.calibrate.fit import minimise, tensors
from aimcard.calibrate.tied_parameters import TIED_SPECS
from aimcard.calibrate.tied_targets import TiedSetting, tied_cells
from aimcard.data.reference import Record
from aimcard.models import tied
from aimcard.models.tied_tile import CELL, tied_parameters
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, slot_currents
from aimcard.netlists.levels import V_COMMON_V
from aimcard.netlists.ngspice import run, run_many
from aimcard.netlists.readout import default_readout
from aimcard.netlists.readout_decks import loop_gain
from aimcard.netlists.technology import get_technology
from aimcard.netlists.tied import SourceEdge, tied_column_deck
from aimcard.netlists.tied_cell_decks import tied_cell_arrays, tied_cell_deck
from aimcard.netlists.tied_readout import default_tied_readout, tied_loop_gain_deck, tied_static_deck, tied_step_deck

SKY130 = get_technology("sky130")
DESIGN = default_readout(SKY130)
#: Capacitance of a row of always-on pairs at the column line [F], as fitted to whole columns.
ROW_C_F = 5.65e-15
CORNERS = [("tt", 27.0), ("ss", 85.0), ("ff", -40.0)]


@pytest.mark.parametrize(("corner", "celsius"), CORNERS)
def test_one_mirror_carries_both_signs(tmp_path, corner, celsius):
    """Through zero the clamp stays within millivolts of 0.4 V, and the mirror follows bias + signal, about 6:1."""
    deck = tied_static_deck(SKY130, DESIGN, corner=corner, temperature_c=celsius, current_max_a=170e-6, points=35)
    waves = run(deck, cache=tmp_path)
    regulator, mirror = waves["i(vreg)"], waves["i(vmir)"]
    np.testing.assert_allclose(regulator - waves.scale, default_tied_readout(SKY130).bias_a, rtol=0.06)
    assert np.all(np.diff(mirror) > 0)
    assert np.abs(6 * mirror / regulator - 1).max() < 0.1
    assert np.abs(waves["v(bl)"] - V_COMMON_V).max() < 5e-3


@pytest.mark.parametrize(("corner", "celsius"), CORNERS)
def test_the_loop_is_stable_over_signed_currents_and_columns(tmp_path, corner, celsius):
    where = {"corner": corner, "temperature_c": celsius, "row_c_f": ROW_C_F}
    loads = [(i, g) for i in (-150e-6, 0.0, 170e-6) for g in (1e-3, 4e-3, 8e-3)]
    waves = run_many(
        [tied_loop_gain_deck(SKY130, DESIGN, i, conductance_s=g, **where) for i, g in loads], 1, tmp_path, progress=False
    )
    for w, (i, _) in zip(waves, loads, strict=True):
        assert loop_gain(w, i).phase_margin_deg > 45


def test_steps_through_zero_settle_within_an_lsb(tmp_path):
    """Steps of 100 and 200 µA of a usual column; after them the clamp stays within 1 mV."""
    levels, hold = [0.0, 100e-6, -100e-6, 100e-6, 0.0], 20e-9
    w = run(tied_step_deck(SKY130, DESIGN, levels, hold, conductance_s=4e-3, row_c_f=ROW_C_F), cache=tmp_path)
    for k in range(1, len(levels)):
        late = (w.time_s > k * hold + DESIGN.t_lsb_s) & (w.time_s < (k + 1) * hold - 1e-12)
        assert np.ptp(w["v(bl)"][late]) < 2e-3


def test_a_column_follows_from_its_cells_and_its_wire(tmp_path):
    """24 rows, no fitted column parameter: charge to 1e-4 of the window's current. The cell law is fitted to single cells."""
    grids = ((0.38, 0.42, 5), (0.2, 0.6, 3))
    g, w = np.geomspace(0.1e-6, 30e-6, 8), np.array([1.0])
    waves = run(tied_cell_deck(SKY130, "tt", 27.0, g, w, *grids), cache=tmp_path)
    record = Record("cell-dc", "cell_dc", "fit", {}, tied_cell_arrays(waves, 1.8, g, w, *grids))
    setting = TiedSetting(1.0, 0.2, V_COMMON_V, DESIGN.t_lsb_s, {})
    start = {n: s.start for n, s in TIED_SPECS.items()} | {"i_gate_a": 0.0, "dw_um": 0.0}
    fit = minimise("cells", tuple(n for n in CELL if n not in ("dw_um", "i_gate_a", "v_gate_v")), start,
                   tied_cells(record, setting)[0], TIED_SPECS)  # fmt: skip
    assert fit.rms < 1  # 10 ppm of a read current
    pulses, rng = Pulses(DESIGN.t_lsb_s, code_max=15, guard=3), np.random.default_rng(5)
    plus, minus = rng.uniform(0.1e-6, 25e-6, (2, 24))
    codes = rng.integers(-15, 16, 24)
    deck = tied_column_deck(
        ColumnBench(SKY130, "tt", 27.0, DESIGN), "tied", g_plus_s=plus, g_minus_s=minus, codes=codes, cell=CellDesign(1.0),
        wire=Wire(scale=20), pulses=pulses,
    )  # fmt: skip
    spice = slot_currents(run(deck, cache=tmp_path), pulses)["current_a"]
    cell, wire, pulse = tied_parameters(tensors(fit.values), w_ref_um=1.0, v_read_v=0.2, wire_scale=20)
    edges = tied.TiedEdges(*(4 * [pulses.delay_s + SourceEdge().delay_s]))
    g_plus, g_minus, x = (torch.tensor(a)[None] for a in (plus, minus, codes))
    fast = tied.slot_currents(
        cell, wire, pulse, edges, g_plus, g_minus, x, pulses.slots, DESIGN.t_lsb_s, 1.0, tied.fixed_clamp()
    )[0][0].numpy()
    assert abs(fast.sum() - spice.sum()) < 1e-4 * np.abs(spice).sum()
