"""The fused kernels run by Triton's interpreter, against plain torch: ``test_triton.py`` runs this file with TRITON_INTERPRET=1.

Both are judged by their distance from plain torch in double precision: what the kernels round may be no more than three times
what plain torch rounds in float32, and a millionth of the largest value.
"""

from dataclasses import replace

import pytest
import torch

from aimcard.data import shipped_card
from aimcard.models.fast import (
    Effects,
    FastTile,
    columns,
    fused,
    fused_bins,
    fused_check,
    fused_ladder,
    fused_products,
    fused_rows,
    fused_sums,
    shared,
    tile,
)
from aimcard.models.fast.columns import Settings, group
from aimcard.models.fast.compiled import SlowerPathWarning
from aimcard.models.fast.fused import Fused
from aimcard.models.fast.meanfield import EXTRA, prepare
from aimcard.models.fast.shared import SharedTile
from aimcard.models.tile import TileModel

MODEL = TileModel.read(shipped_card())
READS = [pytest.param(False, Effects(regulator=False), id="charge"), pytest.param(True, Effects(), id="phase")]


def draw(lines, rows, batch, seed=0):
    """Lines of totals 0.6 to 1.9 times their mean, and codes whole and broken, with an idle vector among several."""
    rng = torch.Generator().manual_seed(seed)
    g = (torch.rand(lines, rows, generator=rng) * 5e-6 + 1e-7) * torch.linspace(0.6, 1.9, lines)[:, None]
    x = torch.randint(0, 127, (batch, rows), generator=rng) + 0.25 * (torch.rand(batch, rows, generator=rng) > 0.5)
    if batch > 1:
        x[0] = 0
        x[1, ::2] = 127
    return g, x


def is_as_near(found, plain, truth):
    """Whether the kernels' float32 numbers are about as near to the double ones as plain torch's float32 numbers are."""
    bound = 3 * float((plain.double() - truth).abs().max()) + 1e-6 * float(truth.abs().max())
    worst = float((found.double() - truth).abs().max())
    assert worst <= bound, (worst, bound)


@pytest.fixture
def exact(monkeypatch):
    """Squares in float32, wherever this runs."""
    monkeypatch.setattr(columns, "low_precision", lambda device: False)


@pytest.fixture
def large(monkeypatch):
    """Few and large programs, short loops: the interpreter takes as long for a small program as for a large one."""
    coarse = {False: Settings(2, 2, 1, 1.6), True: Settings(3, 2, 2, 1.6)}
    for module in (tile, shared):
        monkeypatch.setattr(module, "FAST", coarse)
    for module in (fused_sums, fused_rows, fused_products):
        monkeypatch.setattr(module, "VECTORS", 64)
    monkeypatch.setattr(fused_ladder, "LANES", 512)
    monkeypatch.setattr(fused_bins, "NUMBERS", 512)


class TestPreparation:
    @pytest.mark.parametrize(("counts", "effects"), READS)
    def test_is_plain_torchs(self, counts, effects):
        g, x = draw(lines=9, rows=67, batch=5)
        plan = group(FastTile(MODEL, effects).circuit, g, Settings(6, 5, 3, 1.3), counts=counts, plain=True).plans[0]
        assert len(plan.ref.scales) > 1
        truth, plain = (prepare(plan.ref, codes, plan.squares, True) for codes in (x.double(), x))
        found = Fused(plan.ref, plan.squares, x.device, half=False)(x, True)
        for name in ("z", "scale", "cubic", "y_rate", "z_rate"):
            is_as_near(*(getattr(p, name) for p in (found, plain, truth)))
        assert torch.equal(found.sign.double(), truth.sign)
        is_as_near(*(p.y[..., :-EXTRA] for p in (found, plain, truth)))
        for column in range(EXTRA):
            is_as_near(*(p.y[..., column - EXTRA] for p in (found, plain, truth)))

    @pytest.mark.parametrize("off", ["leakage", "pulse", "ir_drop", "apparent_weight"])
    @pytest.mark.usefixtures("large")
    def test_without_an_effect(self, off):
        g, x = draw(lines=2, rows=11, batch=3)
        circuit = FastTile(MODEL, replace(Effects(), **{off: False})).circuit
        plan = group(circuit, g, Settings(3, 3, 2, 9.0), counts=True, plain=True).plans[0]
        truth, plain = (prepare(plan.ref, codes, plan.squares) for codes in (x.double(), x))
        found = Fused(plan.ref, plan.squares, x.device, half=False)(x)
        assert found.y_rate is None
        for name in ("y", "z", "scale"):
            is_as_near(*(getattr(p, name) for p in (found, plain, truth)))

    @pytest.mark.usefixtures("large")
    def test_one_bin_one_segment_and_no_square(self):
        g, x = draw(lines=2, rows=3, batch=2)
        plan = group(FastTile(MODEL).circuit, g, Settings(1, 1, 0, 9.0), counts=True, plain=True).plans[0]
        truth, plain = (prepare(plan.ref, codes, 0, True) for codes in (x.double(), x))
        found = Fused(plan.ref, 0, x.device, half=False)(x, True)
        assert found.z.shape == (0, 2, 3)
        for name in ("y", "y_rate"):
            is_as_near(*(getattr(p, name) for p in (found, plain, truth)))


