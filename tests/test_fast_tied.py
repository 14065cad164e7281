"""A tied tile as one product: limits, symmetry, and the slow twin in values and gradients."""

import math

import numpy as np
import pytest
import torch

from aimcard.calibrate.tied_parameters import TIED_SPECS
from aimcard.models.card import Interval, Parameter, Table
from aimcard.models.errors import CardError, InputError
from aimcard.models.fast import Effects
from aimcard.models.fast.tied import TiedProduct
from aimcard.models.fast.tied_lines import CellTable
from aimcard.models.fast.tied_modes import Bend, Modes
from aimcard.models.fast.tied_weights import prepare, transfer
from aimcard.models.tied import transfer as swept
from aimcard.models.tied_tile import EDGE_TABLES, TiedTile

VALUES = {n: s.start for n, s in TIED_SPECS.items()} | {
    "k_mid_per_v": 5.0, "k_mid_per_v2": -10.0, "k_drain_per_v2": 20.0, "t_node_s_per_s": 1e-7,
}  # fmt: skip
OHMIC = VALUES | {"r_on_ohm": 1e-3, "k_mid_per_v": 0.0, "k_mid_per_v2": 0.0, "k_drain_per_v2": 0.0, "i_gate_a": 0.0}
NO_EDGES = {"t_start_s": 0.0, "t_end_s": 0.0, "t_node_s_per_s": 0.0}
DELAYS = dict(zip(EDGE_TABLES, (200e-12, 212e-12, 190e-12, 205e-12), strict=True))
CODE_MAX = 31


@pytest.fixture
def tile_of(card_of):
    def make(values=VALUES, delays=DELAYS) -> TiedTile:
        meta = card_of().meta | {"topology": "tied", "v_common_v": 0.4, "code_max": CODE_MAX, "guard_slots": 3}
        place = np.array([0.0, 1.0])
        return TiedTile(card_of(
            meta=meta,
            parameters=[Parameter(n, v, unit=TIED_SPECS[n].unit) for n, v in values.items()],
            tables=[Table(n, place, np.full(2, d), "1", "s", "position", "delay") for n, d in delays.items()],
            domain=card_of().domain | {"code": Interval(-CODE_MAX, CODE_MAX, "1")},
        ))  # fmt: skip

    return make


def pairs(lines: int, rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    w = np.clip(np.random.default_rng(seed).normal(0, 1 / 3, (lines, rows)), -1, 1)
    return tuple(torch.tensor(1e-7 + np.maximum(s * w, 0) * 24.9e-6) for s in (1, -1))  # type: ignore[return-value]


def codes(batch: int, rows: int, seed: int = 1) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).integers(-CODE_MAX, CODE_MAX + 1, (batch, rows)).astype(float))


@pytest.mark.parametrize("accuracy", ["fast", "two"])
def test_against_the_slow_twin(tile_of, accuracy):
    g, x = pairs(4, 256), codes(12, 256)
    one_minus_r2 = TiedProduct(tile_of(), accuracy, dtype=torch.float64).error(*g, x, lines=4, vectors=12)
    assert one_minus_r2 < 1e-6
    # The uncorrected product is far off: the test can tell.
    exact = TiedProduct(tile_of(), "exact", dtype=torch.float64).charge(*g, x)
    ideal = 0.2 * 1e-9 * x @ (g[0] - g[1]).T
    assert float(((ideal - exact).square().mean(0) / exact.var(0)).max()) > 1e-4


def test_the_twin_is_the_tile(tile_of):
    tile, g, x = tile_of(), pairs(2, 16), codes(3, 16)
    out = tile.respond(g[0].numpy(), x.numpy().astype(int), conductance_minus_s=g[1].numpy())
    exact = TiedProduct(tile, "exact", dtype=torch.float64).charge(*g, x)
    np.testing.assert_allclose(exact.numpy(), out.charge_c, rtol=1e-12)


def test_without_wire_transistor_and_edges_it_is_the_product(tile_of):
    still = dict.fromkeys(DELAYS, 2e-10)
    tile = tile_of(OHMIC | NO_EDGES | {"r_bit_ohm": 0.0}, still)
    g, x = pairs(3, 17), codes(5, 17)
    ideal = tile.v_read_v * tile.t_lsb_s * x @ (g[0] - g[1]).T
    for dtype, tolerance in ((torch.float64, 1e-7), (torch.float32, 1e-6)):
        found = TiedProduct(tile, dtype=dtype).charge(*(a.to(dtype) for a in (*g, x))).double()
        # The rest of the distance is R_on = 1 mOhm in series with 25 uS.
        assert float((found - ideal).abs().max()) < tolerance * float(ideal.abs().max())


