"""A tied calibration on data of known truth, its card in the tile, and what the set and the tile refuse."""

import attrs
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from aimcard.calibrate.columns import CODE_MAX
from aimcard.calibrate.fit import tensors
from aimcard.calibrate.pipeline import calibrate
from aimcard.calibrate.plan import Options, plan
from aimcard.calibrate.stages import readout_tables
from aimcard.calibrate.tied_columns import draw_signed_codes, tied_fit_columns, tied_held_out_columns, tied_ota_fit_columns
from aimcard.calibrate.tied_parameters import TIED_SPECS
from aimcard.calibrate.tied_readout_fit import READOUT_SPECS, readout_columns
from aimcard.calibrate.tied_simulate import edge_record
from aimcard.calibrate.tied_targets import TiedSetting, base_currents, model_current, stack_pairs
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.adc import HOLD_S
from aimcard.models.card import Card
from aimcard.models.errors import CardError, FitError, InputError, ReferenceSetError
from aimcard.models.lut import lookup
from aimcard.models.pcm import G_MAX_S
from aimcard.models.tied import cell_current
from aimcard.models.tied_readout import read, tied_clamp, tied_readout
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel, ideal_charge
from aimcard.models.topology import tile_of
from aimcard.netlists.column import Pulses
from aimcard.netlists.oscillator import COUNTS_PER_PERIOD
from aimcard.netlists.tied import SourceEdge, SourceEdges
from aimcard.validation.report import validate
from aimcard.validation.tied_products import against_counts, binned_counts

