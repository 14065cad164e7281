"""Tied columns in every PWM mode: against ngspice, against the node-by-node twin, and limits."""

import itertools

import attrs
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from aimcard.calibrate.fit import tensors
from aimcard.calibrate.plan import Options
from aimcard.calibrate.tied_readout_fit import READOUT_SPECS
from aimcard.calibrate.tied_simulate import edge_record
from aimcard.calibrate.tied_targets import TiedSetting, model_current, stack_pairs
from aimcard.data import shipped_card
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models import modes
from aimcard.models.card import Card, Parameter, Table
from aimcard.models.errors import InputError
from aimcard.models.fast.tied import TiedProduct
from aimcard.models.modes import Phase, get_mode, mode_names, register_mode
from aimcard.models.source_line import SOURCE
from aimcard.models.tied import signs
from aimcard.models.tied_readout import READOUT
from aimcard.models.tied_tile import EDGE_TABLES, TiedTile, row_pulses
from aimcard.models.tied_twin import static_column
from aimcard.models.tile import TileModel
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, slot_currents
from aimcard.netlists.ngspice import run
from aimcard.netlists.readout import ReadoutDesign
from aimcard.netlists.technology import get_technology
from aimcard.netlists.tied import SourceEdge, SourceEdges, tied_column_deck

CODE_MAX, GUARD, ROWS = 31, 4, 32
BENCH = ColumnBench(get_technology("freepdk45"), "nom", 27.0, ReadoutDesign())


@pytest.fixture(scope="module")
def tile() -> TiedTile:
    """The shipped card, fitted in conventional mode on 512 rows, as a tile of shorter codes on ideal source lines."""
    card = Card.read(shipped_card("freepdk45_tied"))
    late = Pulses().delay_s + SourceEdge().delay_s
    return TiedTile(
        attrs.evolve(
            card, meta=card.meta | {"code_max": CODE_MAX, "guard_slots": GUARD, "rows": ROWS},
            parameters=tuple(p for p in card.parameters if p.name not in SOURCE),
            tables=tuple(attrs.evolve(t, y=np.full_like(t.y, late)) if t.name in EDGE_TABLES else t for t in card.tables),
        )
    )  # fmt: skip


@pytest.fixture
def registry(monkeypatch):
    """The registry as the test found it comes back after the test."""
    monkeypatch.setattr(modes, "_BUILDS", dict(modes._BUILDS))


def draw(seed: int, lines: int = 1, vectors: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-CODE_MAX, CODE_MAX + 1, (vectors, ROWS))
    codes[:, ::7] = 0
    return *rng.uniform(0.1e-6, 25e-6, (2, lines, ROWS)), codes


def weighted(current_a: np.ndarray, name: str) -> float:
    """Charge of a window [C], each phase's part times its weight."""
    mode = get_mode(name, CODE_MAX)
    windows = zip(mode.phases, mode.windows(GUARD), strict=True)
    return float(sum(p.weight * current_a[a:b].sum() for p, (a, b) in windows)) * 1e-9


def on_off(name: str, codes: np.ndarray) -> np.ndarray:
    """−1, 0 or 1 of every row in every slot, (slots, rows), pulse by pulse."""
    mode = get_mode(name, CODE_MAX)
    s = np.zeros((mode.window_slots(GUARD), len(codes)))
    for start, stop in mode.window_pulses(codes, np.arange(len(codes)), GUARD):
        for row in range(len(codes)):
            s[start[row] : stop[row], row] += np.sign(codes[row])
    return s


@pytest.mark.parametrize(
    ("name", "read_out"), [("split", "south"), ("bitwise", "south"), ("staggered", "north"), ("end_aligned_halves", "north")]
)
def test_a_small_column_in_ngspice(tile, name, read_out, tmp_path):
    """The shipped card, fitted in conventional mode, predicts a simulated column in another one, slot by slot."""
    plus, minus, codes = draw(1)
    pulses = Pulses(code_max=CODE_MAX, guard=GUARD, mode=name)
    deck = tied_column_deck(
        BENCH, name, g_plus_s=plus[0], g_minus_s=minus[0], codes=codes[0], cell=CellDesign(0.5), wire=Wire(scale=3.0),
        pulses=pulses, read_out=read_out,
    )  # fmt: skip
    truth = slot_currents(run(deck, cache=tmp_path), pulses)["current_a"]
    ours = tile.respond(plus, codes, conductance_minus_s=minus, mode=name, wire_scale=3.0, read_out=read_out)
    # Measured: 5 ps of the cells' currents in slots in which these switch, 3e-6 of all currents in the others; over the
    # window 0.09 ps a pulse, at its phase's weight.
    s, each = on_off(name, codes[0]), 0.2 * (plus + minus)[0]
    moved = np.abs(s - np.concatenate([s[-1:], s[:-1]])) @ each
    error = np.abs(ours.current_a[0, 0] - truth)
    assert (error < 6e-3 * moved + 5e-6 * each.sum()).all()
    mode = get_mode(name, CODE_MAX)
    pulses_of = mode.window_pulses(codes[0], np.arange(ROWS), GUARD)
    weight = sum(phase.weight * (stop > start) for phase, (start, stop) in zip(mode.phases, pulses_of, strict=True))
    assert abs(ours.charge_c[0, 0] - weighted(truth, name)) < 0.15e-12 * float(weight @ each)


