"""Laws of a cell's equations: apparent conductance, on-resistance, expansion, leakage, gate current."""

import numpy as np
import pytest
import torch

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
from aimcard.models.errors import InputError
from made_line import V, W, draw, line_of, t, values


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
