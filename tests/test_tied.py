"""The tied column's equations: laws of a linear network, limits, symmetry, and the node-by-node twin."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from aimcard.models import tied
from aimcard.models.tied_twin import static_column, static_gradients

OHMIC = tied.TiedCell(1e-3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.5, 0.2)
CELL = tied.TiedCell(1400.0, 0.005, 5.0, -10.0, 20.0, 1e-10, 0.16, 0.5, 0.2)
EDGES = tied.TiedEdges(2e-10, 2.1e-10, 1.9e-10, 2.05e-10)
PULSE = tied.TiedPulse(2e-12, 2e-12, 1e-7)


def pairs(rows: int, seed: int = 1, columns: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return tuple(torch.tensor(rng.uniform(0.1e-6, 25e-6, (columns, rows))) for _ in range(2))  # type: ignore[return-value]


def patterns(rows: int, count: int, seed: int = 2) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).integers(-1, 2, (count, rows)), dtype=torch.float64)


def static(cell: tied.TiedCell, g, s, r_ohm: float = 0.15, bend: bool = True, clamp=None):
    c = tied.effective_column(cell, tied.TiedWire(r_ohm, 0.0), *g, 0.5)
    return tied.solve_column(c, s, clamp or tied.fixed_clamp(), bend)


def test_ohmic_cells_are_one_product_with_effective_weights():
    g, s = pairs(512), patterns(512, 7)
    whole = static(OHMIC, g, s)
    c = tied.effective_column(OHMIC, tied.TiedWire(0.15, 0.0), *g, 0.5)
    assert_allclose(whole.current_a, c.weight_a @ s.T, rtol=0, atol=1e-12 * float(whole.current_a.abs().max()))


def test_ohmic_cells_superpose_in_the_node_by_node_solution():
    g, s = pairs(512, columns=1), patterns(512, 6)
    plus, minus = (x[0].numpy() for x in g)
    solve = lambda p: static_column(OHMIC, plus, minus, p, r_bit_ohm=0.15, w_select_um=0.5).line_current_a  # noqa: E731
    both = s[:3].clone()
    both[:, ::2] = s[3:, ::2]
    even, odd = both.clone(), both.clone()
    even[:, 1::2], odd[:, ::2] = 0, 0
    assert_allclose(solve(even) + solve(odd), solve(both), rtol=0, atol=1e-12 * np.abs(solve(both)).max())


def test_conductance_at_the_read_out_does_not_depend_on_the_inputs():
    g, s = pairs(64), patterns(64, 5)
    at = {v: static(OHMIC, g, s, clamp=tied.fixed_clamp(v)).current_a for v in (0.0, 1e-3)}
    y = (at[1e-3] - at[0.0]) / 1e-3
    assert_allclose(y, y[:, :1].expand_as(y), rtol=1e-9)


def test_without_wire_the_weights_are_the_cells_own():
    g = pairs(64)
    c = tied.effective_column(OHMIC, tied.TiedWire(0.0, 0.0), *g, 0.5)
    assert_allclose(c.weight_a, 0.2 * (g[0] - g[1]), rtol=1e-6)
    assert_allclose(c.y_s, (g[0] + g[1]).sum(-1), rtol=1e-6)


@pytest.mark.parametrize("cell", [OHMIC, dataclasses.replace(CELL, i_gate_a=0.0)])
def test_negative_inputs_are_swapped_weights(cell):
    g, s = pairs(64), patterns(64, 5)
    assert_allclose(static(cell, g, -s).current_a, static(cell, (g[1], g[0]), s).current_a, rtol=1e-12)


def test_equal_pairs_draw_only_the_even_part():
    g = pairs(64)
    c = tied.effective_column(CELL, tied.TiedWire(0.15, 0.0), g[0], g[0], 0.5)
    assert float(c.weight_a.abs().max()) < 1e-18
    assert float(c.even_a.abs().max()) > 1e-12


@pytest.mark.parametrize(("r_ohm", "tolerance"), [(0.0, 1e-9), (0.15, 3e-6), (1.5, 1e-4)])
def test_against_the_node_by_node_twin(r_ohm, tolerance):
    g, s = pairs(128), patterns(128, 9)
    fast = static(CELL, g, s, r_ohm).current_a
    for k in range(2):
        slow = static_column(CELL, g[0][k].numpy(), g[1][k].numpy(), s.numpy(), r_bit_ohm=r_ohm, w_select_um=0.5)
        assert_allclose(fast[k], slow.line_current_a, rtol=0, atol=tolerance * np.abs(slow.line_current_a).max())


def test_what_is_left_is_of_higher_order_than_superposition():
    """Without the bend the error goes with the wire's drop, with it with the drop's square."""
    g, s = pairs(256), patterns(256, 9)
    plus, minus = (x[0].numpy() for x in g)
    error = {}
    for r in (0.02, 0.08):
        slow = static_column(CELL, plus, minus, s.numpy(), r_bit_ohm=r, w_select_um=0.5).line_current_a
        for bend in (False, True):
            error[r, bend] = np.abs(static(CELL, g, s, r, bend).current_a[0].numpy() - slow).max()
    # Four times the wire: first order grows at most fourfold (the drop saturates), second order by more.
    assert error[0.08, True] < error[0.08, False] / 3
    assert 2.5 < error[0.08, False] / error[0.02, False] < 4.1
    assert error[0.08, True] / error[0.02, True] > 8


def test_node_voltages_against_the_twin():
    g, s = pairs(96), patterns(96, 4)
    fast = static(OHMIC, g, s, 2.0, clamp=tied.fixed_clamp(2e-3)).v_node
    slow = static_column(OHMIC, g[0][1].numpy(), g[1][1].numpy(), s.numpy(), r_bit_ohm=2.0, w_select_um=0.5, v_clamp=2e-3)
    assert_allclose(fast[1], slow.v_bit_v, rtol=0, atol=1e-13)


@pytest.mark.parametrize("which", [0, 1])
def test_gradients_against_the_twin(which):
    g, s = pairs(64), patterns(64, 3)
    g = tuple(x.requires_grad_(True) for x in g)
    for k in range(3):
        current = static(CELL, g, s).current_a[0, k]
        (fast,) = torch.autograd.grad(current, g[which])
        plus, minus = (x[0].detach().numpy() for x in g)
        slow = static_gradients(CELL, plus, minus, s.numpy(), r_bit_ohm=0.15, w_select_um=0.5)[1 + which][k]
        assert_allclose(fast[0], slow, rtol=0, atol=2e-5 * np.abs(slow).max())


def test_slope_is_the_derivative():
    g, source = pairs(16)[0], torch.tensor([-0.2, 0.0, 0.2], dtype=torch.float64)[:, None, None]
    v = torch.zeros_like(g + source).requires_grad_(True)
    (slope,) = torch.autograd.grad(tied.cell_current(CELL, g, v, source, 0.4).sum(), v)
    assert_allclose(tied.cell_slope(CELL, g, source, 0.4), slope, rtol=1e-10)


def test_charge_of_the_edges():
    """Over the window, an edge's charge is its cells' current times the difference of the end's and the start's delay."""
    g = pairs(32)
    codes = torch.tensor(np.random.default_rng(3).integers(-20, 21, (2, 32)))
    wire = tied.TiedWire(0.15, 2e-15)
    args = (OHMIC, wire, PULSE, EDGES, *g, codes, 24, 1e-9, 0.5, tied.fixed_clamp())
    current, solution = tied.slot_currents(*args)
    extra = (current - solution.current_a).sum(-1) * 1e-9
    c = tied.effective_column(OHMIC, wire, *g, 0.5)
    down, up = EDGES.down_end_s - EDGES.down_start_s, EDGES.up_end_s - EDGES.up_start_s
    plus = torch.where(codes > 0, down, up)
    minus = torch.where(codes > 0, up, down)
    expected = (torch.sign(codes) * c.transfer * 0.2 * (g[0] * plus - g[1] * minus)).sum(-1)
    assert_allclose(extra, expected, rtol=1e-6)
