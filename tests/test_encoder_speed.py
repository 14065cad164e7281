"""The encoder that is timed: nearly all of it is on tiles, and both topologies run it."""

import pytest
import torch
from torch import nn

from aimcard.data.shipped import find_card
from aimcard.models.nn import AnalogLayer, Hardware, convert_to_analog
from aimcard.models.nn.crossbar import DynamicCrossbar
from aimcard.validation.encoder_speed import READS, analog_share, figures, make_encoder, measure


def test_every_product_of_it_is_analog():
    encoder = make_encoder(64, 2, 2)
    analog = convert_to_analog(encoder, find_card("freepdk45_tied"))
    linear = [m for m in encoder.modules() if isinstance(m, nn.Linear | nn.MultiheadAttention)]
    assert len(linear) == len([m for m in analog.modules() if isinstance(m, AnalogLayer)]) == 2 * 4
    assert sum(isinstance(m, DynamicCrossbar) for m in analog.modules()) == 2 * 2
    # Parameters of the matrices are the multiply-accumulates of a token.
    macs = sum(p.numel() for m in linear for p in m.parameters(recurse=False) if p.ndim == 2)
    assert macs == 2 * 12 * 64 * 64
    assert analog_share(512, 128) > 0.95


@pytest.mark.parametrize("name", ["freepdk45_tied", "freepdk45_gated"])
def test_both_topologies_run_it(name):
    card = find_card(name)
    encoder, x = make_encoder(64, 1, 2), torch.randn(2, 12, 64, generator=torch.Generator().manual_seed(1))
    for read in READS:
        row = measure(Hardware(card), read, encoder, x, turns=1)
        assert row.topology == card.meta["topology"]
        # Without affine correction a gated tile's bent rate alone errs by half (docs/layers.md); noise alone would by √2.
        assert 1e-4 < row.error < (0.3 if read == "charge" else 0.8)
    assert figures(card).startswith("charge ")
