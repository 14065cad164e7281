"""Source lines of a tied row in ngspice: edges, the drop along the row, what idle lines do, and what columns see of it."""

from dataclasses import replace
from types import SimpleNamespace

import attrs
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from aimcard.data.shipped import find_card
from aimcard.models.card import Card, Parameter
from aimcard.models.errors import InputError, TechnologyError
from aimcard.models.fast import TiedProduct
from aimcard.models.source_line import SourceLine, source_gain, with_source_line
from aimcard.models.tied import TiedCell, effective_column, fixed_clamp, row_currents, solve_column
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tied_twin import static_column
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, slot_currents
from aimcard.netlists.driver import LEAD_S, POSITIONS
from aimcard.netlists.levels import V_COMMON_V
from aimcard.netlists.ngspice import run
from aimcard.netlists.readout import ReadoutDesign
from aimcard.netlists.source_edges import EDGES, source_lines
from aimcard.netlists.technology import get_technology
from aimcard.netlists.tied import tied_column_deck
from aimcard.netlists.tied_driver import LINES, RAILS, TiedDriverDesign, default_tied_driver, tied_driver_deck

FREEPDK45 = get_technology("freepdk45")
DESIGN = TiedDriverDesign()
CELL = TiedCell(1300.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.16, 0.5, 0.2)


@pytest.fixture(scope="module")
def lines():
    return source_lines(FREEPDK45)


@pytest.fixture(scope="module")
def pulse():
    return run(tied_driver_deck(FREEPDK45, DESIGN, 4))


def test_edges_are_monotone_but_for_a_hundredth_of_the_swing_and_end_in_time(lines):
    """The gates' own kick, which complementary transistors cancel, is all that goes the other way."""
    assert_allclose(lines.level[..., -1], 1, atol=2e-3)
    for wave in lines.level.reshape(-1, lines.time_s.size):
        back = np.maximum.accumulate(wave) - wave
        assert back.max() < 0.03
        between = (wave > 0.03) & (wave < 0.97)
        assert np.all(np.diff(wave)[between[1:] & between[:-1]] > 0)
    assert lines.transition_s.max() < 50e-12
    assert lines.error <= 5e-3


def test_edges_are_later_the_farther(lines):
    assert np.all(np.diff(lines.delay_s, axis=0) > 0)
    assert list(lines.at) == list(POSITIONS)


def test_gain_falls_along_the_row_and_the_switch_takes_half_a_percent(lines):
    assert np.all(np.diff(lines.gain, axis=0) < 0)
    assert np.all(lines.gain < 1)
    assert np.all(lines.gain[0] > 0.995)


def test_gain_follows_the_leaky_lines_law(lines):
    """The wire is given; each switch's resistance is fitted to one position and predicts the other two."""
    g = DESIGN.load_s / (1 + DESIGN.load_s * 1290.0)
    where = torch.tensor([0.0, 0.5, 1.0])
    for k in range(2):
        ohm = (1 / lines.gain[0, k] - 1) / (lines.load_a[k] / 0.2 / lines.gain[0, k])
        assert_allclose(source_gain(512, 0.15, ohm, g, where), lines.gain[:, k], atol=3e-5)


def test_gain_of_a_heavier_row_follows_from_the_mean_ones(lines):
    """Switches fitted to the mean load predict a row of 12 µS a cell, whose far end loses a fifth."""
    heavy = source_lines(FREEPDK45, design=replace(DESIGN, load_s=12e-6))
    ohm = (1 / lines.gain[0, 0] - 1) / (lines.load_a[0] / 0.2 / lines.gain[0, 0])
    expected = source_gain(512, 0.15, ohm, 12e-6 / (1 + 12e-6 * 1290.0), torch.tensor([0.0, 0.5, 1.0]))
    assert heavy.gain[-1, 0] < 0.8
    assert_allclose(expected, heavy.gain[:, 0], atol=1e-3)


