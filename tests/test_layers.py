"""Analog layers: nothing lost when all is off, gradients, tiles, and a way back to the digital model."""

import copy

import pytest
import torch
from torch import nn

from aimcard.models.card import DOMAIN_UNITS, Interval
from aimcard.models.errors import InputError, OutsideDomainWarning
from aimcard.models.fast import Effects, FastTile
from aimcard.models.nn import (
    AnalogLayer,
    AnalogLinear,
    Hardware,
    Mapping,
    NonIdealities,
    calibrate_affine,
    calibrate_inputs,
    convert_to_analog,
    convert_to_digital,
    mapping_table,
    set_non_idealities,
    show,
)
from aimcard.models.nn.inputs import pulse_codes
from aimcard.models.nn.pairs import weight_scale, write
from aimcard.models.nn.streams import stream
from aimcard.models.tile import TileModel

OFF = NonIdealities.none()
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


@pytest.fixture(scope="module")
def hardware(card_of) -> Hardware:
    # Exact: small tiles, slot by slot, so that what is tested is the layer and not the fast product's error.
    return Hardware(card_of(), "exact")


def off_by(out: torch.Tensor, truth: torch.Tensor) -> float:
    return float((out - truth).detach().abs().max() / truth.detach().abs().max().clamp(min=1e-30))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("rows", "outputs", "batch"), [(1, 1, 1), (7, 13, 5), (512, 64, 16), (513, 3, 2), (1031, 257, 8)])
@pytest.mark.parametrize(
    "changes", [{}, {"scaling": "tile", "significance": (2.0, 1.0)}, {"significance": (4.0, 1.0), "correct": True}]
)
def test_all_off_is_the_digital_layer(hardware, dtype, rows, outputs, batch, changes):
    torch.manual_seed(rows)
    layer = nn.Linear(rows, outputs, dtype=dtype)
    x = torch.randn(batch, rows, dtype=dtype)
    analog = convert_to_analog(layer, hardware, non_idealities=OFF, mapping=Mapping(**changes))
    assert off_by(analog(x), layer(x)) < TOLERANCE[dtype]


def test_the_limit_of_the_tile_is_the_product_that_the_layers_take(hardware):
    g, x = torch.rand(5, 11, dtype=torch.float64) * 25e-6, torch.rand(3, 11, dtype=torch.float64) * 15
    tile = FastTile(hardware.model, Effects.none(), accuracy="exact", dtype=torch.float64)
    assert off_by(hardware.phase(tile, g, x, OFF, Mapping()), tile.charge(g, x)) < 1e-12
    counting = NonIdealities.none(adc_rounding=True)
    assert off_by(hardware.phase(tile, g, x, counting, Mapping()), tile.phase(g, x)) < 1e-12


def test_half_precision_loses_no_more_than_its_own_rounding(hardware):
    torch.manual_seed(9)
    layer, x = nn.Linear(300, 20).bfloat16(), torch.randn(8, 300).bfloat16()
    analog = convert_to_analog(layer, hardware, non_idealities=NonIdealities.none(adc_rounding=False))
    truth = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    assert analog(x).dtype == torch.bfloat16
    assert off_by(analog(x).double(), truth) < 2**-7
    with torch.autocast("cpu", torch.bfloat16):
        assert off_by(convert_to_analog(layer.float(), hardware, non_idealities=OFF)(x.float()).double(), truth) < 1e-6


def test_zero_inputs_weights_and_leading_shapes(hardware):
    layer = nn.Linear(6, 4, dtype=torch.float64)
    analog = convert_to_analog(layer, hardware, non_idealities=OFF)
    for shape in ((6,), (2, 3, 6), (0, 6)):
        x = torch.zeros(shape, dtype=torch.float64)
        assert torch.equal(analog(x), layer(x))
    with torch.no_grad():
        layer.weight.zero_()
    x = torch.randn(3, 6, dtype=torch.float64)
    assert torch.equal(convert_to_analog(layer, hardware, non_idealities=OFF)(x), layer(x))


