"""Laws of the fast equations: limits, conservation, linearity, order, gradients. The circuit is judged elsewhere."""

import dataclasses
import itertools
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline, PchipInterpolator

from aimcard.calibrate.parameters import SPECS
from aimcard.models.adc import AdcParameters, count, inl_dnl, phase
from aimcard.models.cell import (
    APPARENT_WEIGHTS,
    apparent_conductance,
    cell_current,
    conducting,
    expand,
    gate_current,
    idle_weight,
    leakage_current,
    on_resistance,
)
from aimcard.models.column import conducting_sums, segment_bounds
from aimcard.models.errors import CardError, InputError
from aimcard.models.line import LineDrive, LineParameters, edge_charges, ideal_clamp, slot_currents, static_solution
from aimcard.models.lut import lookup, lookup_slope, slopes
from aimcard.models.pulse import (
    EDGE_TABLES,
    R_REF_OHM,
    Edges,
    fall_delay,
    recharge_amount,
    recharge_share,
    rise_charge,
    rise_delay,
)
from aimcard.models.readout import (
    SPEED,
    StepResponse,
    lagged,
    mirror,
    regulated_clamp,
    response_names,
    step_charges,
)
from aimcard.models.tile import (
    TileModel,
    ideal_charge,
    ideal_current,
    line_parameters,
    needed_parameters,
    readout_parameters,
)

V, W, T = 0.2, 0.5, 1e-9
EDGES = Edges(40e-12, 38e-12, 25e-12, 22e-12)
NO_EDGES = Edges(0.0, 0.0, 0.0, 0.0)
# Shapes and widths are divided by, all else may vanish.
KEPT = ("dw_", "v_leak", "v_gate", "g_small", "c_node", "r_on")


def t(x: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(x), dtype=torch.float64)


def values(**changes: float) -> dict[str, Any]:
    """Start values of the fits, changed."""
    start = {name: spec.start for name, spec in SPECS.items()}
    return start | {"r_return_ohm": start["r_bit_ohm"]} | changes


def ideal_values(**changes: float) -> dict[str, Any]:
    """No resistance but the PCM's, no leakage, no wire, nothing from the edges."""
    off = {name: v if name.startswith(KEPT) else 0.0 for name, v in values().items()}
    return off | {"r_on_ohm": 1e-9} | changes


def line_of(v: dict[str, Any], segments: int = 64, **options: Any) -> LineParameters:
    return line_parameters(v, w_ref_um=W, v_read_v=V, vdd_v=1.0, segments=segments, **options)


def current(
    v: dict[str, Any], g: Any, x: Any, slots: int = 20, edges: Edges = EDGES, t_lsb_s: float = T, **options: Any
):
    """Slot currents of a line with an ideal clamp."""
    g = g if isinstance(g, torch.Tensor) else t(g)
    drive = LineDrive(g, torch.as_tensor(x), slots, t_lsb_s, W, edges)
    return slot_currents(line_of(v, **options), drive, ideal_clamp(V))[0]


def draw(seed: int = 0, rows: int = 24, code_max: int = 15) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.1e-6, 25e-6, rows), rng.integers(0, code_max + 1, rows)


