"""Laws of a line's slot currents: limits, conservation, order of rows, wire, gradients."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from aimcard.calibrate.parameters import SPECS
from aimcard.models.cell import idle_weight, leakage_current
from aimcard.models.column import conducting_sums, segment_bounds
from aimcard.models.line import LineDrive, ideal_clamp, slot_currents
from aimcard.models.pulse import Edges
from aimcard.models.tile import ideal_charge, ideal_current, needed_parameters
from made_line import NO_EDGES, T, V, W, current, draw, ideal_values, line_of, t, values


class TestLine:
    def test_ideal_limit_is_the_product(self):
        g, x = draw()
        # 1e-9 Ω in series with 25 µS is 2.5e-14.
        found = current(ideal_values(), g, x, edges=NO_EDGES)
        np.testing.assert_allclose(found.sum() * T, ideal_charge(g[None], x[None], V, T)[0, 0], rtol=1e-12)
        np.testing.assert_allclose(found, ideal_current(g[None], x[None], V, 20)[0, 0], rtol=1e-12, atol=1e-22)

    def test_twice_the_slot_twice_the_charge(self):
        g, x = draw()
        static = [current(ideal_values(r_on_ohm=600.0, i_leak_a=1e-9), g, x, edges=NO_EDGES, t_lsb_s=n * T) for n in (1, 2)]
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
