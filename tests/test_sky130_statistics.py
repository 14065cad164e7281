"""Mismatch and noise in the foundry technology: its own constants by kind of transistor, its own LSB and steps."""

import re

import numpy as np
import pytest

from aimcard.calibrate.chips import population_line, simulate_lines
from aimcard.calibrate.mismatch import RATE_CURRENTS_A, readout_numbers, simulate_readouts
from aimcard.calibrate.noise import NOISE_CURRENTS_A
from aimcard.models.mismatch import READOUT_NAMES
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.mismatch import mismatched
from aimcard.netlists.ngspice import run_many
from aimcard.netlists.noise_decks import jitter_deck, readout_noise, readout_noise_deck
from aimcard.netlists.readout import default_readout
from aimcard.netlists.readout_decks import readout_static_deck
from aimcard.netlists.technology import get_technology

SKY130 = get_technology("sky130")
DESIGN = default_readout(SKY130)
BENCH = ColumnBench(SKY130, "tt", 27.0, DESIGN)
KINDS = {model: kind for kind, model in SKY130.models.items()}
# mV·µm, of the foundry's models/parameters/invariant.spice.
FOUNDRY = {("nmos", "svt"): 3.356, ("nmos", "lvt"): 5.456, ("pmos", "svt"): 7.356, ("pmos", "hvt"): 5.5}


def test_each_kind_of_transistor_has_the_foundrys_constant():
    """delvto over sigma, of all transistors of many chips: standard normal in every kind."""
    drawn: dict[tuple[str, str], list[float]] = {}
    for seed in range(150):
        deck = readout_static_deck(mismatched(SKY130, seed), DESIGN)
        for model, w, length, tail in re.findall(r"^M\S+ \S+ \S+ \S+ \S+ (\S+) W=(\S+)u L=(\S+)u (.*)$", deck.text, re.MULTILINE):
            m = re.search(r"\bm=(\d+)", tail)
            shift = float(re.search(r"delvto=(\S+)", tail)[1])  # pyright: ignore[reportOptionalSubscript]
            area = float(w) * float(length) * int(m[1] if m else 1)
            drawn.setdefault(KINDS[model], []).append(1e3 * shift * np.sqrt(area))
    assert drawn.keys() == FOUNDRY.keys()
    for kind, values in drawn.items():
        assert np.std(values) == pytest.approx(FOUNDRY[kind], rel=4 / np.sqrt(2 * len(values))), kind


def test_another_constant_scales_all_kinds_alike():
    own, double = mismatched(SKY130, 7), mismatched(SKY130, 7, a_vt_v_um=2 * 3.356e-3)
    for kind in FOUNDRY:
        a, b = (t.threshold_shift_v("x", 1.0, 0.15, 1, *kind) for t in (own, double))
        assert b == pytest.approx(2 * a)


def test_a_chips_readout_is_described_by_its_numbers(tmp_path):
    """Offsets of some mV, rates off by some per cent, and little that the 13 numbers leave."""
    p = simulate_readouts(BENCH, (1,), jobs=1, cache_dir=tmp_path, progress=False)
    numbers, left = readout_numbers(p)
    assert numbers.shape == (1, len(READOUT_NAMES))
    assert np.all(np.diff(p.rate_hz[0]) > 0)
    assert len(RATE_CURRENTS_A) == p.rate_hz.shape[1]
    assert 0.1e-3 < np.abs(numbers[:, 0]).max() < 10e-3
    assert left["clamp"] < 5e-6
    assert left["mirror"] < 1e-3
    assert left["rate"] < 1e-3


def test_a_chips_line_has_this_technologys_lsb_and_edges(tmp_path):
    """Eight rows at an ideal clamp: G_app·V·t with t in 4 ns, and cells of another threshold."""
    line = population_line(rows=8, w_select_um=1.0)
    found = simulate_lines(
        BENCH, line, (11,), clamp="ideal", part="cells", jobs=1, cache_dir=tmp_path, progress=False
    ).charge_c
    g = line.conductance_s
    apparent = 0.2 * DESIGN.t_lsb_s * line.codes @ (g / (1 + 670 * g))
    conducts = line.codes.sum(1) > 0
    # What is left are the pulses' own charges, 0.5 fC each.
    np.testing.assert_allclose(found[0, conducts], apparent[conducts], rtol=2e-3)
    moved = found[1, conducts] / found[0, conducts] - 1
    assert np.all((np.abs(moved) > 1e-7) & (np.abs(moved) < 1e-2))


def test_noise_of_the_readout_adds_up(tmp_path):
    low, high = run_many(
        [readout_noise_deck(SKY130, DESIGN, float(i)) for i in (NOISE_CURRENTS_A[2], NOISE_CURRENTS_A[5])], 1, tmp_path,
        progress=False,
    )  # fmt: skip
    for w in (low, high):
        parts = [w[n] ** 2 for n in w.names if n != "onoise_spectrum" and not n.endswith(".1overf")]
        assert np.sum(parts, axis=0) == pytest.approx(w["onoise_spectrum"] ** 2, rel=1e-6)
    loud, quiet = readout_noise(low), readout_noise(high)
    johnson = 4 * 1.380649e-23 * 300.15 * NOISE_CURRENTS_A[5] / 0.2 / (NOISE_CURRENTS_A[5] + 9.4e-6) ** 2
    assert quiet["cells"][0] == pytest.approx(johnson, rel=0.15)
    assert all(quiet[s][0] < loud[s][0] for s in quiet)


def test_jitter_is_simulated_in_the_rings_own_steps():
    text = jitter_deck(SKY130, DESIGN, 60e-6, (1e-24, 1e-24), seed=1, periods=10).text
    assert f".tran {2 * DESIGN.ring_step_s:.9g} " in text
