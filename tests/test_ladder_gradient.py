"""The node-by-node column solved with its clamp, in batches, and its adjoint gradients."""

import itertools
from typing import Any

import numpy as np
import pytest

from aimcard.models.ladder import line_current_gradient, solve_ladder
from made_ladder import GROUNDS, LEAKY, QuadraticCell, clamp_curve, random_case


@pytest.mark.parametrize("shared", [False, True])
def test_clamp_curve_is_solved_together_with_the_column(shared):
    g, on = random_case(12, rows=30, g_max=2e-4)
    g = np.stack([g, g[::-1]]) if shared else g
    options: dict[str, Any] = {"r_bit_ohm": 0.5, "r_return_ohm": 0.5, "shared_return": shared}
    s = solve_ladder(QuadraticCell(), g, on, v_clamp_v=clamp_curve, **options)
    assert s.v_clamp_v == pytest.approx(clamp_curve(s.line_current_a)[0], rel=1e-12)
    fixed = solve_ladder(QuadraticCell(), g, on, v_clamp_v=s.v_clamp_v, **options)
    assert s.line_current_a == pytest.approx(fixed.line_current_a, rel=1e-11)


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("clamp", [0.25, clamp_curve])
@pytest.mark.parametrize("cell", [LEAKY, QuadraticCell()])
def test_gradient_by_finite_differences(cell, ground, clamp):
    g, on = random_case(13, rows=8)
    options: dict[str, Any] = {"r_bit_ohm": 20.0, "r_return_ohm": 30.0, "v_clamp_v": clamp, "return_ground": ground}
    _, gradient = line_current_gradient(cell, g, on, **options)
    assert gradient.shape == on.shape
    for i in range(len(g)):
        step = 1e-5 * g[i] * (np.arange(len(g)) == i)
        up = solve_ladder(cell, g + step, on, **options).line_current_a
        down = solve_ladder(cell, g - step, on, **options).line_current_a
        np.testing.assert_allclose(gradient[:, i], (up - down) / (2 * step[i]), rtol=1e-6, atol=1e-9)


def test_gradient_with_a_shared_return():
    g, on = random_case(14, rows=5)
    pair, cell = np.stack([g, g[::-1] / 2]), QuadraticCell()
    options: dict[str, Any] = {"r_bit_ohm": 20.0, "r_return_ohm": 30.0, "v_clamp_v": 0.2, "return_ground": "both"}
    _, gradient = line_current_gradient(cell, pair, on, shared_return=True, **options)
    for line, i in itertools.product(range(2), range(5)):
        step = np.zeros_like(pair)
        step[line, i] = 1e-5 * pair[line, i]
        up = solve_ladder(cell, pair + step, on, shared_return=True, **options).line_current_a
        down = solve_ladder(cell, pair - step, on, shared_return=True, **options).line_current_a
        np.testing.assert_allclose(gradient[:, :, line, i], (up - down) / (2 * step[line, i]), rtol=1e-6, atol=1e-9)


def test_ohmic_gradient_is_the_square_of_the_cell_voltage():
    """The adjoint gives v_i²/V for a row that is on."""
    g, on = random_case(15, rows=40)
    s, gradient = line_current_gradient(LEAKY, g, on, r_bit_ohm=2.0, r_return_ohm=3.0, v_clamp_v=0.2)
    np.testing.assert_allclose(gradient, on * (s.v_bit_v - s.v_return_v) ** 2 / 0.2, rtol=1e-11)


def test_a_batch_larger_than_a_block_equals_its_patterns_one_by_one():
    rng = np.random.default_rng(16)
    g, on = rng.uniform(1e-5, 1e-3, (1100, 4)), rng.random((1100, 4)) < 0.5
    v = rng.uniform(0.1, 0.3, 1100)
    options: dict[str, Any] = {"r_bit_ohm": 20.0, "r_return_ohm": 30.0}
    s, gradient = line_current_gradient(QuadraticCell(), g, on, v_clamp_v=v, **options)
    for p in (0, 511, 512, 1099):
        one, one_gradient = line_current_gradient(QuadraticCell(), g[p], on[p], v_clamp_v=v[p], **options)
        assert s.line_current_a[p] == pytest.approx(one.line_current_a[0], rel=1e-12, abs=1e-18)
        assert gradient[p] == pytest.approx(one_gradient[0], rel=1e-11)
