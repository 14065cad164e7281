"""Other simulators beside ours: the exported configuration in aihwkit itself, and the peers' timings."""

import re
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from aimcard.data import shipped_card
from aimcard.data.shipped import find_card
from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.models.export import export
from aimcard.models.tile import TileModel
from aimcard.validation.aihwkit_agreement import agreement
from aimcard.validation.peers import installed, matmul, peers, timed

ROWS, COLUMNS, CODE_MAX = 512, 4, 127


def test_timed_keeps_the_last_output_and_counts():
    calls: list[int] = []

    def product() -> torch.Tensor:
        calls.append(1)
        return torch.tensor([float(len(calls))])

    result = timed(product, repeats=3)
    assert (result.output.item(), len(calls)) == (3.0, 3)
    assert result.seconds > 0
    with pytest.raises(InputError, match="repeats: expected 1 or more; got 0"):
        timed(product, repeats=0)


def test_peers_say_which_weight_they_take():
    with pytest.raises(InputError, match=r"expected float32 \(columns, rows\)"):
        peers(torch.zeros(4, 4, dtype=torch.float64))


def exported(**changes) -> nn.Module:
    """A layer with the shipped card's configuration, fields of ``forward`` changed, and a known weight."""
    layers = pytest.importorskip("aihwkit.nn", reason="pip install --no-deps aihwkit")
    scope = {"__name__": "exported"}
    exec(export(Card.read(shipped_card()), "aihwkit").text, scope)
    config = scope["rpu_config"]()  # type: ignore[operator]
    for name, value in changes.items():
        assert hasattr(config.forward, name), f"aihwkit has no forward.{name}"
        setattr(config.forward, name, value)
    linear = nn.Linear(ROWS, COLUMNS, bias=False)
    with torch.no_grad():
        linear.weight.copy_(weight())
    return layers.AnalogLinear.from_digital(linear, config).eval()


def weight() -> torch.Tensor:
    return torch.randn(COLUMNS, ROWS, generator=torch.Generator().manual_seed(1))


def inputs() -> torch.Tensor:
    codes = torch.randint(-CODE_MAX, CODE_MAX + 1, (3, ROWS), generator=torch.Generator().manual_seed(2))
    codes[:, 0] = CODE_MAX
    return codes / CODE_MAX


