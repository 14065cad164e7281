"""Layers in every PWM mode: exact with all off, count for count what the tile answers, and the option's way through a model."""

import math

import attrs
import pytest
import torch
from torch import nn

from aimcard.data import shipped_card
from aimcard.models import modes
from aimcard.models.adc import residue_sigma
from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.models.modes import Phase, get_mode, register_mode
from aimcard.models.nn import Hardware, Mapping, NonIdealities, convert_to_analog, convert_to_digital, mapping_table, show
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel

CARDS = {name: Card.read(shipped_card(f"freepdk45_{name}")) for name in ("gated", "tied")}
SHARED = {name: Hardware(card) for name, card in CARDS.items()}
EXACT = {name: Hardware(card, "exact") for name, card in CARDS.items()}
OFF = NonIdealities.none()
BOTH = pytest.mark.parametrize("topology", ["gated", "tied"])


@pytest.fixture
def pairs_mode():
    """A mode of a user's: the code in base four, registered by name and taken out again."""

    def build(code_max):
        def digit(weight):
            return lambda codes, rows: (0 * (codes + rows), codes // weight % 4 + 0 * rows)

        return tuple(Phase(w, min(3, code_max // w), digit(w)) for w in (64, 16, 4, 1) if code_max // w)

    yield register_mode("two_bits", build)
    modes._BUILDS.pop("two_bits")


def off_by(out, truth):
    return float((out - truth).detach().abs().max() / truth.detach().abs().max())


def linear(rows=20, outputs=3, batch=4, dtype=torch.float64):
    torch.manual_seed(3)
    layer = nn.Linear(rows, outputs, bias=False, dtype=dtype)
    nn.init.normal_(layer.weight)
    return layer, torch.randn(batch, rows, dtype=dtype)


@BOTH
@pytest.mark.parametrize("mode", ["split", "split_lsb_first", "three_digit", "bitwise", "two_bits"])
def test_all_off_is_the_digital_layer(topology, mode, pairs_mode):
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        layer, x = linear(rows=67, outputs=5, dtype=dtype)
        analog = convert_to_analog(layer, SHARED[topology], mapping=Mapping(mode=mode, rows=40), non_idealities=OFF)
        assert off_by(analog(x), layer(x)) < tolerance
    assert torch.equal(convert_to_digital(analog).weight, layer.weight)


@BOTH
def test_all_off_is_the_digital_network(topology):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(2), nn.TransformerEncoderLayer(16, 2, 8, batch_first=True)).eval().double()
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    analog = convert_to_analog(net, SHARED[topology], mapping=Mapping(mode="split"), non_idealities=OFF)
    assert off_by(analog(x), net(x)) < 1e-12


@pytest.mark.parametrize(
    ("mode", "rule"),
    [("split", "reset"), ("split", "carry"), ("bitwise", "carry"), ("end_aligned_halves", "reset"), ("staggered", "reset")],
)
def test_a_layer_is_what_the_gated_tile_counts(mode, rule):
    """Whole counts of each phase, weighted, from TileModel.respond: G+ and G−, both signs of the inputs."""
    layer, x = linear(rows=9, outputs=2, batch=2)
    hardware, n = EXACT["gated"], NonIdealities(adc_clip=False)
    analog = convert_to_analog(layer, hardware, mapping=Mapping(mode=mode, phase_rule=rule), non_idealities=n)
    held = analog.crossbar.written(layer.weight.detach(), slice(0, 9), 0, n)
    scale = x.abs().amax(1, keepdim=True)
    codes = (x / scale * 127).round()
    model = TileModel(CARDS["gated"])
    counts = [
        model.respond(held.lines.numpy(), s.clamp(min=0).int().numpy(), mode=mode, phase_rule=rule).count for s in (codes, -codes)
    ]
    line = torch.tensor(counts[0] - counts[1], dtype=torch.float64)
    lsb = hardware.unit_c * 24.9e-6 * 127 * hardware.counts_per_coulomb()
    assert off_by(analog(x), (line[:, :2] - line[:, 2:]) / lsb * held.scale.mT * scale) < 1e-9


@pytest.mark.parametrize("mode", ["split", "bitwise", "end_aligned_halves"])
def test_a_layer_is_what_the_tied_tile_answers(mode):
    layer, x = linear(rows=9, outputs=2, batch=2)
    hardware, n = EXACT["tied"], NonIdealities(regulator=False, adc=False, adc_rounding=False, adc_clip=False)
    analog = convert_to_analog(layer, hardware, mapping=Mapping(mode=mode), non_idealities=n)
    held = analog.crossbar.written(layer.weight.detach(), slice(0, 9), 0, n)
    scale = x.abs().amax(1, keepdim=True)
    codes = (x / scale * 127).round().int().numpy()
    g = [s.detach().numpy() for s in (held.side(0), held.side(1))]
    tile = TiedTile(CARDS["tied"])
    charge, idle = (
        torch.tensor(tile.respond(g[0], c, conductance_minus_s=g[1], mode=mode).charge_c) for c in (codes, 0 * codes[:1])
    )
    lsb = hardware.unit_c * 24.9e-6 * 127
    assert off_by(analog(x), (charge - idle) / lsb * held.scale.mT * scale) < 1e-9


@BOTH
def test_fast_layers_are_about_as_good_as_conventional_ones(topology):
    layer, x = linear(rows=64, outputs=6, batch=6, dtype=torch.float32)
    n, off = NonIdealities(adc_rounding=False), {}
    with torch.no_grad():
        for mode in ("conventional", "split"):
            fast, exact = (
                convert_to_analog(layer, hardware[topology], mapping=Mapping(mode=mode), non_idealities=n)(x)
                for hardware in (SHARED, EXACT)
            )
            off[mode] = float((fast - exact).norm() / exact.norm())
    assert off["split"] < 2e-3
    assert off["split"] < 3 * off["conventional"]


@BOTH
@pytest.mark.parametrize("mode", ["split", "split_lsb_first", "bitwise"])
def test_truncation_is_that_of_the_phases_weights(topology, mode):
    """Counter rounding alone: σ of the weighted counts as ``residue_sigma`` has it, per reading, under either rule."""
    layer, x = linear(rows=200, outputs=40, batch=60, dtype=torch.float32)
    hardware, readings = SHARED[topology], 4 if topology == "gated" else 1
    for rule in ("reset", "carry"):
        mapping = Mapping(mode=mode, phase_rule=rule)
        analog = convert_to_analog(layer, hardware, mapping=mapping, non_idealities=NonIdealities.none(adc_rounding=True))
        with torch.no_grad():
            error = analog(x) - layer(x)
            held = analog.crossbar.written(layer.weight, slice(0, 200), 0, analog.crossbar.switches)
        lsb = hardware.unit_c * 24.9e-6 * 127 * hardware.counts_per_coulomb()
        counts = error * lsb / held.scale.mT / x.abs().amax(1, keepdim=True)
        expected = math.sqrt(readings) * residue_sigma(get_mode(mode).weights, rule)
        assert float(counts.std()) == pytest.approx(expected, rel=0.12)
        assert abs(float(counts.mean())) < 0.1 * expected


@BOTH
def test_a_chip_in_split_is_a_chip(topology):
    layer, x = linear(rows=16, outputs=2, dtype=torch.float32)
    on, off = (NonIdealities(mismatch=m, adc_rounding=False) for m in (True, False))
    for rule in ("reset", "carry"):
        seen = {}
        for mode in ("conventional", "split"):
            mapping = Mapping(mode=mode, phase_rule=rule)
            with torch.no_grad():
                a, b, c = (
                    convert_to_analog(layer, SHARED[topology], mapping=mapping, non_idealities=n)(x) for n in (on, off, on)
                )
            assert torch.equal(a, c)
            seen[mode] = a - b
        # The same chip: its departures go alike in both modes.
        both = torch.stack([seen[m].flatten() for m in seen])
        assert float(torch.corrcoef(both)[0, 1]) > 0.8


@BOTH
def test_the_cards_own_mode_is_the_default(topology):
    card = attrs.evolve(CARDS[topology], meta=CARDS[topology].meta | {"mode": "split"})
    layer, x = linear(rows=24, dtype=torch.float32)
    with torch.no_grad():
        own = convert_to_analog(layer, card)(x)
        asked = convert_to_analog(layer, SHARED[topology], mapping=Mapping(mode="split"))(x)
        back = convert_to_analog(layer, card, mapping=Mapping(mode="conventional"))(x)
        plain = convert_to_analog(layer, SHARED[topology])(x)
    assert torch.equal(own, asked)
    assert torch.equal(back, plain)
    assert not torch.equal(own, back)


@BOTH
def test_training_in_split_learns(topology):
    """Gradients reach weights and inputs through the phases, and point where the digital layer's do."""
    layer, x = linear(rows=48, outputs=4, batch=6, dtype=torch.float32)
    analog = convert_to_analog(layer, SHARED[topology], mapping=Mapping(mode="split"))
    grads = []
    for m in (layer, analog):
        a = x.clone().requires_grad_()
        grads.append(torch.autograd.grad(m(a).square().sum(), (a, m.weight)))
    for digital, seen in zip(*grads, strict=True):
        assert torch.nn.functional.cosine_similarity(digital.flatten(), seen.flatten(), dim=0) > 0.9


def test_layers_of_one_network_in_modes_of_their_own(capsys):
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    analog = convert_to_analog(net, SHARED["gated"], overrides={"2": Mapping(mode="split")})
    assert [row.mode for row in mapping_table(analog).layers] == ["conventional", "split"]
    show(analog, [torch.randn(5, 12)])
    assert "split" in capsys.readouterr().out


def test_modes_that_do_not_do():
    layer, _ = linear()
    with pytest.raises(InputError, match=r"mode: expected one of conventional, split.*did you mean 'split'"):
        Mapping(mode="spilt")
    with pytest.raises(InputError, match="phase_rule: expected"):
        Mapping(phase_rule="drop")
    for topology in CARDS:
        with pytest.raises(InputError, match="accuracy='exact'") as told:
            convert_to_analog(layer, SHARED[topology], mapping=Mapping(mode="staggered"))
        assert "\n" not in str(told.value)
