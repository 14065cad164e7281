"""Fast products in every PWM mode, in both topologies: the slow twin in values and gradients, limits, and refusals."""

from dataclasses import replace

import attrs
import numpy as np
import pytest
import torch

from aimcard.data import shipped_card
from aimcard.models.errors import InputError
from aimcard.models.fast import Effects, FastTile, TiedProduct
from aimcard.models.fast.phase_charges import slot_charges
from aimcard.models.fast.phase_errors import places, vector_errors
from aimcard.models.fast.phase_rest import features
from aimcard.models.fast.phases import digits
from aimcard.models.fast.weights import pulse_charge
from aimcard.models.modes import Phase, build_mode, get_mode, mode_names
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel

GATED, TIED = TileModel.read(shipped_card()), TiedTile.read(shipped_card("freepdk45_tied"))
IDEAL_CLAMP = Effects(regulator=False)
ALIGNED = ("split", "split_lsb_first", "three_digit", "bitwise")
APART = ("end_aligned_halves", "staggered")


def _nines(code_max: int) -> tuple[Phase, ...]:
    """A mode of a user's: base nine, the last digit first, a pause between."""

    def digit(weight: int, of: int):
        return lambda codes, rows: (0 * (codes + rows), codes // weight % of + 0 * rows)

    return (Phase(1, 8, digit(1, 9)), Phase(9, code_max // 9, digit(9, code_max)))


NINES = build_mode("nines", _nines)


NAME = lambda m: getattr(m, "name", m)  # noqa: E731
SPLIT = "split"


def draw(lines=8, rows=256, batch=12, on=0.5, seed=0):
    """Positive parts of normal weights, and normal codes on half of the rows."""
    rng = np.random.default_rng(seed)
    w = np.clip(rng.normal(0, 1 / 3, (lines, rows)), 0, 1)
    x = np.clip(np.abs(rng.normal(0, 127 / 3, (batch, rows))), 0, 127).round() * (rng.random((batch, rows)) < on)
    return torch.tensor(1e-7 + 24.9e-6 * w), torch.tensor(x)


def pairs(lines=6, rows=128, batch=8, seed=0):
    rng = np.random.default_rng(seed)
    w = np.clip(rng.normal(0, 1 / 3, (lines, rows)), -1, 1)
    x = np.clip(rng.normal(0, 127 / 3, (batch, rows)), -127, 127).round()
    return *(torch.tensor(1e-7 + 24.9e-6 * np.clip(s * w, 0, 1)) for s in (1, -1)), torch.tensor(x)


def in_card(model, mode):
    """The model of the same card with another mode in it."""
    return type(model)(attrs.evolve(model.card, meta=model.card.meta | {"mode": mode}))


def run(tile, counts, g, x):
    return tile.phase(g, x) if counts else tile.charge(g, x)


def worst(found, truth):
    """1 − R² of the worst line."""
    return float(((found - truth).square().mean(0) / truth.var(0, correction=0)).max())


@pytest.mark.parametrize(
    ("mode", "rule"), [*((m, "reset") for m in (*mode_names(), NINES)), ("split", "carry"), (NINES, "carry")],
    ids=NAME,
)  # fmt: skip
def test_exact_is_the_tile_model(mode, rule):
    g, x = draw(lines=2, rows=40, batch=2)
    truth = GATED.respond(g.numpy(), x.numpy().astype(int), mode=mode, phase_rule=rule)
    exact = FastTile(GATED, accuracy="exact", dtype=torch.float64, mode=mode, phase_rule=rule)
    np.testing.assert_allclose(exact.charge(g, x).numpy(), truth.charge_c, rtol=1e-12)
    np.testing.assert_allclose(exact.phase(g, x).numpy(), truth.phase_count, rtol=1e-12)
    phases = exact.each_phase(g, x, counts=True)
    np.testing.assert_allclose(phases.movedim(0, -1).numpy(), truth.phase_counts, rtol=1e-12)


@pytest.mark.parametrize("mode", [*mode_names(), NINES], ids=NAME)
def test_exact_tied_is_the_tied_tile(mode):
    *g, x = pairs(lines=2, rows=24, batch=2)
    truth = TIED.respond(g[0].numpy(), x.numpy().astype(int), conductance_minus_s=g[1].numpy(), mode=mode)
    found = TiedProduct(TIED, "exact", dtype=torch.float64, mode=mode).charge(*g, x)
    np.testing.assert_allclose(found.numpy(), truth.charge_c, rtol=1e-10)


#: 1 − R² of the worst line of charges behind an ideal clamp, and of counts. Weights of up to 64 multiply what is left of a pulse.
LIMITS = {
    "split": (1e-6, 2e-5), "split_lsb_first": (1e-6, 2e-5), "three_digit": (2e-6, 4e-5), "bitwise": (1e-6, 3e-4),
    "nines": (1e-6, 3e-5),
}  # fmt: skip
#: The same of counts of full lines whose rows all have even codes.
FULL = {"split": 1e-4, "split_lsb_first": 1e-4, "three_digit": 4e-4, "bitwise": 6e-4, "nines": 1e-4}


@pytest.mark.parametrize("mode", [SPLIT, *(pytest.param(m, marks=pytest.mark.slow) for m in ALIGNED[1:]), NINES], ids=NAME)
@pytest.mark.parametrize(("counts", "effects"), [(False, IDEAL_CLAMP), (True, Effects())], ids=["charge", "counts"])
def test_fast_against_the_slow_twin(mode, counts, effects):
    g, x = draw()
    response = GATED.respond(g.numpy(), x.numpy().astype(int), clamp="ota" if counts else "ideal", mode=mode)
    truth = torch.tensor(response.phase_count if counts else response.charge_c)
    found = run(FastTile(GATED, effects, mode=mode), counts, g.float(), x.float()).double()
    assert worst(found, truth) < LIMITS[NAME(mode)][counts]
    # Conventional products of the same codes are far off: the test can tell.
    assert worst(run(FastTile(GATED, effects), counts, g.float(), x.float()).double(), truth) > 1e-2


@pytest.mark.parametrize(
    "mode", [SPLIT, "bitwise", *(pytest.param(m, marks=pytest.mark.slow) for m in (*ALIGNED[1:3], NINES))], ids=NAME
)
def test_counts_of_full_lines_against_the_slow_twin(mode):
    """Most current, most small cells that recharge, and steps of all of it: what the slots are for."""
    g, _ = draw(rows=512, batch=1)
    x = torch.tensor(np.random.default_rng(1).integers(0, 128, (12, 512)).astype(float))
    truth = torch.tensor(GATED.respond(g.numpy(), x.numpy().astype(int), clamp="ota", mode=mode).phase_count)
    assert worst(FastTile(GATED, mode=mode).phase(g.float(), x.float()).double(), truth) < FULL[NAME(mode)]


@pytest.mark.parametrize("mode", [*ALIGNED, NINES], ids=NAME)
def test_fast_tied_against_the_slow_twin(mode):
    *g, x = pairs()
    truth = torch.tensor(TIED.respond(g[0].numpy(), x.numpy().astype(int), conductance_minus_s=g[1].numpy(), mode=mode).charge_c)
    for accuracy in ("fast", "two"):
        product = TiedProduct(TIED, accuracy, mode=mode)
        assert worst(product.charge(*(a.float() for a in (*g, x))).double(), truth) < 3e-6
        assert product.error(*g, x) < 1e-5
    exact = TiedProduct(TIED, "exact", dtype=torch.float64, mode=mode, effects=Effects()).phase(*g, x[:3], idle=False)
    found = TiedProduct(TIED, mode=mode, effects=Effects()).phase(*(a.float() for a in (*g, x[:3])), idle=False).double()
    assert float((found - exact).abs().max()) < 5e-3 * float(exact.abs().max())


@pytest.mark.parametrize(
    ("counts", "effects"), [pytest.param(False, IDEAL_CLAMP, marks=pytest.mark.slow), (True, Effects())], ids=["charge", "counts"]
)
def test_gradients_against_the_slow_twin(counts, effects):
    g, x = draw(lines=3, rows=64, batch=3)
    cotangent = torch.tensor(np.random.default_rng(5).normal(size=(3, 3)))
    found = []
    for accuracy in ("exact", "fast"):
        inputs = g.clone().requires_grad_(), x.clone().requires_grad_()
        out = run(FastTile(GATED, effects, accuracy=accuracy, dtype=torch.float64, mode="split"), counts, *inputs)
        found.append(torch.autograd.grad((out * cotangent).sum(), inputs))
    for exact, fast in zip(*found, strict=True):
        assert float((fast - exact).norm()) < 3e-2 * float(exact.norm())


def test_gradients_of_tied_weights():
    *g, x = pairs(lines=3, rows=32, batch=3)
    found = []
    for accuracy in ("exact", "two"):
        plus, minus = (a.clone().requires_grad_() for a in g)
        out = TiedProduct(TIED, accuracy, dtype=torch.float64, mode="split").charge(plus, minus, x)
        found.append(torch.autograd.grad((out * torch.arange(1.0, 4.0)).sum(), (plus, minus)))
    for exact, fast in zip(*found, strict=True):
        assert float((fast - exact).norm()) < 5e-3 * float(exact.norm())


@pytest.mark.parametrize("mode", ["split", "end_aligned_halves"])
@pytest.mark.parametrize("counts", [False, True])
def test_gradcheck_of_the_slow_twin(mode, counts):
    g, x = draw(lines=1, rows=3, batch=1, on=1.0)
    exact = FastTile(GATED, accuracy="exact", dtype=torch.float64, mode=mode)
    scale = 1.0 if counts else 1e15
    inputs = ((g * 1e6).requires_grad_(), (x.clamp(9, 110) + 0.3).requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: scale * run(exact, counts, a * 1e-6, b), inputs, eps=1e-5, rtol=1e-3)


@pytest.mark.parametrize("mode", ["split", "bitwise", NINES], ids=NAME)
def test_charges_by_slot_add_up_to_those_of_pulses(mode):
    """Whatever a cell recharges lands in one slot or another, of this phase or a later one, or is cut off."""
    tile = FastTile(GATED, mode=mode)
    assert tile.phases is not None
    pwm, guard, table = tile.model.mode, tile.model.guard_slots, torch.from_numpy(tile.phases.table)
    circuits, g = [t.circuit for t in tile.phases.tiles], torch.logspace(-7, -4.6, 9, dtype=torch.float64)
    first = slot_charges(circuits, pwm, guard, table, 0, g).sum(1)
    torch.testing.assert_close(first[1:], pulse_charge(circuits[0], g, table[0, 1:, None].double()) * (table[0, 1:, None] > 0))
    # A device of 25 µS recharges within the guard slots; of a pulse of a small one what is left comes in the phases after it.
    alone = [int((table[:, code] > 0).sum()) == 1 and bool(table[0, code] > 0) for code in range(table.shape[1])]
    later = sum(slot_charges(circuits, pwm, guard, table, k, g).sum(1)[alone] for k in range(1, len(circuits)))
    whole = first[alone] + later
    forever = pulse_charge(replace(circuits[0], slots=10**6), g, table[0][alone][:, None].double())
    assert float((later[:, -1] / whole[:, -1]).abs().max()) < 1e-6
    assert bool((later[:, 0] > 0.02 * whole[:, 0]).all())
    assert bool((whole[:, 0] < forever[:, 0]).all())


@pytest.mark.parametrize("mode", ["split", "bitwise", NINES], ids=NAME)
@pytest.mark.parametrize("effects", [Effects(), IDEAL_CLAMP], ids=["regulator", "ideal-clamp"])
def test_compiled_slots_against_plain_torch(mode, effects):
    g, x = draw(lines=16, rows=96, batch=21, on=0.7)
    tile = FastTile(GATED, effects, mode=mode)
    answers = tile.each_phase(g.float(), x.float(), counts=True)
    assert tile.phases is not None
    hist = torch.nn.functional.one_hot(x.long(), 128).sum(1).double()
    wide = torch.zeros(128, 32)
    wide[:, :21] = hist.T
    for tables, answer in zip(tile.phases.extras[True].tables, answers, strict=True):
        assert tables.kernels is not None
        assert tables.slots is not None
        assert tables.rest is not None
        (bins,), (kernel,) = tables.bins, tables.kernels
        ref = tile.phases.tiles[tables.k].columns(g.float(), x.float(), True).plans[0].ref
        plain = vector_errors(ref, tables.slots, bins, 0.3, hist)
        found = kernel(ref, 0.3, wide, 21, tables.rest, tables.scale)
        rest = tables.rest.coefficients @ features(tables.digits, hist, tables.k).T / tables.scale
        # Rounding of the share of a departure goes with the answer, and cancels in what is added to it.
        e, own = torch.tensor([-0.3, 0.0, 0.1, 0.3]).double(), answer.double().mean(1)
        at, size = places(e, 0 * e, 0.3), float(answer.max())
        more, plain_more = (v.by_line[:9].double().T @ at + (v.share.double() * own)[:, None] for v in (found, plain))
        torch.testing.assert_close(more, plain_more, rtol=1e-5, atol=5e-6 * size)
        torch.testing.assert_close(found.by_line[9:].double(), rest, rtol=1e-4, atol=1e-6 * size)
        torch.testing.assert_close(found.base.double(), plain.base, rtol=1e-4, atol=1e-5 * size)
        torch.testing.assert_close(found.share.double(), plain.share, rtol=1e-4, atol=2e-4)
        torch.testing.assert_close(found.worth.double(), plain.worth, rtol=3e-4, atol=1e-6)


def test_digits_in_one_pass_against_plain_torch():
    for name in ALIGNED:
        x = torch.linspace(-127, 127, 3000).reshape(3, -1)
        plain = digits(get_mode(name), x.double())
        for one, other in zip(digits(get_mode(name), x), plain, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=0, atol=2e-4)


def test_digits_are_those_of_the_mode_and_add_up_between_codes():
    for name in ALIGNED:
        mode, codes = get_mode(name), torch.arange(128)
        found = digits(mode, codes.double())
        for (start, stop), digit in zip(mode.pulses(codes, torch.arange(1)), found, strict=True):
            assert torch.equal(digit, (stop - start).double())
        x = torch.linspace(-127, 127, 1001, dtype=torch.float64, requires_grad=True)
        value = sum(w * d for w, d in zip(mode.weights, digits(mode, x), strict=True))
        assert float((value - x).detach().abs().max()) < 1e-12
        (slope,) = torch.autograd.grad(value.sum(), x)
        assert float((slope - 1).abs().max()) < 1e-12


@pytest.mark.parametrize("mode", [*ALIGNED, NINES], ids=NAME)
def test_all_off_is_the_product(mode):
    g, x = draw(lines=5, rows=33, batch=4)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        found = FastTile(GATED, Effects.none(), mode=mode, dtype=dtype).charge(g.to(dtype), (x * 0.77).to(dtype)).double()
        ideal = GATED.v_read_v * GATED.t_lsb_s * (x * 0.77) @ g.T
        assert float((found - ideal).abs().max()) < tolerance * float(ideal.abs().max())


def test_one_phase_under_another_name_is_conventional():
    """The phases' own code, with nothing to correct but the pulses' charges, against the conventional product."""
    alone = build_mode("alone", lambda top: get_mode("conventional", top).phases)
    g, x = (a.float() for a in draw(rows=64))
    for counts in (False, True):
        found, plain = (run(FastTile(GATED, mode=m), counts, g, x).double() for m in (alone, "conventional"))
        assert worst(found, plain) < 1e-5


def test_a_cards_mode_is_not_ignored():
    g, x = (a.float() for a in draw(lines=3, rows=32, batch=3))
    own, asked = FastTile(in_card(GATED, "split")).charge(g, x), FastTile(GATED, mode="split").charge(g, x)
    assert torch.equal(own, asked)
    assert not torch.allclose(own, FastTile(GATED).charge(g, x), rtol=1e-3, atol=0)
    assert torch.equal(FastTile(in_card(GATED, "split"), mode="conventional").charge(g, x), FastTile(GATED).charge(g, x))
    *pair, x = (a.float() for a in pairs(lines=3, rows=32, batch=3))
    own = TiedProduct(in_card(TIED, "bitwise")).charge(*pair, x)
    assert torch.equal(own, TiedProduct(TIED, mode="bitwise").charge(*pair, x))


@pytest.mark.parametrize("mode", APART)
def test_modes_that_are_no_products_say_what_to_do(mode):
    for make in (lambda **o: FastTile(GATED, **o), lambda **o: TiedProduct(TIED, **o)):
        with pytest.raises(InputError, match="accuracy='exact'") as told:
            make(mode=mode)
        assert "\n" not in str(told.value)
        make(mode=mode, accuracy="exact")
    with pytest.raises(InputError, match="accuracy='exact'"):
        FastTile(in_card(GATED, mode))
    with pytest.raises(InputError, match="expected one of"):
        FastTile(GATED, mode="spilt")


def test_phases_add_up_and_batches_do_not_matter():
    g, x = (a.float() for a in draw(lines=5, rows=48, batch=6))
    tile = FastTile(GATED, mode="split")
    phases = tile.each_phase(g, x, counts=True)
    whole = tile.phase(g, x)
    torch.testing.assert_close(8 * phases[0] + phases[1], whole)
    torch.testing.assert_close(tile.phase(g, x[2:3]), whole[2:3], rtol=1e-5, atol=1e-2)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(FastTile(GATED, mode="split").phase(g[order], x), whole[:, order], rtol=1e-4, atol=0.05)


def test_the_bound_of_an_error_holds():
    g, x = (a.float() for a in draw())
    tile = FastTile(GATED, IDEAL_CLAMP, mode="split")
    bound = tile.error_bound(g, x)
    exact = FastTile(GATED, IDEAL_CLAMP, accuracy="exact", mode="split", dtype=torch.float64).charge(g.double(), x.double())
    assert worst(tile.charge(g, x).double(), exact) <= bound.one_minus_r2
    assert bound.one_minus_r2 < 1e-4


@pytest.mark.slow
def test_a_tolerance_is_met():
    g, x = (a.float() for a in draw())
    exact = FastTile(GATED, IDEAL_CLAMP, accuracy="exact", mode="split", dtype=torch.float64).charge(g.double(), x.double())
    finer = FastTile(GATED, IDEAL_CLAMP, accuracy=1e-6, mode="split")
    assert worst(finer.charge(g, x).double(), exact) < 5e-6
