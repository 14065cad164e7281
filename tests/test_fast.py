"""The fast product against its slow twin, and the laws that both must obey."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aimcard.data import shipped_card
from aimcard.models.errors import InputError
from aimcard.models.fast import Effects, FastTile
from aimcard.models.fast.columns import Settings, group
from aimcard.models.fast.meanfield import prepare
from aimcard.models.tile import TileModel, ideal_charge
from aimcard.models.twin import static_gradient

MODEL = TileModel.read(shipped_card())
IDEAL_CLAMP = Effects(regulator=False)
READS = [(False, IDEAL_CLAMP), (True, Effects())]
RUNS = [pytest.param(False, id="numba"), pytest.param(True, id="plain")]


def draw(lines=6, rows=96, batch=10, seed=0, low=1e-7, high=5e-6):
    rng = np.random.default_rng(seed)
    g = torch.tensor(rng.uniform(low, high, (lines, rows)))
    return g, torch.tensor(rng.integers(0, 128, (batch, rows)).astype(float))


def run(tile, counts, g, x):
    return tile.phase(g, x) if counts else tile.charge(g, x)


def tile(effects=None, **options):
    return FastTile(MODEL, effects, **{"dtype": torch.float64} | options)


def one_minus_r2(found, truth):
    return ((found - truth) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0)


class TestSlowTwin:
    def test_is_the_tile_model(self):
        g, x = draw(lines=2, rows=40, batch=2)
        truth = MODEL.respond(g.numpy(), x.numpy().astype(int))
        exact = tile(accuracy="exact")
        np.testing.assert_allclose(exact.charge(g, x).numpy(), truth.charge_c, rtol=1e-12)
        np.testing.assert_allclose(exact.phase(g, x).numpy(), truth.phase_count, rtol=1e-12)

    def test_broken_codes_lie_between_whole_ones(self):
        g, x = draw(lines=1, rows=30, batch=1)
        exact = tile(accuracy="exact")
        x = x.clamp(max=126)
        low, half, high = (exact.charge(g, x + d) for d in (0.0, 0.5, 1.0))
        assert low < half < high
        assert abs(float(half - (low + high) / 2)) < 1e-3 * float(high - low)

    @pytest.mark.parametrize(("counts", "effects"), READS)
    def test_gradcheck(self, counts, effects):
        g, x = draw(lines=1, rows=3, batch=1)
        exact = tile(effects, accuracy="exact")
        scale = 1.0 if counts else 1e15
        inputs = ((g * 1e6).requires_grad_(), (x.clamp(1, 126) + 0.3).requires_grad_())
        assert torch.autograd.gradcheck(lambda a, b: scale * run(exact, counts, a * 1e-6, b), inputs, eps=1e-5, rtol=1e-4)


class TestAgainstTheSlowTwin:
    @pytest.mark.parametrize(("counts", "effects"), READS)
    def test_values(self, counts, effects):
        g, x = draw(rows=128)
        truth = run(tile(effects, accuracy="exact"), counts, g, x)
        assert one_minus_r2(run(tile(effects), counts, g, x), truth).max() < 1e-6
        for plain in (True, False):
            single = run(tile(effects, plain=plain, dtype=torch.float32), counts, g.float(), x.float())
            assert one_minus_r2(single.double(), truth).max() < 1e-6

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize(("counts", "effects"), READS)
    def test_gradients(self, counts, effects, dtype):
        g, x = draw(lines=3, rows=32, batch=3)
        weights = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(3, 3)

        def gradients(with_tile):
            a, b = g.clone().requires_grad_(), x.clone().requires_grad_()
            return torch.autograd.grad((weights * run(with_tile, counts, a, b)).sum(), (a, b))

        for found, truth in zip(gradients(tile(effects, dtype=dtype)), gradients(tile(effects, accuracy="exact")), strict=True):
            assert float((found - truth).norm() / truth.norm()) < 5e-3

    def test_each_effect_alone(self):
        g, x = draw(lines=3, rows=48, batch=4)
        for name in ("ir_drop", "apparent_weight", "leakage", "pulse", "regulator"):
            alone = Effects(**{f: f == name for f in ("ir_drop", "apparent_weight", "leakage", "pulse", "regulator", "adc")})
            truth = tile(alone, accuracy="exact").charge(g, x)
            ideal = tile(Effects.none()).charge(g, x)
            found = tile(alone).charge(g, x)
            assert float((found - truth).norm()) < 0.01 * float((ideal - truth).norm()), name

    def test_tolerance_is_met_and_reported(self):
        g, x = draw(lines=4, rows=64)
        loose, tight = (tile(IDEAL_CLAMP, accuracy=a) for a in (1e-3, 1e-6))
        assert loose.error_bound(g, x).one_minus_r2 <= 1e-3
        assert tight.error_bound(g, x).one_minus_r2 <= 1e-6
        assert loose.settings(g, x).squares <= tight.settings(g, x).squares
        assert "1 - R²" in str(tight.error_bound(g, x))


class TestAgainstTheNodes:
    """The node-by-node twin has neither segments nor pulses' edges: an equation of its own for the same line."""

    EFFECTS = Effects(pulse=False, regulator=False)

    def test_values_and_gradients(self):
        g, x = draw(lines=2, rows=128, batch=4)
        g = g.requires_grad_()
        charge = tile(self.EFFECTS).charge(g, x)
        values = charge.detach()
        for c in range(2):
            nodes = [static_gradient(MODEL, g[c].detach().numpy(), v.numpy().astype(int)) for v in x]
            truth = torch.tensor([s.line_current_a.sum() * MODEL.t_lsb_s for s, _ in nodes])
            assert float(one_minus_r2(values[:, c], truth)) < 1e-6
            for b, (_, slope) in enumerate(nodes):
                (found,) = torch.autograd.grad(charge[b, c], g, retain_graph=True)
                expected = torch.tensor(slope.sum(0)) * MODEL.t_lsb_s
                assert float((found[c] - expected).norm() / expected.norm()) < 5e-3
                assert not found[1 - c].any()


