"""The node-by-node column against other solvers: a dense nodal matrix, a root finder, ngspice."""

import itertools

import numpy as np
import pytest
from scipy.optimize import root

from aimcard.models.ladder import solve_ladder
from aimcard.netlists.ngspice import Deck, run
from made_ladder import GROUNDS, LEAKY, OHMIC, QuadraticCell, random_case


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
    s = solve_ladder(LEAKY, pair, on, r_bit_ohm=30.0, r_return_ohm=17.0, v_clamp_v=v, return_ground=ground, shared_return=True)
    dense = np.array([dense_line_current(pair, p, 30.0, 17.0, v, ground, 0.8e-9) for p in on])
    np.testing.assert_allclose(s.line_current_a, dense, rtol=1e-10, atol=1e-16)


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
        OHMIC, g, on, r_bit_ohm=rb, r_return_ohm=rr, v_clamp_v=np.array([0.2, 0.19]), return_ground=ground, shared_return=True
    )
    assert s.line_current_a[0, 0] == pytest.approx(-spice["i(vp)"][0], rel=1e-9)
    assert s.line_current_a[0, 1] == pytest.approx(-spice["i(vm)"][0], rel=1e-9)
    assert s.return_near_a[0] == pytest.approx(spice["i(vnear)"][0], rel=1e-9, abs=1e-15)
    assert s.return_far_a[0] == pytest.approx(spice["i(vfar)"][0], rel=1e-9, abs=1e-15)
    assert s.v_bit_v[0, 0, 0] == pytest.approx(spice["v(p0)"][0], rel=1e-9)
    assert s.v_return_v[0, 100] == pytest.approx(spice["v(r100)"][0], rel=1e-9)