def product(layer: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return layer(inputs())


def tied_charge(g: np.ndarray, codes: np.ndarray, ohm: float) -> np.ndarray:
    """V·T Σ of one line's current per LSB, solved node by node: every cell stays connected. g (2, rows) [S]."""
    total = g.sum(0)
    wire = np.full(ROWS, 1 / ohm)
    wire[-1] = 2 / ohm
    matrix = np.diag(total + wire + np.concatenate([[0], wire[:-1]]))
    matrix -= np.diag(wire[:-1], 1) + np.diag(wire[:-1], -1)
    return wire[-1] * np.linalg.solve(matrix, 0.2 * (g[0] - g[1]) * codes)[-1]


@pytest.mark.peers
def test_without_wire_aihwkit_computes_the_product():
    exact = inputs() @ weight().T
    # aihwkit's own path for no IR-drop, and its ladder with hardly any.
    assert torch.allclose(product(exported(ir_drop=0.0)), exact, rtol=1e-5, atol=1e-4)
    ladder = product(exported(ir_drop=1e-6, adc_quantization=False))
    assert float((ladder - exact).std() / exact.std()) < 2e-3


@pytest.mark.peers
def test_wire_and_pairs_are_the_cards():
    card = Card.read(shipped_card())
    ohm = card.parameter("r_bit_ohm").value + card.parameter("r_return_ohm").value
    out = product(exported(adc_quantization=False))
    domain = card.domain["conductance_s"]
    w = weight().double().numpy()
    scale = (domain.hi - domain.lo) / np.abs(w).max()
    codes = (inputs() * CODE_MAX).round().double().numpy()
    ideal = inputs().double().numpy() @ w.T
    for column in range(COLUMNS):
        g = np.clip(np.stack([w[column], -w[column]]), 0, None) * scale + domain.lo
        down = column % 2 == 0  # aihwkit reads odd columns from the other end
        for vector, x in enumerate(codes):
            charge = tied_charge(g if down else g[:, ::-1], x if down else x[::-1], ohm)
            expected = charge / 0.2 / scale / CODE_MAX
            # 64 segments of 8 cells: a share of the drop itself.
            assert float(out[vector, column]) == pytest.approx(
                expected, abs=0.03 * abs(expected - ideal[vector, column]) + 2e-3 * np.abs(ideal).max()
            )


@pytest.mark.peers
def test_the_adc_counts_as_many_as_the_cards_oscillator():
    fine, counted = product(exported(adc_quantization=False)), product(exported())
    card = Card.read(shipped_card())
    model = TileModel(card)
    x, rate = (t.numpy() for t in model.tables["adc"])
    per_fc = (np.interp(100e-6, x, rate) - rate[0]) / 100e-6 * 1e-15
    domain = card.domain["conductance_s"]
    # One count in units of the product: charge over V·T, G per weight and codes.
    scale = (domain.hi - domain.lo) / float(weight().abs().max())
    count = 1e-15 / per_fc / (0.2 * 1e-9) / scale / CODE_MAX
    short = (fine.abs() - counted.abs()).numpy()
    assert (short > -1e-3 * count).all()
    assert (short < 1.01 * count).all()
    assert short.max() > 0.3 * count


@pytest.mark.peers
def test_a_tied_cards_configuration_is_nearly_its_charge():
    digital, whole, ohmic, edgeless, linear, near, far, read, _ = agreement(find_card("freepdk45_tied"), columns=2, vectors=3)
    assert digital.rms > 0.1
    assert whole.rms < 2.5e-3
    # Two numbers that one conductance cannot be: how long a line is down and up, and what each of its switches loses.
    assert ohmic.scaled < 1e-3
    assert edgeless.scaled < 1e-3
    assert linear.scaled < 2e-4  # aihwkit counts in float32
    # A column elsewhere sees another gain, and nothing else.
    assert near.gain > 1.03 > 1 > far.gain
    assert max(near.scaled, far.scaled) < 2.5e-3
    assert 0.97 < read.gain < 1
    assert read.scaled < 5e-3


@pytest.mark.peers
def test_tied_cells_convert_back_to_the_weights():
    pytest.importorskip("aihwkit.nn", reason="pip install --no-deps aihwkit")
    scope = {"__name__": "exported"}
    exec(export(find_card("freepdk45_tied"), "aihwkit").text, scope)
    converter = scope["TiedCells"](g_max=25.0, g_min=0.1)  # type: ignore[operator]
    conductances, params = converter.convert_to_conductances(weight())
    assert torch.allclose(converter.convert_back_to_weights(conductances, params), weight(), atol=1e-5)
    assert all(float(g.max()) < 25 / (1 + 25 * converter.R_ON_MOHM) * 1.00001 for g in conductances)


def test_agreement_says_what_it_takes(monkeypatch):
    tied = find_card("freepdk45_tied")
    with pytest.raises(InputError, match="expected a tied one"):
        agreement(Card.read(shipped_card()))
    with pytest.raises(InputError, match="columns: expected an even number"):
        agreement(tied, columns=3)
    monkeypatch.setattr("aimcard.validation.aihwkit_agreement.installed", lambda package: False)
    with pytest.raises(InputError, match="pip install --no-deps aihwkit"):
        agreement(tied, columns=2, vectors=1)


@pytest.mark.parametrize(("mode", "name"), [("split", "SPLIT_MODE"), ("bitwise", "BIT_WISE"), ("staggered", "ONE_PASS")])
def test_a_modes_name_is_aihwkits(mode, name):
    for card in (Card.read(shipped_card()), find_card("freepdk45_tied")):
        exported = export(attrs.evolve(card, meta=card.meta | {"mode": mode}), "aihwkit")
        assert f"forward.mv_type = AnalogMVType.{name}" in exported.text
        assert any(mode in part for part in exported.left_out) == (name == "ONE_PASS")


@pytest.mark.peers
def test_every_peer_computes_about_the_product():
    generator = torch.Generator().manual_seed(3)
    big, x = 0.1 * torch.randn(64, 512, generator=generator), torch.randn(2, 512, generator=generator)
    exact = matmul(big, x, repeats=3)
    names = []
    found, absent = peers(big)
    for peer in found:
        result = peer.run(x)
        names.append(peer.name)
        assert result.output.shape == exact.output.shape
        assert result.seconds > 0
        assert float(torch.corrcoef(torch.stack([result.output.flatten(), exact.output.flatten()]))[0, 1]) > 0.9, peer.name
    assert len(set(names)) == len(names)
    # The compiled tiles need an aihwkit that was built against this torch; the others need none.
    in_torch = {"inference tile in torch", "IR-drop in time, split", "IR-drop in time, conventional"}
    assert {f"aihwkit, {name}" for name in in_torch} <= set(names)
    assert {"aihwkit-lightning, evaluation", "aihwkit-lightning, training with noise"} <= set(names)
    assert all("in C++" in name and "torch" in why for name, why in absent.items())


@pytest.mark.peers
def test_the_pages_example_runs(capsys):
    page = (Path(__file__).parents[1] / "docs" / "exports.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "import matmul, peers" in block)
    exec(compile(code, "exports.md", "exec"), {})
    assert "aihwkit, IR-drop in time, split" in capsys.readouterr().out


def test_a_peer_that_is_not_here_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("aimcard.validation.peers.installed", lambda package: False)
    found, absent = peers(torch.zeros(2, 4))
    assert found == []
    assert absent["aihwkit-lightning"] == "not installed: pip install --no-deps aihwkit-lightning"
    assert not installed("no-such-package-of-ours")
