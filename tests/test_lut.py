"""Tables: the spline, monotone where the data are, straight outside, gradients."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline, PchipInterpolator

from aimcard.models.lut import lookup, lookup_slope, slopes
from made_line import t


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
