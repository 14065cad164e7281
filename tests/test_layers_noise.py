"""Devices and chips in layers: what is drawn has the published statistics, repeats with its seed, and has a slow twin."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn

from aimcard.models.card import Spread, Table
from aimcard.models.chip import ChipModel
from aimcard.models.counting import Counting
from aimcard.models.errors import CardError, InputError
from aimcard.models.flicker import flicker_kernel
from aimcard.models.mismatch import CELL_NAMES, READOUT_NAMES
from aimcard.models.nn import Hardware, Mapping, NonIdealities, convert_to_analog, set_non_idealities, train_mode
from aimcard.models.nn.chip import TileChip
from aimcard.models.nn.circuit_noise import bin_currents, phase_noise
from aimcard.models.nn.pairs import write
from aimcard.models.nn.read_noise import charge_sigma, draw_per_device, draw_per_line
from aimcard.models.nn.streams import stream
from aimcard.models.noise import NoiseParameters
from aimcard.models.pcm import mac_sigma, programming_sigma, read_noise_sigma
from aimcard.models.tile import TileModel
from aimcard.models.tile_noise import tile_noise
from made_noise import count_sigma

ROWS = 24


@pytest.fixture(scope="module")
def hardware(card_of) -> Hardware:
    # Exact: small tiles, slot by slot, so that what is tested is the layer and not the fast product's error.
    return Hardware(card_of(), "exact")


def layer_of(rows: int = ROWS, outputs: int = 4) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(rows, outputs, dtype=torch.float64)


NOISES = [
    {"programming": True}, {"drift": True}, {"read_noise": "device"}, {"read_noise": "analytical"}, {"weight_noise": 0.02},
    {"output_noise": 0.02},
]  # fmt: skip


@pytest.mark.parametrize("on", NOISES, ids=lambda on: next(iter(on.values())) if "read_noise" in on else next(iter(on)))
def test_draws_repeat_with_their_seed(hardware, on):
    layer, x = layer_of(), torch.randn(3, ROWS, dtype=torch.float64)
    with torch.no_grad():
        first, same, other = (
            convert_to_analog(layer, hardware, non_idealities=NonIdealities.none(seed=s, **on)) for s in (1, 1, 2)
        )
        a, b = first(x), same(x)
        assert torch.equal(a, b)
        assert not torch.equal(a, other(x))
        assert not torch.allclose(a, layer(x), rtol=1e-6)
        set_non_idealities(first, NonIdealities.none(seed=1, **on))
        assert torch.equal(first(x), a)
        # Devices stay as they were written; noise of a read or a training step is fresh.
        assert torch.equal(same(x), b) == ("programming" in on or "drift" in on)


def test_layers_draw_independently(hardware):
    torch.manual_seed(2)
    one, two = nn.Linear(6, 6), nn.Linear(6, 6)
    two.load_state_dict(one.state_dict())
    analog = convert_to_analog(nn.Sequential(one, two), hardware, non_idealities=NonIdealities.none(programming=True))
    x = torch.randn(2, 6)
    assert not torch.equal(analog[0](x), analog[1](x))
    quiet = NonIdealities.none(programming=True)
    alone = convert_to_analog(nn.Sequential(one, two), hardware, exclude=["1"], non_idealities=quiet)
    assert torch.equal(alone[0](x), analog[0](x))


def test_programming_error_of_the_weights():
    weight = torch.full((200, 300), 0.5, dtype=torch.float64)
    weight[:, 0] = 1.0
    n = NonIdealities.none(programming=True)
    held = write(weight, Mapping(), n, stream(0))
    plus = held.conductance_s[0, 0, :, 1:] - (0.1e-6 + 0.5 * 24.9e-6)
    sigma = programming_sigma(torch.tensor(0.1e-6 + 0.5 * 24.9e-6, dtype=torch.float64))
    assert kstest((plus / sigma).flatten().numpy(), "norm").pvalue > 1e-3


def spread_of_pairs(**mapping) -> float:
    weight = torch.rand(100, 200, dtype=torch.float64, generator=stream(3)) * 2 - 1
    m = Mapping(**mapping)
    held = write(weight, m, NonIdealities.none(programming=True), stream(4))
    difference = held.conductance_s[:, 0] - held.conductance_s[:, 1]
    read = (difference * held.factors[:, None, None]).sum(0) / (m.g_max_s - m.g_min_s) * held.scale
    return float((read - weight).std())


def test_more_pairs_err_less():
    one, two = spread_of_pairs(), spread_of_pairs(significance=(1.0, 1.0))
    assert two == pytest.approx(one / math.sqrt(2), rel=0.02)
    # A second pair of an eighth of the weight that corrects the first leaves little more than its own error.
    assert spread_of_pairs(significance=(8.0, 1.0), correct=True) < 0.25 * one


def test_drift_and_its_compensation(hardware):
    layer, x = layer_of(64, 8), torch.randn(40, 64, dtype=torch.float64)
    truth = (layer(x) - layer.bias).detach()
    gains = []
    for compensated in (False, True):
        n = NonIdealities.none(drift=True, drift_time_s=1e6, drift_compensation=compensated)
        out = (convert_to_analog(layer, hardware, non_idealities=n)(x) - layer.bias).detach()
        gains.append(float((out * truth).sum() / (truth * truth).sum()))
    # Mean exponents are 0.049 to 0.1.
    log = math.log(1 + 1e6 / 20.0)
    assert math.exp(-0.1 * log) < gains[0] < math.exp(-0.03 * log)
    assert gains[1] == pytest.approx(1.0, abs=0.03)


def lines_and_times() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(5)
    g = torch.rand(6, 40, dtype=torch.float64, generator=rng) * 25e-6
    return g, torch.randint(0, 128, (3, 40), generator=rng).double() * 1e-9


@pytest.mark.parametrize("r_on", [0.0, 600.0])
def test_read_noise_by_device_and_by_formula_agree_in_distribution(r_on):
    g, t = lines_and_times()
    sigma = charge_sigma(g, t, 0.2, r_on)
    many = t.repeat(2000, 1)
    for draw in (draw_per_device, draw_per_line):
        (charge,) = draw(g, [(0 * many, many)], 0.2, r_on, stream(6, draw.__name__))
        z = charge.reshape(2000, 3, 6) / sigma
        assert kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
        assert torch.allclose(z.std(0), torch.ones(3, 6, dtype=torch.float64), atol=0.08)
        # Lines and vectors are independent.
        assert float(torch.corrcoef(z.flatten(1).T).fill_diagonal_(0).abs().max()) < 0.12


def test_the_formula_is_the_pcm_models_and_holds_in_single_precision():
    g, t = lines_and_times()
    assert torch.allclose(charge_sigma(g, t, 0.2), mac_sigma(g, t, 0.2), rtol=1e-10, atol=0)
    assert torch.allclose(charge_sigma(g.float(), t.float(), 0.2).double(), charge_sigma(g, t, 0.2), rtol=1e-4, atol=0)
    assert charge_sigma(g, torch.zeros_like(t), 0.2).abs().max() == 0


def test_read_noise_of_devices_through_the_circuit(hardware):
    """Conductances perturbed one by one inside the tile, with all effects on, spread the charge as the formula says."""
    rng = stream(7)
    g = 5e-6 + torch.rand(1, ROWS, dtype=torch.float64, generator=rng) * 10e-6
    codes = torch.randint(3, 16, (1, ROWS), generator=rng).double()
    r_on = float(hardware.model.values["r_on_ohm"])
    n = NonIdealities.none(ir_drop=True, apparent_weight=True)
    tile = Hardware(hardware.model, "exact").tile(n, torch.float64)
    at = g.clone().requires_grad_()
    (slope,) = torch.autograd.grad(tile.charge(at, codes).sum(), at)
    t = codes * hardware.model.t_lsb_s
    formula = charge_sigma(g, t, hardware.model.v_read_v, r_on)
    exact = (slope * read_noise_sigma(g, t)).square().sum().sqrt()
    assert float(formula) == pytest.approx(float(exact), rel=0.03)


def test_gaussian_training_noise(hardware):
    layer, x = layer_of(32, 2), torch.randn(1, 32, dtype=torch.float64)
    analog = train_mode(convert_to_analog(layer, hardware, non_idealities=NonIdealities.none()), noise=0.03)
    out = torch.stack([analog(x)[0] for _ in range(1500)])
    # Clipping at the largest weight takes a little of the noise.
    sigma = 0.03 * layer.weight.detach().abs().amax(1) * x.norm()
    assert torch.allclose(out.std(0), sigma, rtol=0.08)
    assert torch.allclose(out.mean(0), layer(x)[0], atol=float(sigma.max()) * 0.15)
    analog.eval()
    assert torch.allclose(analog(x), layer(x), rtol=1e-12)
    loud = train_mode(analog, noise=(0.0, 0.1))
    wide = x.repeat(2000, 1)
    z = (loud(wide) - layer(wide)) / ((layer(wide) - layer.bias).square().mean(0).sqrt() * 0.1)
    assert kstest(z[:, 0].detach().numpy(), "norm").pvalue > 1e-3


def test_ir_drop_in_training_is_the_circuit_of_evaluation(hardware):
    layer, x = layer_of(), torch.randn(3, ROWS, dtype=torch.float64)
    same = NonIdealities.none(ir_drop=True, apparent_weight=True, wire_scale=3.0)
    analog = convert_to_analog(layer, hardware, non_idealities=same)
    seen = analog.eval()(x)
    assert not torch.allclose(seen, layer(x), rtol=1e-4)
    set_non_idealities(analog, NonIdealities.none())
    trained = train_mode(analog, ir_drop=True, wire_scale=3.0)(x)
    assert torch.allclose(trained, seen, rtol=1e-9)
    trained.square().sum().backward()
    assert float(analog.weight.grad.abs().min()) > 0
    assert torch.allclose(analog.eval()(x), layer(x), rtol=1e-12)


def population(card_of):
    scale = np.array([6e-3, 1e-5, 5e-6, 0.06, 0.01, 6e-3, 1e-3, 0.02, 0.01, 0.005, 1e-3, 1e-3, 0.2])
    cell = {"w_ref_um": 0.5, "on_per_v": 1.1, "on_per_v2": 1.5, "leak_per_v": -29.0, "leak_per_v2": -0.4}
    n = len(READOUT_NAMES)
    readout = {"i_idle_a": 1e-5, "i_ref_a": 6e-5}
    return card_of(
        spreads=(
            Spread("readout", READOUT_NAMES, READOUT_NAMES.values(), np.zeros(n), np.diag(scale**2), 60, readout),
            Spread("cell", CELL_NAMES, CELL_NAMES.values(), [0.0], [[0.02**2]], 200, cell),
        )
    )


def test_a_chip_in_a_layer_departs_as_its_slow_twin(card_of):
    card = population(card_of)
    model, rng = TileModel(card), np.random.default_rng(8)
    g, codes = rng.uniform(0.1e-6, 12e-6, (6, ROWS)), rng.integers(0, 16, (5, ROWS))
    drawn = TileChip.draw(model, 3, "place", 6, ROWS)
    twin = ChipModel(card, drawn.chip).respond(g, codes).phase_count - model.respond(g, codes).phase_count
    n, lines, x = NonIdealities(), torch.tensor(g), torch.tensor(codes).double()
    tile = Hardware(model, "exact")
    seen = tile.read(tile.tile(n, torch.float64), lines, x, NonIdealities(adc_rounding=False), Mapping(adc_bits=20), None)
    kept = drawn.cells(lines, n)
    off = tile.read(
        tile.tile(n, torch.float64), kept, x, NonIdealities(adc_rounding=False), Mapping(adc_bits=20), None, None, drawn
    )
    departure = ((off - seen) * tile.counts_per_coulomb()).numpy()
    assert np.abs(departure - twin).max() < 0.05 * np.abs(twin).max()


def test_chips_differ_and_repeat(card_of):
    layer, x = layer_of(), torch.randn(2, ROWS, dtype=torch.float64)
    hardware = Hardware(population(card_of), "exact")
    outs = [convert_to_analog(layer, hardware, non_idealities=NonIdealities(mismatch=True, chip=chip))(x) for chip in (1, 1, 2)]
    assert torch.equal(outs[0], outs[1])
    assert not torch.allclose(outs[0], outs[2], rtol=1e-3)
    plain = convert_to_analog(layer, Hardware(card_of(), "exact"), non_idealities=NonIdealities(mismatch=True))
    with pytest.raises(CardError, match="spreads/readout: missing"):
        plain(x)


def noisy(card_of):
    """A card with noise of two of the circuit's sources, of the size of an oscillator's."""
    line_a, card = np.linspace(0, 100e-6, 5), card_of()
    tables = [
        Table(f"noise_{source}_{kind}", line_a, size * (1 + line_a / 50e-6), "A", unit, "line current", kind)
        for source, scale in (("mirror", 1.0), ("oscillator", 4.0))
        for kind, size, unit in (("white", scale * 1e-12, "1/Hz"), ("flicker", scale * 3e-6, "1"))
    ]
    return card_of(tables=[*card.tables, *tables])


def test_the_circuits_noise_is_that_of_the_slots(card_of):
    card = noisy(card_of)
    model, rng = TileModel(card), np.random.default_rng(9)
    g, codes = rng.uniform(0.1e-6, 12e-6, (6, ROWS)), rng.integers(0, 16, (5, ROWS))
    p, lines, x = NoiseParameters.of(card), torch.tensor(g), torch.tensor(codes)
    twin = tile_noise(model, g, codes, pcm=False)
    sources = torch.stack([s.square() for name, s in twin.sigma.items() if name != "quantisation"]).sum(0).sqrt()
    seen = count_sigma(p, bin_currents(lines, x.double(), 0.2, 17), 1e-9, 17)
    torch.testing.assert_close(seen, sources, rtol=0.05, atol=0)


def test_the_circuits_noise_in_a_layer(card_of):
    """Fresh at every product, with the sigma of four readings; a card without it and a product without counts say so.

    The two sign phases of a line follow one another and are subtracted, so of the slow noise what differs is left.
    """
    layer, x = layer_of(), torch.randn(1, ROWS, dtype=torch.float64)
    on = NonIdealities.none(circuit_noise=True, adc=True, seed=1)
    hardware = Hardware(noisy(card_of))
    with torch.no_grad():
        analog = convert_to_analog(layer, hardware, non_idealities=on)
        out = analog(x.expand(1500, -1))
        held = analog.crossbar.written(layer.weight, slice(0, ROWS), 0, on)
        codes = x / x.abs().max() * hardware.code_max
        p = NoiseParameters.of(hardware.model.card)
        signs = [
            phase_noise(p, bin_currents(held.lines, side.clamp(min=0), 0.2, 17), 1e-9, 17) for side in (codes, -codes)
        ]
        kernel = flicker_kernel(*Counting(((0, 17), (17, 34)), 1e-9).edges_s, 1.0)
        amplitude = torch.stack([signs[0].flicker, -signs[1].flicker])
        slow = torch.einsum("ksbl,kj,jsbl->bl", amplitude, kernel, amplitude)
        alone = sum(s.own + s.flicker.square().sum(0) * kernel[0, 0] for s in signs)
        counts, apart = ((v.reshape(2, -1).sum(0)).sqrt() for v in (signs[0].own + signs[1].own + slow, alone))
        lsb = hardware.unit_c * 24.9e-6 * hardware.code_max * hardware.counts_per_coulomb()
        per_count = held.scale[:, 0] * x.abs().max() / lsb
    torch.testing.assert_close(out.std(0), counts * per_count, rtol=0.08, atol=0)
    assert (counts < 0.8 * apart).all()
    with pytest.raises(InputError, match="circuit_noise: a noise of counts"):
        convert_to_analog(layer, hardware, non_idealities=NonIdealities.none(circuit_noise=True))(x)
    with pytest.raises(CardError, match="run: aimcard statistics"):
        convert_to_analog(layer, Hardware(card_of(), "exact"), non_idealities=on)(x)
