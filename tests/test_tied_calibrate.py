"""A tied calibration on data of known truth, its card in the tile, and what the set and the tile refuse."""

import attrs
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from aimcard.calibrate.columns import CODE_MAX, G_MAX_S
from aimcard.calibrate.fit import tensors
from aimcard.calibrate.pipeline import calibrate
from aimcard.calibrate.plan import Options, plan
from aimcard.calibrate.tied_columns import draw_signed_codes, tied_fit_columns, tied_held_out_columns
from aimcard.calibrate.tied_parameters import TIED_SPECS
from aimcard.calibrate.tied_simulate import edge_record
from aimcard.calibrate.tied_targets import TiedSetting, model_current, stack_pairs
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.card import Card
from aimcard.models.errors import CardError, FitError, InputError, ReferenceSetError
from aimcard.models.tied import cell_current
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel, ideal_charge
from aimcard.models.topology import tile_of
from aimcard.netlists.column import Pulses
from aimcard.netlists.tied import SourceEdge, SourceEdges
from aimcard.validation.report import validate

PULSES = Pulses(code_max=15, guard=3)
ROWS = 32
TRUTH = {n: s.start + 0.5 * s.scale for n, s in TIED_SPECS.items()} | {"r_bit_ohm": 1.2, "t_end_s": 2e-12}
META = {
    "technology": "none", "corner": "nom", "temperature_c": 27.0, "vdd_v": 1.0, "v_read_v": 0.2, "v_common_v": 0.4,
    "t_lsb_s": 1e-9, "code_max": 15, "mode": "conventional", "topology": "tied", "simulator": "the equations",
    "guard_slots": 3, "edge_delay_s": PULSES.delay_s, "rows": ROWS, "w_ref_um": 0.5, "w_min_um": 0.3, "r_bit_ohm": 1.2,
    "r_return_ohm": 0.0,
}  # fmt: skip


def column(name: str, role: str, seed: int, vectors: int, **attrs) -> Record:
    rng = np.random.default_rng(seed)
    plus, minus = rng.uniform(0.1e-6, 25e-6, (2, 1, ROWS))
    codes = rng.integers(-15, 16, (vectors, ROWS))
    own = {
        "clamp": "ideal", "distribution": "gaussian", "wire_scale": 1.0, "r_bit_ohm": 1.2, "r_return_ohm": 0.0,
        "w_select_um": (0.3, 0.4, 0.5)[seed % 3], "position": (0.0, 0.5, 1.0)[seed % 3], "read_out": "south",
    } | attrs  # fmt: skip
    arrays = {
        "conductance_s": plus, "conductance_minus_s": minus, "codes": codes, "slot_edge_s": PULSES.slot_edge_s,
        "current_a": np.zeros((vectors, 1, PULSES.slots)),
    }  # fmt: skip
    return Record(name, "column", role, own, arrays)


def simulated(record: Record, setting: TiedSetting) -> Record:
    with torch.no_grad():
        current = model_current(stack_pairs([record], setting), setting, tensors(TRUTH)).numpy()
    arrays = record.arrays | {"current_a": current.reshape(record["current_a"].shape)}
    return Record(record.name, "column", record.role, record.attrs, arrays)


def cells() -> Record:
    g, w, column, source = (
        a.ravel()
        for a in np.meshgrid(np.geomspace(1e-7, 3e-5, 6), [0.3, 0.5], np.linspace(0.38, 0.42, 3), [0.2, 0.4, 0.6])
    )
    setting = TiedSetting(0.5, 0.2, 0.4, 1e-9, {})
    cell = setting.parameters(tensors(TRUTH))[0]
    i = cell_current(cell, *(torch.tensor(a) for a in (g, column - 0.4, source - 0.4, w))).numpy()
    arrays = {"conductance_s": g, "w_select_um": w, "v_bit_v": column, "v_return_v": source, "current_a": i}
    return Record("cell-dc", "cell_dc", "fit", {}, arrays | {"v_gate_v": np.ones_like(g)})