CONVOLUTIONS = [
    (nn.Conv1d, (3, 5, 3), {"padding": "same", "padding_mode": "circular"}, (2, 3, 11)),
    (nn.Conv1d, (4, 6, 2), {"stride": 3, "groups": 2, "bias": False}, (1, 4, 7)),
    (nn.Conv2d, (2, 3, (3, 1)), {"padding": (2, 0), "stride": (2, 1), "dilation": (1, 2)}, (2, 2, 9, 5)),
    (nn.Conv2d, (4, 4, 3), {"groups": 4, "padding": 1, "padding_mode": "reflect"}, (4, 6, 7)),
]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("kind", "arguments", "options", "shape"), CONVOLUTIONS)
def test_convolutions(hardware, kind, arguments, options, shape, dtype):
    torch.manual_seed(1)
    layer = kind(*arguments, **options, dtype=dtype)
    x = torch.randn(shape, dtype=dtype)
    analog = convert_to_analog(layer, hardware, non_idealities=OFF)
    assert analog(x).shape == layer(x).shape
    assert off_by(analog(x), layer(x)) < TOLERANCE[dtype]


def network() -> nn.Sequential:
    torch.manual_seed(2)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())
    return nn.Sequential(
        nn.Embedding(9, 25), nn.Unflatten(1, (1, 5, 5)), body, nn.Linear(36, 8), nn.LayerNorm(8), nn.Linear(8, 3)
    )


def test_there_and_back(hardware):
    net, x = network(), torch.arange(9)
    net[3].register_forward_hook(lambda module, args, out: out * 2)
    analog = convert_to_analog(net, hardware)
    assert [type(analog[i]).__name__ for i in (0, 3, 4, 5)] == ["Embedding", "AnalogLinear", "LayerNorm", "AnalogLinear"]
    assert list(analog.state_dict()) == list(net.state_dict())
    assert [n for n, _ in analog.named_parameters()] == [n for n, _ in net.named_parameters()]
    back = convert_to_digital(analog)
    assert torch.equal(back(x), net(x))
    assert str(back) == str(net)
    with torch.no_grad():
        analog[5].weight.mul_(2)
    assert torch.equal(convert_to_digital(analog)[5].weight, 2 * net[5].weight)
    assert torch.equal(back[5].weight, net[5].weight)


def test_state_dicts_go_both_ways(hardware):
    net, other = network(), network()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    analog = convert_to_analog(net, hardware, non_idealities=OFF)
    with torch.no_grad():
        analog(torch.arange(9))
        analog.load_state_dict(other.state_dict())
        # What was written on the tiles before is written anew.
        assert off_by(analog(torch.arange(9)), other(torch.arange(9))) < 1e-5
    net.load_state_dict(analog.state_dict())
    assert torch.equal(net(torch.arange(9)), other(torch.arange(9)))


def kinds(model: nn.Module) -> set[str]:
    return {name for name, m in model.named_modules() if isinstance(m, AnalogLinear)}


def test_selection(hardware):
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
    convert = lambda **options: convert_to_analog(net, hardware, **options)  # noqa: E731
    assert kinds(convert()) == {"0", "1.0", "1.1"}
    assert kinds(convert(exclude=["1"])) == {"0"}
    assert kinds(convert(exclude=["1.*"])) == {"0"}
    assert kinds(convert(predicate=lambda module, name: module.out_features == 4)) == {"0", "1.0"}
    small, quiet = Mapping(rows=3), NonIdealities.none()
    analog = convert(overrides={"1.*": (small, quiet), "1.1": NonIdealities(seed=3)})
    assert analog[0].crossbar.plan.mapping == Mapping()
    assert analog[1][0].crossbar.plan.mapping == small
    assert analog[1][0].crossbar.plan.non_idealities == quiet
    assert analog[1][1].crossbar.plan.mapping == small
    assert analog[1][1].crossbar.plan.non_idealities.seed == 3
    assert kinds(net) == set()