class TestCell:
    @pytest.mark.parametrize("form", APPARENT_WEIGHTS)
    def test_limits(self, form):
        g = t([0.0, 1e-7, 1e-5])
        assert torch.equal(apparent_conductance(g, 0.0, form), g)
        assert apparent_conductance(g, 600.0, form)[0] == 0
        assert (apparent_conductance(g, 600.0, form)[1:] < g[1:]).all()

    @pytest.mark.parametrize(("form", "order"), [("quadratic", 3), ("cubic", 4)])
    def test_a_series_differs_by_its_next_term(self, form, order):
        g, r = 1e-5, t([100.0, 50.0, 25.0])
        error = (apparent_conductance(t(g), r, form) - apparent_conductance(t(g), r)).abs() / g
        torch.testing.assert_close(torch.log2(error[:-1] / error[1:]), t([order - 1.0] * 2), rtol=0, atol=0.01)

    def test_rational_is_the_series_resistance(self):
        g, r = t([1e-7, 1e-5, 1e-3]), 600.0
        torch.testing.assert_close(1 / apparent_conductance(g, r), 1 / g + r, rtol=1e-14, atol=0)

    def test_unknown_form(self):
        with pytest.raises(InputError, match="apparent_weight: expected one of quadratic, cubic, rational"):
            apparent_conductance(t(1e-6), 1.0, "linear")

    def test_on_resistance_goes_with_the_effective_width(self):
        cell = line_of(values(dw_um=0.02)).cell
        assert on_resistance(cell, W) == pytest.approx(600.0)
        assert on_resistance(cell, 0.26) == pytest.approx(1200.0)

    def test_expansion_is_of_second_order(self):
        """Against PCM and R = R0/(1 - k_s·V_r)·(1 + k_d·V_transistor) in series, solved exactly."""
        p = line_of(values()).cell
        g, r0 = 25e-6, float(on_resistance(p, W))

        def exact(v_bit: float, v_return: float) -> float:
            v, drop = v_bit - v_return, 0.0
            for _ in range(80):
                r = r0 / (1 - p.k_source_per_v * v_return) * (1 + p.k_drain_per_v * drop)
                drop = v * g * r / (1 + g * r)
            return v * g / (1 + g * r)

        def error(v_bit: float, v_return: float) -> float:
            return abs(float(cell_current(p, t(g), t(v_bit), t(v_return), W)) / exact(v_bit, v_return) - 1)

        # At the read voltage only the drain term's own square is left; GR = 0.015, k_d·V·GR = 0.003.
        assert error(V, 0.0) < 1e-6
        offset = error(V, 0.0)
        steps = np.array([error(V, h) - offset for h in (0.04, 0.02)])
        assert abs(steps[0]) < 2e-4
        for v_bit, v_return in ((0.15, 0.0), (0.2, 0.05), (0.12, 0.03)):
            first_order = abs(V * g / (1 + g * r0) / exact(v_bit, v_return) * (v_bit - v_return) / V - 1)
            assert error(v_bit, v_return) < 0.1 * first_order

    def test_expansion_sums_over_cells(self):
        """A segment of cells at one voltage is the sum of the cells: what the fast line rests on."""
        p = line_of(values()).cell
        g = t(draw()[0])
        e = expand(p, g, W)
        v, v_return = t(0.17), t(0.02)
        total = conducting(p, e.g_s.sum(), e.source_s_per_v.sum(), e.drain_s_per_v.sum(), v, v_return)
        cells = cell_current(p, g, v + v_return, v_return, W).sum()
        torch.testing.assert_close(total * v, cells, rtol=1e-14, atol=0)

    def test_no_voltage_no_current(self):
        p = line_of(values()).cell
        at = t([0.0, 0.1, 0.2])
        assert torch.equal(cell_current(p, t(1e-5), at, at, W), torch.zeros(3, dtype=torch.float64))
        assert torch.equal(leakage_current(p, at, at, W), torch.zeros(3, dtype=torch.float64))

    def test_leakage_scales_are_what_they_say(self):
        p = line_of(values()).cell
        i = leakage_current(p, t(V), t(0.0), W)
        swept = -np.expm1(-V / p.v_leak_source_v)
        assert float(i) == pytest.approx(p.i_leak_a * swept, rel=1e-12)
        # Both nodes up by v: the drain's and the source's voltage act against each other.
        up = leakage_current(p, t(V + 0.03), t(0.03), W)
        expected = np.exp(0.03 / p.v_leak_drain_v - 0.03 / p.v_leak_source_v)
        assert float(up / i) == pytest.approx(expected, rel=1e-12)
        assert leakage_current(p, t(0.0), t(0.2), W) < 0

    def test_idle_weight(self):
        p = line_of(values()).cell
        g = t([0.0, 1e-9, 1e-7, 1e-5, 1.0])
        share = idle_weight(p, g, W)
        assert (share[1:].diff() > 0).all()
        assert share[-1] == pytest.approx(1.0, abs=1e-8)
        assert 0.95 < share[2] < 0.99
        assert torch.isfinite(share).all()

    def test_gate_current_falls_by_e(self):
        p = line_of(values()).cell
        i = gate_current(p, t([0.0, p.v_gate_source_v]), W)
        assert float(i[0]) == p.i_gate_a
        assert float(i[0] / i[1]) == pytest.approx(np.e)
        assert float(gate_current(p, t(0.0), 0.25)) == pytest.approx(0.5 * p.i_gate_a)


