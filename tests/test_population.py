"""Whole chips: the numbers that a chip's read-out shows alone predict what its lines count."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch

from aimcard.__main__ import main
from aimcard.calibrate.chips import population_line, simulate_lines
from aimcard.calibrate.mismatch import (
    REFERENCE_A,
    cell_spread,
    readout_numbers,
    readout_spread,
    simulate_cells,
    simulate_readouts,
)
from aimcard.calibrate.statistics import Population, bench_of, circuit_noise, estimate, in_conventional
from aimcard.data import shipped_card
from aimcard.data.shipped import find_card
from aimcard.models.card import Card, Table
from aimcard.models.chip import ChipModel
from aimcard.models.errors import InputError
from aimcard.models.mismatch import READOUT_NAMES, Chip, leak_factor, on_factor
from aimcard.models.tile import TileModel
from aimcard.models.topology import tile_of
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.mismatch import mismatched
from aimcard.netlists.readout import default_readout
from aimcard.netlists.technology import get_technology

TECH = get_technology("freepdk45")
BENCH = ColumnBench(TECH, "nom", 27.0, default_readout(TECH))


def test_options_are_checked_and_the_estimate_counts():
    with pytest.raises(InputError, match="chips: expected 40 or more"):
        Population(chips=5)
    with pytest.raises(InputError, match="held-out chips: expected 0, or 8 or more"):
        Population(held_out_chips=3)
    with pytest.raises(InputError, match="vectors: expected 1 to 3 "):
        Population(vectors=4)
    assert population_line(16, vectors=1).codes.shape == (1, 16)
    assert np.array_equal(population_line(16, vectors=1).codes[0], population_line(16).codes[0])
    assert "60 read-outs, 610 rings, 0 whole lines" in estimate(Population())


def test_a_readout_alone_is_reduced_to_its_numbers(tmp_path):
    """A chip and the nominal read-out: the departures reproduce the curves they were taken from."""
    p = simulate_readouts(BENCH, (1,), jobs=1, cache_dir=tmp_path, progress=False)
    numbers, left = readout_numbers(p)
    assert numbers.shape == (1, len(READOUT_NAMES))
    assert left["clamp"] < 10e-6
    assert left["mirror"] < 1e-3
    assert left["rate"] < 3e-3
    # The clamp's offset is the table's at the reference current.
    at = int(np.argmin(np.abs(p.current_a - REFERENCE_A)))
    assert numbers[:, 0] == pytest.approx(p.clamp_v[1:, at] - p.clamp_v[0, at], abs=20e-6)
    with pytest.raises(InputError, match="expected 40 or more"):
        readout_spread(p)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("statistics", "freepdk45_gated", "--out", "s.h5", "--chips", "3"), "chips: expected 40 or more"),
        (("statistics", "freepdk45_gated", "--out", "s.h5", "--held-out-chips", "2"), "held-out chips: expected 0, or 8 or more"),
        (("statistics", "freepdk45_gated", "--out", "s.h5", "--a-vt", "-1"), "Pelgrom constant: expected a finite number"),
        (("statistics", "freepdk45_gated", "--out", "s.h5", "--json", "j.json"), "--json: expected --held-out-chips 8 or more"),
        (("statistics", "bare.h5", "--out", "s.h5"), "statistics need a card with a read-out"),
        (("noise", "sound.h5"), "run: aimcard statistics"),
        (("noise", "noisy.h5", "--rows", "0"), "rows: expected 1 or more"),
        (("noise", "noisy.h5", "--jitter", "-1"), "jitter: expected"),
        (("noise", "noisy.h5", "--mode", "spilt"), "mode: expected one of conventional, split"),
        (("noise", "noisy.h5", "--phase-rule", "drop"), "phase_rule: expected one of reset, carry; got 'drop'"),
        (("noise", "noisy.h5", "--lowest", "1e8"), "lowest frequency: expected noise that is slow beside the product"),
    ],
)
def test_bad_input_is_one_line(arguments, said, card_of, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    card_of(readout=False).write("bare.h5")
    line_a = np.array([0.0, 1e-4])
    kinds = (("white", "1/Hz"), ("flicker", "1"))
    tables = [Table(f"noise_mirror_{k}", line_a, line_a, "A", unit, "line current", k) for k, unit in kinds]
    sound = card_of()
    sound.write("sound.h5")
    attrs.evolve(sound, tables=(*sound.tables, *tables)).write("noisy.h5")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("topology", ["gated", "tied"])
def test_a_card_of_another_mode_has_the_same_noise_tables_and_population(topology, tmp_path, capsys):
    """Both go with static line currents, so a card in split gets those that ship, and reads them in its own mode."""
    shipped = find_card(f"freepdk45_{topology}")
    split = attrs.evolve(shipped, meta=shipped.meta | {"mode": "split"})
    made, _ = circuit_noise(split, bench_of(split), tile_of(split), None)
    known = {t.name: t for t in shipped.tables}
    assert {t.name for t in made} == {name for name in known if name.startswith("noise_")}
    for table in made:
        assert table.y == pytest.approx(known[table.name].y, rel=1e-4)
    back = in_conventional(split)
    assert tile_of(back).mode.name == "conventional"
    assert back.spreads == shipped.spreads
    split.write(tmp_path / "split.h5")
    tables = []
    for arguments in (("split.h5",), (f"freepdk45_{topology}", "--mode", "split")):
        name, *rest = arguments
        card = str(tmp_path / name) if name.endswith(".h5") else name
        assert main(["noise", card, *rest, "--rows", "16"]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
    assert "quantisation                 2.33" in tables[0]


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


@pytest.mark.slow  # 61 read-outs and 610 rings, the same that `aimcard statistics` runs, from its cache: else four minutes
def test_the_numbers_follow_the_thresholds_that_theory_names():
    seeds = range(1, 61)
    readouts = simulate_readouts(BENCH, seeds, jobs=1, progress=False)
    numbers, d = readout_numbers(readouts)[0], BENCH.readout

    def shift(name: str, w_um: float, l_um: float, m: int = 1) -> np.ndarray:
        return np.array([mismatched(TECH, s).threshold_shift_v(name, w_um, l_um, m) for s in seeds])

    def regress(of: np.ndarray, thresholds: dict[str, np.ndarray]) -> tuple[dict[str, float], float]:
        basis = np.stack([*thresholds.values(), np.ones(len(seeds))], axis=1)
        found, left, *_ = np.linalg.lstsq(basis, of, rcond=None)
        share = 1 - left[0] / np.sum((of - of.mean()) ** 2)
        print({n: round(float(v), 3) for n, v in zip(thresholds, found, strict=False)}, "explained", round(share, 5))
        return dict(zip(thresholds, map(float, found), strict=False)), float(share)

    pair = {n: shift(n, d.pair_w_um, d.pair_l_um) for n in ("pairref", "pairsense")}
    load = {n: shift(n, d.load_w_um, d.load_l_um) for n in ("loadref", "loadout")}
    volts, share = regress(numbers[:, 0], pair | load)
    assert share > 0.99
    # A pair's two thresholds act alike and oppositely, one to one; so do the load's, by the ratio of transconductances.
    assert volts["pairsense"] == pytest.approx(1, abs=0.1)
    assert volts["pairref"] == pytest.approx(-volts["pairsense"], rel=0.05)
    assert volts["loadout"] == pytest.approx(-volts["loadref"], rel=0.1)

    length = d.starve_l_um
    ring = {
        "oscbiasn": shift("oscbiasn", d.bias_n_w_um, length),
        "oscbranch": shift("oscbranch", d.bias_n_w_um, length),
        "oscbiasp": shift("oscbiasp", d.bias_p_w_um, length),
        "mirror": shift("mirror", d.mirror_unit_w_um, d.mirror_l_um, d.mirror_ratio),
        "mirrorout": shift("mirrorout", d.mirror_unit_w_um, d.mirror_l_um),
        "starving N": np.mean([shift(f"oscsn{k}", d.starve_n_w_um, length) for k in range(5)], axis=0),
        "starving P": np.mean([shift(f"oscsp{k}", d.starve_p_w_um, length) for k in range(5)], axis=0),
    }
    _, share = regress(numbers[:, list(READOUT_NAMES).index("rate_0")], ring)
    assert share > 0.98