def test_shared_layers_stay_shared(hardware):
    layer = nn.Linear(3, 3)
    analog = convert_to_analog(nn.Sequential(layer, nn.ReLU(), layer), hardware)
    assert analog[0] is analog[2]
    back = convert_to_digital(analog)
    assert back[0] is back[2]
    again = copy.deepcopy(analog)
    assert again[0] is again[2]
    assert again[0] is not analog[0]


def test_a_layer_by_itself(hardware):
    layer = nn.Linear(3, 2)
    analog = convert_to_analog(layer, hardware)
    assert analog.in_features == 3
    own = analog.to_digital()
    assert type(own) is nn.Linear
    assert own.weight is analog.weight


def test_scaling_and_clipping():
    weight = torch.tensor([[1.0, -4.0, 2.0], [0.1, 0.2, 0.0], [0.0, 0.0, 0.0]])
    assert weight_scale(weight, Mapping()).flatten().tolist() == pytest.approx([4.0, 0.2, 1.0])
    assert weight_scale(weight, Mapping(scaling="tile")).flatten().tolist() == [4.0, 4.0, 4.0]
    assert weight_scale(weight, Mapping(scaling="tile", columns=2)).flatten().tolist() == pytest.approx([4.0, 0.2, 1.0])
    rms = weight.square().mean(1).sqrt()
    assert float(weight_scale(weight, Mapping(), clip_sigma=1.5)[0]) == pytest.approx(1.5 * float(rms[0]))
    m = Mapping(g_min_s=1e-6, g_max_s=5e-6)
    held = write(weight, m, OFF, stream(0))
    assert float(held.conductance_s.min()) == pytest.approx(1e-6)
    assert float(held.conductance_s.max()) == pytest.approx(5e-6)
    difference = held.conductance_s[0, 0] - held.conductance_s[0, 1]
    assert (difference / 4e-6 * held.scale).tolist() == [pytest.approx(row, abs=1e-6) for row in weight.tolist()]


def test_rounding_is_straight_through():
    x = torch.tensor([[0.26, -1.0, 0.5]], requires_grad=True)
    codes = pulse_codes(x, torch.ones(1, 1), 10, rounding=True, clip=True)
    assert codes.tolist() == [[3.0, -10.0, 5.0]]
    codes.sum().backward()
    assert x.grad.tolist() == [[10.0, 10.0, 10.0]]


@pytest.mark.parametrize("on", [{}, {"ir_drop": True, "apparent_weight": True, "leakage": True, "pulse": True}])
def test_gradcheck(hardware, on):
    torch.manual_seed(3)
    mapping = Mapping(rows=2, significance=(2.0, 1.0))
    analog = convert_to_analog(
        nn.Linear(3, 1, dtype=torch.float64), hardware, non_idealities=NonIdealities.none(**on), mapping=mapping
    )
    x = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    crossbar = analog.crossbar
    assert torch.autograd.gradcheck(lambda w, v: crossbar(w, v), (analog.weight, x), atol=1e-7, rtol=1e-4)


def test_gradients_of_a_rounded_layer_are_near_the_digital_ones(hardware):
    torch.manual_seed(4)
    layer = nn.Linear(8, 3)
    analog = convert_to_analog(layer, hardware, non_idealities=NonIdealities(regulator=False, pulse=False))
    x, weights = torch.randn(2, 8), torch.randn(2, 3)
    grads = []
    for model in (layer, analog):
        at = x.clone().requires_grad_()
        (model(at) * weights).sum().backward()
        grads.append((at.grad, model.weight.grad))
        model.weight.grad = None
    for digital, seen in zip(*grads, strict=True):
        assert torch.nn.functional.cosine_similarity(digital.flatten(), seen.flatten(), dim=0) > 0.9