@pytest.fixture(scope="module")
def reference() -> ReferenceSet:
    slow = SourceEdges(up_start=SourceEdge((0.0, 130e-12)), down_end=SourceEdge((0.0, 90e-12)))
    edges = edge_record({0.0: SourceEdges(), 0.5: slow, 1.0: slow}, PULSES)
    setting = TiedSetting.of(ReferenceSet(META, [edges]))
    fitted = [column(f"fit-{k}", "fit", k, 1, wire_scale=(1.0, 5.0)[k % 2]) for k in range(4)]
    held = [column("held-south", "held_out", 10, 3), column("held-north", "held_out", 11, 3, read_out="north")]
    return ReferenceSet(META, [edges, cells(), *(simulated(r, setting) for r in (*fitted, *held))])


@pytest.fixture(scope="module")
def card(reference) -> Card:
    return calibrate(reference, progress=False)


def test_the_truth_is_found(card):
    values = card.values()
    assert card.fit.converged
    for name in ("r_on_ohm", "dw_um", "k_mid_per_v", "k_drain_per_v2", "r_bit_ohm", "c_column_f", "t_start_s", "t_end_s"):
        assert values[name] == pytest.approx(TRUTH[name], rel=1e-3, abs=1e-3 * TIED_SPECS[name].scale), name


def test_validation_of_the_truth_has_no_error(card, reference):
    (scores,) = validate(card, reference, progress=False).data_sets.values()
    for quantity in ("current", "charge"):
        assert scores.summary[quantity]["model"]["worst_one_minus_r2"] < 1e-9
        assert scores.summary[quantity]["ideal"]["one_minus_r2"] > 1e-5


def test_the_card_comes_back_from_its_file(card, tmp_path):
    card.write(tmp_path / "tied.h5")
    back = Card.read(tmp_path / "tied.h5")
    assert back == card
    assert back.meta["topology"] == "tied"
    assert isinstance(tile_of(back), TiedTile)


def test_the_set_comes_back_from_its_file(reference, tmp_path):
    reference.write(tmp_path / "tied.reference.h5")
    back = ReferenceSet.read(tmp_path / "tied.reference.h5")
    assert back == reference
    assert back["fit-0"]["codes"].min() < 0


def test_north_is_south_of_the_reversed_rows(card):
    tile, rng = TiedTile(card), np.random.default_rng(0)
    g, codes = rng.uniform(1e-7, 2.5e-5, (2, 2, ROWS)), rng.integers(-15, 16, (3, ROWS))
    north = tile.respond(g[0], codes, conductance_minus_s=g[1], read_out="north").current_a
    turned = tile.respond(g[0][:, ::-1], codes[:, ::-1], conductance_minus_s=g[1][:, ::-1]).current_a
    assert_allclose(north, turned, rtol=1e-12)


def test_swapping_cells_and_signs_changes_nothing(card):
    tile, rng = TiedTile(card), np.random.default_rng(0)
    g, codes = rng.uniform(1e-7, 2.5e-5, (2, 2, ROWS)), rng.integers(-15, 16, (3, ROWS))
    one = tile.respond(g[0], codes, conductance_minus_s=g[1]).charge_c
    assert_allclose(tile.respond(g[1], -codes, conductance_minus_s=g[0]).charge_c, one, rtol=1e-9)


def test_the_charge_is_two_products(card):
    """Codes times effective weights, and magnitudes times the transistors' even part, which one product leaves out."""
    tile, rng = TiedTile(card), np.random.default_rng(0)
    g, codes = rng.uniform(1e-7, 2.5e-5, (2, 2, ROWS)), rng.integers(-15, 16, (8, ROWS))
    # At position 0 all four edges are alike, so that they shift no charge.
    charge = tile.respond(g[0], codes, conductance_minus_s=g[1], position=0.0).charge_c
    with torch.no_grad():
        c = tile.effective(*torch.tensor(g))
    one = 1e-9 * codes @ c.weight_a.numpy().T + 1e-9 * tile.slots * c.rest_a.numpy()
    two = one + 1e-9 * np.abs(codes) @ c.even_a.numpy().T
    ideal = ideal_charge(g[0] - g[1], codes, 0.2, 1e-9)
    assert np.abs(two - charge).max() < 0.05 * np.abs(ideal - charge).max()
    assert np.abs(two - charge).max() < 0.2 * np.abs(one - charge).max()


