"""Laws of the node-by-node column: closed forms, conservation, superposition, what is refused."""

from typing import Any

import numpy as np
import pytest

from aimcard.models.errors import AimcardError, InputError
from aimcard.models.ladder import solve_ladder
from made_ladder import GROUNDS, LEAKY, OHMIC, QuadraticCell, random_case


class RunawayCell:
    """Derivatives of the wrong sign: Newton cannot converge."""

    def current(self, conductance_s, v_bit_v, v_return_v, on):
        v = v_bit_v - v_return_v
        return conductance_s * v + 1e-2 * v**3, -conductance_s * 3, conductance_s * 3


@pytest.mark.parametrize("ground", GROUNDS)
def test_single_cell_closed_form(ground):
    g, rb, rr = 1e-3, 40.0, 60.0
    s = solve_ladder(OHMIC, [g], [True], r_bit_ohm=rb, r_return_ohm=rr, v_clamp_v=0.2, return_ground=ground)
    r_ground = rr / 4 if ground == "both" else rr / 2
    assert s.line_current_a[0] == pytest.approx(0.2 / (1 / g + rb / 2 + r_ground), rel=1e-13)


@pytest.mark.parametrize("ground", GROUNDS)
def test_wire_without_resistance_is_the_ohmic_sum(ground):
    g, on = random_case(1)
    s = solve_ladder(LEAKY, g, on, r_bit_ohm=0, r_return_ohm=0, v_clamp_v=0.2, return_ground=ground)
    assert s.line_current_a == pytest.approx(0.2 * on @ g + 0.8e-9 * (~on).sum(1), rel=1e-13)
    assert np.all(s.v_bit_v == 0.2)
    assert np.all(s.v_return_v == 0.0)


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("cell", [LEAKY, QuadraticCell()])
@pytest.mark.parametrize("shared", [False, True])
def test_charge_is_conserved(cell, ground, shared):
    g, on = random_case(2, rows=60, g_max=1e-3)
    g = np.stack([g, g[::-1]]) if shared else g
    s = solve_ladder(
        cell,
        g,
        on,
        r_bit_ohm=0.4,
        r_return_ohm=0.7,
        v_clamp_v=0.2,
        return_ground=ground,
        shared_return=shared,
    )
    assert s.cell_current_a.sum(-1) == pytest.approx(s.line_current_a, rel=1e-11)
    total = s.line_current_a.sum(-1) if shared else s.line_current_a
    assert s.return_current_a == pytest.approx(total, rel=1e-11)
    if ground == "near":
        assert np.all(s.return_far_a == 0)
    if ground == "far":
        assert np.all(s.return_near_a == 0)


def test_shared_return_without_resistance_is_two_single_lines():
    g, on = random_case(3, rows=20)
    pair = np.stack([g, g[::-1]])
    options: dict[str, Any] = {"r_bit_ohm": 5.0, "r_return_ohm": 0.0, "v_clamp_v": 0.2}
    both = solve_ladder(QuadraticCell(), pair, on, shared_return=True, **options)
    for line in range(2):
        one = solve_ladder(QuadraticCell(), pair[line], on, **options)
        assert both.line_current_a[:, line] == pytest.approx(one.line_current_a, rel=1e-11)


@pytest.mark.parametrize("ground", GROUNDS)
def test_ohmic_ladder_superposes(ground):
    """Two clamps of one pair: their currents add; one clamp: the current is proportional to its voltage."""
    g, on = random_case(4, rows=30)

    def current(v):
        options: dict[str, Any] = {
            "r_bit_ohm": 2.0,
            "r_return_ohm": 3.0,
            "return_ground": ground,
            "shared_return": True,
        }
        return solve_ladder(
            LEAKY, np.stack([g, g[::-1]]), on, v_clamp_v=np.array(v), **options
        ).line_current_a

    np.testing.assert_allclose(current([0.2, 0.0]) + current([0.0, 0.3]), current([0.2, 0.3]), rtol=1e-11)
    np.testing.assert_allclose(2.5 * current([0.2, 0.3]), current([0.5, 0.75]), rtol=1e-11)


@pytest.mark.parametrize("ground", GROUNDS)
def test_ohmic_pair_is_reciprocal(ground):
    """The current that 1 V on G+ drives out of G- equals the current that 1 V on G- drives out of G+."""
    g, on = random_case(5, rows=30)
    pair = np.stack([g, g[::-1] * 0.4])
    options: dict[str, Any] = {
        "r_bit_ohm": 2.0,
        "r_return_ohm": 3.0,
        "return_ground": ground,
        "shared_return": True,
    }
    plus = solve_ladder(LEAKY, pair, on, v_clamp_v=np.array([1.0, 0.0]), **options)
    minus = solve_ladder(LEAKY, pair, on, v_clamp_v=np.array([0.0, 1.0]), **options)
    assert np.all(plus.line_current_a[:, 1] < 0)
    np.testing.assert_allclose(plus.line_current_a[:, 1], minus.line_current_a[:, 0], rtol=1e-10)


