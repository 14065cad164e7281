"""Converted models as torch's users keep and misuse them: pickled, saved, in inference mode, of wrong width, with NaN."""

import io
import pickle

import pytest
import torch
from torch import nn

from aimcard.data import shipped_card
from aimcard.models.errors import InputError
from aimcard.models.fast import Effects, FastTile
from aimcard.models.nn import Mapping, NonIdealities, calibrate_affine, convert_to_analog
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
