"""One chip's mismatch in layers on tied tiles, against the slot-by-slot chip; and in products of two activations."""

from dataclasses import replace

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from aimcard.data import shipped_card
from aimcard.models.card import Card, Spread
from aimcard.models.mismatch import CELL_NAMES
from aimcard.models.nn import Hardware, Mapping, NonIdealities, convert_to_analog
from aimcard.models.nn.tied_chip import TiedTileChip
from aimcard.models.tied_chip import TiedChipTile
from aimcard.models.tied_mismatch import TIED_READOUT_NAMES
from aimcard.models.tied_tile import TiedTile

LINES, ROWS = 6, 40
SIGMAS = {
    "bias_a": 12e-6,
    "clamp_0_v": 2e-3,
    "mirror_0": 0.05,
    "rate_0": 0.08,
    "rate_1": 0.04,
    "rate_2": 0.01,
    "count_offset": 0.3,
}
NOT_ROUNDED = NonIdealities(mismatch=True, adc_rounding=False, adc_clip=False)


@pytest.fixture(scope="module")
def card() -> Card:
    """The shipped card with a population of the size that its read-out has."""
    variances = np.array([SIGMAS.get(name, 0.0) ** 2 for name in TIED_READOUT_NAMES])
    constants = {"i_idle_a": 2.02e-4, "i_ref_a": 0.0, "least_a": -1.7e-4}
    units = tuple(TIED_READOUT_NAMES.values())
    cell = {"w_ref_um": 0.5, "on_per_v": 6.9, "on_per_v2": 24.0}
    spreads = (
        Spread("readout", tuple(TIED_READOUT_NAMES), units, np.zeros(len(units)), np.diag(variances), 60, constants),
        Spread("cell", CELL_NAMES, CELL_NAMES.values(), [0.0], [[12.6e-3**2]], 200, cell),
    )
    return attrs.evolve(Card.read(shipped_card("freepdk45_tied")), spreads=spreads)


def pairs(seed: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return *rng.uniform(0.1e-6, 20e-6, (2, LINES, ROWS)), rng.integers(-127, 128, (5, ROWS))


def layer_counts(card: Card, n: NonIdealities, plus: np.ndarray, minus: np.ndarray, codes: np.ndarray, drawn=None) -> np.ndarray:
    """What a layer makes of one reading, in counts or [C], nothing rounded; (vectors, lines)."""
    hardware = Hardware(card, "exact")
    lines, x = (torch.tensor(plus), torch.tensor(minus)), torch.tensor(codes).double()
    kept = lines if drawn is None else drawn.cells(*lines, n)
    tile = hardware.tile(n, torch.float64)
    charge = hardware.signed_charge(tile, kept, x, n, Mapping(adc_bits=20), None, None, drawn)
    return (charge * (hardware.counts_per_coulomb() if hardware.converts(n) else 1.0)).numpy()


def test_a_chip_in_a_layer_departs_as_its_slow_twin(card):
    (plus, minus, codes), model = pairs(), TiedTile(card)
    drawn = TiedTileChip.draw(model, 3, "place", LINES, ROWS)
    still = np.concatenate([codes, np.zeros_like(codes[:1])])
    twin = [
        t.respond(plus, still, conductance_minus_s=minus, clamp="ota").phase_count
        for t in (TiedChipTile(card, drawn.chip), model)
    ]
    moved = np.subtract(*[p[:-1] - p[-1] for p in twin])
    seen = np.subtract(*[layer_counts(card, NOT_ROUNDED, plus, minus, codes, d) for d in (drawn, None)])
    assert np.abs(moved).max() > 10
    assert np.abs(seen - moved).max() < 0.05 * np.abs(moved).max()


@pytest.mark.parametrize("off", ["adc", "regulator", "apparent_weight"])
def test_what_is_switched_off_of_a_chip_does_nothing(card, off):
    """Without a converter only regulator and cells move a charge; without the regulator, rates and cells; and so on."""
    plus, minus, codes = pairs()
    drawn = TiedTileChip.draw(TiedTile(card), 3, "place", LINES, ROWS)
    parts = {"adc": ("rate_0", "rate_1", "rate_2"), "regulator": ("clamp_0_v", "clamp_1_v", "clamp_2_v"), "apparent_weight": ()}
    without = {k: torch.zeros_like(v) if k in parts[off] else v for k, v in drawn.chip.readout.items()}
    factor = drawn.chip.on_factor if off != "apparent_weight" else torch.ones_like(drawn.chip.on_factor)
    other = TiedTileChip(drawn.model, replace(drawn.chip, readout=without, on_factor=factor))
    n = NonIdealities(mismatch=True, adc_rounding=False, adc_clip=False, **{off: False})
    one, two = (layer_counts(card, n, plus, minus, codes, d) for d in (drawn, other))
    assert one == pytest.approx(two, rel=1e-9, abs=1e-9 * np.abs(two).max())


def test_chips_differ_and_repeat(card):
    torch.manual_seed(1)
    layer, x = nn.Linear(ROWS, 4, dtype=torch.float64), torch.randn(3, ROWS, dtype=torch.float64)
    hardware = Hardware(card)
    with torch.no_grad():
        outs = [convert_to_analog(layer, hardware, non_idealities=NonIdealities(mismatch=True, chip=c))(x) for c in (1, 1, 2)]
        nominal = convert_to_analog(layer, hardware)(x)
    assert torch.equal(outs[0], outs[1])
    assert not torch.allclose(outs[0], outs[2], rtol=1e-3)
    # A column's gain is off by a tenth, so is its product.
    scatter = float((outs[0] - nominal).std() / nominal.std())
    assert 0.01 < scatter < 0.5


def test_a_gradient_has_the_columns_own_gain(card):
    torch.manual_seed(2)
    layer = nn.Linear(ROWS, 3, bias=False, dtype=torch.float64)
    n = NonIdealities.none(mismatch=True, adc=True, regulator=True, apparent_weight=True)
    analog = convert_to_analog(layer, Hardware(card), non_idealities=n)
    x = torch.randn(2, ROWS, dtype=torch.float64)
    # The largest input sets the scale: it stays.
    step = 1e-2 * torch.randn(2, ROWS, dtype=torch.float64)
    step.scatter_(1, x.abs().argmax(1, keepdim=True), 0.0)
    moved = (analog(x + step) - analog(x - step)).detach() / 2
    _, slope = torch.func.jvp(lambda a: layer(a), (x,), (step,))
    x.requires_grad_()
    found = torch.stack([
        (torch.autograd.grad(analog(x)[:, k].sum(), x)[0] * step).sum(1) for k in range(3)
    ], 1)  # fmt: skip
    off = [(a - moved).abs().max() / moved.abs().max() for a in (found, slope)]
    assert off[0] < 0.03
    assert off[0] < 0.5 * off[1]


@pytest.mark.parametrize("name", ["tied", "gated"])
def test_products_of_two_activations_are_written_on_the_same_chip(card, name):
    """Every head and sample is written on the one tile, so equal operands give equal products."""
    torch.manual_seed(3)
    block = nn.MultiheadAttention(4, 2, batch_first=True).eval()
    x = torch.randn(1, 2, 4).expand(2, 2, 4)
    of = card if name == "tied" else Card.read(shipped_card("freepdk45_gated"))
    analog = convert_to_analog(block, Hardware(of, "exact"), non_idealities=NonIdealities(mismatch=True))
    with torch.no_grad():
        out = analog(x, x, x)[0]
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out[1:], out[:1], rtol=1e-4, atol=1e-5)
