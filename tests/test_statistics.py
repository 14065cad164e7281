"""Statistics in the models: the PCM's, noise in counts, one chip out of a population, spreads in a card."""

import attrs
import numpy as np
import pytest
import torch
from scipy.stats import kstest

from aimcard.data import shipped_card
from aimcard.models.card import Card, Spread, Table
from aimcard.models.counting import Counting
from aimcard.models.departure import Departure, departure, departure_slope
from aimcard.models.errors import CardError, InputError
from aimcard.models.flicker import flicker_kernel
from aimcard.models.mismatch import (
    CELL_NAMES,
    READOUT_NAMES,
    Mismatch,
    draw_chip,
    draw_readout,
    draw_thresholds,
    leak_factor,
)
from aimcard.models.noise import (
    SOURCES,
    NoiseParameters,
    boxcar_variance,
    clock_variance,
    count_noise,
    flicker_variance,
    pcm_variance,
    white_variance,
)
from aimcard.models.pcm import (
    accumulated_noise_sigma,
    drift_exponent,
    drifted,
    mac_sigma,
    programmed,
    programming_sigma,
    read,
    read_noise_sigma,
)
from aimcard.models.readout import clamp_voltage, regulated_clamp
from aimcard.models.tile import TileModel
from aimcard.validation.noise_table import noise_table
from aimcard.validation.population import compare_populations, draw_population, two_point_trim

N = len(READOUT_NAMES)


