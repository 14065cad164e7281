"""Mismatch in tied circuits: netlists of chips, read-outs reduced to numbers, and whole columns that these predict."""

from __future__ import annotations

import re

import attrs
import numpy as np
import pytest
import torch

from aimcard.calibrate.mismatch import thresholds
from aimcard.calibrate.statistics import Population
from aimcard.calibrate.tied_chips import PairLine, simulate_tied_lines, tied_population_line
from aimcard.calibrate.tied_mismatch import (
    simulate_tied_cells,
    simulate_tied_readouts,
    tied_cell_spread,
    tied_readout_numbers,
    tied_readout_spread,
)
from aimcard.data import shipped_card
from aimcard.models.card import Card, Interval
from aimcard.models.errors import InputError
from aimcard.models.lut import lookup_slope
from aimcard.models.mismatch import on_factor
from aimcard.models.tied_chip import TiedChipTile
from aimcard.models.tied_mismatch import TIED_READOUT_NAMES, TiedChip
from aimcard.models.tied_tile import TiedTile
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.deck import Deck
from aimcard.netlists.mismatch import mismatched
from aimcard.netlists.readout import default_readout
from aimcard.netlists.source_edges import source_lines
from aimcard.netlists.technology import Technology, get_technology
from aimcard.netlists.tied import tied_column_deck
from aimcard.netlists.tied_cell_decks import tied_cell_deck
from aimcard.netlists.tied_driver import default_tied_driver
from aimcard.netlists.tied_readout import default_tied_readout, tied_static_deck

TECH = get_technology("freepdk45")
BENCH = ColumnBench(TECH, "nom", 27.0, default_readout(TECH))
CARD = Card.read(shipped_card("freepdk45_tied"))


def column(technology: Technology) -> Deck:
    g, codes = np.full(4, 5e-6), np.arange(4) - 2
    bench = ColumnBench(technology, "nom", 27.0, BENCH.readout)
    return tied_column_deck(
        bench, "c", g_plus_s=g, g_minus_s=g, codes=codes, cell=CellDesign(), wire=Wire(), pulses=Pulses(code_max=3), clamp="ota"
    )


def shifts(deck: Deck) -> dict[str, float]:
    """delvto by transistor."""
    return {n: float(v) for n, v in re.findall(r"^M(\w+) .* delvto=(\S+)", deck.text, re.MULTILINE)}


def cells(technology: Technology) -> Deck:
    axes = (0.4, 0.401, 2), (0.2, 0.6, 2)
    return tied_cell_deck(technology, "nom", 27.0, np.full(2, 25e-6), np.array([0.5]), *axes)


def test_no_mismatch_is_the_nominal_netlist_bit_for_bit():
    none = mismatched(TECH, 5, a_vt_v_um=0.0)
    assert column(none).text == column(TECH).text
    assert cells(none).text == cells(TECH).text
    assert tied_static_deck(none, BENCH.readout).text == tied_static_deck(TECH, BENCH.readout).text


def test_every_transistor_has_its_threshold_in_every_deck_of_a_chip():
    t = mismatched(TECH, 5)
    whole, alone = shifts(column(t)), shifts(tied_static_deck(t, BENCH.readout))
    pairs = {f"s{side}{i}" for side in "pm" for i in range(4)}
    assert {n: v for n, v in whole.items() if n not in pairs} == alone
    assert pairs < whole.keys()
    assert len(set(whole.values())) == len(whole)
    assert {n for n, v in shifts(column(mismatched(TECH, 5, part="cells"))).items() if v} == pairs
    assert {n for n, v in shifts(column(mismatched(TECH, 5, part="readout"))).items() if v} == alone.keys()


def test_thresholds_of_the_readout_have_the_law_of_their_area():
    d, chips = default_tied_readout(TECH), [mismatched(TECH, s) for s in range(1, 4)]
    shift, sigma = thresholds(tied_static_deck(TECH, BENCH.readout), BENCH, chips)
    assert shift.shape == (3, len(sigma))
    pair = 2e-3 / np.sqrt(d.pair_w_um * d.pair_l_um)
    sink = 2e-3 / np.sqrt(d.bias_w_um * d.bias_l_um)
    for law in (pair, sink, sink / np.sqrt(d.bias_ratio)):
        assert np.abs(sigma / law - 1).min() < 1e-9


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    """A chip: what its read-out shows alone, and a short column of it, inputs with and against its weights' signs."""
    cache, seeds = tmp_path_factory.mktemp("spice"), (1001,)
    how = {"jobs": 1, "cache_dir": cache, "progress": False}
    rng = np.random.default_rng(4)
    codes = np.array([[15, 12, 13, 15, 0, 15, 14, 9], [-15, -9, 0, -12, -15, -14, -15, -8]])
    g, swapped = np.stack([rng.uniform(18e-6, 25e-6, 8), rng.uniform(0.5e-6, 2e-6, 8)]), np.arange(8) % 2 == 1
    g[:, swapped] = g[::-1, swapped]
    line = PairLine(g, codes * np.sign(g[0] - g[1]).astype(int))
    alone = simulate_tied_readouts(BENCH, seeds, **how)
    return alone, line, simulate_tied_lines(BENCH, line, seeds, code_max=15, **how)


