"""Differences of pairs by one product, against the readings that they come to: of the slow twin, and of the fast product."""

import pytest
import torch
from torch import nn

from aimcard.data.shipped import find_card
from aimcard.models.errors import InputError
from aimcard.models.fast import Effects, FastTile
from aimcard.models.fast.exact import solve
from aimcard.models.fast.pair import PairTile, arrange_pairs, phases_of
from aimcard.models.nn import AnalogLinear, Hardware, Mapping, NonIdealities
from aimcard.models.nn.crossbar import Plan
from aimcard.models.nn.usage import Usage

CARD = find_card("freepdk45_gated")
READS = [pytest.param(False, id="charge"), pytest.param(True, id="counts")]
#: Only sums happen to readings.
CHARGE = NonIdealities(regulator=False, adc=False, adc_rounding=False, adc_clip=False)
COUNTS = NonIdealities(adc_rounding=False, adc_clip=False)


def effects(counts):
    return Effects() if counts else Effects(regulator=False)


def draw(pairs=6, rows=64, batch=6, seed=0, levels=1):
    rng = torch.Generator().manual_seed(seed)
    w = torch.randn(levels, pairs, rows, dtype=torch.float64, generator=rng)
    w = w / w.abs().amax(-1, keepdim=True)
    g = 1e-7 + 24.9e-6 * torch.stack([w.clamp(min=0), -w.clamp(max=0)], 1)
    x = (torch.randn(batch, rows, dtype=torch.float64, generator=rng) * 42).clamp(-127, 127).round()
    return g.flatten(0, 2), x


def subtracted(readings, batch, levels=1):
    """What a digital side makes of the readings of both phases."""
    sides = readings.unflatten(-1, (levels, 2, -1))
    found = (sides[..., 0, :] - sides[..., 1, :]).flatten(-2)
    return found[:batch] - found[batch:]


def both_phases(x):
    return torch.cat([x.clamp(min=0), (-x).clamp(min=0)])


def one_minus_r2(found, truth):
    return (found.double() - truth).square().mean(0) / truth.var(0, correction=0)


def run(tile, counts, g, x):
    return tile.phase(g, x) if counts else tile.charge(g, x)


@pytest.mark.parametrize("counts", READS)
@pytest.mark.parametrize("plain", [False, True])
def test_against_four_readings(counts, plain):
    g, x = draw(rows=96)
    truth = subtracted(solve(FastTile(CARD, effects(counts)).circuit, g, both_phases(x), counts=counts), len(x))
    for dtype in (torch.float64, torch.float32) if plain else (torch.float32,):
        tile = FastTile(CARD, effects(counts), dtype=dtype, plain=plain)
        found = run(PairTile(tile), counts, g.to(dtype), x.to(dtype))
        assert found.dtype == dtype
        assert one_minus_r2(found, truth).max() < 1e-5
        read = subtracted(run(tile, counts, g.to(dtype), both_phases(x).to(dtype)), len(x))
        assert one_minus_r2(found, read.double()).max() < 1e-5


def test_nothing_but_the_ideal_product_without_effects():
    g, x = draw()
    tile = FastTile(CARD, Effects.none(), dtype=torch.float64)
    found = PairTile(tile).charge(g, x)
    ideal = tile.circuit.v_read_v * tile.circuit.t_lsb_s * x @ (g[:6] - g[6:]).T
    torch.testing.assert_close(found, ideal, rtol=0, atol=1e-12 * float(ideal.abs().max()))


@pytest.mark.parametrize("counts", READS)
def test_signs(counts):
    g, x = (t.float() for t in draw())
    tile = FastTile(CARD, effects(counts))
    found = run(PairTile(tile), counts, g, x)
    close = {"rtol": 0, "atol": 2e-6 * float(found.abs().max())}
    torch.testing.assert_close(run(PairTile(tile), counts, g, -x), -found, **close)
    torch.testing.assert_close(run(PairTile(tile), counts, torch.cat([g[6:], g[:6]]), x), -found, **close)
    assert not run(PairTile(tile), counts, g, torch.zeros_like(x)).abs().max() > close["atol"]


@pytest.mark.parametrize("counts", READS)
def test_pairs_of_any_size_and_in_any_order(counts):
    """Pairs that fit no common middle column are read four times, and all come back where they were."""
    g, x = draw(pairs=7)
    # One of one sign only, one that hardly conducts, one of half the size.
    g[2], g[9], g[4], g[11], g[12] = 20e-6, 1e-7, 1e-7, 2e-7, g[12] / 2
    tile = FastTile(CARD, effects(counts))
    truth = subtracted(solve(tile.circuit, g, both_phases(x), counts=counts), len(x))
    found = run(PairTile(tile), counts, g.float(), x.float())
    assert ((found.double() - truth).square().mean(0).sqrt() < 5e-3 * truth.std(0)).all()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    moved = run(PairTile(tile), counts, torch.cat([g[:7][order], g[7:][order]]).float(), x.float())
    torch.testing.assert_close(moved, found[:, order], rtol=0, atol=2e-6 * float(found.abs().max()))


def test_levels_are_pairs_of_their_own():
    g, x = (t.float() for t in draw(levels=2))
    tile = FastTile(CARD, effects(False))
    found = PairTile(tile, levels=2).charge(g, x)
    read = subtracted(tile.charge(g, both_phases(x)), len(x), 2)
    torch.testing.assert_close(found, read, rtol=0, atol=3e-3 * float(found.std()))
    alone = torch.cat([PairTile(tile).charge(part, x) for part in g.chunk(2)], 1)
    torch.testing.assert_close(found, alone, rtol=0, atol=3e-3 * float(found.std()))