class TestAnswers:
    def answers(self, make, counts, g, x, like):
        """Answers and gradients to conductances and codes."""
        g, x = (q.to(like).requires_grad_() for q in (g, x))
        made = make(like)
        out = (made.phase if counts else made.charge)(g, x)
        weight = torch.linspace(-1, 1, out.numel(), dtype=like).view_as(out)
        return out.detach(), *torch.autograd.grad((out * weight).sum() / out.detach().std(correction=0).clamp(min=1e-30), (g, x))

    @pytest.mark.parametrize(("lines", "rows", "batch"), [(1, 1, 1), (5, 13, 33)])
    @pytest.mark.parametrize(("counts", "effects"), READS)
    @pytest.mark.usefixtures("large", "exact")
    def test_values_and_gradients(self, counts, effects, lines, rows, batch):
        g, x = draw(lines, rows, batch)
        truth = self.answers(lambda d: FastTile(MODEL, effects, dtype=d), counts, g, x, torch.float64)
        plain = self.answers(lambda d: FastTile(MODEL, effects, dtype=d, plain=True), counts, g, x, torch.float32)
        found = self.answers(lambda d: FastTile(MODEL, effects, dtype=d), counts, g, x, torch.float32)
        for numbers in zip(found, plain, truth, strict=True):
            is_as_near(*numbers)

    @pytest.mark.usefixtures("large")
    def test_squares_in_bfloat16(self, monkeypatch):
        monkeypatch.setattr(columns, "low_precision", lambda device: True)
        g, x = draw(lines=5, rows=13, batch=3)
        g = g[1:4]
        made = FastTile(MODEL)
        truth = self.answers(lambda d: FastTile(MODEL, dtype=d), True, g, x, torch.float64)
        plain = self.answers(lambda d: FastTile(MODEL, dtype=d, plain=True), True, g, x, torch.float32)
        found = self.answers(lambda d: made, True, g, x, torch.float32)
        plan = made.columns(g, x, True).plans[0]
        assert plan.fused is not None
        assert plan.prepare(x).z.dtype == torch.bfloat16
        for numbers in zip(found, plain, truth, strict=True):
            is_as_near(*numbers)

    @pytest.mark.usefixtures("large")
    def test_ideal_product(self):
        g, x = draw(lines=3, rows=17, batch=4)
        made = FastTile(MODEL, Effects.none())
        exact = MODEL.v_read_v * MODEL.t_lsb_s * x.double() @ g.double().T
        torch.testing.assert_close(made.charge(g, x).double(), exact, rtol=1e-6, atol=0)

    @pytest.mark.usefixtures("large", "exact")
    def test_two_phases(self):
        g, x = draw(lines=1, rows=5, batch=2)
        truth, plain, found = (
            FastTile(MODEL, Effects(regulator=False), dtype=d, plain=p, mode="split").charge(g.to(d), x.round().to(d))
            for d, p in ((torch.float64, True), (torch.float32, True), (torch.float32, False))
        )
        is_as_near(found, plain, truth)

    @pytest.mark.usefixtures("large", "exact")
    def test_many_tiles_at_once(self):
        g, x = draw(lines=6, rows=17, batch=4)
        g, x = g.view(2, 3, 17), x.view(2, 2, 17)
        truth, plain, found = (
            SharedTile(FastTile(MODEL, Effects(regulator=False), dtype=d, plain=p), 1e-7, 1e-5).charge(g.to(d), x.to(d))
            for d, p in ((torch.float64, True), (torch.float32, True), (torch.float32, False))
        )
        is_as_near(found, plain, truth)


class TestCheck:
    """What is wrong on a device is seen at the first use, said once, and left out."""

    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch):
        monkeypatch.setattr(fused_check, "_found", {})

    @pytest.mark.usefixtures("large")
    def test_kernels_agree(self, monkeypatch):
        monkeypatch.setattr(columns, "low_precision", lambda device: True)
        g, x = draw(lines=5, rows=13, batch=3)
        made = FastTile(MODEL)
        found = made.columns(g, x, True)
        assert fused_check._found == {g.device: True}
        assert fused_check.departure(found, made.circuit, g) < fused_check.BOUND / 5

    @pytest.mark.parametrize(
        ("launch", "said"),
        [
            pytest.param(lambda kernel, grid, *arguments, **options: None, "depart", id="that do nothing"),
            pytest.param(lambda kernel, grid, *arguments, **options: 1 / 0, "ZeroDivisionError", id="that fail"),
        ],
    )
    @pytest.mark.usefixtures("large")
    def test_kernels(self, launch, said, monkeypatch):
        monkeypatch.setattr(fused, "launch", launch)
        g, x = draw(lines=5, rows=13, batch=3)
        with pytest.warns(SlowerPathWarning, match=said):
            found = FastTile(MODEL).charge(g, x)
        assert torch.equal(found, FastTile(MODEL, plain=True).charge(g, x))


class TestDispatch:
    def plans(self, **options):
        g, x = draw(lines=2, rows=5, batch=2)
        return FastTile(MODEL, **options).columns(g.to(options.get("dtype", torch.float32)), x, False).plans

    def test_float32_gets_the_kernels(self):
        assert all(p.fused is not None and p.kernel is None for p in self.plans())

    @pytest.mark.parametrize("options", [{"plain": True}, {"dtype": torch.float64}], ids=["plain", "double"])
    def test_others_do_not(self, options):
        assert all(p.fused is None and p.kernel is None for p in self.plans(**options))

    def test_switched_off_in_the_environment(self, monkeypatch):
        monkeypatch.setenv("AIMCARD_PLAIN", "1")
        assert all(p.fused is None and p.kernel is None for p in self.plans())

    @pytest.mark.usefixtures("large")
    def test_new_weights_keep_them(self):
        g, x = draw(lines=1, rows=5, batch=2)
        made = FastTile(MODEL)
        before = made.charge(g, x)
        g *= 1.001
        after = made.charge(g, x)
        assert made.columns(g, x, False).plans[0].fused is not None
        torch.testing.assert_close(after, before * 1.001, rtol=1e-3, atol=0)
