"""Mismatch and noise in the circuits: Pelgrom's law, transistors that keep their threshold, kT/C, spectra that add up."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from aimcard.calibrate.chips import population_line, simulate_lines
from aimcard.calibrate.mismatch import cell_spread, simulate_cells
from aimcard.calibrate.noise import jitter_check, noise_tables, stage_log_slope
from aimcard.data import shipped_card
from aimcard.models.chip import ChipModel
from aimcard.models.errors import InputError, TechnologyError
from aimcard.models.mismatch import Chip, leak_factor, on_factor
from aimcard.models.pulse import edges_at
from aimcard.models.tile import TileModel
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, column_deck
from aimcard.netlists.deck import Deck
from aimcard.netlists.mismatch import MismatchedTechnology, mismatched, normal
from aimcard.netlists.ngspice import run, run_many
from aimcard.netlists.noise_decks import noise_source, readout_noise, readout_noise_deck
from aimcard.netlists.oscillator_decks import oscillator_rate_deck
from aimcard.netlists.readout import default_readout
from aimcard.netlists.readout_decks import readout_static, readout_static_deck
from aimcard.netlists.technology import Technology, get_technology

TECH = get_technology("freepdk45")
DESIGN = default_readout(TECH)
BENCH = ColumnBench(TECH, "nom", 27.0, DESIGN)
BOLTZMANN, ROOM_K = 1.380649e-23, 300.15


def column(technology: Technology) -> Deck:
    g, codes = np.full(6, 5e-6), np.arange(6)
    bench = ColumnBench(technology, "nom", 27.0, DESIGN)
    pulses = Pulses(code_max=7)
    return column_deck(bench, "c", conductance_s=g, codes=codes, cell=CellDesign(), wire=Wire(), pulses=pulses, clamp="ota")


def shifts(deck: Deck) -> dict[str, float]:
    """delvto by transistor."""
    found = re.findall(r"^M(\w+) .* delvto=(\S+)", deck.text, re.MULTILINE)
    return {name: float(value) for name, value in found}


class TestDraws:
    def test_names_give_independent_standard_normals(self):
        drawn = np.array([[normal(seed, f"s{k}") for k in range(2000)] for seed in (1, 2)])
        assert all(kstest(row, "norm").pvalue > 1e-3 for row in drawn)
        assert abs(np.corrcoef(drawn)[0, 1]) < 4 / np.sqrt(2000)

    def test_sigma_goes_with_the_root_of_the_area(self):
        t = mismatched(TECH, 1)
        assert t.a_vt_v_um is not None
        names = [f"x{k}" for k in range(2000)]
        for w, length, m in ((1.0, 0.05, 1), (4.0, 0.05, 1), (1.0, 0.05, 4), (0.1, 2.0, 1)):
            sigma = np.std([t.threshold_shift_v(n, w, length, m) for n in names])
            assert sigma == pytest.approx(t.a_vt_v_um / np.sqrt(w * length * m), rel=0.05)

    def test_no_mismatch_is_the_nominal_netlist_bit_for_bit(self):
        none = mismatched(TECH, 5, a_vt_v_um=0.0)
        assert column(none).text == column(TECH).text
        assert readout_static_deck(none, DESIGN).text == readout_static_deck(TECH, DESIGN).text
        assert oscillator_rate_deck(none, DESIGN, 1e-5).text == oscillator_rate_deck(TECH, DESIGN, 1e-5).text

    def test_a_transistor_has_its_threshold_in_every_deck_of_a_chip(self):
        t = mismatched(TECH, 5)
        whole, alone = shifts(column(t)), shifts(readout_static_deck(t, DESIGN))
        ring = shifts(oscillator_rate_deck(t, DESIGN, 1e-5))
        assert {n: v for n, v in whole.items() if not n.startswith("s")} == alone
        assert {"mirror", "mirrorout", "oscbiasn"} <= ring.keys() & alone.keys()
        assert all(ring[n] == alone[n] for n in ring.keys() & alone.keys())
        assert column(mismatched(TECH, 5)).text == column(t).text != column(mismatched(TECH, 6)).text

    def test_parts(self):
        whole = shifts(column(mismatched(TECH, 5)))
        cells, readout = (shifts(column(mismatched(TECH, 5, part=p))) for p in ("cells", "readout"))
        assert set(cells) == {f"s{k}" for k in range(6)}
        assert cells | readout == whole
        assert not cells.keys() & readout.keys()

    def test_errors(self):
        with pytest.raises(InputError, match="part: expected one of all, cells, readout"):
            mismatched(TECH, 1, part="ota")
        with pytest.raises(InputError, match="seed"):
            mismatched(TECH, -1)
        bare = Technology(**{f.name: getattr(TECH, f.name) for f in fields(Technology)} | {"a_vt_v_um": None})
        with pytest.raises(TechnologyError, match=r"Pelgrom constant: .* states none"):
            mismatched(bare, 1)


class TestCells:
    def test_thresholds_move_resistance_and_leakage(self, tmp_path):
        p = simulate_cells(BENCH, 1, cells=60, widths_um=np.array([0.125, 0.5]), cache_dir=tmp_path)
        narrow, wide = p.r_on_ohm.std(axis=1) / p.nominal_r_on_ohm
        drawn = p.threshold_v.std(axis=1)
        # Pelgrom through the transistor: a quarter of the width, twice the relative spread of R_on.
        assert narrow / wide == pytest.approx(drawn[0] / drawn[1], rel=0.12)
        spread = cell_spread(p, 2e-3, TECH.l_min_um, 0.5)
        assert spread.sigma[0] == pytest.approx(2e-3 / np.sqrt(0.5 * 0.05))
        # R_on goes with 1/(V_gs − V_t): some 1/(0.7 V). Leakage with exp(−V_t/(n·kT/q)), n from 1 to 1.6.
        assert 0.8 < spread.constants["on_per_v"] < 2.0
        assert 1 < -1 / (spread.constants["leak_per_v"] * BOLTZMANN * ROOM_K / 1.602177e-19) < 1.6
        fitted = spread.constants["leak_per_v"] * p.threshold_v[1] + spread.constants["leak_per_v2"] * p.threshold_v[1] ** 2
        assert np.log(p.leak_a[1] / p.nominal_leak_a[1]) == pytest.approx(fitted, abs=0.01)

    def test_a_line_of_drawn_cells_is_the_models_line_with_the_same_thresholds(self, tmp_path):
        """Cells alone, an ideal clamp: single cells' sensitivities give the charge of whole lines, chip by chip."""
        line, seeds, w = population_line(rows=12), (11, 12, 13, 14), 0.5
        # Four times the usual mismatch, to stand out from the simulator's own error.
        a_vt = 8e-3
        spice = simulate_lines(
            BENCH, line, seeds, clamp="ideal", part="cells", a_vt_v_um=a_vt, jobs=1, cache_dir=tmp_path, progress=False
        )
        cells = simulate_cells(BENCH, 1, cells=60, widths_um=np.array([w]), a_vt_v_um=a_vt, cache_dir=tmp_path)
        cell = cell_spread(cells, a_vt, TECH.l_min_um, w)
        nominal = TileModel.read(shipped_card())
        g = line.conductance_s[None]
        plain = nominal.respond(g, line.codes, clamp="ideal", w_select_um=w).charge_c
        edge = edges_at(nominal.tables, line.position)
        found, expected = [], []
        for k, seed in enumerate(seeds):
            t = mismatched(TECH, seed, a_vt_v_um=a_vt, part="cells")
            shift = np.array([[t.threshold_shift_v(f"s{i}", w, TECH.l_min_um) for i in range(12)]])
            on, leak = (f(cell, torch.from_numpy(shift)) for f in (on_factor, leak_factor))
            chip = ChipModel(nominal.card, Chip(0, {}, on, leak, 1e-5, 6e-5))
            moved = (chip.respond(g, line.codes, clamp="ideal", w_select_um=w).charge_c - plain)[:, 0]
            # What the model leaves out: a higher threshold lies later on the rising edge and earlier on the falling one.
            narrower = (shift * g)[0] * float(edge.rise_s + edge.fall_s) / (0.8 * TECH.vdd_v)
            left_out = -0.2 * (narrower * (line.codes > 0)).sum(axis=1)
            found.append(spice.charge_c[k + 1] - spice.charge_c[0])
            expected.append(moved + left_out)
        # A tenth of the cells' share are the pulses' own charges (feed-through, recharge), which follow the threshold too and are
        # not modelled; and ngspice's step control leaves some 10 ppm of a line's charge.
        left = np.array(found) - np.array(expected)
        assert np.sqrt(np.mean(left**2)) < 0.12 * np.sqrt(np.mean(np.array(found) ** 2))
        # The last vector has no pulse at all: leakage alone.
        assert np.array(found)[:, 2] == pytest.approx(np.array(expected)[:, 2], rel=2e-3)


