"""Converted models as torch's users keep and misuse them: pickled, saved, in inference mode, of wrong width, with NaN."""

import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from aimcard.data import shipped_card
from aimcard.models.errors import InputError
from aimcard.models.fast import Effects, FastTile
from aimcard.models.nn import (
    Mapping,
    NonIdealities,
    calibrate_affine,
    calibration_state,
    convert_to_analog,
    convert_to_digital,
    load_calibration,
)
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel

CARDS = {"freepdk45_gated": TileModel, "freepdk45_tied": TiedTile}


@pytest.fixture(params=list(CARDS))
def card(request):
    return CARDS[request.param].read(shipped_card(request.param))


def _layer(card, **how):
    torch.manual_seed(3)
    return convert_to_analog(nn.Linear(37, 11), card, **how).eval()


@pytest.mark.parametrize("mode", ["conventional", "split"])
def test_saved_models_answer_as_before(card, mode):
    analog, x = _layer(card, mapping=Mapping(mode=mode)), torch.randn(5, 37)
    calibrate_affine(analog, [torch.randn(32, 37)])
    with torch.no_grad():
        before = analog(x)
        assert torch.equal(pickle.loads(pickle.dumps(analog))(x), before)
        kept = io.BytesIO()
        torch.save(analog, kept)
        kept.seek(0)
        assert torch.equal(torch.load(kept, weights_only=False)(x), before)


def test_inference_mode_leaves_nothing_behind(card):
    analog, x = _layer(card), torch.randn(5, 37)
    with torch.no_grad():
        expected = _layer(card)(x)
    with torch.inference_mode():
        assert torch.equal(analog(x), expected)
    with torch.no_grad():
        assert torch.equal(analog(x), expected)
    analog(x.clone().requires_grad_()).sum().backward()
    assert analog.weight.grad.isfinite().all()


def test_inputs_as_wide_as_the_weights(card):
    for width in (1, 36, 38):
        with pytest.raises(InputError, match=f"expected 37 in the last dimension.*got {width}"):
            _layer(card)(torch.randn(2, width))


def test_inputs_that_are_no_numbers_name_their_layer(card):
    net = convert_to_analog(nn.Sequential(nn.Linear(37, 11), nn.Linear(11, 3)), card)
    net[0].register_forward_hook(lambda module, args, out: out / 0)
    with pytest.raises(InputError, match="inputs of 1: expected finite numbers; got NaN or infinite ones"):
        net(torch.randn(2, 37))


def test_calibration_goes_beside_the_state_dict(card):
    """State dict and calibration state rebuild a calibrated model in another one."""
    torch.manual_seed(4)
    nets = [nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 7)) for _ in range(2)]
    mapping = Mapping(rows=40, input_range="fixed")
    first, second = (convert_to_analog(net, card, mapping=mapping).eval() for net in nets)
    x = torch.randn(3, 2, 6, 6)
    with pytest.raises(InputError, match="not calibrated"):
        second(x)
    calibrate_affine(first, [torch.randn(64, 2, 6, 6)])
    kept = io.BytesIO()
    torch.save((first.state_dict(), calibration_state(first)), kept)
    kept.seek(0)
    weights, calibration = torch.load(kept, weights_only=True)
    places = ("0.crossbar_0", "0.crossbar_1", "2.crossbar")
    assert set(calibration) == {f"{place}.{what}" for place in places for what in ("affine", "input_level")}
    second.load_state_dict(weights)
    load_calibration(second, calibration)
    with torch.no_grad():
        assert torch.equal(second(x), first(x))
    wrong = calibration | {"2.crossbar.affine": torch.zeros(1, 2, 7)}
    for bad, message in ((wrong, r"expected shape \(2, 2, 7\)"), ({"3.crossbar.affine": x}, "belongs to no crossbar")):
        with pytest.raises(InputError, match=message):
            load_calibration(second, bad)
    with torch.no_grad():
        assert torch.equal(second(x), first(x))
    load_calibration(second, {})
    assert calibration_state(second) == {}


@pytest.mark.parametrize("noise", [{"weight_noise": 0.1}, {"output_noise": 0.1}, {"read_noise": "analytical"}])
def test_checkpointed_noise_without_a_seed_is_the_same_noise(card, noise):
    """As with dropout: the recomputed pass draws what the first one drew, so value and gradient belong together."""
    layer = convert_to_analog(nn.Linear(24, 8), card, non_idealities=NonIdealities.none(seed=None, **noise))
    x = torch.randn(6, 24)

    def gradient(run):
        torch.manual_seed(11)
        layer.weight.grad = None
        y = run(x.clone().requires_grad_())
        y.square().sum().backward()
        return y.detach(), layer.weight.grad

    plain, again = gradient(layer), gradient(lambda x: checkpoint(layer, x, use_reentrant=False))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert not torch.equal(layer(x), layer(x))


def test_backward_inside_autocast(card):
    """Values stay, and gradients lose no more than torch's own lose in an autocast that is still on in the backward pass."""
    x = torch.randn(5, 37)

    def run():
        analog = _layer(card)
        y = analog(x)
        y.square().sum().backward()
        return y.detach(), analog.weight.grad

    with torch.autocast("cpu", torch.bfloat16):
        inside = run()
    outside = run()
    assert torch.equal(inside[0], outside[0])
    assert (inside[1] - outside[1]).norm() < 2**-7 * outside[1].norm()