def test_equal_delays_and_ohmic_cells_are_odd_in_the_inputs(tile_of):
    g, x = pairs(3, 64), codes(4, 64)
    product = TiedProduct(tile_of(OHMIC, dict.fromkeys(DELAYS, 2e-10)), dtype=torch.float64)
    rest = product.charge(*g, torch.zeros_like(x))
    up, down = product.charge(*g, x) - rest, product.charge(*g, -x) - rest
    torch.testing.assert_close(up, -down, rtol=1e-9, atol=1e-9 * float(up.abs().max()))


def test_vectors_are_independent_and_any_shape_goes(tile_of):
    """Lines share the edges' LSBs and row profiles, so they depend on each other, but only within the edges' own terms."""
    product = TiedProduct(tile_of(), "two", dtype=torch.float64)
    for lines, rows, batch in ((1, 1, 1), (3, 7, 5), (2, 13, 1)):
        g, x = pairs(lines, rows), codes(batch, rows)
        whole = product.charge(*g, x)
        assert whole.shape == (batch, lines)
        alone = torch.cat([product.charge(g[0][k : k + 1], g[1][k : k + 1], x) for k in range(lines)], 1)
        torch.testing.assert_close(whole, alone, rtol=0, atol=2e-3 * float(whole.abs().max()))
        torch.testing.assert_close(whole.flip(0), product.charge(*g, x.flip(0)), rtol=1e-12, atol=0)


def test_gradients_are_the_slow_twins(tile_of):
    tile, (plus, minus), x = tile_of(), pairs(3, 32), codes(4, 32)
    weigh = torch.tensor(np.random.default_rng(5).normal(size=(4, 3)))
    found = []
    for accuracy in ("two", "exact"):
        g = [a.clone().requires_grad_(True) for a in (plus, minus)]
        out = TiedProduct(tile, accuracy, dtype=torch.float64).charge(*g, x)
        found.append(torch.autograd.grad((out * weigh).sum(), g))
    for fast, twin in zip(*found, strict=True):
        assert float((fast - twin).norm() / twin.norm()) < 1e-3
    # Between whole codes the twin is linear in a code, so its slope is a difference.
    k, up = (0, 3), x.clone()
    base = float(x[k].abs())
    x[k], up[k] = base if base < CODE_MAX else base - 1, (base if base < CODE_MAX else base - 1) + 1
    twin = TiedProduct(tile, "exact", dtype=torch.float64)
    slope = ((twin.charge(plus, minus, up) - twin.charge(plus, minus, x)) * weigh).sum()
    at = x.clone().requires_grad_(True)
    (TiedProduct(tile, "two", dtype=torch.float64).charge(plus, minus, at) * weigh).sum().backward()
    assert at.grad is not None
    assert float(at.grad[k]) == pytest.approx(float(slope), rel=2e-2)


def test_gradcheck_in_the_conductances_and_codes(tile_of):
    product = TiedProduct(tile_of(), "two", dtype=torch.float64)
    (plus, minus), x = pairs(2, 5), codes(2, 5)

    def scaled(p, m, x):
        return product.charge(p * 1e-6, m * 1e-6, x) * 1e15

    inputs = [a.requires_grad_(True) for a in (plus * 1e6, minus * 1e6, x + 0.3)]
    assert torch.autograd.gradcheck(scaled, inputs, rtol=1e-4, atol=1e-6)


LINE_A = torch.linspace(-200e-6, 200e-6, 41, dtype=torch.float64)
RATE = (LINE_A, 2e10 * (1 + LINE_A / 200e-6 / (1 + (LINE_A + 200e-6) / 900e-6)))


@pytest.fixture
def bent_tile_of(tile_of):
    """A tied tile with a regulator of 5 Ohm that rests 1 mV low."""

    def make(values=VALUES):
        tile = tile_of(values)
        tile.tables["clamp"] = LINE_A, 0.399 - 5.0 * LINE_A
        return tile

    return make


@pytest.mark.parametrize("regulator", [False, True])
def test_counts_against_the_slow_twin(bent_tile_of, regulator):
    g, x = pairs(3, 160), codes(16, 160)
    for dtype in (torch.float64, torch.float32):
        product = TiedProduct(bent_tile_of(), dtype=dtype, effects=Effects(regulator=regulator), rate=RATE)
        assert product.error(*g, x, vectors=16, counts=True) < 5e-6
    # A straight line through the rate is far off: the test can tell.
    with torch.no_grad():
        exact = TiedProduct(bent_tile_of(), "exact", dtype=torch.float64, effects=product.effects, rate=RATE).phase(*g, x)
        charge = product.charge(*g, x).double()
        slope = (charge * (exact - exact.mean(0))).sum(0) / (charge * (charge - charge.mean(0))).sum(0)
        line = exact.mean(0) + slope * (charge - charge.mean(0))
    assert float(((line - exact).square().mean(0) / exact.var(0)).min()) > 1e-4


