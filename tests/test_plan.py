"""What a calibration simulates: the drawn columns, the options, the plan and its size."""

import itertools

import numpy as np
import pytest

from aimcard.calibrate.columns import (
    CODE_MAX,
    DISTRIBUTIONS,
    POSITIONS,
    ROWS,
    draw_codes,
    fit_columns,
    floor_columns,
    held_out_columns,
    pair_conductances,
)
from aimcard.calibrate.plan import EFFORTS, Options, estimate, expected_cpu_s, plan
from aimcard.models.errors import InputError, TechnologyError
from aimcard.models.pcm import G_MAX_S, G_MIN_S


def test_fitted_columns():
    columns = fit_columns("ideal", 16, 1, (0.3, 0.5))
    for c in columns:
        assert c.conductance_s.shape == c.codes.shape == (1, ROWS)
        assert c.conductance_s.min() >= G_MIN_S
        assert c.conductance_s.max() <= G_MAX_S
        assert c.codes.min() == 0
        assert 40 <= c.codes.max() <= CODE_MAX
        assert c.position in POSITIONS
        assert c.role == "fit"
        assert c.runs == 1
    # Sobol points fill every situation: halves of each dimension are equally full.
    level = np.array([np.log(c.conductance_s.mean()) for c in columns])
    share = np.array([(c.codes > 0).mean() for c in columns])
    width = np.array([c.w_select_um for c in columns])
    assert np.sum(width < 0.4) == np.sum(width > 0.4) == 8
    assert width.min() >= 0.28
    assert width.max() <= 0.52
    assert share.min() < 0.4
    assert share.max() > 0.9
    assert np.exp(level.max() - level.min()) > 6
    assert {c.position for c in columns} == set(POSITIONS)
    assert {c.wire_scale for c in columns} > {1.0}
    assert {c.wire_scale for c in fit_columns("ota", 16, 1, (0.3, 0.5))} == {1.0}


def test_draws_repeat_and_differ():
    same, other = (fit_columns("ideal", 4, seed, (0.3, 0.5)) for seed in (1, 2))
    for a, b in zip(same, fit_columns("ideal", 4, 1, (0.3, 0.5)), strict=True):
        np.testing.assert_array_equal(a.conductance_s, b.conductance_s)
        np.testing.assert_array_equal(a.codes, b.codes)
    for a, b in itertools.combinations([*same, *other], 2):
        assert not np.array_equal(a.conductance_s, b.conductance_s)


def test_what_is_held_out_was_not_fitted():
    columns = plan(Options(seed=1, effort="full"))
    names = [c.name for c in columns]
    assert len(set(names)) == len(names)
    fitted = [c for c in columns if c.role == "fit"]
    held = [c for c in columns if c.role == "held_out"]
    assert {c.column for c in fitted}.isdisjoint({c.column for c in held})
    lines = {g.tobytes() for c in fitted for g in c.conductance_s}
    assert not any(g.tobytes() in lines for c in held for g in c.conductance_s)
    assert {(c.clamp, c.distribution) for c in held} == set(itertools.product(("ideal", "ota"), DISTRIBUTIONS))
    # Only the wire differs between the wire scales of one column.
    scales = [c for c in held if c.clamp == "ideal" and c.distribution == "gaussian" and c.column == "held0"]
    assert sorted(c.wire_scale for c in scales) == [1.0, 2.0, 3.0, 10.0]
    assert all(np.array_equal(c.codes, scales[0].codes) for c in scales)


def test_pairs_and_codes():
    rng = np.random.default_rng(0)
    plus, minus = pair_conductances(rng, 25e-6, 4096)
    assert np.all((plus == G_MIN_S) | (minus == G_MIN_S))
    w = (plus - minus) / (25e-6 - G_MIN_S)
    assert abs(w.mean()) < 0.02
    assert w.std() == pytest.approx(1 / 3, rel=0.05)
    gaussian, uniform, sparse, on = (draw_codes(rng, d, 4, 4096) for d in DISTRIBUTIONS)
    assert (gaussian == 0).mean() == pytest.approx(0.5, abs=0.03)
    assert uniform.mean() == pytest.approx(CODE_MAX / 2, rel=0.03)
    assert (sparse > 0).mean() == pytest.approx(0.1, abs=0.01)
    assert on.min() >= 96
    assert max(x.max() for x in (gaussian, uniform, sparse, on)) == CODE_MAX
    with pytest.raises(ValueError, match="normal"):
        draw_codes(rng, "normal", 1)


def test_the_floor_repeats_held_out_vectors():
    held = held_out_columns(1, 4, 1, {"ideal": DISTRIBUTIONS, "ota": DISTRIBUTIONS}, (3.0,), (0.3, 0.5))
    floor = floor_columns(held, 2)
    assert [c.clamp for c in floor] == ["ideal", "ota"]
    for c in floor:
        original = next(h for h in held if h.name == c.of)
        np.testing.assert_array_equal(c.codes, original.codes[:2])
        np.testing.assert_array_equal(c.conductance_s, original.conductance_s)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"effort": "fast"}, InputError, "effort: expected one of sweep, quick, default, full; got 'fast'"),
        ({"held_out_columns": 0}, InputError, "held-out columns: expected 1 or more; got 0"),
        ({"jobs": -1}, InputError, "jobs: expected 1 or more; got -1"),
        ({"seed": -1}, InputError, "seed: expected 0 or more; got -1"),
        ({"w_select_um": 0.01}, InputError, "select width: expected .* to 2 µm; got 0.01"),
        ({"technology": "freepdk54"}, TechnologyError, "freepdk45"),
        ({"corner": "slow"}, TechnologyError, "slow"),
    ],
)
def test_options_are_checked(wrong, error, message):
    with pytest.raises(error, match=message):
        Options(**wrong)


@pytest.mark.parametrize("topology", ["gated", "tied"])
def test_columns_of_another_seed_judge_and_share_nothing(topology):
    old, new = (plan(Options(effort="quick", topology=topology, seed=seed, held_out_only=True)) for seed in (1, 99))
    assert {c.role for c in new} == {"held_out"}
    for a, b in zip(old, new, strict=True):
        assert a.name == b.name
        assert not np.array_equal(a.conductance_s, b.conductance_s)
        assert not np.array_equal(a.codes, b.codes)
    # What judges is what judges with the fitted columns beside it.
    whole = plan(Options(effort="quick", topology=topology, seed=1))
    assert [c.name for c in whole if c.role == "held_out"] == [c.name for c in old]


def test_a_larger_effort_is_a_larger_plan():
    sizes = [sum(map(expected_cpu_s, plan(Options(effort=name)))) for name in EFFORTS]
    assert sizes == sorted(set(sizes))
    assert len(plan(Options(effort="quick", held_out_columns=2))) > len(plan(Options(effort="quick")))
    for name in EFFORTS:
        assert "decks in ngspice, 2 at a time" in estimate(Options(effort=name, jobs=2))


def test_one_width():
    options = Options(w_select_um=0.4, effort="quick")
    assert {c.w_select_um for c in plan(options)} == {0.4}
    assert options.w_ref_um == 0.4
