"""Laws of the node-by-node column: closed forms, conservation, a dense solve, adjoint gradients, ngspice."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.optimize import root

from aimcard.models.errors import AimcardError, InputError
from aimcard.models.ladder import OhmicCell, line_current_gradient, solve_ladder
from aimcard.netlists.ngspice import Deck, run

OHMIC = OhmicCell()
LEAKY = OhmicCell(leakage_a=0.8e-9)
GROUNDS = ("near", "far", "both")


@dataclass(frozen=True)
class QuadraticCell:
    """i = on·G·v·(1 - v/v0) + curvature in the return voltage: derivatives to the two nodes differ."""

    v0_v: float = 1.0
    body_per_v: float = 0.7

    def current(self, conductance_s, v_bit_v, v_return_v, on):
        v, degrade = v_bit_v - v_return_v, 1 - self.body_per_v * v_return_v
        g = np.where(on, conductance_s, 0.0)
        i = g * v * (1 - v / self.v0_v) * degrade
        slope = g * (1 - 2 * v / self.v0_v) * degrade
        return i, slope, -slope - self.body_per_v * g * v * (1 - v / self.v0_v)

    def current_per_conductance(self, conductance_s, v_bit_v, v_return_v, on):
        v = v_bit_v - v_return_v
        return np.where(on, v * (1 - v / self.v0_v) * (1 - self.body_per_v * v_return_v), 0.0)


class RunawayCell:
    """Derivatives of the wrong sign: Newton cannot converge."""

    def current(self, conductance_s, v_bit_v, v_return_v, on):
        v = v_bit_v - v_return_v
        return conductance_s * v + 1e-2 * v**3, -conductance_s * 3, conductance_s * 3


def random_case(seed, rows=7, patterns=5, g_max=2e-3):
    """Conductances large enough for a strong IR-drop in a few rows."""
    rng = np.random.default_rng(seed)
    return rng.uniform(1e-5, g_max, rows), rng.random((patterns, rows)) < 0.6


def dense_line_current(g_lines, on, r_bit, r_return, v_clamp, ground, leakage=0.0):
    """One pattern by numpy.linalg on the whole nodal matrix; g_lines (lines, rows). Current of every line."""
    lines, rows = g_lines.shape
    size = (lines + 1) * rows
    matrix, source = np.zeros((size, size)), np.zeros((size, lines))

    def join(p, q, g):
        matrix[p, p] += g
        if q is not None:
            matrix[q, q] += g
            matrix[p, q] -= g
            matrix[q, p] -= g

    for line, i in itertools.product(range(lines + 1), range(rows - 1)):
        join(line * rows + i, line * rows + i + 1, 1 / (r_return if line == lines else r_bit))
    for line in range(lines):
        last = line * rows + rows - 1
        join(last, None, 2 / r_bit)
        source[last, line] = 2 / r_bit
        for i in range(rows):
            join(line * rows + i, lines * rows + i, g_lines[line, i] if on[i] else leakage / 0.2)
    if ground in ("near", "both"):
        join(size - 1, None, 2 / r_return)
    if ground in ("far", "both"):
        join(lines * rows, None, 2 / r_return)
    v = np.linalg.solve(matrix, source @ np.broadcast_to(v_clamp, lines))
    return (np.broadcast_to(v_clamp, lines) - v[rows - 1 : lines * rows : rows]) * 2 / r_bit


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


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("rows", [1, 2, 5, 11])
def test_equals_a_dense_nodal_solve(ground, rows):
    g, on = random_case(rows, rows=rows)
    s = solve_ladder(LEAKY, g, on, r_bit_ohm=30.0, r_return_ohm=17.0, v_clamp_v=0.2, return_ground=ground)
    dense = [dense_line_current(g[None], p, 30.0, 17.0, 0.2, ground, 0.8e-9)[0] for p in on]
    assert s.line_current_a == pytest.approx(np.array(dense), rel=1e-11)


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("rows", [1, 2, 6])
def test_shared_return_equals_a_dense_nodal_solve(ground, rows):
    g, on = random_case(rows, rows=rows)
    pair, v = np.stack([g, g[::-1] / 3]), np.array([0.2, 0.17])
    s = solve_ladder(
        LEAKY,
        pair,
        on,
        r_bit_ohm=30.0,
        r_return_ohm=17.0,
        v_clamp_v=v,
        return_ground=ground,
        shared_return=True,
    )
    dense = np.array([dense_line_current(pair, p, 30.0, 17.0, v, ground, 0.8e-9) for p in on])
    np.testing.assert_allclose(s.line_current_a, dense, rtol=1e-10, atol=1e-16)


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


@pytest.mark.parametrize("ground", GROUNDS)
def test_nonlinear_cell_against_a_general_root_finder(ground):
    g, on = random_case(11, rows=6)
    cell, rb, rr, v_clamp = QuadraticCell(), 30.0, 20.0, 0.3
    s = solve_ladder(cell, g, on, r_bit_ohm=rb, r_return_ohm=rr, v_clamp_v=v_clamp, return_ground=ground)
    assert 1 < s.iterations <= 8

    def kirchhoff(v, pattern):
        vb, vr = v[:6], v[6:]
        i = cell.current(g, vb, vr, pattern)[0]
        bit, ret = np.diff(vb) / rb, np.diff(vr) / rr
        out_bit, out_ret = i.copy(), -i
        for out, flow in ((out_bit, bit), (out_ret, ret)):
            out[:-1] -= flow
            out[1:] += flow
        out_bit[-1] += (vb[-1] - v_clamp) * 2 / rb
        if ground != "far":
            out_ret[-1] += vr[-1] * 2 / rr
        if ground != "near":
            out_ret[0] += vr[0] * 2 / rr
        return np.concatenate([out_bit, out_ret]) * 1e3

    for p, pattern in enumerate(on):
        start = np.concatenate([np.full(6, v_clamp), np.zeros(6)])
        found = root(kirchhoff, start, args=(pattern,), tol=1e-13).x
        assert s.v_bit_v[p] == pytest.approx(found[:6], abs=1e-9)
        assert s.v_return_v[p] == pytest.approx(found[6:], abs=1e-9)


def clamp_curve(current_a):
    """A regulator of 15 to 20 ohm that also drops with the square of its current."""
    return 0.2 - 15.0 * current_a - 4e3 * current_a**2, -15.0 - 8e3 * current_a


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
    options: dict[str, Any] = {
        "r_bit_ohm": 20.0,
        "r_return_ohm": 30.0,
        "v_clamp_v": clamp,
        "return_ground": ground,
    }
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
    options: dict[str, Any] = {
        "r_bit_ohm": 20.0,
        "r_return_ohm": 30.0,
        "v_clamp_v": 0.2,
        "return_ground": "both",
    }
    _, gradient = line_current_gradient(cell, pair, on, shared_return=True, **options)
    for line, i in itertools.product(range(2), range(5)):
        step = np.zeros_like(pair)
        step[line, i] = 1e-5 * pair[line, i]
        up = solve_ladder(cell, pair + step, on, shared_return=True, **options).line_current_a
        down = solve_ladder(cell, pair - step, on, shared_return=True, **options).line_current_a
        np.testing.assert_allclose(
            gradient[:, :, line, i], (up - down) / (2 * step[line, i]), rtol=1e-6, atol=1e-9
        )


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


@pytest.mark.parametrize("ground", GROUNDS)
def test_512_rows_equal_ngspice(ground, tmp_path):
    """A pair of bit lines on a shared return line, resistors only, against ngspice's operating point."""
    rows, rb, rr = 512, 0.15, 0.2
    rng = np.random.default_rng(17)
    g, on = rng.uniform(0.1e-6, 25e-6, (2, rows)), rng.random(rows) < 0.5
    lines = ["Vp clampp 0 0.2", "Vm clampm 0 0.19", "Vnear near 0 0", "Vfar far 0 0"]
    for line in "pm":
        lines += [f"R{line}{i} {line}{i} {line}{i + 1} {rb}" for i in range(rows - 1)]
        lines += [f"R{line}end {line}{rows - 1} clamp{line} {rb / 2}"]
    lines += [f"Rr{i} r{i} r{i + 1} {rr}" for i in range(rows - 1)]
    lines += [f"Rnear r{rows - 1} near {rr / 2}"] * (ground != "far")
    lines += [f"Rfar r0 far {rr / 2}"] * (ground != "near")
    for k, i in itertools.product(range(2), np.flatnonzero(on)):
        lines.append(f"Rg{'pm'[k]}{i} {'pm'[k]}{i} r{i} {1 / g[k, i]:.17g}")
    text = "\n".join([*lines, ".save i(vp) i(vm) i(vnear) i(vfar) v(p0) v(r100)", ".op", ".end", ""])
    spice = run(Deck(f"ohmic ladder, {ground} ground", text, expected_cpu_s=0.5), cache=tmp_path)
    s = solve_ladder(
        OHMIC,
        g,
        on,
        r_bit_ohm=rb,
        r_return_ohm=rr,
        v_clamp_v=np.array([0.2, 0.19]),
        return_ground=ground,
        shared_return=True,
    )
    assert s.line_current_a[0, 0] == pytest.approx(-spice["i(vp)"][0], rel=1e-9)
    assert s.line_current_a[0, 1] == pytest.approx(-spice["i(vm)"][0], rel=1e-9)
    assert s.return_near_a[0] == pytest.approx(spice["i(vnear)"][0], rel=1e-9, abs=1e-15)
    assert s.return_far_a[0] == pytest.approx(spice["i(vfar)"][0], rel=1e-9, abs=1e-15)
    assert s.v_bit_v[0, 0, 0] == pytest.approx(spice["v(p0)"][0], rel=1e-9)
    assert s.v_return_v[0, 100] == pytest.approx(spice["v(r100)"][0], rel=1e-9)


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
