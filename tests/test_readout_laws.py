"""Laws of the read-out's and the ADC's equations: steps, mirror, phase, counts, INL and DNL."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from aimcard.calibrate.parameters import SPECS
from aimcard.models.adc import AdcParameters, count, inl_dnl, phase
from aimcard.models.lut import lookup
from aimcard.models.readout import SPEED, StepResponse, lagged, mirror, regulated_clamp, response_names, step_charges
from aimcard.models.tile import TileModel, readout_parameters
from made_line import T, t


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
        assert torch.equal(step_charges(off, torch.full((30,), 1e-4, dtype=torch.float64)), torch.zeros(30, dtype=torch.float64))

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