def test_gain_has_its_limits():
    where = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    assert_allclose(source_gain(512, 0.0, 0.0, 3e-6, where), 1)
    assert_allclose(source_gain(512, 0.0, 3.0, 3e-6, where), 1 / (1 + 3 * 512 * 3e-6), rtol=1e-9)
    # Against the wire node by node, which the law is the limit of.
    n, r, g, switch = 2048, 0.15 / 4, 3e-6 / 4, 3.0
    y = np.zeros((n + 1, n + 1))
    for a, b, s in [(k, k + 1, 1 / r) for k in range(n)]:
        y[[a, b], [a, b]] += s
        y[[a, b], [b, a]] -= s
    y[range(n + 1), range(n + 1)] += g * np.r_[0.5, np.ones(n - 1), 0.5]
    y[0, 0] += 1 / switch
    v = np.linalg.solve(y, np.r_[1 / switch, np.zeros(n)])
    assert_allclose(source_gain(512, 0.15, switch, 3e-6, where), v[[0, n // 4, n]], rtol=1e-5)
    more = source_gain(512, 0.15, switch, torch.tensor([3e-6, 6e-6], requires_grad=True), 1.0)
    assert more[1] < more[0]
    assert torch.isfinite(torch.autograd.grad(more.sum(), [more])[0]).all()


def test_currents_of_ohmic_cells_go_with_the_gains_of_their_own_lines():
    load = SourceLine(0.15, 3.0, 4.0, 512, 3e-6)
    loads = (torch.tensor([3e-6, 9e-6], dtype=torch.float64), torch.tensor([0.0, 3e-6], dtype=torch.float64))
    flat = replace(CELL, r_on_ohm=1e-6)
    behind = with_source_line(flat, load, 1.0, loads)
    g = torch.tensor([2e-6, 2e-6], dtype=torch.float64)
    rows = row_currents(behind, g, 0 * g, 0.5)
    assert_allclose(rows.odd_a + rows.even_a, 0.2 * g * source_gain(512, 0.15, 3.0, loads[0], 1.0), rtol=1e-6)
    assert_allclose(rows.odd_a - rows.even_a, 0.2 * g * source_gain(512, 0.15, 4.0, loads[0], 1.0), rtol=1e-6)
    minus = row_currents(behind, 0 * g, g, 0.5)
    assert_allclose(-minus.odd_a[0], 0.2 * 2e-6, rtol=1e-6)
    assert with_source_line(CELL, SourceLine.of({}, 1, 0.0), 0.5) is CELL


@pytest.fixture(scope="module")
def card() -> Card:
    """The shipped card behind source lines."""
    bare, lost = find_card("freepdk45_tied"), {"r_row_ohm": 0.15, "r_down_ohm": 2.9, "r_up_ohm": 3.1}
    return attrs.evolve(
        bare, meta={**bare.meta, "row_columns": 512, "row_load_s": 3.4e-6},
        parameters=(*(p for p in bare.parameters if p.name not in lost),
                    *(Parameter(n, v, unit="Ohm", group="source") for n, v in lost.items())),
    )  # fmt: skip


def test_tile_product_and_twin_lose_the_same(card):
    tile, rng = TiedTile(card), np.random.default_rng(7)
    g, codes = rng.uniform(1e-7, 2.5e-5, (2, 2, 32)), rng.integers(-127, 128, (6, 32))
    plus, minus, x = torch.tensor(g[0]), torch.tensor(g[1]), torch.tensor(codes, dtype=torch.float64)
    near, end = (tile.effective(plus, minus, position=u).weight_a for u in (0.0, 1.0))
    gain = [float(source_gain(512, 0.15, 3.0, 3.39e-6, u)) for u in (0.0, 1.0)]
    assert_allclose(end.sum() / near.sum(), gain[1] / gain[0], rtol=1e-3)
    far = tile.respond(g[0], codes, conductance_minus_s=g[1], position=1.0).charge_c
    product = TiedProduct(tile, "two", position=1.0, dtype=torch.float64).charge(plus, minus, x)
    assert_allclose(product, far, atol=2e-4 * np.abs(far).max())
    cell = with_source_line(tile.parameters()[0], tile.source_line, 1.0)
    s = torch.tensor(rng.integers(-1, 2, (4, 32)), dtype=torch.float64)
    c = effective_column(cell, tile.parameters()[1], plus[0], minus[0], 0.5)
    twin = static_column(cell, g[0, 0], g[1, 0], s, r_bit_ohm=tile.values["r_bit_ohm"], w_select_um=0.5).line_current_a
    assert_allclose(solve_column(c, s, fixed_clamp()).current_a, twin, atol=1e-5 * np.abs(twin).max())


def test_a_tile_with_its_rows_loads(card):
    tile, rng = TiedTile(card), np.random.default_rng(8)
    g, codes = rng.uniform(1e-7, 2.5e-5, (2, 2, 32)), rng.integers(0, 128, (2, 32))
    g[1] = 1e-7
    mean = tile.respond(g[0], codes, conductance_minus_s=g[1], position=1.0).charge_c
    loads = np.full((2, 32), 3.4e-6)
    same = tile.respond(g[0], codes, conductance_minus_s=g[1], position=1.0, row_load_s=loads).charge_c
    assert_allclose(same, mean, rtol=1e-12)
    loads[0] *= 2
    heavy = tile.respond(g[0], codes, conductance_minus_s=g[1], position=1.0, row_load_s=loads).charge_c
    assert np.all(heavy < 0.96 * mean)
    loads[:, :16] = 0.0
    turned = [tile.respond(a[..., ::d], b[:, ::d], conductance_minus_s=g[1], read_out=end, row_load_s=loads[:, ::d]).charge_c
              for a, b, d, end in ((g[0], codes, 1, "south"), (g[0], codes, -1, "north"))]  # fmt: skip
    assert_allclose(turned[0], turned[1], rtol=1e-12)
    with pytest.raises(InputError, match=r"row_load_s: expected shape \(2, 32\)"):
        tile.respond(g[0], codes, conductance_minus_s=g[1], row_load_s=loads[:1])


def test_rails_and_columns_exchange_all_charge(pulse):
    """In the pulse's last third, without the edges: what the low rail takes is what the columns and the high rail give."""
    held = [LEAD_S + 2.7e-9, LEAD_S + 4e-9]
    low, mid, high, col = (-float(pulse.slot_means(f"i(v{n})", held)[0]) for n in (*RAILS, "col"))
    assert low < 0 < high
    assert abs(low + mid + high + col) < 2e-3 * high
    # Both lines see the same load: the columns' own current is a small difference.
    assert abs(col) < 0.01 * high


def test_idle_lines_rest_at_the_common_mode_and_cost_leakage_only(pulse):
    waves = run(tied_driver_deck(FREEPDK45, DESIGN, 0))
    for line in LINES:
        assert_allclose(waves[f"v({line}far)"], V_COMMON_V, atol=1e-5)
    for source in (*RAILS, "dd"):
        # No more than before a pulse; the rails a thousandth of an active line's 0.33 mA.
        rest = float(waves.slot_means(f"i(v{source})", [0, 1e-9])[0])
        assert rest == pytest.approx(float(pulse.slot_means(f"i(v{source})", [0, 0.8 * LEAD_S])[0]), rel=1e-3, abs=1e-10)
        assert abs(rest) < (1e-5 if source == "dd" else 3.3e-7)


def test_a_column_sees_an_edges_area_only(lines):
    rng = np.random.default_rng(3)
    plus, minus = rng.uniform(0.1e-6, 25e-6, (2, 16))
    pulses = Pulses(code_max=7, guard=3)
    bench = ColumnBench(FREEPDK45, "nom", 27.0, ReadoutDesign())
    codes, found = rng.integers(-7, 8, 16), []
    for edges in (lines.at["far"], lines.straight["far"]):
        deck = tied_column_deck(bench, "edges", g_plus_s=plus, g_minus_s=minus, codes=codes, cell=CellDesign(0.5),
                                wire=Wire(scale=20), pulses=pulses, edges=edges)  # fmt: skip
        found.append(slot_currents(run(deck), pulses)["current_a"])
    polyline, straight = found
    assert_allclose(straight, polyline, rtol=0, atol=3e-4 * np.abs(polyline).max())


def test_designs_without_sense_are_refused():
    with pytest.raises(InputError, match="high_n_um, high_p_um: expected one width above zero"):
        TiedDriverDesign(high_n_um=0, high_p_um=0)
    with pytest.raises(InputError, match="stages"):
        TiedDriverDesign(stages=3)
    with pytest.raises(InputError, match="sections"):
        TiedDriverDesign(sections=31)
    with pytest.raises(InputError, match="code"):
        tied_driver_deck(FREEPDK45, DESIGN, -1)
    with pytest.raises(TechnologyError, match=r"sizes exist for freepdk45, sky130; got 'other'"):
        default_tied_driver(SimpleNamespace(name="other"))  # type: ignore[arg-type]


def test_switches_too_weak_for_the_lsb_are_refused():
    weak = replace(DESIGN, low_n_um=0.3, low_p_um=0.1, columns=64, sections=4)
    with pytest.raises(InputError, match=r"settles|expected one pulse"):
        source_lines(FREEPDK45, design=weak, t_lsb_s=0.2e-9)


def test_every_edge_is_recorded(lines):
    assert EDGES == ("down_start", "down_end", "up_start", "up_end")
    assert lines.level.shape == (3, 4, lines.time_s.size)