def test_a_layer_is_what_the_tile_model_counts(hardware):
    """One layer's output from TileModel.respond: G+ and G−, both signs of the inputs, whole counts."""
    torch.manual_seed(5)
    layer = nn.Linear(9, 2, bias=False, dtype=torch.float64)
    x = torch.randn(3, 9, dtype=torch.float64)
    n = NonIdealities(adc_clip=False)
    analog = convert_to_analog(layer, hardware, non_idealities=n)
    held = analog.crossbar.written(layer.weight.detach(), slice(0, 9), 0, n)
    scale = x.abs().amax(1, keepdim=True)
    codes = (x / scale * hardware.code_max).round()
    model = TileModel(hardware.model.card)
    counts = [model.respond(held.lines.numpy(), s.clamp(min=0).int().numpy()).count for s in (codes, -codes)]
    line = torch.tensor(counts[0] - counts[1], dtype=torch.float64)
    lsb = hardware.unit_c * 24.9e-6 * hardware.code_max * hardware.counts_per_coulomb()
    assert off_by(analog(x), (line[:, :2] - line[:, 2:]) / lsb * held.scale.mT * scale) < 1e-9


def test_affine_takes_out_what_is_affine(hardware):
    torch.manual_seed(6)
    layer, x = nn.Linear(20, 6), torch.randn(60, 20)
    analog = convert_to_analog(layer, hardware, non_idealities=NonIdealities.none(drift=True, drift_compensation=False))
    set_non_idealities(analog, NonIdealities.none(weight_clip_sigma=None, drift=True, drift_compensation=False))
    before = off_by(analog(x), layer(x))
    calibrate_affine(analog, [x[:30], x[30:]])
    after = off_by(analog(x), layer(x))
    assert after < 0.5 * before
    # Every tile's columns are at their own least-squares optimum: residuals are orthogonal to both terms.
    parts = analog.crossbar.partials(layer.weight.detach(), x)[0]
    scale, offset = analog.crossbar.affine[0]
    rest = (scale * parts + offset - (layer(x) - layer.bias)).detach()
    assert float(rest.mean(0).abs().max()) < 1e-6
    assert float((rest * parts).mean(0).abs().max()) < 1e-6


def test_a_fixed_input_range(hardware):
    torch.manual_seed(7)
    layer, x = nn.Linear(5, 3), torch.randn(40, 5)
    analog = convert_to_analog(
        layer, hardware, mapping=Mapping(input_range="fixed"), non_idealities=NonIdealities.none(input_clip=True)
    )
    with pytest.raises(InputError, match="fixed input range is not calibrated; call calibrate_inputs"):
        analog(x)
    calibrate_inputs(analog, [x])
    assert float(analog.crossbar.input_level) == pytest.approx(float(x.abs().max()))
    assert off_by(analog(x), layer(x)) < 1e-6
    assert off_by(analog(2 * x), layer(2 * x)) > 0.1
    set_non_idealities(analog, OFF)
    assert off_by(analog(2 * x), layer(2 * x)) < 1e-6


def test_show(hardware, capsys):
    torch.manual_seed(8)
    net = nn.Sequential(nn.Linear(1100, 700), nn.Linear(700, 3))
    analog = convert_to_analog(net, hardware, mapping=Mapping(adc_bits=4), non_idealities=NonIdealities.none(adc_clip=True))
    table = mapping_table(analog)
    first = table.layers[0]
    assert (first.row_tiles, first.column_tiles, first.rows_used, first.rows_of) == (3, 3, 367, 512)
    assert table.tiles == 9 + 2
    assert first.adc_top is None
    show(analog, [torch.randn(4, 1100)])
    out = capsys.readouterr().out
    assert "367 of 512" in out
    assert "/ 15" in out
    seen = mapping_table(analog, [torch.randn(4, 1100)]).layers[0]
    assert seen.adc_top > 15
    assert 0 < seen.counts_clipped <= 1
    # A clip at one rms takes a known share of normal weights.
    normal = nn.Linear(4000, 2)
    nn.init.normal_(normal.weight)
    clipped = convert_to_analog(normal, hardware, non_idealities=NonIdealities.none(weight_clip_sigma=1.0))
    assert mapping_table(clipped).layers[0].weights_clipped == pytest.approx(0.317, abs=0.02)