def test_a_regulator_bends_the_charge(bent_tile_of):
    g, x = pairs(3, 160), codes(8, 160)
    on = TiedProduct(bent_tile_of(), dtype=torch.float64, effects=Effects())
    assert on.error(*g, x, vectors=12) < 1e-6
    ideal = TiedProduct(bent_tile_of(), dtype=torch.float64).charge(*g, x, idle=False)
    # 5 Ohm on some mS: about two percent less.
    ratio = float((on.charge(*g, x, idle=False) * ideal).sum() / ideal.square().sum())
    assert 0.97 < ratio < 0.995


def test_a_tolerance_is_met_with_as_few_functions_as_it_takes(bent_tile_of):
    g, x, modes = pairs(2, 100), codes(8, 100), []
    for tolerance in (1e-3, 1e-6):
        product = TiedProduct(bent_tile_of(), tolerance, dtype=torch.float64, effects=Effects(), rate=RATE)
        assert product.error(*g, x, vectors=8, counts=True) < 2 * tolerance
        modes.append(product.settings(*g, x, counts=True).modes)
    assert modes == sorted(set(modes))


def test_without_inputs_the_counts_are_the_twins(bent_tile_of):
    g, none = pairs(3, 50), torch.zeros(2, 50, dtype=torch.float64)
    counts = [TiedProduct(bent_tile_of(), a, dtype=torch.float64, effects=Effects(), rate=RATE) for a in ("fast", "exact")]
    torch.testing.assert_close(*(p.phase(*g, none) for p in counts), rtol=1e-7, atol=0)
    for p in counts:
        assert float(p.phase(*g, none, idle=False).abs().max()) < 1e-9


@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_functions_of_the_window(count):
    """Odd; their squares at the midpoints hold all of ∫I² that the cosines do, and what they leave of a pulse's is the rest."""
    modes = Modes(count, 127)
    x = torch.linspace(-127, 127, 301, dtype=torch.float64)
    f, weights = modes.features(x, torch.float64), torch.tensor(modes.weights)
    torch.testing.assert_close(f, -modes.features(-x, torch.float64))
    held = (weights[:, None] * f * f).sum(0)
    torch.testing.assert_close(held + modes.left(x), x.abs())
    # Σ_m (∫_0^x e_m dt)², the cosines written out in their own time.
    t = torch.linspace(0, 127, 20001, dtype=torch.float64)
    u, root = t / 127, math.sqrt(1 + modes.warp)
    s, rate = u * root / (1 + modes.warp * u * u).sqrt(), root / (127 * (1 + modes.warp * u * u) ** 1.5)
    within = sum(
        torch.cumulative_trapezoid((2 * rate).sqrt() * torch.cos((m + 0.5) * math.pi * s), t).square() for m in range(count)
    )
    truth = np.interp(x.abs().numpy(), t[1:].numpy(), within.numpy())
    np.testing.assert_allclose(held.numpy(), truth, atol=0.05)
    assert float(modes.left(x).min()) > -0.05
    step = 1e-4
    difference = (modes.features(x + step, torch.float64) - modes.features(x - step, torch.float64)) / (2 * step)
    torch.testing.assert_close(modes.slopes(x, torch.float64), difference, rtol=1e-5, atol=1e-8)


def test_early_windows_are_seen_more_closely():
    """What few functions leave of a pulse as Gaussian codes have it is less than evenly spaced ones leave."""
    x = torch.arange(128, dtype=torch.float64)
    usual = torch.exp(-0.5 * (x / 40) ** 2)
    for count in (2, 3, 4):
        cosines = sum(2 * 127 / (m * math.pi) ** 2 * torch.sin(m * math.pi * x / 127) ** 2 for m in np.arange(count) + 0.5)
        assert float((usual * Modes(count, 127).left(x)).sum()) < 0.9 * float((usual * (x - cosines)).sum())


@pytest.mark.parametrize("shift", [0.0, 0.25])
@pytest.mark.parametrize("effects", [Effects(), Effects(pulse=False)])
def test_compiled_and_plain_passes_agree(bent_tile_of, monkeypatch, effects, shift):
    """Codes that are not whole, or long edges, take the float32 product; whole ones without edges the products of bytes."""
    g, x = [a.float() for a in pairs(5, 70)], codes(70, 70).float().clamp(max=30) + shift
    outs = []
    for compiled in (True, False):
        monkeypatch.setattr("aimcard.models.fast.tied_modes.available", lambda there=compiled: there)
        product = TiedProduct(bent_tile_of(), effects=effects, rate=RATE)
        outs.append(product.phase(*g, x, idle=False))
        outs.append(product.charge(*g, x, idle=False))
        if compiled:
            made, settings = product._weights(*g, x, True)
            of_bytes = made.small.answers(x[None], product._modes_of(settings, made), 0.0)
            assert (of_bytes is not None) == (shift == 0.0 and not effects.pulse)
    for a, b in zip(outs[:2], outs[2:], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4 * float(a.abs().max()))