def test_changed_conductances_are_seen_and_a_batch_does_not_matter():
    g, x = (t.float() for t in draw(batch=150))
    pairs = PairTile(FastTile(CARD, effects(False)))
    before = pairs.charge(g, x)
    torch.testing.assert_close(pairs.charge(g, x[140:]), before[140:], rtol=1e-5, atol=1e-20)
    # Among vectors of one sign no second phase is driven.
    mixed = pairs.charge(g, torch.cat([x[:1].abs(), x[:1]]))
    torch.testing.assert_close(pairs.charge(g, x[:1].abs()), mixed[:1], rtol=0, atol=2e-6 * float(mixed.abs().max()))
    g[:6] *= 0.9
    assert not torch.equal(pairs.charge(g, x), before)
    torch.testing.assert_close(pairs.charge(g, x), pairs.charge(g.clone(), x))


def test_groups_of_pairs():
    total = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) + 0.2
    apart = total.amax(1) / total.amin(1)
    for ratio in (1.3, 2.0):
        groups, rest = arrange_pairs(total, ratio, 200)
        assert torch.equal(torch.cat([*groups, rest]).sort().values, torch.arange(200))
        assert max(float(total[pairs].max() / total[pairs].min()) for pairs in groups) <= ratio
        assert torch.equal(rest, torch.nonzero(apart > ratio)[:, 0])
    # With few groups the ratio gives way.
    groups, rest = arrange_pairs(total, 1.3, 3)
    assert len(groups) <= 3
    assert len(rest) < int((apart > 1.3).sum())


def test_phases():
    x = torch.tensor([[3.0, -2.0, 0.0]])
    assert phases_of(x).tolist() == [[3, 0, 0], [0, 2, 0]]
    assert phases_of(x.abs()).tolist() == [[3, 2, 0]]


def test_the_slow_twin_is_read_line_by_line():
    with pytest.raises(InputError, match="subtract its readings"):
        PairTile(FastTile(CARD, accuracy="exact"))
    g, x = draw()
    with pytest.raises(InputError, match="rows"):
        PairTile(FastTile(CARD)).charge(g, x[:, 1:])
    with pytest.raises(InputError, match="LSB"):
        PairTile(FastTile(CARD)).charge(g, 2 * x)


def test_a_tolerance_sets_the_pairs_too():
    g, x = draw(pairs=3, rows=40)
    tile = FastTile(CARD, effects(True), accuracy=1e-6)
    truth = subtracted(solve(tile.circuit, g, both_phases(x), counts=True), len(x))
    assert one_minus_r2(PairTile(tile).phase(g.float(), x.float()), truth).max() < 3e-6


def layer(n, accuracy="fast", **mapping):
    torch.manual_seed(0)
    linear = nn.Linear(40, 4, bias=False)
    return AnalogLinear.from_digital(linear, Plan(Hardware(CARD, accuracy), Mapping(**mapping), n)).eval()


@pytest.mark.parametrize("n", [CHARGE, COUNTS], ids=["charge", "counts"])
@pytest.mark.parametrize("mapping", [{}, {"rows": 24}, {"significance": (1.0, 0.5)}, {"signed": False}])
def test_a_layer_takes_them_where_only_sums_happen_to_readings(n, mapping):
    x = torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    x = x if mapping.get("signed", True) else x.abs()
    fast, exact = layer(n, **mapping), layer(n, "exact", **mapping)
    with torch.no_grad():
        found, truth = fast(x), exact(x).double()
        assert fast.crossbar.plan.hardware._pairs
        # The same by readings, which ``show`` wants to see.
        fast.crossbar.usage = Usage()
        read = fast(x)
    assert one_minus_r2(found, truth).max() < 2e-5
    assert one_minus_r2(found, read.double()).max() < 2e-5
    # With gradients readings are taken.
    fast.crossbar.usage = None
    assert one_minus_r2(found, fast(x).detach().double()).max() < 2e-5


@pytest.mark.parametrize("counts", READS)
def test_gradients_of_the_readings_are_those_of_the_differences(counts):
    """By finite differences, along one direction of either argument; cells change in parts of what they are, since a gradient
    knows the pulse of a small cell better than the value does."""
    g, x = draw(pairs=3, rows=60, batch=3)
    x = x.clamp(-120, 120) + 0.3
    tile = FastTile(CARD, effects(counts), dtype=torch.float64, plain=True)
    pairs, rng = PairTile(tile), torch.Generator().manual_seed(2)
    weight, scale = torch.randn(3, 3, dtype=torch.float64, generator=rng), 1.0 if counts else 1e15
    a, b = g.clone().requires_grad_(), x.clone().requires_grad_()
    found = subtracted(run(tile, counts, a, torch.cat([b.clamp(min=0), (-b).clamp(min=0)])), 3)
    (scale * found * weight).sum().backward()
    for to_g, to_x in ((1e-3 * g, torch.zeros(1)), (torch.zeros(1), torch.full_like(x, 0.2))):
        dg, dx = (d * torch.randn(t.shape, dtype=torch.float64, generator=rng) for d, t in ((to_g, g), (to_x, x)))
        up, down = (float((scale * run(pairs, counts, g + s * dg, x + s * dx) * weight).sum()) for s in (1, -1))
        slope, size = (a.grad * dg).sum() + (b.grad * dx).sum(), (to_g * a.grad).norm() + (to_x * b.grad).norm()
        assert abs((up - down) / 2 - float(slope)) < 1e-2 * float(size)


def test_a_counter_that_rounds_sees_every_reading():
    x = torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for n in (NonIdealities(), NonIdealities(read_noise="analytical", adc_rounding=False, adc_clip=False)):
            whole = layer(n)
            whole(x)
            assert not whole.crossbar.plan.hardware._pairs