def test_a_product_inside_autocast():
    tile = FastTile(TileModel.read(shipped_card()))
    g, x = torch.rand(5, 40) * 25e-6, torch.randint(0, 128, (6, 40)).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = tile.charge(g, x), tile.phase(g, x)
    for a, b in zip((tile.charge(g, x), tile.phase(g, x)), inside, strict=True):
        assert torch.equal(a, b)


def test_torch_compile_goes_around_the_tiles(card):
    """What lies between two products is compiled, and nothing of the tiles is traced."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(20, 30), nn.Linear(30, 5)

        def forward(self, x):
            return torch.softmax(self.last(torch.relu(self.first(x))), -1)

    analog, x, graphs = convert_to_analog(Net(), card).eval(), torch.randn(4, 20), []
    compiled = torch.compile(analog, backend=lambda graph, inputs: graphs.append(graph) or graph.forward)
    with torch.no_grad():
        assert torch.equal(compiled(x), analog(x))
    calls = [node.name for graph in graphs for node in graph.graph.nodes if node.op.startswith("call")]
    assert sorted(calls) == ["add", "add", "relu", "softmax"]


def test_hooks_stay(card):
    net = nn.Sequential(nn.Linear(37, 11), nn.MultiheadAttention(11, 1))
    seen = []
    net[0].register_forward_hook(lambda module, args, out: seen.append(type(module).__name__))
    net[0].register_forward_pre_hook(lambda module, args: (2 * args[0],))
    analog, x = convert_to_analog(net, card, non_idealities=NonIdealities.none()), torch.randn(2, 37)
    with torch.no_grad():
        assert torch.allclose(analog[0](x), net[0](x), atol=1e-4)
    assert seen == ["AnalogLinear", "Linear"]
    analog[0].register_forward_hook(lambda module, args, out: seen.append("later"))
    net[0](x), convert_to_digital(analog)[0](x)
    assert seen[2:] == ["Linear", "Linear", "later"]


def test_weights_that_are_no_numbers(card):
    for bad in (float("nan"), float("inf")):
        analog = _layer(card)
        with torch.no_grad():
            analog.weight[2, 3] = bad
        with pytest.raises(InputError, match="weights: expected finite numbers"):
            analog(torch.randn(2, 37))


def test_only_modules_are_converted(card):
    with pytest.raises(InputError, match=r"expected a torch.nn.Module; got str"):
        convert_to_analog("net", card)


def test_programming_that_leaves_devices_open(card):
    """Programming errors put small devices at exactly 0 S: values and gradients stay finite with all of the circuit on."""
    analog = _layer(card, non_idealities=NonIdealities(programming=True))
    x = torch.randn(5, 37, requires_grad=True)
    y = analog(x)
    y.square().sum().backward()
    for found in (y, x.grad, analog.weight.grad):
        assert found.isfinite().all()
    still = convert_to_analog(nn.Linear(37, 11), card, non_idealities=NonIdealities.none(programming=True))
    held = still.crossbar.written(still.weight, slice(None), 0, still.crossbar.switches)
    assert (held.conductance_s == 0).any()  # or this test says nothing


def test_programming_errors_cost_what_they_cost_alone(card):
    """With all of the circuit on, open devices do not multiply what programming does: its error stays its own."""
    torch.manual_seed(5)
    digital, x = nn.Linear(64, 64), torch.randn(16, 64)

    def error(how):
        analog = convert_to_analog(digital, card, non_idealities=how).eval()
        calibrate_affine(analog, [torch.randn(256, 64)])
        with torch.no_grad():
            return float((analog(x) - digital(x)).norm() / digital(x).norm())

    alone, whole = error(NonIdealities.none(programming=True)), error(NonIdealities(programming=True))
    assert whole < alone + 2 * error(NonIdealities())


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("how", [{}, {"plain": True}])
@pytest.mark.parametrize("open_s", [0.0, 1e-9, 3e-9, 1e-8])
def test_almost_open_devices_in_the_fast_product(counts, how, open_s):
    """A third of the rows: charges and phases beside the slot-by-slot twin, in units of the lines' spread."""
    model = TileModel.read(shipped_card())
    g = torch.rand(6, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 25e-6 + 1e-7
    x = torch.randint(0, 128, (12, 64), generator=torch.Generator().manual_seed(2)).double()
    g[:, ::3] = open_s
    effects = Effects() if counts else Effects(regulator=False, adc=False)
    fast, exact = (FastTile(model, effects, dtype=torch.float64, **k) for k in (how, {"accuracy": "exact"}))
    seen, truth = ((t.phase if counts else t.charge)(g, x) for t in (fast, exact))
    assert ((seen - truth).square().mean(0) / truth.var(0)).max() < 1e-4


@pytest.mark.parametrize("how", [{}, {"plain": True}, {"accuracy": "exact"}])
def test_an_open_device_is_the_limit_of_a_small_one(how):
    model = TileModel.read(shipped_card())
    g = torch.rand(3, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 25e-6
    x = torch.randint(0, 128, (4, 24), generator=torch.Generator().manual_seed(2)).double()
    tile = FastTile(model, Effects(regulator=False, adc=False), dtype=torch.float64, **how)
    answers = []
    for open_s in (0.0, 1e-12, 1e-10):
        g[:, ::3] = open_s
        at = g.clone().requires_grad_()
        charge = tile.charge(at, x)
        charge.sum().backward()
        assert at.grad.isfinite().all()
        answers.append(charge.detach())
    cell_c = 0.2 * 5e-6 * 127e-9
    assert (answers[0] - answers[1]).abs().max() < 1e-4 * cell_c
    assert (answers[0] - answers[2]).abs().max() < 1e-3 * cell_c