PULSES = Pulses(code_max=15, guard=3)
ROWS = 32
TRUTH = {n: s.start + 0.5 * s.scale for n, s in TIED_SPECS.items()} | {"r_bit_ohm": 1.2, "t_end_s": 2e-12}
TRUTH |= {n: s.start - s.scale for n, s in READOUT_SPECS.items()} | {"phase_start": 0.6, "t_wait_s": 2e-10}
BIAS_A, LINE_A = 200e-6, np.linspace(-170e-6, 200e-6, 38)
META = {
    "technology": "none", "corner": "nom", "temperature_c": 27.0, "vdd_v": 1.0, "v_read_v": 0.2, "v_common_v": 0.4,
    "t_lsb_s": 1e-9, "code_max": 15, "mode": "conventional", "topology": "tied", "simulator": "the equations",
    "guard_slots": 3, "edge_delay_s": PULSES.delay_s, "rows": ROWS, "w_ref_um": 0.5, "w_min_um": 0.3, "r_bit_ohm": 1.2,
    "r_return_ohm": 0.0, "bias_a": BIAS_A, "mirror_ratio": 8.0,
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


def tables() -> list[Record]:
    """A regulator that falls by some 3 Ω and 1.1 mV below its reference, a straight mirror, a rate that bends down."""
    regulator_a = LINE_A + BIAS_A
    static = {"current_a": LINE_A, "v_clamp_v": 0.3989 - 5e-4 * np.log1p(LINE_A / BIAS_A), "mirror_a": regulator_a / 8}
    rate = {"current_a": LINE_A, "count_rate_hz": 1.2e14 * regulator_a * (1 - regulator_a / 4e-3)}
    return [Record("readout-dc", "readout_dc", "fit", {}, static), Record("oscillator", "oscillator", "fit", {}, rate)]


def simulated(record: Record, setting: TiedSetting) -> Record:
    stacked, values, shape = stack_pairs([record], setting), tensors(TRUTH), record["current_a"].shape
    with torch.no_grad():
        if record.attrs["clamp"] == "ideal":
            return with_arrays(record, current_a=model_current(stacked, setting, values).numpy().reshape(shape))
        found = readout_tables(ReferenceSet(META, tables()))
        assert found is not None
        current, static, y_s = base_currents(stacked, setting, values, tied_clamp(found, 0.4))
        width = stacked.w_select_um / setting.w_ref_um
        how = (1e-9, ((0, PULSES.slots),), "reset", 0.5e-9)
        got = read(tied_readout(values, found, y_s, width, BIAS_A), current, static, *how)
    phase = got.phases.numpy().reshape(shape[:2])
    return with_arrays(
        record, current_a=got.current_a.numpy().reshape(shape), mirror_a=got.mirror_a.numpy().reshape(shape),
        phase_count=phase, count=np.floor(phase).astype(np.int64),
    )  # fmt: skip


def with_arrays(record: Record, **arrays) -> Record:
    return Record(record.name, record.kind, record.role, record.attrs, record.arrays | arrays)


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
    read_out = [column(f"ota-{k}", "fit", 20 + k, 1, clamp="ota") for k in range(8)]
    # One of much current: the domain reaches as far.
    g = read_out[0]["conductance_s"]
    large = with_arrays(read_out[0], conductance_minus_s=0.2 * g, codes=np.abs(read_out[0]["codes"]))
    read_out[0] = large
    read_out += [column("held-ota", "held_out", 30, 4, clamp="ota"), column("held-ota-north", "held_out", 31, 4, clamp="ota",
                                                                            read_out="north")]  # fmt: skip
    every = [simulated(r, setting) for r in (*fitted, *held, *read_out)]
    return ReferenceSet(META, [edges, cells(), *tables(), *every])


@pytest.fixture(scope="module")
def card(reference) -> Card:
    return calibrate(reference, progress=False)


def test_a_card_says_what_happens_at_a_phase_boundary_and_what_is_counted(reference, card):
    assert "phase_rule" not in reference.meta
    assert (card.meta["phase_rule"], card.meta["hold_s"]) == ("reset", HOLD_S)
    # One count is one edge: a ring of five stages has ten a period, and a set without a ring says nothing else.
    rings = reference.select(kind="oscillator")
    assert card.meta["n_phases"] == (COUNTS_PER_PERIOD if rings else 1)


def test_the_truth_is_found(card):
    values = card.values()
    assert card.fit.converged
    for name in ("r_on_ohm", "dw_um", "k_mid_per_v", "k_drain_per_v2", "r_bit_ohm", "c_column_f", "t_start_s", "t_end_s"):
        assert values[name] == pytest.approx(TRUTH[name], rel=1e-3, abs=1e-3 * TIED_SPECS[name].scale), name


def test_validation_of_the_truth_has_no_error(card, reference):
    scores = validate(card, reference, progress=False).data_sets["ideal-gaussian-1x"]
    for quantity in ("current", "charge"):
        assert scores.summary[quantity]["model"]["worst_one_minus_r2"] < 1e-9
        assert scores.summary[quantity]["ideal"]["one_minus_r2"] > 1e-5


def test_validation_of_the_read_out_has_no_error(card, reference):
    """Line, mirror and phase as for gated columns; the phase's truth is the oscillator's own, bias included."""
    scores = validate(card, reference, progress=False).data_sets["ota-gaussian-1x"].summary
    for quantity in ("current", "charge", "phase", "line_current", "line_charge"):
        # What holds the terms open to 32 rows small costs the truth 0.05 in the sum of squares, a fifth of a residual.
        assert scores[quantity]["model"]["worst_one_minus_r2"] < 1e-6, quantity
        assert scores[quantity]["ideal"]["one_minus_r2"] > 1e-5
    assert scores["phase"]["model"]["rms_count"] < 0.02
    assert scores["slots_beyond_full_scale"] == 0


def test_counts_have_a_sign(card, reference):
    """A zero vector counts nothing; a vector and its negative count opposite but for the bends of cells and converter."""
    tile, record = tile_of(card), reference["held-ota"]
    g = {"conductance_minus_s": record["conductance_minus_s"], "clamp": "ota", "w_select_um": 0.3, "position": 0.0}
    codes = np.concatenate([0 * record["codes"][:1], record["codes"], -record["codes"]])
    out = tile.respond(record["conductance_s"], codes, **g)
    assert out.count is not None
    assert out.phase_count is not None
    assert out.bias_counts is not None
    assert out.count[0, 0] == 0
    assert 0 <= out.phase_count[0, 0] < 1
    assert np.array_equal(out.count, np.floor(out.phase_count))
    assert np.array_equal(out.counts.sum(-1), out.count)  # pyright: ignore[reportOptionalMemberAccess]
    up, down = np.split(out.phase_count[1:, 0] - out.phase_count[0, 0], 2)
    assert np.abs(up).max() > 10
    # Of the converter alone: f''/2·∫I² at 30 µA is 1.2e14/4e-3·(30e-6)²·15 ns, 0.4 counts.
    assert np.abs(up + down).max() < 1
    # What was recorded is the oscillator's own phase: subtracted and signed counts together.
    a = record.attrs
    own = {**g, "w_select_um": float(a["w_select_um"]), "position": float(a["position"])}
    out = tile.respond(record["conductance_s"], record["codes"], **own)
    assert out.count is not None
    assert out.bias_counts is not None
    assert np.array_equal(out.count + out.bias_counts.sum(-1), record["count"])


def test_reductions_of_a_count():
    """A bin a slot is the whole rate, few bins come near it, and a constant current needs none of them."""
    found = readout_tables(ReferenceSet(META, tables()))
    assert found is not None
    decay = 1e-4 * np.exp(-np.arange(16) / 4.0) * np.array([[1.0], [-1.0], [0.3]])
    whole = lookup(*found["adc"], torch.tensor(decay)).numpy().sum(-1) * 1e-9
    error = {name: np.abs(p - whole).max() for name, p in binned_counts(found["adc"], decay, 1e-9).items()}
    one, two, four, eight, sixteen = (error[f"rate of the mean current, {n} bin{'s' * (n > 1)}"] for n in (1, 2, 4, 8, 16))
    assert one > 2 * two > 4 * four > 8 * eight > 0
    assert sixteen < 1e-9
    # With the rate's second difference: f''/2 times the variance of the current over the window.
    assert one == pytest.approx(1.2e14 / 4e-3 * decay[0].var() * 16e-9, rel=1e-3)
    steady = binned_counts(found["adc"], np.full((1, 16), 3e-5) + np.array([[0.0], [1e-5]]), 1e-9)
    assert all(np.ptp(np.array([p[k] for p in steady.values()])) < 1e-9 for k in (0, 1))


def test_recorded_phases_are_the_models(card, reference):
    (found,) = against_counts(card, reference)
    assert found.errors["all slots, lags and start (the model)"][1] < 0.02
    assert (found.columns, found.vectors) == (2, 4)
    with pytest.raises(InputError, match="expected a tied card with a read-out"):
        against_counts(attrs.evolve(card, tables=tuple(t for t in card.tables if t.name != "adc")), reference)


def test_the_offset_is_in_the_card(card):
    values, tile = card.values(), TiedTile(card)
    assert values["offset_v"] == pytest.approx(-1.1e-3, rel=1e-6)
    g = np.full((2, 1, ROWS), 10e-6)
    own, larger = (tile.offset_current_a(*g, offset_v=v) for v in (None, -2.1e-3))
    y_s = float(tile.effective(*torch.tensor(g)).y_s)
    assert own[0] == pytest.approx(-1.1e-3 * y_s, rel=0.01)
    assert larger[0] - own[0] == pytest.approx(-1e-3 * y_s, rel=0.01)
    # The resting column in a response draws it, beside the gates' tunnelling.
    zero = tile.respond(g[0], np.zeros((1, ROWS), int), conductance_minus_s=g[1], clamp="ota")
    rest = float(tile.effective(*torch.tensor(g)).rest_a)
    assert zero.current_a[0, 0, -1] == pytest.approx(own[0] + rest, rel=1e-3)
    assert "offset_v" in str(card)
    assert "offset_a" in str(card)


def test_a_card_of_static_tables_alone_answers_without_counts(card):
    """Cards of sets that end at the regulator's static curves: currents and mirror, no lag and no phase."""
    tile = TiedTile(attrs.evolve(card, tables=tuple(t for t in card.tables if t.name != "adc")))
    g, codes = np.full((1, ROWS), 5e-6), np.full((1, ROWS), 3)
    out = tile.respond(g, codes, conductance_minus_s=0.5 * g, clamp="ota")
    assert not tile.has_readout
    assert out.mirror_a is not None
    assert out.count is None


def test_columns_beyond_the_converter_are_left_out_and_said(reference):
    far = with_arrays(reference["ota-0"], current_a=reference["ota-0"]["current_a"] + 3e-4)
    found = ReferenceSet(META, [*(r for r in reference.records.values() if r.name != "ota-0"), far])
    tables = readout_tables(found)
    assert tables is not None
    columns, said = readout_columns(found, TiedSetting.of(found), tables)
    assert columns is not None
    assert len(columns.owner) == 7
    assert said == [
        "1 of 8 columns with clamp ota left out: their current is beyond the converter's table, -170 to 200 uA"
    ]


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
    lacking = {n: a for n, a in reference["ota-0"].arrays.items() if n != "phase_count"}
    ota = Record("ota-0", "column", "fit", reference["ota-0"].attrs, lacking)
    with pytest.raises(FitError, match="records/ota-0: columns with clamp 'ota' need mirror_a and phase_count"):
        calibrate(ReferenceSet(META, [*(r for r in reference.records.values() if r.name != "ota-0"), ota]), progress=False)
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


BOTH = {"ideal": ("gaussian",), "ota": ("gaussian",)}


def test_fitted_columns_with_a_read_out_fill_the_converters_range():
    """First slots between -140 and 170 µA, both ends seen; the regulator lets go below minus its bias."""
    first = [
        0.2 * float((np.sign(c.codes) * (c.conductance_s - c.conductance_minus_s)).sum())
        for c in tied_ota_fit_columns(16, 2, (0.3, 0.5), 0.2)
    ]
    assert min(first) < -80e-6
    assert max(first) > 80e-6
    assert all(-160e-6 < i < 190e-6 for i in first)


def test_plan_draws_pairs_of_both_signs():
    options = Options(topology="tied", effort="default")
    columns = plan(options)
    assert {c.role for c in columns} == {"fit", "held_out", "floor", "check"}
    for c in columns:
        assert c.conductance_minus_s.shape == c.conductance_s.shape  # pyright: ignore[reportAttributeAccessIssue]
        assert c.codes.min() < 0 < c.codes.max()
        assert np.abs(c.codes).max() <= CODE_MAX
    assert {c.read_out for c in tied_held_out_columns(2, 1, 1, BOTH, (), (0.3, 0.5))} == {"south", "north"}
    assert all(0.3 <= c.w_select_um <= 0.5 for c in tied_held_out_columns(4, 1, 1, BOTH, (), (0.3, 0.5)))
    again = tied_fit_columns(3, 7, (0.3, 0.5))
    for a, b in zip(again, tied_fit_columns(3, 7, (0.3, 0.5)), strict=True):
        assert np.array_equal(a.codes, b.codes)
        assert a.conductance_minus_s.max() <= G_MAX_S
    sign = np.sign(draw_signed_codes(np.random.default_rng(1), "uniform", 4, 4096))
    assert abs(sign.mean()) < 0.05



def test_a_gated_model_of_a_tied_card_is_one_line(card):
    with pytest.raises(CardError, match=r"meta@topology: expected 'gated'; got 'tied'"):
        TileModel(card)
