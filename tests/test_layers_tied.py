"""Analog layers on tied tiles: what holds for gated ones holds here, and one reading does the work of four."""

import numpy as np
import pytest
import torch
from torch import nn

from aimcard.calibrate.tied_parameters import TIED_SPECS
from aimcard.models.card import Card, Interval, Parameter, Table
from aimcard.models.errors import CardError
from aimcard.models.fast import Effects, TiedProduct
from aimcard.models.nn import (
    Hardware,
    Mapping,
    NonIdealities,
    TiedHardware,
    calibrate_affine,
    convert_to_analog,
    convert_to_digital,
    mapping_table,
    train_mode,
)
from aimcard.models.nn.read_noise import charge_sigma
from aimcard.models.tied_tile import EDGE_TABLES, TiedTile

OFF = NonIdealities.none()
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
CODE_MAX = 31
VALUES = {n: s.start for n, s in TIED_SPECS.items()} | {
    "k_mid_per_v": 5.0, "k_mid_per_v2": -10.0, "k_drain_per_v2": 20.0, "t_node_s_per_s": 1e-7, "i_gate_a": 1.5e-10,
}  # fmt: skip
DELAYS = dict(zip(EDGE_TABLES, (200e-12, 212e-12, 190e-12, 205e-12), strict=True))


LINE_A = torch.linspace(-200e-6, 200e-6, 41, dtype=torch.float64)
RATE = (LINE_A, 2e10 * (1 + LINE_A / 200e-6 / (1 + (LINE_A + 200e-6) / 900e-6)))


@pytest.fixture(scope="module")
def card(card_of) -> Card:
    """A tied card of the small tile, with a static regulator."""
    base = card_of()
    place = np.array([0.0, 1.0])
    tables = [Table(n, place, np.full(2, d), "1", "s", "position", "delay") for n, d in DELAYS.items()]
    tables.append(Table("clamp", LINE_A.numpy(), 0.399 - 5.0 * LINE_A.numpy(), "A", "V", "line current", "clamp voltage"))
    return card_of(
        meta=base.meta | {"topology": "tied", "v_common_v": 0.4, "code_max": CODE_MAX, "guard_slots": 3, "bias_a": 2e-4},
        tables=tables,
        parameters=[Parameter(n, v, unit=TIED_SPECS[n].unit) for n, v in VALUES.items()],
        domain=base.domain | {"code": Interval(-CODE_MAX, CODE_MAX, "1"), "line_current_a": Interval(-2e-4, 2e-4, "A")},
    )


@pytest.fixture(scope="module")
def hardware(card) -> Hardware:
    return TiedHardware(card, rate=RATE)


def off_by(out: torch.Tensor, truth: torch.Tensor) -> float:
    return float((out - truth).detach().abs().max() / truth.detach().abs().max().clamp(min=1e-30))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("rows", "outputs", "batch"), [(1, 1, 1), (7, 13, 5), (513, 3, 2), (1031, 257, 8)])
@pytest.mark.parametrize("changes", [{}, {"scaling": "tile", "significance": (2.0, 1.0)}])
def test_all_off_is_the_digital_layer(hardware, dtype, rows, outputs, batch, changes):
    torch.manual_seed(rows)
    layer = nn.Linear(rows, outputs, dtype=dtype)
    x = torch.randn(batch, rows, dtype=dtype)
    analog = convert_to_analog(layer, hardware, non_idealities=OFF, mapping=Mapping(**changes))
    for graph in (True, False):
        with torch.set_grad_enabled(graph):
            assert off_by(analog(x), layer(x)) < TOLERANCE[dtype]
    assert isinstance(analog.crossbar.plan.hardware, TiedHardware)
    assert torch.equal(convert_to_digital(analog)(x), layer(x))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_convolutions_and_encoders(hardware, dtype):
    torch.manual_seed(1)
    conv = nn.Conv2d(4, 6, 3, groups=2, padding=1, dtype=dtype)
    image = torch.randn(2, 4, 5, 5, dtype=dtype)
    assert off_by(convert_to_analog(conv, hardware, non_idealities=OFF)(image), conv(image)) < TOLERANCE[dtype]
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dtype=dtype)
    encoder, x = nn.TransformerEncoder(block, 2).eval(), torch.randn(2, 5, 8, dtype=dtype)
    with torch.no_grad():
        analog = convert_to_analog(encoder, hardware, non_idealities=OFF)
        assert off_by(analog(x), encoder(x)) < 4 * TOLERANCE[dtype]
        assert not off_by(convert_to_analog(encoder, hardware)(x), encoder(x)) < 1e-3


def test_a_card_without_a_rate_table_answers_in_charge(card):
    layer, x = nn.Linear(9, 3), torch.randn(4, 9)
    with torch.no_grad():
        on, off = (
            convert_to_analog(layer, card, non_idealities=NonIdealities.none(adc=a, adc_rounding=a))(x) for a in (True, False)
        )
    assert isinstance(Hardware(card), TiedHardware)
    assert torch.equal(on, off)