def test_use_outside_the_cards_domain_warns(card_of):
    bounds = {name: Interval(0.0, 1e6, unit) for name, unit in DOMAIN_UNITS.items()}
    narrow = {"conductance_s": Interval(1e-6, 5e-6, "S"), "wire_scale": Interval(1.0, 2.0, "1")}
    hardware = Hardware(card_of(domain=bounds | narrow))
    with pytest.warns(OutsideDomainWarning, match="conductance_s 2.5e-05 is 400 % above"):
        analog = convert_to_analog(nn.Linear(2, 2), hardware, non_idealities=NonIdealities.none(ir_drop=True, wire_scale=3.0))
    with pytest.warns(OutsideDomainWarning, match="wire_scale 3 is 50 % above"):
        analog.crossbar.plan.hardware.tile(analog.crossbar.switches, torch.float32)


BAD = [
    (lambda h: Mapping(rows=0), "rows: expected a whole number of at least 1; got 0"),
    (lambda h: Mapping(g_min_s=2e-5, g_max_s=1e-5), "g_max_s: expected more than g_min_s"),
    (lambda h: Mapping(scaling="colum"), "did you mean 'column'"),
    (lambda h: Mapping(significance=()), "significance: expected at least one factor"),
    (lambda h: NonIdealities(read_noise="monte"), "read_noise: expected one of off, device, analytical"),
    (lambda h: NonIdealities(wire_scale=float("nan")), "wire_scale: expected a finite number"),
    (lambda h: NonIdealities(ir_drop=1), "ir_drop: expected True or False; got 1"),
    (lambda h: NonIdealities(seed=-1), "seed: expected a whole number of at least 0"),
    (lambda h: convert_to_analog(nn.ReLU(), h), "nothing to convert"),
    (lambda h: convert_to_analog(nn.Linear(2, 2), "card.h5"), "card: expected a Card, TileModel or TiedTile"),
    (lambda h: convert_to_analog(network(), h, exclude=["33"]), "exclude: no layer is called '33'"),
    (lambda h: convert_to_analog(network(), h, overrides={"3": 5}), "expected Mapping or NonIdealities; got int"),
    (lambda h: show(nn.Linear(2, 2)), "call convert_to_analog first"),
    (lambda h: calibrate_affine(convert_to_analog(nn.Linear(2, 2), h), []), "batches: expected at least one batch"),
    (lambda h: calibrate_inputs(convert_to_analog(nn.Linear(2, 2), h), [torch.ones(1, 2)], 2.0), "quantile: expected"),
    (lambda h: AnalogLinear.from_digital(nn.ReLU(), None), "module: expected Linear for AnalogLinear; got ReLU"),
    (
        lambda h: convert_to_analog(nn.Linear(2, 2), h, mapping=Mapping(signed=False))(-torch.ones(1, 2)),
        "expected none below 0",
    ),
]


def test_unknown_topologies_are_refused(card_of):
    card = card_of()
    with pytest.raises(InputError, match="topology: expected one of gated, tied; got 'crossed'"):
        Hardware(card_of(meta=card.meta | {"topology": "crossed"}))


def test_a_layer_without_its_methods_is_none():
    with pytest.raises(TypeError, match="abstract"):
        AnalogLayer()


def test_a_topology_without_its_methods_is_none():
    with pytest.raises(TypeError, match="Half: expected the methods of Hardware") as error:

        class Half(Hardware, topology="half"):
            has_converter = True

    asked = [n for n in dir(Hardware) if getattr(getattr(Hardware, n), "__isabstractmethod__", False)]
    assert {"make_tile", "lines", "signed_charge", "draw_chip"} <= set(asked)
    for method in set(asked) - {"has_converter"}:
        assert method in str(error.value)
    assert "has_converter" not in str(error.value)
    assert "missing" in str(error.value)
    assert "half" not in Hardware._kinds


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_one_line(hardware, call, message):
    with pytest.raises(InputError) as error:
        call(hardware)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
