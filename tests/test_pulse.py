"""Laws of a pulse's ends: recharge, delays, charge of the rise."""

import numpy as np
import pytest
import torch

from aimcard.models.line import LineDrive, edge_charges, ideal_clamp, static_solution
from aimcard.models.pulse import R_REF_OHM, fall_delay, recharge_amount, recharge_share, rise_charge, rise_delay
from made_line import EDGES, NO_EDGES, T, V, W, current, draw, ideal_values, line_of, t, values


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