class TestBound:
    def adversarial(self, rows=32):
        """Columns that no mean column stands for: all least, all largest, one cell, near end, far end, and random ones."""
        low, high = 1e-7, 25e-6
        one = torch.full((rows,), low, dtype=torch.float64)
        one[rows // 3] = high
        slope = torch.linspace(low, high, rows, dtype=torch.float64)
        extremes = torch.stack([torch.full_like(one, low), torch.full_like(one, high), one, slope, slope.flip(0)])
        g, x = draw(lines=5, rows=rows, batch=6)
        return torch.cat([extremes, g]), x

    @pytest.mark.parametrize("accuracy", ["fast", 1e-5])
    @pytest.mark.parametrize(("counts", "effects"), READS)
    def test_no_line_is_worse(self, counts, effects, accuracy):
        for random, (g, x) in ((False, self.adversarial()), (True, draw(lines=6, rows=64, batch=6))):
            t = tile(effects, accuracy=accuracy, dtype=torch.float32)
            bound = t.error_bound(g.float(), x.float(), counts=counts)
            truth = run(tile(effects, accuracy="exact"), counts, g.float().double(), x)
            measured = one_minus_r2(run(t, counts, g.float(), x.float()).double(), truth)
            assert (measured <= bound.per_line).all(), (measured, bound.per_line)
            assert bound.one_minus_r2 == float(bound.per_line.max())
            # Where the finest settings are not enough, the bound says so.
            if accuracy != "fast" and random:
                assert bound.one_minus_r2 <= accuracy


class TestCompiled:
    @pytest.mark.parametrize(("counts", "effects"), READS)
    def test_numba_does_what_torch_does(self, counts, effects):
        g, x = draw(rows=67)
        circuit = tile(effects).circuit
        g, x = g.float(), x.float()
        chosen = Settings(8, 5, 2)
        plain, fast = (group(circuit, g, chosen, counts=counts, plain=p).plans[0].prepare(x, rates=True) for p in (True, False))
        assert fast.y_rate is not None
        assert plain.y_rate is not None
        ref = group(circuit, g, chosen, counts=counts, plain=True).plans[0].ref
        for a, b in ((fast.y[..., :67], plain.y[..., :67]), (fast.y_rate, plain.y_rate), (fast.z_rate, plain.z_rate)):
            assert float((a - b).abs().max()) < 2e-5 * float(b.abs().max())
        # One byte is a 127th, and the bound by which it is scaled is a little above the largest.
        first = fast.scale[0, ..., None]
        assert float((fast.z * first - plain.z).abs().max()) < 0.51 * float(first.max())
        torch.testing.assert_close(fast.scale / fast.scale[:1], plain.scale, rtol=1e-4, atol=0)
        # How far a line's total is from the middle multiplies the terms of higher order.
        scale = float((plain.y[0, :, :67] @ (g * 1e6).T).std())
        m = max(ref.reaches) * plain.scale * (plain.z @ ref.g.float())
        assert float(((fast.cubic - plain.cubic) * m**3).abs().max()) < 2e-3 * scale
        behind, reach = (fast.y - plain.y)[..., 67:74], max(ref.reaches)
        share = torch.tensor([1.0, 1.0, reach**2, reach**4, 1.0, reach, 1.0])
        assert float((behind.abs() * share).max()) < 2e-3 * scale
        assert torch.equal(fast.sign, plain.sign)

    def test_without_numba_it_says_so_once(self):
        code = (
            "import sys, warnings; sys.modules['numba'] = None\n"
            "import importlib.util as u; find = u.find_spec\n"
            "u.find_spec = lambda name, *a: None if name == 'numba' else find(name, *a)\n"
            "import torch; from aimcard.data import shipped_card; from aimcard.models.tile import TileModel\n"
            "from aimcard.models.fast import FastTile\n"
            "g, x = torch.full((2, 5), 1e-6), torch.full((2, 5), 7.0)\n"
            "with warnings.catch_warnings(record=True) as seen:\n"
            "    warnings.simplefilter('always'); m = TileModel.read(shipped_card())\n"
            "    for _ in range(2): FastTile(m).charge(g, x)\n"
            "print([str(w.message)[:22] for w in seen])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "['numba is not installed']", done.stderr


    def test_switched_off_in_the_environment(self):
        """The same answers with and without the compiler; nothing is said of what was asked for."""
        code = (
            "import os, warnings, torch; warnings.simplefilter('error')\n"
            "from aimcard.data import shipped_card; from aimcard.models.tile import TileModel\n"
            "from aimcard.models.fast import FastTile\n"
            "g, x = torch.linspace(1e-6, 9e-6, 60).reshape(4, 15), torch.arange(45.0).reshape(3, 15)\n"
            "t = FastTile(TileModel.read(shipped_card())); out = t.phase(g, x)\n"
            "print(t._kept[True][1].plans[0].kernel is None, *[f'{v:.2f}' for v in out.flatten().tolist()])"
        )
        found = {}
        for off in ("0", "1"):
            environment = {**os.environ, "AIMCARD_PLAIN": off}
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
            assert done.returncode == 0, done.stderr
            plain, *found[off] = done.stdout.split()
            assert plain == str(off == "1")
        np.testing.assert_allclose(*(np.array(v, dtype=float) for v in found.values()), rtol=1e-5, atol=0.02)


class TestGradientOfTheFormula:
    def test_gradcheck_in_the_weights(self):
        g, x = draw(lines=3, rows=7, batch=3, low=1e-6)
        # A pulse's charge has a slope of its own, which is not the formula's.
        circuit = tile(Effects(leakage=False, pulse=False)).circuit
        columns = group(circuit, g, Settings(4, 4, 2), counts=True, plain=True)

        def answer(conductance_us):
            return replace(columns, ready=None).answers(circuit, conductance_us * 1e-6, x)

        assert torch.autograd.gradcheck(answer, ((g * 1e6).requires_grad_(),), eps=1e-5, rtol=1e-5)

    def test_gradcheck_of_the_preparation(self):
        g, x = draw(lines=2, rows=6, batch=2)
        plan = group(tile().circuit, g, Settings(4, 4, 1), counts=True, plain=True).plans[0]
        codes = (x.clamp(2, 120) + 0.37).requires_grad_()
        assert torch.autograd.gradcheck(lambda c: prepare(plan.ref, c, 1).y, (codes,), eps=1e-5, rtol=1e-3)

    def test_codes_of_a_lone_line(self):
        """With no departure from the mean, the hand-written derivative is that of the value.

        Left out of it: how the code moves the voltage at which its own pulse ends, and, among fields held fixed, leakage.
        """
        g, x = draw(lines=1, rows=9, batch=2)
        for counts, effects, tolerance in (
            (False, Effects(leakage=False, pulse=False, regulator=False), 1e-4),
            (True, Effects(leakage=False, pulse=False), 1e-3),
            (False, IDEAL_CLAMP, 5e-3),
            (True, Effects(), 5e-3),
        ):
            t = tile(effects, plain=True)
            codes = (x.clamp(2, 120) + 0.4).requires_grad_()
            (found,) = torch.autograd.grad(run(t, counts, g, codes).sum(), codes)
            step = 1e-3 * torch.eye(9, dtype=torch.float64)
            with torch.no_grad():
                numeric = torch.stack(
                    [(run(t, counts, g, codes + s) - run(t, counts, g, codes - s))[:, 0] / 2e-3 for s in step], 1
                )
            assert float((found - numeric).norm() / numeric.norm()) < tolerance


class TestLaws:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
    @pytest.mark.parametrize("plain", RUNS)
    def test_all_off_is_the_ideal_product(self, dtype, tolerance, plain):
        g, x = draw(rows=101)
        out = tile(Effects.none(), dtype=dtype, plain=plain).charge(g.to(dtype), x.to(dtype))
        ideal = ideal_charge(g.to(dtype).double().numpy(), x.numpy(), MODEL.v_read_v, MODEL.t_lsb_s)
        np.testing.assert_allclose(out.double().numpy(), ideal, rtol=tolerance)

    @pytest.mark.parametrize("plain", RUNS)
    @pytest.mark.parametrize(("lines", "rows", "batch"), [(1, 1, 1), (1, 7, 3), (5, 1, 2), (3, 13, 1), (17, 131, 5)])
    def test_any_shape(self, lines, rows, batch, plain):
        g, x = draw(lines, rows, batch)
        truth = tile(accuracy="exact").charge(g, x)
        out = tile(plain=plain, dtype=torch.float32).charge(g, x).double()
        assert out.shape == (batch, lines)
        scale = float(truth.abs().max()) + 1e-15
        torch.testing.assert_close(out, truth, rtol=1e-3, atol=1e-3 * scale)

    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 10**6))
    def test_batch_and_line_order(self, seed):
        g, x = draw(seed=seed)
        t = tile()
        whole = t.phase(g, x)
        vectors, lines = (torch.tensor(np.random.default_rng(seed).permutation(n)) for n in (10, 6))
        torch.testing.assert_close(tile().phase(g[lines], x[vectors]), whole[vectors][:, lines], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(torch.cat([t.phase(g, v[None]) for v in x]), whole, rtol=1e-12, atol=1e-9)

    @pytest.mark.parametrize("plain", RUNS)
    def test_sign_is_which_line_of_a_pair(self, plain):
        """Weights of the other sign swap the lines of their pairs, and the difference changes its sign and nothing else."""
        plus, x = draw(seed=1)
        minus, _ = draw(seed=2)
        t = tile(plain=plain, dtype=torch.float32)
        found = [t.phase(torch.cat(pair).float(), x.float()) for pair in ((plus, minus), (minus, plus))]
        first, second = (f[:, :6] - f[:, 6:] for f in found)
        torch.testing.assert_close(first, -second, rtol=0, atol=1e-6 * float(found[0].abs().max()))

    def test_zero_input_is_leakage(self):
        g, x = draw()
        none = torch.zeros_like(x)
        assert (tile(Effects.none()).charge(g, none) == 0).all()
        truth = tile(IDEAL_CLAMP, accuracy="exact").charge(g, none)
        assert (truth > 0).all()
        torch.testing.assert_close(tile(IDEAL_CLAMP).charge(g, none), truth, rtol=2e-3, atol=0)

    def test_adc_is_monotone(self):
        g, x = draw(lines=2, rows=64, batch=1)
        steps = torch.linspace(0, 1, 40, dtype=torch.float64)[:, None] * x
        assert (tile().phase(g, steps).diff(dim=0) > 0).all()

    def test_without_wire_rows_are_alike(self):
        g, x = draw()
        order = torch.tensor(np.random.default_rng(3).permutation(g.shape[1]))
        # Leakage enters with a segment's mean idle weight, so it does know about places, in the seventh digit.
        off = Effects(ir_drop=False, leakage=False)
        torch.testing.assert_close(tile(off).phase(g, x), tile(off).phase(g[:, order], x[:, order]), rtol=1e-9, atol=1e-9)
        near = tile(IDEAL_CLAMP, wire_scale=1e-9).charge(g, x)
        none = tile(Effects(ir_drop=False, regulator=False)).charge(g, x)
        torch.testing.assert_close(near, none, rtol=1e-8, atol=0)

    def test_wire_takes_charge(self):
        g, x = draw(rows=256)
        drop = [ideal_charge(g.numpy(), x.numpy(), 0.2, 1e-9).sum()]
        drop += [
            float(tile(Effects(True, False, False, False, False, False), wire_scale=s).charge(g, x).sum()) for s in (1, 2, 3)
        ]
        losses = -np.diff(drop)
        assert (losses > 0).all()
        assert (np.diff(losses) < 0).all()

    def test_bfloat16(self):
        g, x = draw()
        truth = tile().phase(g, x)
        out = tile(dtype=torch.bfloat16).phase(g.bfloat16(), x.bfloat16())
        assert out.dtype == torch.bfloat16
        assert float((out.double() - truth).norm() / truth.norm()) < 5e-3

    def test_weights_changed_in_place_count(self):
        g, x = draw()
        t = tile()
        first = t.charge(g, x)
        g *= 1.01
        torch.testing.assert_close(t.charge(g, x), tile().charge(g, x), rtol=1e-5, atol=0)
        assert (t.charge(g, x) > first).all()

    def test_new_weights_at_an_old_address_count(self):
        g, x = draw()
        t = tile(Effects.none())
        for k in range(1, 6):
            # Each tensor is gone before the next is made, and the allocator likes to give its place away again.
            torch.testing.assert_close(t.charge(g * k, x), k * tile(Effects.none()).charge(g, x), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g, x: (g[0], x), "conductance_s: expected real numbers, two dimensions (lines, rows)"),
        (lambda g, x: (g, x[:, :5]), "codes: expected 96 rows"),
        (lambda g, x: (g, x - 60), "codes: expected pulses of 0 to 127 LSB"),
        (lambda g, x: (g, x * float("nan")), "codes: expected pulses of 0 to 127 LSB"),
        (lambda g, x: (g, x.long()), "codes: expected real numbers"),
    ],
)
def test_input_errors(change, message):
    with pytest.raises(InputError, match="^" + message.replace("(", r"\(").replace(")", r"\)")):
        tile().charge(*change(*draw()))


def test_unknown_accuracy():
    with pytest.raises(InputError, match=r"^accuracy: expected 'fast', 'exact'"):
        FastTile(MODEL, accuracy="slow")


@pytest.mark.slow
@pytest.mark.parametrize("batch", [128, 1024])
@pytest.mark.parametrize("read", ["torch", "charge", "phase"])
def test_benchmark(benchmark, read, batch):
    """512 x 512, float32; run with ``pytest -m slow``. The table of ratios is ``python -m aimcard.validation.speed``'s."""
    g, x = (q.float() for q in draw(512, 512, batch))
    if read == "torch":
        benchmark(torch.mm, x, (g * 1e6).T)
        return
    t = tile(IDEAL_CLAMP if read == "charge" else None, dtype=torch.float32)
    with torch.no_grad():
        out = benchmark(run, t, read == "phase", g, x)
    assert out.shape == (batch, 512)
