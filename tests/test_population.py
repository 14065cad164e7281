"""Whole chips: the numbers that a chip's read-out shows alone predict what its lines count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aimcard.calibrate.chips import population_line, simulate_lines
from aimcard.calibrate.mismatch import (
    REFERENCE_A,
    cell_spread,
    readout_numbers,
    readout_spread,
    simulate_cells,
    simulate_readouts,
)
from aimcard.calibrate.statistics import Population, estimate
from aimcard.data import shipped_card
from aimcard.models.card import Card
from aimcard.models.chip import ChipModel
from aimcard.models.errors import InputError
from aimcard.models.mismatch import READOUT_NAMES, Chip, leak_factor, on_factor
from aimcard.models.tile import TileModel
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.mismatch import mismatched
from aimcard.netlists.readout import default_readout
from aimcard.netlists.technology import get_technology

TECH = get_technology("freepdk45")
BENCH = ColumnBench(TECH, "nom", 27.0, default_readout(TECH))


def test_options_are_checked_and_the_estimate_counts():
    with pytest.raises(InputError, match="chips: expected 14 or more"):
        Population(chips=5)
    with pytest.raises(InputError, match="columns: expected 0, or 8 or more"):
        Population(columns=3)
    assert "60 read-outs, 610 rings, 0 whole lines" in estimate(Population())


def test_a_readout_alone_is_reduced_to_its_numbers(tmp_path):
    """Two chips and the nominal read-out: the departures reproduce the curves they were taken from."""
    p = simulate_readouts(BENCH, (1, 2), jobs=1, cache_dir=tmp_path, progress=False)
    numbers, left = readout_numbers(p)
    assert numbers.shape == (2, len(READOUT_NAMES))
    assert left["clamp"] < 10e-6
    assert left["mirror"] < 1e-3
    assert left["rate"] < 3e-3
    # The clamp's offset is the table's at the reference current.
    at = int(np.argmin(np.abs(p.current_a - REFERENCE_A)))
    assert numbers[:, 0] == pytest.approx(p.clamp_v[1:, at] - p.clamp_v[0, at], abs=20e-6)
    with pytest.raises(InputError, match="more than 13"):
        readout_spread(p)


@pytest.mark.slow  # nine rings of 127 ns: two minutes
def test_a_chips_own_numbers_predict_its_lines(tmp_path):
    seeds, line = (1001, 1002, 1003), population_line()
    spice = simulate_lines(BENCH, line, seeds, jobs=1, cache_dir=tmp_path, progress=False)
    readouts = simulate_readouts(BENCH, seeds, jobs=1, cache_dir=tmp_path, progress=False)
    numbers = readout_numbers(readouts)[0]
    cell = cell_spread(simulate_cells(BENCH, 1, cache_dir=tmp_path), 2e-3, TECH.l_min_um, 0.5)
    card = Card.read(shipped_card())
    g = line.conductance_s[None]
    nominal = TileModel(card).respond(g, line.codes).phase_count
    assert nominal is not None
    for k, seed in enumerate(seeds):
        t = mismatched(TECH, seed)
        shift = torch.tensor([[t.threshold_shift_v(f"s{i}", 0.5, TECH.l_min_um) for i in range(g.shape[1])]])
        own = {n: torch.tensor([numbers[k, j]]) for j, n in enumerate(READOUT_NAMES)}
        drawn = Chip(seed, own, on_factor(cell, shift), leak_factor(cell, shift), readouts.i_idle_a, REFERENCE_A)
        predicted = ChipModel(card, drawn).respond(g, line.codes).phase_count
        assert predicted is not None
        moved = spice.phase_count[k + 1] - spice.phase_count[0]
        error = predicted[:, 0] - nominal[:, 0] - moved
        print(seed, "moved", moved.round(2), "model's error", error.round(2))
        assert np.abs(error).max() < 0.01 * np.abs(spice.phase_count[k + 1]).max()
