"""Where a mode's error comes from, stage by stage, in either topology, and what the recorded rings say of a boundary."""

import numpy as np
import pytest

from aimcard.data import shipped_card, shipped_reference
from aimcard.data.reference import ReferenceSet
from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.models.modes import get_mode
from aimcard.models.topology import tile_of
from aimcard.validation.residue import boundary, budget, record_of


def made(topology: str, mode: str = "split") -> tuple:
    card = Card.read(shipped_card(f"freepdk45_{topology}"))
    return tile_of(card), ReferenceSet.read(shipped_reference(f"freepdk45_{topology}_{mode}")), get_mode(mode)


@pytest.mark.parametrize("topology", ["gated", "tied"])
def test_stages_of_a_product(topology):
    """A pair and a signed column alike: the counter adds to what the oscillator's curve leaves, and no stage is free."""
    tile, reference, mode = made(topology)
    stages = dict(budget(tile, reference, mode, vectors=8))
    assert len(stages) == 7
    assert all(0.1 < error < 15 for error in stages.values())
    assert stages["+ oscillator"] > 1.2 * stages["cells, wire, edges (ideal clamp)"]
    assert stages["+ counter, ring reset in each phase"] > stages["+ oscillator"]


def test_an_ideal_clamp_errs_alike_in_every_mode_of_a_tied_column():
    """Linear and constant in time: the weighted charge is the same product, whichever phases carry it; pulses' edges apart."""
    first = [budget(*made("tied", mode), vectors=4)[0][1] for mode in ("split", "three_digit")]
    np.testing.assert_allclose(first[0], first[1], rtol=0.02)


def test_boundaries_of_tied_rings_are_told_too():
    rows = dict(boundary(made("tied")[1]))
    told = rows["truncation and residue, reset"]
    assert "even fractions: 2.33" in told
    lost, sigma = float(told.split()[0]), float(rows["σ_MAC of a line, weighted counts"])
    assert f"{100 * lost / sigma:.1f}"[:2] in told


def test_what_cannot_be_judged_is_one_line():
    tile, reference, mode = made("tied")
    with pytest.raises(InputError, match="vectors: expected 4 or more"):
        budget(tile, reference, mode, vectors=3)
    bare = ReferenceSet(reference.meta, reference.select(clamp="ideal"), reference.source)
    with pytest.raises(InputError, match="expected a held-out Gaussian column with clamp 'ota'"):
        record_of(bare)