def t(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def spreads(covariance: np.ndarray, threshold_v: float, mean: np.ndarray | None = None) -> tuple[Spread, Spread]:
    mean = np.zeros(N) if mean is None else mean
    cell = {"w_ref_um": 0.5, "on_per_v": 1.1, "on_per_v2": 1.5, "leak_per_v": -29.0, "leak_per_v2": -0.4}
    return (
        Spread("readout", READOUT_NAMES, READOUT_NAMES.values(), mean, covariance, 60, {"i_idle_a": 1e-5, "i_ref_a": 6e-5}),
        Spread("cell", CELL_NAMES, CELL_NAMES.values(), [0.0], [[threshold_v**2]], 200, cell),
    )


def correlated(seed: int = 3) -> np.ndarray:
    """A covariance of one strong and several weak directions, volts beside ratios, as simulated chips have."""
    rng = np.random.default_rng(seed)
    scale = np.array([6e-3, 1e-5, 5e-6, 0.06, 0.01, 6e-3, 1e-3, 0.25, 0.07, 0.02, 3e-3, 2e-3, 0.2])
    a = rng.normal(0, 1, (N, 3)) @ rng.normal(0, 1, (3, N)) + 0.1 * rng.normal(0, 1, (N, N))
    matrix = a.T @ a
    return matrix / np.sqrt(np.outer(np.diag(matrix), np.diag(matrix))) * np.outer(scale, scale)


class TestPcm:
    def test_read_noise_has_its_published_values(self):
        g = t([25e-6])
        assert read_noise_sigma(g, 1e-9) / g == pytest.approx(0.0305, rel=2e-3)
        assert read_noise_sigma(g, 127e-9) / g == pytest.approx(0.0129, rel=5e-3)

    @pytest.mark.parametrize("time_s", [0.5e-9, 2e-6, -1e-9, float("nan")])
    def test_times_outside_the_polynomial_are_refused(self, time_s):
        with pytest.raises(InputError, match="known from 1e-09 to 1e-06 s"):
            read_noise_sigma(t([1e-6, 2e-6]), t([10e-9, time_s]))

    def test_a_row_that_is_off_has_no_noise_and_longer_pulses_less(self):
        sigma = read_noise_sigma(t([5e-6]), t([0.0, 1e-9, 10e-9, 100e-9, 1e-6]))
        assert sigma[0] == 0
        assert (sigma[1:].diff() < 0).all()
        # Single precision rounds 127 LSB of 1 ns, and 1 ns itself.
        assert read_noise_sigma(torch.tensor([5e-6]), torch.tensor([1.0]) * 1e-9) > 0

    def test_programming_errors_follow_both_sources(self):
        g = t([0.0, 25e-6])
        assert programming_sigma(g).tolist() == pytest.approx([0.26348e-6, 1.05538e-6])
        assert programming_sigma(g, form="joshi").tolist() == pytest.approx([0.28638599e-6, 1.0655234e-6], rel=1e-6)
        # Scaled to another range it is the same error relative to g_max.
        assert programming_sigma(g / 5, 5e-6).tolist() == pytest.approx((programming_sigma(g) / 5).tolist())
        target = torch.full((20000,), 10e-6, dtype=torch.float64)
        drawn = programmed(target, generator=torch.Generator().manual_seed(1))
        assert float(drawn.std()) == pytest.approx(float(programming_sigma(target[:1])), rel=0.03)
        assert torch.equal(drawn, programmed(target, generator=torch.Generator().manual_seed(1)))
        assert float(programmed(torch.zeros(99), generator=torch.Generator().manual_seed(1)).min()) == 0
        with pytest.raises(InputError, match="aihwkit, joshi"):
            programming_sigma(g, form="normal")

    def test_drift(self):
        g = t([1e-8, 1e-6, 25e-6])
        mean = drift_exponent(g, spread=False)
        assert mean.tolist() == pytest.approx([0.1, -0.0155 * np.log(1 / 25) + 0.0244, 0.049])
        assert torch.equal(drifted(g, mean, 0.0), g)
        # After (e − 1) times 20 s the power law has fallen by e^−ν, and times multiply.
        assert (drifted(g, mean, 20 * (np.e - 1)) / g).tolist() == pytest.approx(torch.exp(-mean).tolist())
        many = drift_exponent(torch.full((20000,), 25e-6), generator=torch.Generator().manual_seed(2))
        assert float(many.std()) == pytest.approx(0.008, rel=0.03)

    def test_accumulated_noise_starts_at_zero_and_grows_with_the_root_of_a_logarithm(self):
        g = t([5e-6])
        assert accumulated_noise_sigma(g, 250e-9) == 0
        ratio = accumulated_noise_sigma(g, 3600.0) / accumulated_noise_sigma(g, 1.0)
        assert float(ratio) == pytest.approx(np.sqrt(np.log(3600 / 500e-9) / np.log(1 / 500e-9)), rel=1e-6)

    def test_sigma_of_a_product_without_samples_agrees_with_samples(self):
        rng = np.random.default_rng(5)
        g, codes = t(rng.uniform(0.1e-6, 25e-6, (2, 40))), t(rng.integers(0, 128, (1, 40)))
        time = codes * 1e-9
        expected = mac_sigma(g, time, 0.2)[0]
        generator = torch.Generator().manual_seed(7)
        sampled = read(g.expand(4000, 2, 40), time, generator=generator)
        charge = 0.2 * (sampled * time).sum(-1)
        ideal = 0.2 * (g * time).sum(-1)
        for k in range(2):
            unit = ((charge[:, k] - ideal[k]) / expected[k]).numpy()
            assert kstest(unit, "norm").pvalue > 1e-3
            assert unit.std() == pytest.approx(1, abs=4 / np.sqrt(2 * 4000))


class TestNoise:
    RATE = t([[2e9, 8e9, 5e9, 1e9] * 8])
    SLOT = 1e-9

    def test_white_and_flicker_noise_are_the_integrals_of_their_spectra(self):
        window, rate = 32e-9, 3e9
        dense = np.concatenate([np.geomspace(1, 1e6, 3000), np.linspace(1e6, 2e9, 200_000)[1:]])
        steady = torch.full((32,), rate, dtype=torch.float64)
        white = white_variance(steady, torch.full_like(steady, 1e-13), self.SLOT)
        assert float(white) == pytest.approx(boxcar_variance(dense, np.full_like(dense, 1e-13), window) * rate**2, rel=0.01)
        assert float(white) == pytest.approx(0.5 * 1e-13 * rate**2 * window)
        flicker = flicker_variance(steady, torch.full_like(steady, 2e-7), Counting.once(32, self.SLOT))
        assert float(flicker) == pytest.approx(boxcar_variance(dense, 2e-7 / dense, window) * rate**2, rel=1e-3)
        # A calibration ten times as often takes ln 10 off.
        once, often = (float(flicker_kernel(t([0.0]), t([window]), lowest)) for lowest in (1.0, 10.0))
        assert once == pytest.approx(1.5 - np.euler_gamma - np.log(2 * np.pi * window))
        assert once - often == pytest.approx(np.log(10))

    def test_white_variance_against_sampled_noise(self):
        rng = np.random.default_rng(11)
        w, fine = 1e-12, 8
        step = self.SLOT / fine
        y = rng.normal(0, np.sqrt(w / (2 * step)), (4000, self.RATE.shape[-1] * fine))
        rate = np.repeat(self.RATE[0].numpy(), fine)
        expected = float(white_variance(self.RATE, torch.full_like(self.RATE, w), self.SLOT))
        assert np.var((rate * y).sum(-1) * step) == pytest.approx(expected, rel=4 * np.sqrt(2 / 4000))

    def test_clock_jitter_of_one_pulse_is_that_of_its_edges_and_the_gates(self):
        rate, count = t([5e9] * 3 + [1e9] * 5), Counting.once(8, self.SLOT)
        # The gate opens with the pulse and closes on what counts at rest.
        assert float(clock_variance(rate, count, 2e-12)) == pytest.approx((25 + 16 + 1) * (1e9 * 2e-12) ** 2)
        assert float(clock_variance(torch.full((8,), 3e9), count, 2e-12)) == pytest.approx(2 * (3e9 * 2e-12) ** 2)
        assert float(clock_variance(rate, count, 0.0)) == 0

    def test_pcm_in_counts_of_a_straight_converter_is_the_charge_times_its_slope(self):
        rng = np.random.default_rng(2)
        g, codes = t(rng.uniform(1e-6, 20e-6, (3, 30))), torch.tensor(rng.integers(0, 17, (4, 30)))
        slope = torch.full((4, 3, 20), 1.5e14, dtype=torch.float64)
        counts = pcm_variance(g, [(0 * codes, codes)], (1,), slope, 0.2, 1e-9).sqrt()
        charge = mac_sigma(g, codes.to(torch.float64) * 1e-9, 0.2)
        assert counts.numpy() == pytest.approx(1.5e14 * charge.numpy(), rel=1e-9)

    def test_table_of_a_card(self, card_of):
        card = card_of()
        with pytest.raises(CardError, match="run: aimcard statistics"):
            NoiseParameters.of(card)
        line_a = np.array([0.0, 50e-6, 100e-6])
        tables = [
            Table(f"noise_{s}_{kind}", line_a, np.full(3, value), "A", unit, "line current", kind)
            for s in SOURCES
            for kind, value, unit in (("white", 1e-13, "1/Hz"), ("flicker", 1e-9, "1"))
        ]
        noisy = attrs.evolve(card, tables=(*card.tables, *tables))
        p = NoiseParameters.of(noisy)
        model = TileModel(noisy)
        g = np.full((2, 24), 5e-6)
        codes = np.tile(np.arange(24) % 16, (3, 1))
        current = torch.from_numpy(model.respond(g, codes).current_a)
        quiet = count_noise(p, current, Counting.once(current.shape[-1], 1e-9), jitter_s=0.0)
        assert (quiet.sigma["clock"] == 0).all()
        parts = torch.stack([quiet.sigma[s] for s in (*SOURCES, "quantisation")])
        assert torch.allclose(quiet.total, parts.square().sum(0).sqrt())
        assert "pcm read noise" in noise_table(noisy)


class TestMismatch:
    M = Mismatch(*spreads(correlated(), 12.6e-3, np.linspace(-1, 1, N) * 1e-3))

    def test_drawn_population_has_the_cards_mean_and_covariance(self):
        n = 6000
        drawn = np.stack([v.numpy() for v in draw_readout(self.M, 1, n).values()], axis=1)
        sigma = self.M.readout.sigma
        assert np.abs((drawn.mean(0) - self.M.readout.mean) / sigma).max() < 4.5 / np.sqrt(n)
        error = (np.cov(drawn.T) - self.M.readout.covariance) / np.outer(sigma, sigma)
        assert np.abs(error).max() < 4.5 * np.sqrt(2 / n)

    def test_same_seed_same_chip_whatever_else_is_drawn(self):
        small, large = draw_chip(self.M, 7, 2, 16, 0.5), draw_chip(self.M, 7, 5, 16, 0.5)
        assert torch.equal(small.on_factor, large.on_factor[:2])
        assert all(torch.equal(small.readout[n], large.readout[n][:2]) for n in READOUT_NAMES)
        assert not torch.equal(small.on_factor, draw_chip(self.M, 8, 2, 16, 0.5).on_factor)
        # A lookup for lines one and two in another order of events.
        assert torch.equal(draw_thresholds(self.M, 7, 1, 16, 0.5), draw_thresholds(self.M, 7, 5, 16, 0.5)[:1])

    def test_thresholds_go_with_the_root_of_the_width_and_leakage_is_lognormal(self):
        wide, narrow = (draw_thresholds(self.M, 1, 40, 500, w) for w in (0.5, 0.125))
        assert torch.allclose(narrow, 2 * wide)
        sigma = 12.6e-3
        assert float(wide.std()) == pytest.approx(sigma, rel=0.02)
        assert float(leak_factor(self.M.cell, wide).mean()) == pytest.approx(np.exp((29.0 * sigma) ** 2 / 2), rel=0.02)

    def test_no_spread_is_the_nominal_tile_and_a_spread_is_not(self, card_of):
        g = np.random.default_rng(1).uniform(0.1e-6, 4e-6, (3, 24))
        codes = np.random.default_rng(2).integers(0, 16, (2, 24))
        nominal = TileModel(card_of()).respond(g, codes)
        still = TileModel(card_of(spreads=spreads(np.zeros((N, N)), 0.0))).chip(1, 3, 24).respond(g, codes)
        assert np.array_equal(still.phase_count, nominal.phase_count)
        assert np.array_equal(still.mirror_a, nominal.mirror_a)
        moving = TileModel(card_of(spreads=spreads(correlated(), 12.6e-3)))
        chip = moving.chip(1, 3, 24).respond(g, codes)
        assert np.abs(chip.phase_count - nominal.phase_count).min() > 0.1
        assert np.array_equal(chip.phase_count, moving.chip(1, 3, 24).respond(g, codes).phase_count)
        # A line of the chip is the same line when fewer are made.
        one = moving.chip(1, 1, 24).respond(g[:1], codes)
        assert one.phase_count == pytest.approx(chip.phase_count[:, :1], rel=1e-12)

    def test_a_clamp_offset_moves_an_ohmic_line_by_its_share(self, card_of):
        g, codes = np.full((1, 24), 2e-6), np.full((1, 24), 9)
        offset = np.zeros((N, N))
        mean = np.zeros(N)
        mean[0] = 4e-3
        card = card_of(spreads=spreads(offset, 0.0, mean))
        nominal, moved = TileModel(card).respond(g, codes), TileModel(card).chip(0, 1, 24).respond(g, codes)
        # 4 mV of 0.2 V, less what output resistance (18 Ω of some 21 kΩ) and barrier lowering take.
        step = moved.current_a[0, 0, 4] / nominal.current_a[0, 0, 4] - 1
        assert step == pytest.approx(0.02, rel=0.03)

    def test_the_clamp_solves_its_line(self, card_of):
        chip = draw_chip(self.M, 3, 4, 8, 0.5)
        p = chip.line_readout(TileModel(card_of()).readout())
        y, j = t(np.linspace(1e-5, 4e-4, 24).reshape(4, 6)), torch.full((4, 6), 1e-7, dtype=torch.float64)
        v, i = regulated_clamp(p)(y, j)
        assert torch.allclose(i, y * v + j, rtol=1e-9)
        assert torch.allclose(v, clamp_voltage(p, i)[0])

    def test_slope_of_a_departure(self):
        d = Departure((t([[1e-3]]), t([[2e-3]]), t([[-5e-4]])), 1e-5, 6e-5)
        i = t([[0.5e-6, 20e-6, 60e-6, 300e-6]]).requires_grad_()
        (slope,) = torch.autograd.grad(departure(d, i).sum(), i)
        assert torch.allclose(slope, departure_slope(d, i.detach()))
        assert float(departure(d, t([[60e-6]]))) == pytest.approx(1e-3)
        # Beyond the currents that were simulated it stays what it was.
        assert departure(d, t([[0.1]])) == departure(d, t([[0.2]]))

    def test_errors_name_what_is_missing(self, card_of):
        with pytest.raises(CardError, match=r"spreads/readout: missing.*run: aimcard statistics"):
            TileModel(card_of()).chip(1, 2, 24)
        model = TileModel(card_of(spreads=spreads(correlated(), 1e-2)))
        with pytest.raises(InputError, match="drawn for shape"):
            model.chip(1, 2, 24).respond(np.full((3, 24), 1e-6), np.zeros((1, 24), dtype=int))
        with pytest.raises(InputError, match="seed: expected 0 or more"):
            model.chip(-1, 2, 24)
        other = attrs.evolve(self.M.readout, names=("a", *self.M.readout.names[1:]))
        with pytest.raises(CardError, match="run aimcard statistics again"):
            Mismatch(other, self.M.cell)


class TestSpreadsInACard:
    def test_round_trip_text_and_json(self, card_of, tmp_path):
        card = card_of(spreads=spreads(correlated(), 12.6e-3))
        card.write(tmp_path / "c.h5")
        again = Card.read(tmp_path / "c.h5")
        assert again == card
        assert np.array_equal(again.spreads[0].covariance, card.spreads[0].covariance)
        assert "spread readout, from 60 specimens" in str(again)
        assert '"spreads"' in again.to_json()

    def test_a_card_without_spreads_is_what_it_was(self, card_of):
        assert card_of().spreads == ()
        assert '"spreads"' not in card_of().to_json()

    @pytest.mark.parametrize("name", ["freepdk45_gated", "sky130_gated"])
    def test_cards_that_ship_can_be_drawn_as_chips(self, name):
        model = TileModel.read(shipped_card(name))
        g, codes = np.full((2, 32), 5e-6), np.random.default_rng(1).integers(1, 120, (1, 32))
        nominal = model.respond(g, codes).count
        chips = [model.chip(seed, 2, 32).respond(g, codes).count for seed in (1, 1, 2)]
        assert np.array_equal(chips[0], chips[1])
        assert not np.array_equal(chips[0], chips[2])
        assert 0 < np.abs(chips[0] / nominal - 1).max() < 1
        assert noise_table(model.card)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"covariance": -correlated()}, "without negative eigenvalues"),
            ({"mean": np.full(N, np.nan)}, "finite"),
            ({"mean": np.zeros(2)}, "a mean of shape"),
            ({"units": ("V",)}, "as many units"),
        ],
    )
    def test_unsound_spreads_are_refused(self, change, said):
        with pytest.raises(CardError, match=said):
            attrs.evolve(spreads(correlated(), 1e-2)[0], **change)