@pytest.mark.parametrize("ground", GROUNDS)
def test_scale_invariance(ground):
    g, on = random_case(6, rows=40)
    for k in (1e-3, 7.0):
        a = solve_ladder(OHMIC, g, on, r_bit_ohm=2.0, r_return_ohm=3.0, v_clamp_v=0.2, return_ground=ground)
        b = solve_ladder(
            OHMIC, k * g, on, r_bit_ohm=2 / k, r_return_ohm=3 / k, v_clamp_v=0.2, return_ground=ground
        )
        assert b.line_current_a == pytest.approx(k * a.line_current_a, rel=1e-12)


def test_far_ground_mirrors_when_bit_and_return_are_exchanged():
    """Grounded at the far end, the column seen from its ground is the mirrored column seen from its clamp."""
    g, on = random_case(7, rows=25)
    a = solve_ladder(LEAKY, g, on, r_bit_ohm=2.0, r_return_ohm=9.0, v_clamp_v=0.2, return_ground="far")
    b = solve_ladder(
        LEAKY, g[::-1], on[:, ::-1], r_bit_ohm=9.0, r_return_ohm=2.0, v_clamp_v=0.2, return_ground="far"
    )
    assert a.line_current_a == pytest.approx(b.line_current_a, rel=1e-11)


def test_bit_line_without_resistance_cannot_tell_near_from_far():
    g, on = random_case(8, rows=25)
    near = solve_ladder(LEAKY, g, on, r_bit_ohm=0.0, r_return_ohm=9.0, v_clamp_v=0.2)
    far = solve_ladder(
        LEAKY, g[::-1], on[:, ::-1], r_bit_ohm=0.0, r_return_ohm=9.0, v_clamp_v=0.2, return_ground="far"
    )
    both = solve_ladder(LEAKY, g, on, r_bit_ohm=0.0, r_return_ohm=9.0, v_clamp_v=0.2, return_ground="both")
    assert near.line_current_a == pytest.approx(far.line_current_a, rel=1e-11)
    assert np.all(both.line_current_a > near.line_current_a)


def test_near_ground_is_one_line_of_the_summed_resistance():
    """The identity that the Thévenin reduction of a column uses (models/column.py); it fails for the other grounds."""
    g, on = random_case(9, rows=40)
    two = solve_ladder(LEAKY, g, on, r_bit_ohm=2.0, r_return_ohm=3.0, v_clamp_v=0.2)
    one = solve_ladder(LEAKY, g, on, r_bit_ohm=5.0, r_return_ohm=0.0, v_clamp_v=0.2)
    far = solve_ladder(LEAKY, g, on, r_bit_ohm=2.0, r_return_ohm=3.0, v_clamp_v=0.2, return_ground="far")
    assert two.line_current_a == pytest.approx(one.line_current_a, rel=1e-11)
    assert np.all(np.abs(far.line_current_a / one.line_current_a - 1) > 1e-3)


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("cell", [LEAKY, QuadraticCell()])
def test_current_falls_with_wire_resistance(cell, ground):
    g, on = random_case(10, rows=30)
    for name in ("r_bit_ohm", "r_return_ohm"):
        currents = []
        for r in (0.0, 0.5, 1.0, 3.0):
            wire: dict[str, Any] = {"r_bit_ohm": 0.5, "r_return_ohm": 0.5} | {name: r}
            s = solve_ladder(cell, g, on, v_clamp_v=0.2, return_ground=ground, **wire)
            currents.append(s.line_current_a)
        assert np.all(np.diff(currents, axis=0) < 0)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"conductance_s": [1e-6, -1e-6]}, "conductance_s"),
        ({"conductance_s": [1e-6, np.nan]}, "conductance_s"),
        ({"conductance_s": 1e-6}, "conductance_s"),
        ({"on": [True, True, False]}, "on"),
        ({"on": np.ones((3, 2)), "conductance_s": np.ones((2, 2))}, "patterns"),
        ({"r_bit_ohm": -1.0}, "r_bit_ohm"),
        ({"r_return_ohm": np.nan}, "r_return_ohm"),
        ({"return_ground": "west"}, "return_ground"),
        ({"v_clamp_v": np.inf}, "v_clamp_v"),
        ({"shared_return": True}, r"\(2, rows\)"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, names):
    good = {"conductance_s": [1e-6, 2e-6], "on": [True, True], "v_clamp_v": 0.2}
    good |= {"r_bit_ohm": 1.0, "r_return_ohm": 1.0}
    with pytest.raises(InputError, match=names) as caught:
        solve_ladder(OHMIC, **(good | change))
    assert "\n" not in str(caught.value)


def test_newton_that_does_not_converge_says_so():
    with pytest.raises(AimcardError, match="ladder: expected Newton") as caught:
        solve_ladder(
            RunawayCell(), [1e-3, 1e-3], [True, True], r_bit_ohm=50.0, r_return_ohm=0.0, v_clamp_v=0.2
        )
    assert "\n" not in str(caught.value)