def chip_of(alone, k: int, seed: int, line: PairLine, cell) -> TiedChip:
    """The chip whose read-out has the numbers that it shows alone, and whose cells their own thresholds."""
    t, numbers = mismatched(TECH, seed), tied_readout_numbers(alone)[0][k]
    rows = line.conductance_s.shape[1]
    shift = [[[t.threshold_shift_v(f"s{side}{i}", line.w_select_um, t.l_min_um) for i in range(rows)]] for side in "pm"]
    own = {n: torch.tensor([v]) for n, v in zip(TIED_READOUT_NAMES, numbers, strict=True)}
    constants = {"i_idle_a": float(alone.bias_a[0]), "i_ref_a": 0.0, "least_a": float(alone.current_a[0])}
    return TiedChip(seed, own, on_factor(cell, torch.tensor(shift)), constants)


def test_a_readout_alone_is_reduced_to_its_numbers(chips):
    alone, *_ = chips
    numbers, left = tied_readout_numbers(alone)
    assert numbers.shape == (1, len(TIED_READOUT_NAMES))
    assert left["clamp"] < 1e-6
    assert left["mirror"] < 1e-4
    assert left["rate"] < 1e-3
    named = dict(zip(TIED_READOUT_NAMES, numbers.T, strict=True))
    assert named["bias_a"] == pytest.approx(alone.bias_a[1:] - alone.bias_a[0])
    # At rest: the OTA's offset, and the logarithm of the gain.
    at = int(np.argmin(np.abs(alone.current_a)))
    assert named["clamp_0_v"] == pytest.approx(alone.clamp_v[1:, at] - alone.clamp_v[0, at], abs=1e-6)
    at = int(np.argmin(np.abs(alone.rate_current_a)))
    assert named["rate_0"] == pytest.approx(np.log(alone.rate_hz[1:, at] / alone.rate_hz[0, at]), abs=1e-3)
    with pytest.raises(InputError, match="expected 40 or more"):
        tied_readout_spread(alone)


def test_an_offset_times_the_columns_conductance_is_what_a_resting_column_draws(chips):
    """In ngspice: the read-out's offset alone against the column's current, their product apart from R_out."""
    alone, line, spice = chips
    tile, g = TiedTile(CARD), torch.as_tensor(line.conductance_s[:, None])
    with torch.no_grad():
        y = float(tile.effective(*g).y_s[0])
    at = int(np.argmin(np.abs(alone.current_a)))
    offset = alone.clamp_v[1:, at] - alone.clamp_v[0, at]
    r_out = -float(lookup_slope(*tile.tables["clamp"], torch.zeros((), dtype=torch.float64)))
    # The bias' own shift moves the clamp by R_out of it; cells' own transistors change Y by some permille.
    shifted = offset - r_out * (alone.bias_a[1:] - alone.bias_a[0])
    assert spice.rest_a[1:] - spice.rest_a[0] == pytest.approx(y * shifted / (1 + r_out * y), rel=0.02)


def counts_of(tile: TiedTile, line: PairLine) -> tuple[np.ndarray, float]:
    """Phases (vectors,) less the resting column's, and the latter, neither truncated."""
    codes = np.concatenate([line.codes, np.zeros_like(line.codes[:1])])
    plus, minus = line.conductance_s[:, None]
    got = tile.respond(plus, codes, conductance_minus_s=minus, clamp="ota", position=line.position)
    assert got.phase_count is not None
    assert got.bias_counts is not None
    phases = got.phase_count[:, 0]
    return phases[:-1] - phases[-1], phases[-1] + got.bias_counts[0, 0]


def short_card() -> Card:
    return attrs.evolve(CARD, meta=CARD.meta | {"code_max": 15}, domain=CARD.domain | {"code": Interval(-15, 15, "1")})