def test_a_layer_is_what_the_tile_responds(card):
    """With an ideal clamp and without a converter: charges of TiedTile.respond, less those without inputs."""
    torch.manual_seed(2)
    tile, layer = TiedTile(card), nn.Linear(9, 3, bias=False, dtype=torch.float64)
    x = torch.randn(4, 9, dtype=torch.float64)
    n = NonIdealities(regulator=False)
    analog = convert_to_analog(layer, tile, non_idealities=n, accuracy="exact")
    held = analog.crossbar.written(layer.weight.detach(), slice(0, 9), 0, n)
    scale = x.abs().amax(1, keepdim=True)
    codes = (x / scale * CODE_MAX).round().numpy().astype(int)
    g = [s.detach().numpy() for s in (held.side(0), held.side(1))]
    charge, idle = (tile.respond(g[0], c, conductance_minus_s=g[1]).charge_c for c in (codes, 0 * codes[:1]))
    lsb = analog.crossbar.plan.hardware.unit_c * 24.9e-6 * CODE_MAX
    assert off_by(analog(x), torch.tensor(charge - idle) / lsb * held.scale.mT * scale) < 1e-9


SWITCHES = [
    {"ir_drop": True}, {"ir_drop": True, "wire_scale": 10.0}, {"apparent_weight": True}, {"pulse": True},
    {"regulator": True}, {"adc": True}, {"input_rounding": True}, {"adc_rounding": True}, {"adc_clip": True},
    {"programming": True}, {"drift": True}, {"read_noise": "device"}, {"read_noise": "analytical"}, {"weight_noise": 0.02},
    {"output_noise": 0.02}, {"weight_clip_sigma": 1.0},
]  # fmt: skip


@pytest.mark.parametrize("on", SWITCHES, ids=lambda on: "-".join(f"{k}={v}" for k, v in on.items()))
def test_every_switch_acts_alone_and_repeats(hardware, on):
    torch.manual_seed(3)
    layer, x = nn.Linear(200, 8, dtype=torch.float64), torch.randn(5, 200, dtype=torch.float64)
    bits = 4 if "adc_clip" in on else 12
    with torch.no_grad():
        outs = [
            convert_to_analog(layer, hardware, non_idealities=NonIdealities.none(seed=1, **on), mapping=Mapping(adc_bits=bits))(x)
            for _ in range(2)
        ]
        assert torch.equal(*outs)
        assert off_by(outs[0], layer(x)) > 1e-6


def test_leakage_is_in_the_idle_answer(hardware):
    """The gates' current flows with and without inputs: without wires, nothing of it is left in a layer."""
    torch.manual_seed(3)
    layer, x = nn.Linear(200, 8, dtype=torch.float64), torch.randn(5, 200, dtype=torch.float64)
    on = NonIdealities.none(leakage=True)
    analog = convert_to_analog(layer, hardware, non_idealities=on)
    assert off_by(analog(x), layer(x)) < 1e-12
    tile, (plus, minus) = hardware.tile(on, torch.float64), torch.full((2, 1, 200), 1e-6, dtype=torch.float64)
    idle = tile.charge(plus, minus, torch.zeros(1, 200, dtype=torch.float64))
    assert float(idle) == pytest.approx(-400 * 1.5e-10 * 34e-9, rel=1e-9)


def test_fast_layers_agree_with_exact_ones(card):
    torch.manual_seed(4)
    layer, x = nn.Linear(256, 6, dtype=torch.float64), torch.randn(24, 256, dtype=torch.float64)
    n = NonIdealities(adc_rounding=False)
    with torch.no_grad():
        fast, exact = (convert_to_analog(layer, TiedHardware(card, a, RATE), non_idealities=n)(x) for a in ("fast", "exact"))
        spread = exact.var(0, correction=0)
        assert float(((fast - exact).square().mean(0) / spread).max()) < 1e-5
        assert float(((layer(x) - exact).square().mean(0) / spread).max()) > 1e-3


def test_read_noise_has_the_formulas_sigma(hardware):
    torch.manual_seed(5)
    layer = nn.Linear(60, 4, bias=False, dtype=torch.float64)
    x = torch.randn(1, 60, dtype=torch.float64).expand(4000, -1)
    n = NonIdealities.none(read_noise="device", input_rounding=True)
    with torch.no_grad():
        analog = convert_to_analog(layer, hardware, non_idealities=n)
        noise = analog(x).std(0)
        held = analog.crossbar.written(layer.weight, slice(0, 60), 0, n)
        t = (x[:1] / x[:1].abs().max() * CODE_MAX).round().abs() * 1e-9
        # Plus and minus devices both conduct: their variances add.
        sides = [charge_sigma(held.side(k), t, 0.2)[0].square() for k in (0, 1)]
        sigma = torch.sqrt(sides[0] + sides[1]) / (0.2e-9 * 24.9e-6 * CODE_MAX) * held.scale[:, 0] * x[:1].abs().max()
    torch.testing.assert_close(noise, sigma, rtol=0.06, atol=0)