def test_two_bytes_hold_the_linear_part(bent_tile_of):
    """Codes of one LSB hardly bend: whole ones have the answers of ones a little beside them, in proportion, row by row."""
    g = [a.float() for a in pairs(5, 70)]
    product = TiedProduct(bent_tile_of(), effects=Effects(pulse=False), rate=RATE)
    one = torch.eye(70)
    whole, beside = (product.phase(*g, one * size, idle=False) / size for size in (1.0, 1.001))
    torch.testing.assert_close(whole, beside, rtol=0, atol=2e-4 * float(whole.abs().max()))


@pytest.mark.parametrize("effects", [Effects(), Effects.none(), Effects(ir_drop=False), Effects(regulator=False)])
def test_columns_from_tables_are_the_columns(bent_tile_of, effects):
    """Tiles at once, lines of no difference and of least conductance among them."""
    plus, minus = (torch.stack([g, g.flip(0)]).float() for g in pairs(5, 70))
    plus[0, 1], minus[1, 2], plus[1, 3], minus[1, 3] = minus[0, 1], 1e-7, 1e-7, 1e-7
    product = TiedProduct(bent_tile_of(), effects=effects, rate=RATE)
    for counts in (False, True):
        one, two = (
            prepare(product.circuit, plus, minus, lambda y: product._response(counts, y), table=table)  # noqa: B023
            for table in (None, CellTable.of(product.circuit, 3e-5))
        )
        for name in ("wide", "rows_of", "delta_lsb", "y_s"):
            a, b = getattr(one, name), getattr(two, name)
            # Even parts are small differences of what the table has.
            torch.testing.assert_close(a, b, rtol=1e-3, atol=5e-6 * float(a.abs().max()) + 1e-30)
        torch.testing.assert_close(one.wide[..., :70], two.wide[..., :70], rtol=0, atol=1e-6 * float(one.wide.abs().max()))


def test_gradients_of_counts_are_the_slow_twins(bent_tile_of):
    tile, (plus, minus), x = bent_tile_of(), pairs(3, 32), codes(4, 32)
    weigh = torch.tensor(np.random.default_rng(5).normal(size=(4, 3)))
    found = []
    for accuracy in (1e-9, "exact"):
        g = [a.clone().requires_grad_(True) for a in (plus, minus)]
        out = TiedProduct(tile, accuracy, dtype=torch.float64, effects=Effects(), rate=RATE).phase(*g, x)
        found.append(torch.autograd.grad((out * weigh).sum(), g))
    for fast, twin in zip(*found, strict=True):
        assert float((fast - twin).norm() / twin.norm()) < 2e-3


def test_gradcheck_of_what_bends():
    modes, rng = Modes(3, CODE_MAX), torch.Generator().manual_seed(1)
    x = torch.rand(4, 5, dtype=torch.float64, generator=rng) * 20 - 10
    weight = torch.randn(3, 5, dtype=torch.float64, generator=rng) / 9
    c = torch.randn(4, 1, 3, dtype=torch.float64, generator=rng)

    def bend(x, w):
        return Bend.apply(x, w, w.detach(), c, modes)

    assert torch.autograd.gradcheck(bend, (x.requires_grad_(True), weight.requires_grad_(True)))


def test_series_and_sweep_along_a_column_agree():
    g = torch.rand(3, 300, dtype=torch.float64) * 2e-5
    for r in (0.0, 0.15, 1.5, 15.0):
        for found, truth in zip(transfer(g, r), swept(g, r), strict=True):
            torch.testing.assert_close(found, truth, rtol=1e-11, atol=0)


def test_bad_input_is_one_line(tile_of, card_of):
    product, (plus, minus), x = TiedProduct(tile_of()), pairs(2, 5), codes(2, 5)
    for g, m, c, words in (
        (plus, minus[:, :4], x, "expected (2, 5)"), (plus, minus, x[:, :4], "5 rows"),
        (plus, minus, 62 * x.sign(), "at most 31 LSB"), (plus, minus, x.long(), "real numbers"),
    ):  # fmt: skip
        with pytest.raises(InputError) as error:
            product.charge(g, m, c)
        assert words in str(error.value)
    with pytest.raises(InputError, match="accuracy"):
        TiedProduct(tile_of(), "quick")
    with pytest.raises(InputError, match="no table 'adc'; take the charge, or give rate"):
        product.phase(plus, minus, x)
    with pytest.raises(CardError, match="expected 'tied'"):
        TiedProduct(card_of())