def test_a_chips_own_numbers_predict_a_short_column(chips, tmp_path):
    """Counts of eight rows in 18 ns, from read-out and cells alone; nothing is fitted to columns."""
    alone, line, spice = chips
    single = simulate_tied_cells(BENCH, 1, cells=60, widths_um=np.array([0.5]), cache_dir=tmp_path)
    cell = tied_cell_spread(single, 2e-3, TECH.l_min_um, 0.5)
    left = np.log(single.r_on_ohm[0] / single.nominal_r_on_ohm[0])
    c, delta = cell.constants, single.threshold_v[0]
    # Gate drive is 1 - 0.4 V less the threshold, so a threshold does some six times what it does in a gated cell.
    assert 5 < c["on_per_v"] < 9
    assert left == pytest.approx(delta * (c["on_per_v"] + c["on_per_v2"] * delta), abs=2e-3)
    (nominal, idle), card = counts_of(TiedTile(short_card()), line), short_card()
    for k, seed in enumerate(spice.seeds):
        tile = TiedChipTile(card, chip_of(alone, k, seed, line, cell))
        drawn, rest = counts_of(tile, line)
        moved = spice.beyond_rest[k + 1] - spice.beyond_rest[0]
        error, idle_error = drawn - nominal - moved, rest - idle - np.diff(spice.rest_count[[0, k + 1]])[0]
        print(seed, "moved", moved.round(2), "model's error", error.round(3), "and at rest", idle_error.round(3))
        assert np.abs(moved).max() > 2
        assert np.abs(error).max() < 0.05 * np.abs(moved).max()
        # From some current on, the start loses one more edge: at rest and in a product alike.
        assert abs(idle_error) < 1 + 5e-4 * spice.rest_count[0]
        offset_a = tile.offset_current_a(line.conductance_s[:1], line.conductance_s[1:])
        # Beside the offset a column draws its gates' tunnelling current.
        assert offset_a == pytest.approx(spice.rest_a[k + 1], abs=1e-8)


def test_the_population_column_has_vectors_of_either_sign():
    line = tied_population_line(64)
    product = line.codes @ (line.conductance_s[0] - line.conductance_s[1])
    assert product[1] > 10 * abs(product[0])
    assert -product[2] > 10 * abs(product[0])
    assert np.array_equal(tied_population_line(64, vectors=1).codes, line.codes[:1])
    with pytest.raises(InputError, match="of a tied card gaussian, positive, negative"):
        Population(vectors=4)


@pytest.mark.slow  # five transients of a row's switches: 12 s
def test_drivers_of_a_chips_rows_differ_by_a_picosecond():
    """Four chips' source lines, every transistor of switches and chains with its own threshold, against nominal ones."""
    chips = [TECH, *(mismatched(TECH, seed) for seed in range(1, 5))]
    nominal, *own = [source_lines(t, "nom", 27.0, default_tied_driver(t)) for t in chips]
    gains = np.array([line.gain / nominal.gain - 1 for line in own])
    delays = np.array([line.delay_s + line.common_delay_s - nominal.delay_s - nominal.common_delay_s for line in own])
    print("gains [ppm]", np.round(1e6 * gains[:, 1], 1), "edges [ps]", np.round(1e12 * delays[:, 1], 2))
    assert 1e-6 < np.abs(gains).max() < 1e-4
    assert 0.1e-12 < delays.std() < 2e-12


@pytest.mark.slow  # 36 rings of 127 ns, cached by `aimcard statistics freepdk45_tied --held-out-chips 30`: else six minutes
def test_a_chips_own_numbers_predict_its_columns():
    seeds, line = tuple(range(1001, 1013)), tied_population_line()
    spice = simulate_tied_lines(BENCH, line, seeds, jobs=1, progress=False)
    alone = simulate_tied_readouts(BENCH, seeds, jobs=1, progress=False)
    cell = tied_cell_spread(simulate_tied_cells(BENCH, 1), 2e-3, TECH.l_min_um, 0.5)
    (nominal, idle), moved = counts_of(TiedTile(CARD), line), spice.beyond_rest[1:] - spice.beyond_rest[0]
    errors, idle_errors, offsets = [], [], []
    for k, seed in enumerate(seeds):
        tile = TiedChipTile(CARD, chip_of(alone, k, seed, line, cell))
        drawn, rest = counts_of(tile, line)
        errors.append(drawn - nominal - moved[k])
        idle_errors.append(rest - idle - (spice.rest_count[k + 1] - spice.rest_count[0]))
        offsets.append(tile.offset_current_a(line.conductance_s[:1], line.conductance_s[1:])[0])
    rms = [np.sqrt(np.mean(np.square(x), axis=0)) for x in (moved, errors)]
    print("counts move by", rms[0].round(2), "rms, the model errs by", rms[1].round(3), "worst", np.abs(errors).max().round(2))
    print("counts at rest", spice.rest_count[1:].round(1), "errors", np.round(idle_errors, 2))
    print("offset currents [uA]", np.round(1e6 * spice.rest_a[1:], 2), "errors", np.round(1e6 * (offsets - spice.rest_a[1:]), 3))
    assert np.abs(errors).max() < 0.01 * np.abs(spice.phase_count).max()
    assert np.all(rms[1] < 0.2 * rms[0])
    assert offsets == pytest.approx(spice.rest_a[1:], rel=0.03)