@pytest.mark.parametrize("name", mode_names())
def test_signs_are_those_of_each_pulse(name):
    codes = draw(2)[2][0]
    x, mode = torch.tensor(codes)[None], get_mode(name, CODE_MAX)
    s = signs(x, mode.window_slots(GUARD), torch.float64, row_pulses(mode, GUARD, x, torch.arange(ROWS)))
    np.testing.assert_array_equal(s[0].numpy(), on_off(name, codes))


@pytest.mark.parametrize("name", mode_names())
@pytest.mark.parametrize("read_out", ["south", "north"])
def test_static_currents_are_the_node_by_node_ones(tile, name, read_out):
    """Guard slots without edges, and slots inside long pulses, have no charge of an edge: the whole model is static there."""
    plus, minus, codes = draw(3)
    ours = tile.respond(plus, codes, conductance_minus_s=minus, mode=name, wire_scale=10.0, read_out=read_out).current_a[0, 0]
    s = on_off(name, codes[0])
    far_first = [a[..., ::-1].copy() if read_out == "north" else a for a in (plus[0], minus[0], s)]
    cell, wire, _ = tile.parameters(10.0)
    slow = static_column(cell, *far_first, r_bit_ohm=float(wire.r_bit_ohm), w_select_um=0.5).line_current_a
    still = (s == np.concatenate([s[-1:], s[:-1]])).all(1)
    assert still.sum() >= 3
    assert_allclose(ours[still], slow[still], rtol=0, atol=3e-6 * np.abs(slow).max())