class TestPopulation:
    def test_a_trim_takes_scale_and_offset_away(self):
        rng = np.random.default_rng(3)
        nominal = np.array([500.0, 1700.0, 350.0])
        chips = nominal * rng.normal(1, 0.2, (30, 1)) + rng.normal(0, 20, (30, 1))
        assert np.abs(two_point_trim(chips, nominal, 2, 1, 0)).max() < 1e-9
        chips[:, 0] += 3
        assert two_point_trim(chips, nominal, 2, 1, 0).min() > 1

    def test_equal_populations_agree_and_a_wrong_sigma_is_seen(self):
        rng = np.random.default_rng(4)
        nominal = np.array([500.0, 1700.0, 350.0])
        chips, drawn = (nominal + rng.normal(0, 1, (n, 3)) * [90, 300, 60] for n in (200, 5000))
        names = ("gaussian", "uniform", "sparse")
        same = compare_populations(names, chips, drawn, nominal)
        assert all(s.p > 1e-3 for s in same.scores)
        assert "gaussian" in str(same)
        wrong = compare_populations(names, chips, nominal + 2 * (drawn - nominal), nominal)
        assert all(s.p < 1e-2 for s in wrong.scores[:3])
        with pytest.raises(InputError, match="8 or more"):
            compare_populations(names, chips[:4], drawn, nominal)

    def test_tails_of_equal_populations_agree_and_fat_ones_are_seen(self):
        rng = np.random.default_rng(11)
        drawn, nominal = rng.normal(500, 60, (20000, 1)), np.array([500.0])
        alike = compare_populations(("gaussian",), rng.normal(500, 60, (150, 1)), drawn, nominal).scores[0]
        assert alike.tail_p > 0.05
        assert alike.below + alike.above == pytest.approx(15, abs=10)
        # Student's t with 2.5 degrees of freedom, at the same quartiles: the body agrees, the tails do not.
        fat = 500 + 60 * 0.6745 / 0.7891 * rng.standard_t(2.5, (600, 1))
        seen = compare_populations(("gaussian",), fat, drawn, nominal).scores[0]
        assert seen.tail_p < 0.01

    def test_drawn_lines_are_those_of_the_model(self, card_of):
        card = card_of(spreads=spreads(correlated(), 12.6e-3))
        g, codes = np.full(24, 2e-6), np.tile(np.arange(24) % 16, (2, 1))
        drawn = draw_population(card, g, codes, chips=60, seed=5)
        assert drawn.shape == (60, 2)
        chip = TileModel(card).chip(6, 10, 24).respond(np.broadcast_to(g, (10, 24)), codes)
        assert drawn[50:] == pytest.approx(chip.phase_count.T, rel=1e-12)