class TestTable:
    X = np.array([0.0, 0.7, 1.0, 2.5, 3.0, 4.2])

    def test_smooth_data_get_the_not_a_knot_spline(self):
        x = np.linspace(0, 2, 9)
        y = np.sinh(x) + x
        at = np.linspace(0, 2, 201)
        spline = CubicSpline(x, y)
        np.testing.assert_allclose(lookup(t(x), t(y), t(at)), spline(at), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(lookup_slope(t(x), t(y), t(at)), spline(at, 1), rtol=1e-10)
        np.testing.assert_allclose(slopes(t(x), t(y)), spline(x, 1), rtol=1e-11)

    @pytest.mark.parametrize("n", [2, 3])
    def test_few_knots(self, n):
        x = np.array([0.0, 1.0, 3.0])[:n]
        y = 1 + 2 * x + (0.3 * x**2 if n == 3 else 0)
        at = np.linspace(0, x[-1], 31)
        exact = 1 + 2 * at + (0.3 * at**2 if n == 3 else 0)
        np.testing.assert_allclose(lookup(t(x), t(y), t(at)), exact, rtol=1e-13)

    @pytest.mark.parametrize("seed", range(20))
    def test_a_monotone_table_stays_monotone(self, seed):
        rng = np.random.default_rng(seed)
        x = np.cumsum(rng.uniform(0.05, 1, 9))
        y = np.cumsum(rng.exponential(1, 9) ** 3)
        at = np.linspace(x[0] - 1, x[-1] + 1, 1001)
        value = lookup(t(x), t(y), t(at)).numpy()
        assert np.all(np.diff(value) > -1e-12 * value.max())
        np.testing.assert_allclose(lookup(t(x), t(y), t(x)), y, rtol=1e-14)
        # Between its knots it goes no further than PCHIP may.
        inner = (at >= x[0]) & (at <= x[-1])
        k = np.clip(np.searchsorted(x, at[inner], side="right") - 1, 0, 7)
        assert np.all((value[inner] >= y[k] - 1e-9) & (value[inner] <= y[k + 1] + 1e-9))
        assert np.all(np.diff(PchipInterpolator(x, y)(at[inner])) >= 0)

    def test_a_turn_is_flat_and_a_constant_stays(self):
        y = np.array([0.0, 1.0, 0.5, 0.5, 0.5, 2.0])
        assert slopes(t(self.X), t(y))[1] == 0
        flat = lookup(t(self.X), t(y), t(np.linspace(1.0, 3.0, 50)))
        np.testing.assert_allclose(flat, 0.5, rtol=1e-14)

    def test_outside_it_is_a_straight_line(self):
        y = np.array([0.1, 0.5, 1.0, 1.2, 2.0, 2.2])
        m = slopes(t(self.X), t(y))
        for edge, knot in ((0, self.X[0]), (-1, self.X[-1])):
            away = np.array([0.5, 4.0]) * (1 if edge else -1)
            expected = y[edge] + float(m[edge]) * away
            np.testing.assert_allclose(lookup(t(self.X), t(y), t(knot + away)), expected, rtol=1e-13)

    def test_gradients_to_argument_and_values(self):
        y = t(np.sqrt(1 + self.X)).requires_grad_(True)
        at = t([-0.3, 0.2, 0.9, 1.7, 2.7, 4.0, 5.0]).requires_grad_(True)
        assert torch.autograd.gradcheck(lambda y, at: lookup(t(self.X), y, at), (y, at))
        (slope,) = torch.autograd.grad(lookup(t(self.X), y, at).sum(), at)
        # A monotone table's gradient does not vanish where the line goes on.
        assert (slope[[0, -1]] > 0.05).all()
        torch.testing.assert_close(slope, lookup_slope(t(self.X), y.detach(), at.detach()), rtol=1e-12, atol=1e-14)


class TestPulse:
    def test_shares_of_the_recharge(self):
        p = line_of(values()).pulse
        g, x = t([5e-6, 25e-6, 5e-6, 25e-6]), torch.tensor([0, 1, 7, 15])
        edges = torch.arange(2001, dtype=torch.float64) * T
        share = recharge_share(p, EDGES, g, x, edges, T, W)
        assert share.shape == (4, 2000)
        assert (share >= 0).all()
        torch.testing.assert_close(share.sum(-1), t([0.0, 1.0, 1.0, 1.0]), rtol=0, atol=1e-12)
        # Nothing before the pulse ends.
        for row, code in enumerate(x.tolist()):
            assert (share[row, :code] == 0).all()
        # The first slot holds what an exponential of τ = C/G brings until its end.
        rest = T - float(fall_delay(p, EDGES))
        assert float(share[3, 15]) == pytest.approx(-np.expm1(-rest * 25e-6 / p.c_node_f), rel=1e-9)

    def test_a_cut_window_loses_the_tail(self):
        p = line_of(values()).pulse
        g, x = t([1e-6]), torch.tensor([3])
        short, long = (recharge_share(p, EDGES, g, x, torch.arange(n, dtype=torch.float64) * T, T, W) for n in (6, 400))
        torch.testing.assert_close(short[0], long[0, :5], rtol=1e-12, atol=1e-15)
        assert 0.5 < short.sum() < 1

    def test_recharge_is_conserved_on_the_line(self):
        v = ideal_values(q_fall_c=2.5e-16, c_fall_bit_f=8e-16, i_fall_a=1e-6)
        g, x = draw()
        g = g + 1e-6
        charge = (current(v, g, x, 3000) - current(ideal_values(), g, x, 3000)).sum() * T
        p = line_of(v).pulse
        each = recharge_amount(p, EDGES, t(g), t(V), t(0.0), W)
        assert float(charge) == pytest.approx(float(each[t(x) > 0].sum()), rel=1e-6)
        assert float(each[0]) == pytest.approx(2.5e-16 + 1e-6 * EDGES.fall_s, rel=1e-12)

    def test_delays_move_both_ends(self):
        """A pulse loses at its start what it gains at its end if both edges are equally late."""
        v = ideal_values(t_rise_s=10e-12, t_fall_s=30e-12, k_rise=0.5, k_fall=-0.2)
        p = line_of(v).pulse
        g, x = draw(1)
        late = current(v, g, x) - current(ideal_values(), g, x, edges=NO_EDGES)
        shift = float(fall_delay(p, EDGES) - rise_delay(p, EDGES))
        total = V * g[x > 0].sum() * shift
        assert float(late.sum() * T) == pytest.approx(total, rel=1e-6)
        assert float(late[0] * T) == pytest.approx(-V * g[x > 0].sum() * float(rise_delay(p, EDGES)), rel=1e-6)
        ending = float(late[3] * T)
        assert ending == pytest.approx(V * g[x == 3].sum() * float(fall_delay(p, EDGES)), rel=1e-6)

    def test_rise_charge_once_for_each_pulse(self):
        v = ideal_values(q_rise_c=3e-17)
        g, x = draw(2)
        extra = current(v, g, x) - current(ideal_values(), g, x)
        assert float(extra[0] * T) == pytest.approx(3e-17 * (x > 0).sum(), rel=1e-6)
        assert (extra[1:].abs() * T < 1e-24).all()

    def test_a_raised_return_line_delays_the_start(self):
        p = line_of(values(k_gate=1.0, q_rise_c=0.0, c_rise_push_f=0.0)).pulse
        # 0.01 V of 1 V at 10-90 % in 25 ps: 0.8 V in 25 ps.
        lost = rise_charge(p, EDGES, t(1e-6), t(0.01), W, R_REF_OHM)
        assert float(lost) == pytest.approx(-1e-6 * 0.01 * EDGES.rise_s / 0.8)

    def test_one_cell_pulse_and_line_share_the_equation(self):
        """The record of a single pulse and a line of one row and no wire: the same numbers."""
        v = values(r_bit_ohm=0.0, r_return_ohm=0.0, c_bit_f=0.0, c_idle_f=0.0, k_rise=0.3, q_rise_c=2e-17)
        p = line_of(v)
        g, x = t([8e-6]), torch.tensor([3])
        drive = LineDrive(g, x, 40, T, W, EDGES)
        static = static_solution(p, drive, ideal_clamp(V))
        charge = edge_charges(p, drive, static)
        i_on, i_off = static.current_a[0], static.current_a[-1]
        rise = rise_charge(p.pulse, EDGES, i_on, t(0.0), W, R_REF_OHM) - rise_delay(p.pulse, EDGES) * (i_on - i_off)
        share = recharge_share(p.pulse, EDGES, g, x, torch.arange(41, dtype=torch.float64) * T, T, W)[0]
        amount = recharge_amount(p.pulse, EDGES, g, t(V), t(0.0), W)
        assert float(charge[0]) == pytest.approx(float(rise), rel=1e-9)
        torch.testing.assert_close(charge[4:], (amount * share)[4:], rtol=1e-9, atol=1e-26)


class TestLine:
    def test_ideal_limit_is_the_product(self):
        g, x = draw()
        # 1e-9 Ω in series with 25 µS is 2.5e-14.
        found = current(ideal_values(), g, x, edges=NO_EDGES)
        np.testing.assert_allclose(found.sum() * T, ideal_charge(g[None], x[None], V, T)[0, 0], rtol=1e-12)
        np.testing.assert_allclose(found, ideal_current(g[None], x[None], V, 20)[0, 0], rtol=1e-12, atol=1e-22)

    def test_twice_the_slot_twice_the_charge(self):
        g, x = draw()
        static = [
            current(ideal_values(r_on_ohm=600.0, i_leak_a=1e-9), g, x, edges=NO_EDGES, t_lsb_s=n * T) for n in (1, 2)
        ]
        torch.testing.assert_close(static[0], static[1], rtol=1e-13, atol=0)
        # Edges add a fixed charge (once the recharge fits the window), whatever the slot's length.
        v = values(c_bit_f=0.0, c_idle_f=0.0)
        g = g + 3e-6
        added = [
            ((current(v, g, x, 400, t_lsb_s=n * T) - current(v | PULSE_OFF, g, x, 400, NO_EDGES, n * T)).sum() * n * T)
            for n in (1, 2)
        ]
        assert abs(float(added[0])) > 1e-16
        assert float(added[1] / added[0]) == pytest.approx(1.0, abs=1e-3)

    def test_codes_of_zero_leave_the_leakage(self):
        g, x = draw()
        v = values()
        i = current(v, g, 0 * x)
        cell = line_of(v).cell
        leak = (leakage_current(cell, t(V), t(0.0), W) * idle_weight(cell, t(g), W)).sum()
        torch.testing.assert_close(i, leak.expand(20), rtol=1e-4, atol=0)
        none = current(v | {"i_leak_a": 0.0}, g, 0 * x)
        assert torch.equal(none, torch.zeros_like(none))

    def test_rows_without_wire_are_alike(self):
        g, x = draw()
        v = values(r_bit_ohm=0.0, r_return_ohm=0.0)
        order = np.random.default_rng(1).permutation(len(g))
        torch.testing.assert_close(current(v, g, x), current(v, g[order], x[order]), rtol=1e-12, atol=0)
        wired = [current(values(r_bit_ohm=5.0, r_return_ohm=5.0), g[o], x[o]) for o in (np.arange(24), order)]
        assert (wired[0] / wired[1] - 1).abs().max() > 1e-5

    def test_a_row_near_the_read_out_delivers_more(self):
        g, x = np.array([1e-7, 25e-6]), np.array([8, 8])
        v = values(r_bit_ohm=50.0, r_return_ohm=50.0)
        near, far = (current(v, g[o], x)[3] for o in ([0, 1], [1, 0]))
        assert 1e-4 < float(near / far - 1) < 1e-2

    @pytest.mark.parametrize("wire_ohm", [0.15, 5.0])
    def test_monotone_in_every_code(self, wire_ohm):
        g, x = draw(3)
        x = np.minimum(x, 14)
        v = values(r_bit_ohm=wire_ohm, r_return_ohm=wire_ohm)
        base = current(v, g, x, 60).sum()
        for row in range(0, len(g), 5):
            assert current(v, g, x + (np.arange(len(g)) == row), 60).sum() > base

    def test_wire_only_takes_away(self):
        g, x = draw(4)
        charge = [float(current(values(r_bit_ohm=r, r_return_ohm=r), g, x).sum()) for r in (0.0, 0.15, 1.5, 15.0)]
        assert np.all(np.diff(charge) < 0)

    def test_conducting_sums(self):
        rng = np.random.default_rng(5)
        codes, weights = torch.tensor(rng.integers(0, 12, (3, 17))), t(rng.random((3, 2, 17)))
        bounds = segment_bounds(17, 4)
        assert bounds[0][0] == 0
        assert bounds[-1][1] == 17
        assert all(b == c for (_, b), (c, _) in itertools.pairwise(bounds))
        assert {b - a for a, b in bounds} <= {4, 5}
        found = conducting_sums(weights, codes, 10, bounds)
        for slot in range(10):
            for k, (a, b) in enumerate(bounds):
                expected = (weights * (codes > slot)[:, None])[..., a:b].sum(-1)
                torch.testing.assert_close(found[:, :, slot, k], expected, rtol=1e-12, atol=1e-12)
        assert segment_bounds(5, 64) == [(k, k + 1) for k in range(5)]

    def test_alone_or_stacked(self):
        """One batch of lines of different widths and edges is what each line is alone."""
        rng = np.random.default_rng(6)
        g, x = t(rng.uniform(1e-7, 25e-6, (4, 30))), torch.tensor(rng.integers(0, 16, (4, 30)))
        w, u = t([[0.3], [0.4], [0.45], [0.5]]), t([[0.0], [0.3], [0.7], [1.0]])
        edges = Edges(40e-12 + 9e-12 * u, 38e-12 + 7e-12 * u, 2e-11 + 1e-11 * u, 2e-11 + 2e-11 * u)
        p = line_of(values(), segments=8)
        together = slot_currents(p, LineDrive(g, x, 18, T, w, edges), ideal_clamp(V))[0]
        for k in range(4):
            one = Edges(*(float(getattr(edges, f.name)[k]) for f in dataclasses.fields(Edges)))
            alone = slot_currents(p, LineDrive(g[k], x[k], 18, T, float(w[k]), one), ideal_clamp(V))[0]
            torch.testing.assert_close(together[k], alone, rtol=1e-12, atol=1e-20)

    def test_gradients_to_the_parameters(self):
        rng = np.random.default_rng(7)
        g, x = t(rng.uniform(1e-6, 25e-6, 8)), torch.tensor([0, 1, 3, 3, 5, 6, 7, 7])
        names = [n for n in needed_parameters(readout=False) if n != "r_return_ohm"]
        scale = {n: SPECS[n].scale for n in names}
        start = values(r_bit_ohm=3.0)
        z = t([start[n] / scale[n] for n in names]).requires_grad_(True)

        def run(z: torch.Tensor) -> torch.Tensor:
            v = {n: z[k] * scale[n] for k, n in enumerate(names)}
            v["r_return_ohm"] = v["r_bit_ohm"]
            # Currents in µA, so that the differences are well above rounding.
            return current(v, g, x, 10, segments=4) * 1e6

        assert torch.autograd.gradcheck(run, z, eps=1e-4, atol=1e-7, rtol=1e-5)

    def test_gradients_to_the_conductances(self):
        g = t(draw(8, 8)[0] * 1e6).requires_grad_(True)
        x = torch.tensor([0, 1, 3, 3, 5, 6, 7, 7])
        v = values(r_bit_ohm=3.0, r_return_ohm=3.0)
        assert torch.autograd.gradcheck(lambda g: current(v, g * 1e-6, x, 10, segments=4) * 1e6, g, eps=1e-5, atol=1e-6)


PULSE_OFF = {n: v for n, v in ideal_values().items() if SPECS.get(n, SPECS["r_bit_ohm"]).group == "pulse"}


class TestReadout:
    def response(self, **changes: Any) -> StepResponse:
        own = {
            "step_s": (3e-11, -1e-11, 2e-12), "step_idle_s": (1e-11, 5e-12, 0.0), "step_low_s": (0.0, 0.0, 4e-12),
            "half_a": 2e-5,
            "on_s": (-1e-10, 2e-11, 1e-12), "on_idle_s": (-3e-11, 0.0, 0.0), "on_half_a": 5e-5,
        }  # fmt: skip
        return StepResponse(**own | changes)

    def test_a_constant_current_leaves_only_turn_on(self):
        charge = step_charges(self.response(), torch.full((30,), 1e-4, dtype=torch.float64))
        assert (charge[:3] != 0).all()
        assert torch.equal(charge[3:], torch.zeros(27, dtype=torch.float64))
        off = self.response(on_s=(0.0,) * 3, on_idle_s=(0.0,) * 3)
        assert torch.equal(
            step_charges(off, torch.full((30,), 1e-4, dtype=torch.float64)), torch.zeros(30, dtype=torch.float64)
        )

    def test_one_step_in_three_slots(self):
        off = {"on_s": (0.0,) * 3, "on_idle_s": (0.0,) * 3}
        i = t([1e-4] * 8 + [6e-5] * 8)
        charge = step_charges(self.response(**off), i)
        # The block's speed at the step lies between that before and after it.
        w = 1 / (1 + (SPEED * 6e-5 + (1 - SPEED) * 1e-4) / 2e-5)
        times = ((3e-11, 1e-11, 0.0), (-1e-11, 5e-12, 0.0), (2e-12, 0.0, 4e-12))
        expected = [(step + idle * w + low * w * w) * -4e-5 for step, idle, low in times]
        torch.testing.assert_close(charge[8:11], t(expected), rtol=1e-12, atol=0)
        assert (charge[11:] == 0).all()
        assert (charge[:8] == 0).all()

    def test_steps_add_up(self):
        linear = self.response(step_idle_s=(0.0,) * 3, step_low_s=(0.0,) * 3, on_idle_s=(0.0,) * 3)
        rng = np.random.default_rng(9)
        a, b = t(rng.uniform(0, 1e-4, (2, 5, 12)))
        both = step_charges(linear, a) + step_charges(linear, b)
        torch.testing.assert_close(step_charges(linear, a + b), both, rtol=1e-10, atol=1e-26)

    def test_names_cover_the_response(self):
        for block in ("clamp", "mirror"):
            names = response_names(block)
            assert set(names) == {f.name for f in dataclasses.fields(StepResponse)}
            assert {n for group in names.values() for n in group} == {n for n in SPECS if n.startswith(f"{block}_")}

    def test_the_clamp_closes_the_circuit(self, card_of):
        model = TileModel(card_of())
        p = readout_parameters(model.values, model.tables)
        y, j = t([0.0, 1e-5, 2e-4, 4e-4]), t([1e-6, -1e-7, -1e-6, 0.0])
        v, i = regulated_clamp(p)(y, j)
        torch.testing.assert_close(i, y * v + j, rtol=1e-13, atol=1e-20)
        torch.testing.assert_close(v, lookup(p.i_clamp_a, p.v_clamp_v, i), rtol=1e-15, atol=0)

    def test_mirror_of_a_settled_current_is_the_table(self, card_of):
        model = TileModel(card_of())
        p = readout_parameters(model.values, model.tables)
        i = torch.full((10,), 30e-6, dtype=torch.float64)
        i[5:] = 20e-6
        out = mirror(p, lagged(p, i, i, T))
        settled = t([5e-6] * 2 + [3.75e-6] * 2)
        torch.testing.assert_close(out[[3, 4, 8, 9]], settled, rtol=1e-12, atol=0)
        # The gate is late: the first slot after a step still sees some of the current before it.
        assert 3.76e-6 < float(out[5]) < 5e-6


class TestAdc:
    I = np.linspace(0, 1e-4, 6)  # noqa: E741
    P = AdcParameters(t(I), t(1e9 + 2e13 * I - 2e16 * I**2), 0.25, 0.0)

    def test_phase_adds_up_over_the_window(self):
        i = t(np.random.default_rng(10).uniform(0, 1e-4, (3, 20)))
        whole = phase(self.P, i, T) - 0.25
        halves = phase(self.P, i[:, :8], T) + phase(self.P, i[:, 8:], T) - 0.5
        torch.testing.assert_close(whole, halves, rtol=1e-13, atol=0)
        torch.testing.assert_close(phase(self.P, i, 2 * T) - 0.25, 2 * whole, rtol=1e-13, atol=0)

    def test_the_ring_runs_at_no_current(self):
        assert float(phase(self.P, torch.zeros(10, dtype=torch.float64), T)) == pytest.approx(10.25)

    def test_wait_splits_the_first_slot(self):
        """The first slot's mean current is idle for the wait and higher afterwards: only a curved rate can tell."""
        i = t([4e-5, 4e-5, 1e-6])
        late = dataclasses.replace(self.P, t_wait_s=2e-10)
        on = (4e-5 - 0.2 * 1e-6) / 0.8
        rate = lookup(self.P.i_adc_a, self.P.rate_hz, t([1e-6, on, 4e-5]))
        extra = float(phase(late, i, T) - phase(self.P, i, T))
        assert extra == pytest.approx(float(0.2 * rate[0] + 0.8 * rate[1] - rate[2]) * T, rel=1e-6)
        assert extra < -1e-4
        straight = AdcParameters(t(self.I), t(1e9 + 2e13 * self.I), 0.0, 2e-10)
        none = dataclasses.replace(straight, t_wait_s=0.0)
        torch.testing.assert_close(phase(straight, i, T), phase(none, i, T), rtol=1e-13, atol=0)
        steady = torch.full((9,), 3e-5, dtype=torch.float64)
        torch.testing.assert_close(phase(late, steady, T), phase(self.P, steady, T), rtol=1e-13, atol=0)

    def test_count_is_the_phase_truncated(self):
        p = t([0.2, 3.0, 7.999]).requires_grad_(True)
        shown = count(p)
        assert shown.tolist() == [0.0, 3.0, 7.0]
        shown.sum().backward()
        assert p.grad is not None
        assert p.grad.tolist() == [1.0, 1.0, 1.0]

    def test_inl_and_dnl(self):
        _, inl, dnl = inl_dnl(self.P, 64)
        assert inl[0] == 0
        assert abs(float(inl[-1])) < 1e-9
        torch.testing.assert_close(torch.cumsum(dnl, 0), inl[1:], rtol=0, atol=1e-9)
        # A parabola of curvature c bulges by c·(range/2)² above its chord.
        assert float(inl.max()) == pytest.approx(2e16 * (5e-5) ** 2 / ((2e9 - 2e8) / 64), rel=1e-3)
        straight = AdcParameters(t(self.I), t(1e9 + 2e13 * self.I), 0.0, 0.0)
        assert float(inl_dnl(straight)[2].abs().max()) < 1e-9


class TestIncompleteCard:
    @pytest.mark.parametrize("name", ["c_bit_f", "r_on_ohm", "dw_cap_um", "clamp_on_0_s", "phase_start"])
    def test_parameter(self, card_of, tmp_path, name):
        card = card_of()
        left = [p for p in card.parameters if p.name != name]
        path = tmp_path / "cut.card.h5"
        attrs.evolve(card, parameters=left).write(path)
        with pytest.raises(CardError, match=rf"cut\.card\.h5: parameters/{name}: missing"):
            TileModel.read(path)

    @pytest.mark.parametrize("name", [*EDGE_TABLES, "clamp", "mirror", "adc"])
    def test_table(self, card_of, tmp_path, name):
        card = card_of()
        path = tmp_path / "cut.card.h5"
        attrs.evolve(card, tables=[x for x in card.tables if x.name != name]).write(path)
        with pytest.raises(CardError, match=rf"cut\.card\.h5: tables/{name}: missing"):
            TileModel.read(path)

    @pytest.mark.parametrize("name", ["guard_slots", "w_ref_um", "w_select_um", "apparent_weight"])
    def test_meta(self, card_of, name):
        card = card_of()
        meta = {key: value for key, value in card.meta.items() if key != name}
        with pytest.raises(CardError, match=f"card: meta@{name}: missing"):
            TileModel(attrs.evolve(card, meta=meta))

    def test_unknown_apparent_weight(self, card_of):
        card = card_of()
        with pytest.raises(CardError, match=r"meta@apparent_weight: expected one of quadratic.*got 'linear'"):
            TileModel(attrs.evolve(card, meta=card.meta | {"apparent_weight": "linear"}))

    def test_without_a_read_out_its_parameters_are_not_needed(self, card_of):
        card = card_of(readout=False)
        left = [p for p in card.parameters if p.group not in ("read-out", "adc")]
        model = TileModel(attrs.evolve(card, parameters=left))
        g, x = draw()
        assert model.respond(g[None], x[None], clamp="ideal").mirror_a is None
        with pytest.raises(InputError, match="calibrated without a read-out"):
            model.respond(g[None], x[None])