@pytest.mark.parametrize("name", mode_names())
def test_swapping_cells_and_signs_changes_nothing(tile, name):
    plus, minus, codes = draw(4, 2, 2)
    one = tile.respond(plus, codes, conductance_minus_s=minus, mode=name)
    other = tile.respond(minus, -codes, conductance_minus_s=plus, mode=name)
    assert_allclose(other.current_a, one.current_a, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", mode_names())
def test_one_product_gives_the_charge_of_every_mode(tile, name):
    """The column is linear and constant in time: without edges every mode's charge is the same, but for the rest current."""
    plus, minus, codes = draw(5, 2, 3)
    still = TiedTile(tile.card)
    still.values = tile.values | {"t_start_s": 0.0, "t_end_s": 0.0, "t_node_s_per_s": 0.0}
    mode = get_mode(name, CODE_MAX)
    with torch.no_grad():
        c = still.effective(torch.tensor(plus), torch.tensor(minus))
    window = sum(p.weight * (b - a) for p, (a, b) in zip(mode.phases, mode.windows(GUARD), strict=True))
    product = codes @ c.weight_a.numpy().T + np.abs(codes) @ c.even_a.numpy().T + window * c.rest_a.numpy()
    charge = still.respond(plus, codes, conductance_minus_s=minus, mode=name, bend=False).charge_c
    assert_allclose(charge, 1e-9 * product, rtol=0, atol=1e-9 * np.abs(charge).max())


def one_group(code_max: int) -> tuple[Phase, ...]:
    return (Phase(1, code_max, lambda codes, rows: (0 * (codes + rows), codes + 0 * rows)),)


def test_a_users_mode_of_one_group_is_conventional(registry, tile):
    """A mode from a script goes wherever a name goes, in tied columns as in gated ones."""
    register_mode("one_group", one_group)
    plus, minus, codes = draw(6, 2, 2)
    mine, usual = (tile.respond(plus, codes, conductance_minus_s=minus, mode=m) for m in ("one_group", "conventional"))
    assert_allclose(mine.current_a, usual.current_a, rtol=1e-12, atol=1e-18)
    assert_allclose(mine.charge_c, usual.charge_c, rtol=1e-12)
    gated = TileModel.read(shipped_card("freepdk45_gated"))
    x = np.abs(codes)
    a, b = (gated.respond(plus, x, mode=m) for m in ("one_group", "conventional"))
    assert a.phase_count is not None
    assert b.phase_count is not None
    assert_allclose(a.phase_count, b.phase_count, rtol=1e-9)
    decks = []
    for m in ("one_group", "conventional"):
        deck = tied_column_deck(
            BENCH, "same", g_plus_s=plus[0], g_minus_s=minus[0], codes=codes[0], cell=CellDesign(0.5), wire=Wire(),
            pulses=Pulses(code_max=CODE_MAX, mode=m),
        )  # fmt: skip
        decks.append(sorted(line.split(" 0 ")[-1] for line in deck.text.splitlines() if line.startswith(("Vd", "Vu"))))
    assert decks[0] == decks[1]
    assert Options(topology="tied", mode="one_group").mode == "one_group"


def test_fits_see_the_pulses_that_the_tile_drives(tile):
    """Stacked records of both ends, in a mode whose pulses depend on the row, give the tile's own currents."""
    plus, minus, codes = draw(7)
    pulses, setting = Pulses(code_max=CODE_MAX, guard=GUARD, mode="staggered"), None
    meta = dict(tile.card.meta) | {"mode": "staggered", "simulator": "none"}
    edges = edge_record({p: SourceEdges() for p in (0.0, 0.5, 1.0)}, pulses)
    for read_out in ("south", "north"):
        ours = tile.respond(plus, codes, conductance_minus_s=minus, mode="staggered", read_out=read_out).current_a
        arrays = {"conductance_s": plus, "conductance_minus_s": minus, "codes": codes, "slot_edge_s": pulses.slot_edge_s,
                  "current_a": ours}  # fmt: skip
        attributes = {"clamp": "ideal", "distribution": "uniform", "wire_scale": 1.0, "r_bit_ohm": 0.15, "r_return_ohm": 0.0,
                      "w_select_um": 0.5, "position": 0.5, "read_out": read_out}  # fmt: skip
        record = Record(read_out, "column", "fit", attributes, arrays)
        setting = TiedSetting.of(ReferenceSet(meta, [edges]))
        fitted = model_current(stack_pairs([record], setting), setting, tensors(tile.values))
        assert_allclose(fitted.numpy(), ours[0], rtol=1e-9, atol=1e-15)


GAIN_PER_C = 1.5e14


@pytest.fixture(scope="module")
def straight(tile) -> TiedTile:
    """The tile on a read-out without lags: a stiff clamp, and a ring whose rate is a straight line."""
    line_a, card = np.linspace(-170e-6, 200e-6, 9), tile.card
    curves = {
        "clamp": ("V", 0.4 + 0 * line_a),
        "mirror": ("A", (line_a + 200e-6) / 8),
        "adc": ("Hz", (line_a + 200e-6) * GAIN_PER_C),
    }
    tables = [Table(name, line_a, y, "A", unit, "line current", name) for name, (unit, y) in curves.items()]
    others = (p for p in card.parameters if p.name not in READOUT)
    return TiedTile(attrs.evolve(
        card, meta=card.meta | {"bias_a": 200e-6},
        parameters=[*others, *(Parameter(n, 0.0, unit=READOUT_SPECS[n].unit) for n in READOUT)],
        tables=[*(t for t in card.tables if t.name not in curves), *tables],
    ))  # fmt: skip


@pytest.mark.parametrize("rule", ["reset", "carry"])
@pytest.mark.parametrize("name", mode_names())
def test_a_straight_ring_counts_the_charge_in_every_mode(straight, name, rule):
    """Weighted counts beyond a resting column's are the weighted charge beyond its, with both signs; truncated, to a count a
    phase at the phase's weight."""
    plus, minus, codes = draw(9, 1, 1)
    codes = np.concatenate([codes, -codes])
    how = {"conductance_minus_s": minus, "mode": name, "clamp": "ota", "phase_rule": rule}
    driven, rest = straight.respond(plus, codes, **how), straight.respond(plus, 0 * codes, **how)
    expected = (driven.charge_c - rest.charge_c) * GAIN_PER_C
    assert driven.phase_count is not None
    assert driven.count is not None
    assert rest.phase_count is not None
    assert driven.current_a.shape[-1] == get_mode(name, CODE_MAX).window_slots(GUARD)
    assert_allclose(driven.phase_count - rest.phase_count, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert expected.min() < -5
    assert expected.max() > 5
    weights = get_mode(name, CODE_MAX).weights
    most = sum(weights) if rule == "reset" else weights[0] + sum(abs(b - a) for a, b in itertools.pairwise(weights))
    assert np.abs(driven.count - driven.phase_count).max() <= most


def test_what_a_mode_must_be(tile):
    plus, minus, codes = draw(8)
    with pytest.raises(InputError, match=r"mode: expected one of conventional, split.*did you mean 'split'"):
        tile.respond(plus, codes, conductance_minus_s=minus, mode="splitt")
    with pytest.raises(InputError, match="expected the card's code_max of 31; got 127"):
        tile.respond(plus, codes, conductance_minus_s=minus, mode=get_mode("split"))
    split = TiedTile(attrs.evolve(tile.card, meta=tile.card.meta | {"mode": "split"}))
    assert split.respond(plus, codes, conductance_minus_s=minus).current_a.shape[-1] == get_mode("split", 31).window_slots(GUARD)
    assert TiedProduct(split).tile.mode.name == "split"