def test_effective_weights_have_gradients(card):
    tile, g = TiedTile(card), torch.rand(2, 2, ROWS, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2e-5
    law = lambda plus, minus: 1e6 * tile.effective(1e-5 * plus, 1e-5 * minus).weight_a  # noqa: E731
    assert torch.autograd.gradcheck(law, tuple((1e5 * x[:, :6]).requires_grad_(True) for x in g), atol=1e-6, fast_mode=True)


def test_bad_input_is_one_line(card, reference):
    tile, g = TiedTile(card), np.full((1, ROWS), 1e-6)
    codes = np.zeros((1, ROWS), int)
    with pytest.raises(InputError, match="codes from -15 to 15; got 16"):
        tile.respond(g, codes + 16, conductance_minus_s=g)
    with pytest.raises(InputError, match=r"conductance_minus_s: expected shape \(1, 32\)"):
        tile.respond(g, codes, conductance_minus_s=g[:, 1:])
    with pytest.raises(InputError, match=r"read_out: expected one of south, north; got 'sout'.*did you mean 'south'"):
        tile.respond(g, codes, conductance_minus_s=g, read_out="sout")
    with pytest.raises(InputError, match="topology: expected one of gated, tied; got 'tide'"):
        Options(topology="tide")
    without = {n: r for n, r in reference.records.items() if r.kind != "source_edge"}
    with pytest.raises(FitError, match="source_edge"):
        calibrate(ReferenceSet(META, without), progress=False)
    with pytest.raises(CardError, match="expected 'tied'; got 'gated'"):
        TiedTile(with_meta(card, topology="gated"))


def with_meta(card: Card, **meta) -> Card:


    return attrs.evolve(card, meta={**card.meta, **meta})


def test_codes_of_a_line_without_pairs_have_no_sign(reference):
    r = reference["fit-0"]
    alone = {n: a for n, a in r.arrays.items() if n != "conductance_minus_s"}
    with pytest.raises(ReferenceSetError, match="expected at least 0"):
        Record("gated", "column", "fit", r.attrs, alone)


def test_plan_draws_pairs_of_both_signs():
    options = Options(topology="tied", effort="default")
    columns = plan(options)
    assert {c.role for c in columns} == {"fit", "held_out", "floor", "check"}
    for c in columns:
        assert c.conductance_minus_s.shape == c.conductance_s.shape  # pyright: ignore[reportAttributeAccessIssue]
        assert c.codes.min() < 0 < c.codes.max()
        assert np.abs(c.codes).max() <= CODE_MAX
    assert {c.read_out for c in tied_held_out_columns(2, 1, 1, ("gaussian",), (), (0.3, 0.5))} == {"south", "north"}
    assert all(0.3 <= c.w_select_um <= 0.5 for c in tied_held_out_columns(4, 1, 1, ("gaussian",), (), (0.3, 0.5)))
    again = tied_fit_columns(3, 7, (0.3, 0.5))
    for a, b in zip(again, tied_fit_columns(3, 7, (0.3, 0.5)), strict=True):
        assert np.array_equal(a.codes, b.codes)
        assert a.conductance_minus_s.max() <= G_MAX_S
    sign = np.sign(draw_signed_codes(np.random.default_rng(1), "uniform", 4, 4096))
    assert abs(sign.mean()) < 0.05



def test_a_gated_model_of_a_tied_card_is_one_line(card):
    with pytest.raises(CardError, match=r"meta@topology: expected 'gated'; got 'tied'"):
        TileModel(card)
