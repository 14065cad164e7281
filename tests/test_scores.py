"""Scores: closed forms, nothing pooled, and the names that others read."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimcard.models.card import Card
from aimcard.models.errors import ReferenceSetError
from aimcard.models.tile import TileModel, ideal_charge
from aimcard.validation.aims import AIMS, Aim, AimResult
from aimcard.validation.predictors import nominal_readout
from aimcard.validation.report import validate
from aimcard.validation.scores import (
    equal_counts,
    full_scale,
    later_slots,
    measures,
    one_minus_r2,
    pair_difference,
    sigma_mac,
)

NAMES = {"r2", "one_minus_r2", "nrmse", "eps_mac", "worst", "worst_one_minus_r2"}
ERROR_A = 3e-9


def variance(values: np.ndarray) -> float:
    """Mean squared deviation of a plain list from its mean."""
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / len(values)


def test_measures_of_a_known_error():
    truth = np.array([[9.0], [11.0], [9.0], [11.0]])  # σ = 1, mean 10
    error = np.array([[0.1], [0.1], [-0.1], [0.3]])
    found = {name: float(v[0]) for name, v in measures(truth + error, truth, 2 * truth).items()}
    mean_square = (0.01 + 0.01 + 0.01 + 0.09) / 4
    assert found["one_minus_r2"] == pytest.approx(mean_square)
    assert found["r2"] == pytest.approx(1 - mean_square)
    assert found["nrmse"] == pytest.approx(math.sqrt(mean_square))
    assert found["eps_mac"] == pytest.approx(100 * math.sqrt(mean_square) / 22)
    assert found["worst"] == pytest.approx(0.3)
    assert found["rmse_ppm"] == pytest.approx(1e5 * math.sqrt(mean_square))
    assert found["mean_error_ppm"] == pytest.approx(1e5 * 0.1)


def test_gaussian_sigma_is_given_beside_the_own_one():
    truth, error = np.array([[9.0], [11.0]]), 0.1
    found = measures(truth + error, truth, truth, sigma_gaussian=np.array([10.0]))
    assert found["nrmse"][0] == pytest.approx(0.1)
    assert found["nrmse_gaussian"][0] == pytest.approx(0.01)
    assert found["one_minus_r2_gaussian"][0] == pytest.approx(1e-4)
    assert found["worst_gaussian"][0] == pytest.approx(0.01)


def test_the_mean_waveform_alone_explains_nothing_of_a_current():
    rng = np.random.default_rng(0)
    truth = np.linspace(100, 0, 20) + rng.normal(size=(8, 2, 20))
    mean = np.broadcast_to(truth.mean(axis=0), truth.shape)
    np.testing.assert_allclose(one_minus_r2(mean, truth), 1.0)
    over_time = np.mean((mean - truth) ** 2) / np.var(truth)
    assert over_time < 2e-3  # what the variance over time would have said


def test_a_current_is_scored_slot_by_slot_then_summed():
    rng = np.random.default_rng(1)
    truth, error = rng.normal(size=(5, 2, 7)), rng.normal(size=(5, 2, 7))
    for line in range(2):
        scatter = sum(5 * variance(truth[:, line, k]) for k in range(7))
        expected = (error[:, line] ** 2).sum() / scatter
        assert one_minus_r2(truth + error, truth)[line] == pytest.approx(expected)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.floats(-5, 5), st.integers(0, 2**31))
def test_units_and_offsets_do_not_change_a_score(offset, gain, bias, seed):
    rng = np.random.default_rng(seed)
    truth, error = rng.normal(size=(6, 3)), bias + rng.normal(size=(6, 3))
    moved = offset + gain * truth
    np.testing.assert_allclose(
        one_minus_r2(moved + gain * error, moved), one_minus_r2(truth + error, truth), rtol=1e-5
    )


def test_no_spread_over_vectors_leaves_the_score_undefined():
    assert np.isnan(sigma_mac(np.full((4, 1), 0.1))).all()
    assert np.isnan(sigma_mac(np.array([[3.0, 4.0]]))).all()
    assert np.isnan(full_scale(np.zeros((3, 1)))).all()


def test_the_first_slot_is_kept_apart(card_of, column_of, set_of):
    record = column_of(vectors=6)
    current = record["current_a"].copy()
    current[:, :, 0] += 1e-6
    wrong = type(record)(
        record.name, "column", "held_out", record.attrs, {**record.arrays, "current_a": current}
    )
    found = validate(card_of(), set_of(wrong)).to_json()["data_sets"]["ideal-gaussian-1x"]["current"]["model"]
    spread = [math.sqrt(variance(current[:, line, 0])) for line in range(2)]
    assert found["one_minus_r2"] < 1e-25
    assert found["first_slot_nrmse"] == pytest.approx(np.median([1e-6 / s for s in spread]))


def test_an_error_of_both_lines_cancels_in_the_pair(card_of, column_of, set_of):
    same = validate(card_of(), set_of(column_of(error_a=ERROR_A))).data_sets["ideal-gaussian-1x"].summary
    assert same["charge"]["model"]["nrmse"] > 1e-5
    assert same["pair"]["charge"]["model"]["nrmse"] < 1e-10
    opposite = column_of(error_a=np.array([ERROR_A, -ERROR_A]))
    found = validate(card_of(), set_of(opposite)).data_sets["ideal-gaussian-1x"].summary["pair"]
    truth = pair_difference(opposite["current_a"])
    window = len(opposite["slot_edge_s"]) - 1
    expected = 2 * ERROR_A * window / math.sqrt(variance(truth.sum(-1)[:, 0]))
    assert found["charge"]["model"]["nrmse"] == pytest.approx(expected)
    scatter = np.mean([variance(truth[:, 0, k]) for k in range(1, window)])
    assert found["current"]["model"]["nrmse"] == pytest.approx(2 * ERROR_A / math.sqrt(scatter))
    assert set(found["charge"]["model"]) >= NAMES
    assert "rmse_ppm" not in found["charge"]["model"]


def test_model_scores_are_the_error_put_in(card_of, column_of, set_of):
    record = column_of(error_a=np.array([ERROR_A, 5 * ERROR_A]))
    found = validate(card_of(), set_of(record)).to_json()["data_sets"]["ideal-gaussian-1x"]
    window = len(record["slot_edge_s"]) - 1
    one_minus = []
    for line, error in enumerate((ERROR_A, 5 * ERROR_A)):
        charge = 1e-9 * record["current_a"][:, line].sum(-1)
        one_minus.append((1e-9 * error * window) ** 2 / variance(charge))
    model = found["charge"]["model"]
    assert model["one_minus_r2"] == pytest.approx(np.mean(one_minus))
    assert model["worst_one_minus_r2"] == pytest.approx(max(one_minus))
    assert model["worst"] == pytest.approx(math.sqrt(max(one_minus)))
    assert model["rmse"] == pytest.approx(3 * ERROR_A * window * 1e-9)
    assert found["records"]["c0"]["one_minus_r2"]["charge"] == pytest.approx(one_minus)
    full = np.abs(ideal_charge(record["conductance_s"], record["codes"], 0.2, 1e-9)).max(axis=0)
    eps = 100 * np.array([1, 5]) * ERROR_A * window * 1e-9 / full
    assert model["eps_mac"] == pytest.approx(np.mean(eps))


def test_columns_are_never_pooled(card_of, column_of, set_of):
    """Three columns of very different level: a pooled R² would take the spread between them for signal."""
    rng = np.random.default_rng(4)
    records = []
    for k, top in enumerate((2, 8, 15)):
        codes = np.clip(top + rng.integers(-1, 2, (6, 24)), 0, 15)
        records.append(column_of(f"c{k}", seed=k, codes=codes, error_a=(1 + k) * ERROR_A, lines=1))
    found = validate(card_of(), set_of(*records)).data_sets["ideal-gaussian-1x"]
    charges = [1e-9 * r["current_a"][:, 0].sum(-1) for r in records]
    errors = [(1 + k) * ERROR_A * 17e-9 for k in range(3)]
    alone = [e**2 / variance(q) for e, q in zip(errors, charges, strict=True)]
    pooled = np.mean(np.square(errors)) / np.var(np.concatenate(charges))
    model = found.summary["charge"]["model"]
    assert model["one_minus_r2"] == pytest.approx(sorted(alone)[1])
    assert model["worst_one_minus_r2"] == pytest.approx(max(alone))
    assert model["one_minus_r2"] > 20 * pooled
    assert (found.summary["columns"], found.summary["lines"], found.summary["vectors"]) == (3, 1, 6)


def test_distributions_wires_and_clamps_are_data_sets_of_their_own(card_of, column_of, set_of):
    records = [
        column_of("a"),
        column_of("b", distribution="sparse", error_a=ERROR_A),
        column_of("c", wire_scale=3.0),
        column_of("d", clamp="ota"),
        column_of("e", clamp="ota", distribution="saturated", role="check"),
        column_of("f", role="fit", error_a=1e-3),
    ]
    result = validate(card_of(), set_of(*records))
    names = [
        "ideal-gaussian-1x",
        "ideal-sparse-1x",
        "ideal-gaussian-3x",
        "ota-gaussian-1x",
        "ota-saturated-1x",
    ]
    assert list(result.data_sets) == names
    assert [s.summary["columns"] for s in result.data_sets.values()] == [1] * 5
    judged = {name for aim in result.aims for name in aim.reached}
    assert judged == set(names) - {"ota-saturated-1x"}
    for name in ("ideal-gaussian-1x", "ideal-gaussian-3x"):
        assert result.data_sets[name].summary["charge"]["model"]["one_minus_r2"] < 1e-20
    for name, data_set in result.data_sets.items():
        assert name in str(result)
        wrong = data_set.summary["charge"]["ideal"]["one_minus_r2"]
        assert wrong > 1e-5, name


def test_the_gaussian_twin_normalises_inputs_that_hardly_vary(card_of, column_of, set_of):
    gaussian, still = column_of("g"), column_of("s", distribution="all-on", error_a=ERROR_A)
    other = column_of("o", seed=9)
    summary = validate(card_of(), set_of(other, gaussian, still)).data_sets["ideal-all-on-1x"].summary
    model = summary["charge"]["model"]
    q = 1e-9 * gaussian["current_a"].sum(-1)
    expected = [ERROR_A * 17e-9 / math.sqrt(variance(q[:, line])) for line in range(2)]
    assert model["nrmse_gaussian"] == pytest.approx(np.median(expected))
    assert model["nrmse"] > 3 * model["nrmse_gaussian"]
    i = gaussian["current_a"]
    spread = [math.sqrt(np.mean([variance(i[:, line, k]) for k in range(1, 17)])) for line in range(2)]
    expected = np.median([ERROR_A / s for s in spread])
    assert summary["current"]["model"]["nrmse_gaussian"] == pytest.approx(expected)
    alone = validate(card_of(), set_of(still)).data_sets["ideal-all-on-1x"].summary["charge"]["model"]
    assert "nrmse_gaussian" not in alone


def test_one_vector_has_no_r2_but_an_error(card_of, column_of, set_of):
    result = validate(card_of(), set_of(column_of(vectors=1, error_a=ERROR_A)))
    model = result.to_json()["data_sets"]["ideal-gaussian-1x"]["charge"]["model"]
    assert model["r2"] is None
    assert model["one_minus_r2"] is None
    assert model["eps_mac"] > 0
    json.dumps(result.to_json(), allow_nan=False)
    assert "ideal-gaussian-1x" in str(result)
    assert [a.mark for a in result.aims] == ["no data"] * len(AIMS)


def test_floor_is_the_distance_of_the_tighter_run(card_of, column_of, set_of):
    record = column_of(vectors=6, error_a=ERROR_A)
    rows = [4, 1]
    shifted = record["current_a"][rows] + 2 * ERROR_A
    arrays = {**record.arrays, "codes": record["codes"][rows], "current_a": shifted}
    floor = type(record)("tight", "column", "floor", {**record.attrs, "of": "c0"}, arrays)
    found = validate(card_of(), set_of(record, floor)).data_sets["ideal-gaussian-1x"].summary
    charge = 1e-9 * record["current_a"].sum(-1)
    expected = [2 * ERROR_A * 17e-9 / math.sqrt(variance(charge[:, line])) for line in range(2)]
    assert found["charge"]["floor"]["nrmse"] == pytest.approx(np.median(expected))
    assert found["charge"]["model"]["nrmse"] == pytest.approx(np.median(expected) / 2)
    assert set(found["current"]["floor"]) >= NAMES
    assert found["columns"] == 1
    codes = arrays["codes"].copy()
    codes[1, 0] = (codes[1, 0] + 1) % 16
    stranger = type(record)("tight", "column", "floor", floor.attrs, {**arrays, "codes": codes})
    with pytest.raises(
        ReferenceSetError, match=r"records/tight/codes: expected vectors of c0, got another one at \[1\]"
    ):
        validate(card_of(), set_of(record, stranger))


def test_with_a_readout_current_and_charge_are_the_mirrors(card_of, column_of, set_of):
    record = column_of(clamp="ota", error_a=ERROR_A)
    found = validate(card_of(), set_of(record)).data_sets["ota-gaussian-1x"].summary
    for quantity, array in (("charge", "mirror_a"), ("line_charge", "current_a")):
        q = 1e-9 * record[array].sum(-1)
        expected = [ERROR_A * 17e-9 / math.sqrt(variance(q[:, line])) for line in range(2)]
        assert found[quantity]["model"]["nrmse"] == pytest.approx(np.median(expected), rel=1e-6)
    assert set(found) >= {"current", "charge", "phase", "line_current", "line_charge", "pair"}


def test_phase_and_counts(card_of, column_of, set_of):
    record = column_of(clamp="ota", error_count=0.3)
    found = validate(card_of(), set_of(record)).data_sets["ota-gaussian-1x"].summary["phase"]
    assert found["model"]["rms_count"] == pytest.approx(0.3, rel=1e-9)
    sigma = [math.sqrt(variance(record["phase_count"][:, line])) for line in range(2)]
    assert found["model"]["sigma_count"] == pytest.approx(np.median(sigma))
    signs = np.where(np.arange(6) % 2, -1.0, 1.0)[:, None]
    equal = int((np.floor(record["phase_count"] - 0.3 * signs) == record["count"]).sum())
    assert found["model"]["equal_counts"] == equal
    assert found["model"]["n_counts"] == 12
    assert found["model"]["equal_share"] == equal / 12
    assert found["ideal"]["rms_count"] > found["ideal_affine"]["rms_count"]
    np.testing.assert_array_equal(equal_counts(np.array([[3.9], [4.1]]), np.array([[3], [3]])), [1])


def test_the_nominal_readout_is_the_card_where_that_is_a_straight_line(card_of):
    nominal = nominal_readout(TileModel(card_of()), 10e-6)
    assert nominal.gain == pytest.approx(1 / 8)
    assert nominal.idle_a == pytest.approx(10e-6 / 8)
    assert nominal.idle_hz == pytest.approx(1.5e9)
    rate = 1.5e9 * (1 + 10 / 9 / (1 + 10 / 300))
    assert nominal.count_per_c == pytest.approx((rate - 1.5e9) / 10e-6)


def test_json_is_the_interface(card_of, column_of, set_of, tmp_path):
    records = [
        column_of("i", error_a=ERROR_A),
        column_of("o", clamp="ota", error_a=ERROR_A),
        column_of("w", wire_scale=10.0),
        column_of("one", vectors=1, distribution="sparse"),
    ]
    reference, card = set_of(*records), card_of()
    result = validate(card, reference)
    document = json.loads(result.write_json(tmp_path / "out.json").read_text())
    assert document == json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert (document["schema"], document["schema_version"]) == ("aimcard.validation", 1)
    assert document["card"]["content_hash"] == card.content_hash
    assert document["reference"]["content_hash"] == reference.content_hash
    for name, found in document["data_sets"].items():
        quantities = {"current", "charge"} | ({"phase"} if name.startswith("ota") else set())
        assert set(found) >= quantities | {"columns", "vectors", "lines", "pair"}
        assert ("phase" in found) == name.startswith("ota")
        for part in (found, found["pair"]):
            for quantity in quantities:
                for predictor in ("model", "ideal", "ideal_affine"):
                    assert set(part[quantity][predictor]) >= NAMES
    card_with = card_of(validation=result.for_card())
    card_with.write(tmp_path / "card.h5")
    kept = Card.read(tmp_path / "card.h5").validation
    assert kept["data_sets"]["ideal-gaussian-1x"]["charge"]["model"]["one_minus_r2"] > 0
    assert "source" not in kept["reference"]


def aim_result(limit=1e-5, measure="one_minus_r2", reached=None, floor=None, sigma=None) -> AimResult:
    return AimResult(
        Aim("a", "charge", "ideal", limit, measure=measure), reached or {}, floor or {}, sigma or {}
    )


def test_an_aim_is_met_only_if_every_data_set_meets_it():
    assert aim_result().mark == "no data"
    assert aim_result(reached={"a": 1e-6, "b": 1e-5}).mark == "pass"
    short = aim_result(reached={"a": 1e-6, "b": 3e-5, "c": 2e-6}, floor={"b": 2e-5})
    assert (short.mark, short.median, short.worst_data_set, short.short) == ("short", 2e-6, "b", ["b"])
    assert short.note == "1 of 3 data sets short; b within 2 times the reference's floor"
    small = aim_result(0.1, "rms_count", {"ota-gaussian-1x": 0.05}, sigma={"ota-gaussian-1x": 63.0})
    assert (small.mark, small.note) == ("short", "σ_MAC below 64 counts")
    enough = {"ota-gaussian-1x": 64.0, "ota-all-on-1x": 5.0}
    assert aim_result(0.1, "rms_count", {"ota-gaussian-1x": 0.05}, sigma=enough).mark == "pass"


def test_aims_follow_the_error(card_of, column_of, set_of):
    def marks(error_a: float) -> dict[str, str]:
        records = [column_of("i", error_a=error_a), column_of("o", clamp="ota", error_a=error_a)]
        result = validate(card_of(), set_of(*records))
        assert all(aim.aim.label in str(result) for aim in result.aims)
        return {aim.aim.label: aim.mark for aim in result.aims}

    good, bad = marks(0.0), marks(1e-6)
    for label in ("1-R2 current, ideal clamp", "1-R2 charge, ideal clamp", "1-R2 charge, OTA and mirror"):
        assert (good[label], bad[label]) == ("pass", "short")
    assert good["1-R2 charge, ideal clamp, 3x wire"] == "no data"


def test_what_cannot_be_scored_is_refused_in_one_line(card_of, column_of, set_of):
    record = column_of()
    cases = [
        (set_of(column_of(role="fit")), "expected columns of role held_out, got none"),
        (set_of(record, v_read_v=0.3), "read voltage [V]: expected the card's 0.2, got 0.3"),
        (set_of(column_of(r_bit_ohm=0.3)), "records/c0@r_bit_ohm: expected the card's 0.15 ohm"),
    ]
    short = {name: record[name] for name in ("conductance_s", "codes")}
    short |= {"current_a": record["current_a"][..., :-1], "slot_edge_s": record["slot_edge_s"][:-1]}
    cases.append(
        (
            set_of(type(record)("c0", "column", "held_out", record.attrs, short)),
            "expected the card's 17 slots",
        )
    )
    for reference, message in cases:
        with pytest.raises(ReferenceSetError) as caught:
            validate(card_of(), reference)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_card_without_readout_scores_the_ideal_clamp_and_says_so(card_of, column_of, set_of):
    reference = set_of(column_of("i"), column_of("o", clamp="ota"))
    result = validate(card_of(readout=False), reference)
    assert list(result.data_sets) == ["ideal-gaussian-1x"]
    assert result.notes == ("columns with a read-out are left out (1): the card has none",)
    assert result.notes[0] in str(result)


def test_later_slots_leaves_a_charge_alone():
    assert later_slots(np.zeros((3, 2))).shape == (3, 2)
    assert later_slots(np.zeros((3, 2, 5))).shape == (3, 2, 4)