@dataclass(frozen=True)
class OneShift(MismatchedTechnology):
    """One transistor off by 5 mV."""

    def threshold_shift_v(
        self, name: str, w_um: float, l_um: float, m: int = 1, kind: str = "nmos", flavour: str = "svt"
    ) -> float:
        return 5e-3 if name == "pairsense" else 0.0


def test_a_threshold_of_the_pair_is_the_clamps_offset(tmp_path):
    own = {f.name: getattr(TECH, f.name) for f in fields(Technology)}
    decks = [readout_static_deck(t, DESIGN, points=5) for t in (TECH, OneShift(**own))]
    nominal, moved = (readout_static(w) for w in run_many(decks, 1, tmp_path, progress=False))
    # Loop gain of 20 and more: 5 mV at the gate of the pair are 5 mV at the bit line, less a few percent.
    assert np.abs(moved.clamp_v - nominal.clamp_v) == pytest.approx(5e-3, rel=0.07)


class TestNoise:
    def test_noise_of_an_rc_is_kt_over_c(self, tmp_path):
        r, c, step = 10e3, 10e-15, 5e-12
        spectrum = run(
            Deck("rc noise", f"V1 a 0 dc 0 ac 1\nR1 a b {r}\nC1 b 0 {c}\n.save onoise_spectrum onoise_r1\n"
                 ".noise v(b) V1 dec 200 1e5 1e13 1\n.end\n"),
            cache=tmp_path,
        )  # fmt: skip
        density = spectrum["onoise_spectrum"] ** 2
        assert density[0] == pytest.approx(4 * BOLTZMANN * ROOM_K * r, rel=1e-3)
        assert np.trapezoid(density, spectrum.scale) == pytest.approx(BOLTZMANN * ROOM_K / c, rel=5e-3)
        # The same from a transient with the noise current of R as a source: independent samples every 20th of RC.
        source = noise_source("n", "b", "0", 4 * BOLTZMANN * ROOM_K / r, step)
        transient = run(
            Deck("rc trnoise", f"R1 b 0 {r}\nC1 b 0 {c}\n{source}.options seed=7\n.save v(b)\n"
                 f".tran {step} 200n 0 {step}\n.end\n"),
            cache=tmp_path,
        )  # fmt: skip
        v = np.interp(np.arange(1e-9, 200e-9, step), transient.time_s, transient["v(b)"])
        # 199 ns are 1000 independent stretches of 2·RC, and straight lines between the samples lose 3 %.
        assert v.var() == pytest.approx(BOLTZMANN * ROOM_K / c, rel=0.04 + 4 * np.sqrt(2 / 1000))

    def test_a_noise_deck_saves_densities_only(self):
        text = "V1 a 0 dc 0 ac 1\nR1 a b 1k\nC1 b 0 1p\n.save {}\n.noise v(b) V1 dec 2 1 10 1\n.end\n"
        Deck("sound", text.format("onoise_spectrum"))
        with pytest.raises(InputError, match="saves densities at the output"):
            Deck("two plots", text.format("onoise_spectrum v(b)"))

    def test_sources_add_up_and_follow_physics(self, tmp_path):
        low, high = (run(readout_noise_deck(TECH, DESIGN, i), cache=tmp_path) for i in (10e-6, 100e-6))
        for w in (low, high):
            parts = [w[n] ** 2 for n in w.names if n != "onoise_spectrum" and not n.endswith(".1overf")]
            assert np.sum(parts, axis=0) == pytest.approx(w["onoise_spectrum"] ** 2, rel=1e-6)
        quiet, loud = readout_noise(high), readout_noise(low)
        # Johnson noise of conductance G = I/V_read, relative to the regulator's current (bleed included): 4kTG/I².
        bleed, current = 9.8e-6, 100e-6
        johnson = 4 * BOLTZMANN * ROOM_K * current / 0.2 / (current + bleed) ** 2
        assert quiet["cells"][0] == pytest.approx(johnson, rel=0.15)
        # White noise falls with the current, relative to it; no resistor has 1/f noise.
        assert all(quiet[s][0] < loud[s][0] for s in quiet)
        assert quiet["cells"][1] == 0

    def test_tables_have_every_source_and_only_positive_numbers(self, tmp_path):
        tables, hashes = noise_tables(BENCH, TileModel.read(shipped_card()).tables, cache_dir=tmp_path)
        assert len(tables) == 8
        assert all((t.y >= 0).all() for t in tables)
        # A spectrum at every current, and an operating point on either side of it.
        assert len(set(hashes)) == len(hashes) == 3 * len(tables[0].x)

    def test_a_stage_follows_the_line_as_its_johnson_noise_says(self, tmp_path):
        """Cells' noise 4kTG is a small current into the line: spectra show the stage's slope that operating points give."""
        current_a = np.array([15e-6, 150e-6])
        slope, _ = stage_log_slope(BENCH, current_a, cache_dir=tmp_path)
        seen = [readout_noise(run(readout_noise_deck(TECH, DESIGN, float(i)), cache=tmp_path))["cells"][0] for i in current_a]
        # The regulator's own resistance takes some percent where the line conducts most.
        np.testing.assert_allclose(seen, 4 * BOLTZMANN * ROOM_K * current_a / 0.2 * slope**2, rtol=0.05)

    @pytest.mark.slow  # a ring of 400 periods in steps of 4 ps: half a minute
    def test_jitter_of_the_ring_accumulates_and_is_what_its_transistors_inject(self, tmp_path):
        quiet = jitter_check(BENCH, 200e-6, relative_per_hz=0.0, periods=200, cache_dir=tmp_path)
        found = jitter_check(BENCH, 200e-6, relative_per_hz=4e-13, periods=400, seed=3, cache_dir=tmp_path)
        assert quiet.white_per_hz < 1e-4 * found.white_per_hz
        assert found.exponent == pytest.approx(1, abs=0.15)
        assert found.white_per_hz == pytest.approx(4e-13, rel=0.3)