@pytest.mark.parametrize("on", [{"ir_drop": True, "apparent_weight": True, "pulse": True}, {"adc": True, "regulator": True}])
def test_gradients_are_the_exact_ones(card, on):
    torch.manual_seed(6)
    grads = []
    layer = nn.Linear(40, 3, dtype=torch.float64)
    # Whole codes, which the slow twin needs: the largest of every vector is the largest code.
    x, weigh = torch.randint(-30, 31, (6, 40)).double(), torch.randn(6, 3, dtype=torch.float64)
    x[:, 0] = CODE_MAX
    for accuracy in ("two", "exact"):
        analog = convert_to_analog(layer, TiedHardware(card, accuracy, RATE), non_idealities=NonIdealities.none(**on))
        analog.zero_grad()
        (analog(x) * weigh).sum().backward()
        grads.append(analog.weight.grad)
    assert float((grads[0] - grads[1]).norm() / grads[1].norm()) < 2e-3


def test_training_through_the_wires(hardware):
    """A layer trained through IR-drop answers better on such a tile than before; affine correction does its part without."""
    torch.manual_seed(7)
    target, x = nn.Linear(300, 4), torch.randn(200, 300)
    truth = target(x).detach()
    n = NonIdealities.none(ir_drop=True, apparent_weight=True, wire_scale=20.0)
    analog = convert_to_analog(target, hardware, non_idealities=n)
    with torch.no_grad():
        before = off_by(analog(x), truth)
        calibrate_affine(analog, [x])
        assert off_by(analog(x), truth) < before
    analog = convert_to_analog(target, hardware, non_idealities=n)
    train_mode(analog, ir_drop=True, wire_scale=20.0)
    optimiser = torch.optim.Adam(analog.parameters(), 1e-3)
    for _ in range(30):
        optimiser.zero_grad()
        (analog(x) - truth).square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        assert off_by(analog.eval()(x), truth) < 0.5 * before


def test_show_counts_one_column_a_weight_and_both_signs(hardware):
    analog = convert_to_analog(nn.Linear(600, 700), hardware, mapping=Mapping(adc_bits=8))
    row = mapping_table(analog, [torch.randn(3, 600)]).layers[0]
    assert (row.row_tiles, row.column_tiles, row.adc_range) == (2, 2, 127)
    assert row.adc_top > 0
    assert 0 <= row.counts_clipped <= 1


def test_weights_that_change_in_place_are_written_anew(hardware):
    torch.manual_seed(8)
    layer, x = nn.Linear(20, 3), torch.randn(4, 20)
    analog = convert_to_analog(layer, hardware, non_idealities=NonIdealities.none(ir_drop=True))
    with torch.no_grad():
        first = analog(x)
        kept = analog.crossbar._tiles[0][2]
        assert torch.equal(analog(x), first)
        assert analog.crossbar._tiles[0][2] is kept
        analog.weight.mul_(2)
        torch.testing.assert_close(analog(x) - analog.bias, 2 * (first - analog.bias), rtol=1e-5, atol=1e-6)
        assert analog.crossbar._tiles[0][2] is not kept


def test_mismatch_of_a_card_without_a_population_is_refused_in_one_line(hardware):
    analog = convert_to_analog(nn.Linear(3, 2), hardware, non_idealities=NonIdealities.none(mismatch=True))
    with pytest.raises(CardError, match="spreads/readout: missing"):
        analog(torch.randn(2, 3))


def test_products_of_many_tiles_at_once_are_those_of_each(card):
    torch.manual_seed(9)
    g = [torch.rand(3, 5, 40, dtype=torch.float64) * 25e-6 for _ in range(2)]
    x = torch.randint(-CODE_MAX, CODE_MAX + 1, (3, 7, 40)).double()
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        g, x = [a.to(dtype) for a in g], x.to(dtype)
        for read in ("charge", "phase"):
            product = TiedProduct(card, "two", dtype=dtype, effects=Effects(), rate=RATE)
            whole = getattr(product, read)(*g, x)
            each = torch.stack([getattr(product, read)(a, b, c) for a, b, c in zip(*g, x, strict=True)])
            torch.testing.assert_close(whole, each, rtol=0, atol=tolerance * float(whole.abs().max()))


def test_hugging_face_blocks(hardware):
    import transformers as hf

    torch.manual_seed(10)
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 20}
    model, ids = hf.BertModel(hf.BertConfig(**shape)).eval().double(), torch.tensor([[3, 9, 4, 17], [5, 5, 2, 11]])
    with torch.no_grad():
        analog = convert_to_analog(model, hardware, non_idealities=OFF)
        assert off_by(analog(input_ids=ids)[0], model(input_ids=ids)[0]) < 1e-12
        assert torch.equal(convert_to_digital(analog)(input_ids=ids)[0], model(input_ids=ids)[0])
