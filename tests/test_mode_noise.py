"""Noise of products of several PWM phases: limits, laws, samples of the processes, and layers against slots."""

from functools import lru_cache

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from aimcard.data.shipped import find_card
from aimcard.models import modes
from aimcard.models.adc import residue_sigma
from aimcard.models.counting import Counting
from aimcard.models.errors import CardError, InputError
from aimcard.models.flicker import flicker_covariance, flicker_kernel
from aimcard.models.modes import Phase, get_mode, register_mode
from aimcard.models.nn import Hardware, Mapping, NonIdealities, convert_to_analog
from aimcard.models.noise import clock_variance, flicker_variance, pcm_variance, white_variance
from aimcard.models.pcm import common_read_noise, read_noise_scale, read_noise_sigma
from aimcard.models.read_gain import spread_conductance, spread_gain
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile_noise import tile_noise
from aimcard.models.topology import tile_of
from aimcard.validation.mode_noise import product_noise
from aimcard.validation.mode_table import mode_table
from aimcard.validation.noise_table import TypicalNoise, typical_noise

T_S = 1e-9
CARDS = {name: find_card(f"freepdk45_{name}") for name in ("gated", "tied")}
BOTH = pytest.mark.parametrize("topology", ["gated", "tied"])


@lru_cache
def conventional_noise(topology: str) -> TypicalNoise:
    return typical_noise(CARDS[topology], rows=16)


def t(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def split(rule: str = "carry", hold_s: float = 0.0) -> Counting:
    return Counting.of(get_mode("split"), 4, T_S, rule, hold_s)


@pytest.fixture
def registered():
    """Modes of a user's, taken out again."""
    before = dict(modes._BUILDS)
    yield register_mode
    modes._BUILDS.clear()
    modes._BUILDS.update(before)


class TestSlowNoise:
    def test_phases_of_weight_one_that_leave_no_gap_are_one_phase(self):
        rate, flicker = torch.full((40,), 3e9, dtype=torch.float64), torch.full((40,), 2e-7, dtype=torch.float64)
        once = flicker_variance(rate, flicker, Counting.once(40, T_S))
        parts = Counting(((0, 7), (7, 19), (19, 40)), T_S, (1, 1, 1), "carry")
        torch.testing.assert_close(flicker_variance(rate, flicker, parts), once, rtol=1e-9, atol=0)

    def test_phases_far_apart_are_independent_and_near_ones_go_together(self):
        lowest = 1e3
        one = float(flicker_kernel(t([0.0]), t([20e-9]), lowest)[0, 0])

        def shared(gap_s: float) -> float:
            return float(flicker_kernel(t([0.0, gap_s]), t([20e-9, gap_s + 20e-9]), lowest)[0, 1]) / one

        gaps = [shared(g) for g in (20e-9, 150e-9, 1e-6, np.exp(-np.euler_gamma) / (2 * np.pi * lowest))]
        assert np.all(np.diff(gaps) < 0)
        assert gaps[0] > 0.8
        assert gaps[-1] == pytest.approx(0, abs=1e-3)
        # Counting noise from once a second, phases of one product share nine tenths and more.
        near = flicker_kernel(*split().edges_s, 1.0)
        assert float(near[0, 1] / (near[0, 0] * near[1, 1]).sqrt()) > 0.9

    def test_equal_and_opposite_phases_cancel_what_they_share(self):
        """Two sign phases, one right after the other: the logarithm's differences are left, and no lowest frequency."""
        rate, flicker = torch.full((40,), 3e9, dtype=torch.float64), torch.full((40,), 2e-7, dtype=torch.float64)
        found = [
            float(flicker_variance(rate, flicker, Counting(((0, 20), (20, 40)), T_S, (1, -1), "carry"), lowest))
            for lowest in (1.0, 1e4)
        ]
        assert found[0] == pytest.approx(found[1], rel=1e-6)
        # Two neighbours of one length differ by 4 ln 2 of variance.
        assert found[0] == pytest.approx(2e-7 * (3e9 * 20e-9) ** 2 * 4 * np.log(2), rel=1e-9)

    def test_against_a_sampled_process(self):
        """Random waves of a 1/f density through two windows of weights 8 and 1, with a gap."""
        rng, c, lowest, draws = np.random.default_rng(5), 2e-7, 1e3, 6000
        edge = np.geomspace(lowest, 3e10, 1500)
        f = np.sqrt(edge[1:] * edge[:-1])
        # Each band has the variance c·ln(f₂/f₁).
        size = np.sqrt(c * np.log(edge[1] / edge[0]))
        seen = 0.0
        for weight, (a, b) in zip((8, 1), ((0.0, 19e-9), (30e-9, 41e-9)), strict=True):
            w = 2 * np.pi * f
            cosine, sine = (np.sin(w * b) - np.sin(w * a)) / w, (np.cos(w * a) - np.cos(w * b)) / w
            seen = seen + weight * 3e9 * np.stack([cosine, sine])
        waves = rng.normal(0, size, (draws, 2 * len(f)))
        counts = waves @ seen.ravel()
        slots = torch.full((41,), 3e9, dtype=torch.float64)
        slots[19:30] = 0
        counting = Counting(((0, 30), (30, 41)), T_S, (8, 1), "carry")
        exact = Counting(((0, 19), (19, 30), (30, 41)), T_S, (8, 1, 1), "carry")
        closed = float(flicker_variance(slots, torch.full_like(slots, c), exact, lowest))
        assert np.var(counts) == pytest.approx(closed, rel=4 * np.sqrt(2 / draws))
        # A phase's slots count as if its current were spread over its window: here a third of it is empty.
        assert float(flicker_variance(slots, torch.full_like(slots, c), counting, lowest)) == pytest.approx(closed, rel=0.05)

    @pytest.mark.parametrize("mode", ["conventional", "split", "bitwise"])
    def test_slots_of_a_phase_as_one_window(self, mode):
        """A falling current, every slot a window of its own: within 1 % of the phases' form."""
        pwm = get_mode(mode)
        counting = Counting.of(pwm, 4, T_S, "carry", 0.0)
        rate = torch.cat([torch.linspace(1, 0.1, b - a, dtype=torch.float64) for a, b in counting.windows]) * 5e9
        flicker = torch.full_like(rate, 1e-7)
        n = len(rate)
        each = Counting(tuple((k, k + 1) for k in range(n)), T_S, tuple(int(w) for w in counting.slot_weight), "carry")
        seen, twin = (float(flicker_variance(rate, flicker, how).sqrt()) for how in (counting, each))
        assert seen == pytest.approx(twin, rel=0.01)

    def test_covariance_is_symmetric_and_zero_for_empty_windows(self):
        a = flicker_covariance(t(0.0), t(5.0), t(9.0), t(12.0), 1e-6)
        assert float(a) == pytest.approx(float(flicker_covariance(t(9.0), t(12.0), t(0.0), t(5.0), 1e-6)))
        assert float(flicker_covariance(t(3.0), t(3.0), t(0.0), t(5.0), 1e-6)) == 0


class TestFastNoise:
    def test_white_noise_of_split_by_hand(self):
        """Phases of 19 and 11 slots: 64·19 + 11 slots' worth, where conventional PWM has 131."""
        rate, w = 3e9, 1e-13
        counting = split()
        steady, white = (torch.full((30,), value, dtype=torch.float64) for value in (rate, w))
        seen = white_variance(counting.slot_weight * steady, white, counting.slot_s)
        assert float(seen) == pytest.approx(0.5 * w * rate**2 * T_S * (64 * 19 + 11))
        held = split("reset", 0.5e-9)
        less = white_variance(held.slot_weight * steady, white, held.slot_s)
        assert float(less) == pytest.approx(0.5 * w * rate**2 * T_S * (64 * 18.5 + 11))

    def test_clock_of_split_by_hand(self):
        """A steady rate: its gate's ends, and between phases one edge that moves counts from one weight to the other (carry) or
        the hold's and the release's (reset)."""
        rate, jitter = torch.full((30,), 3e9, dtype=torch.float64), 1e-12
        for rule, squares in (("carry", 64 + 49 + 1), ("reset", 64 + 64 + 1 + 1)):
            assert float(clock_variance(rate, split(rule), jitter)) == pytest.approx(squares * (3e9 * jitter) ** 2)

    @pytest.mark.parametrize("rule", ["reset", "carry"])
    def test_quantisation_is_that_of_the_rule(self, rule):
        assert split(rule).quantisation == residue_sigma((8, 1), rule)
        assert Counting.once(131, T_S).quantisation == pytest.approx(1 / np.sqrt(12))


class TestTiles:
    @BOTH
    def test_a_mode_of_one_phase_is_conventional(self, topology, registered):
        registered("plain", lambda top: (Phase(1, top, lambda codes, rows: (0 * (codes + rows), codes + 0 * rows)),))
        plain = typical_noise(CARDS[topology], rows=16, mode="plain").by_inputs["gaussian"]
        own = conventional_noise(topology).by_inputs["gaussian"]
        assert own.sigma.keys() == plain.sigma.keys()
        for source, sigma in own.sigma.items():
            torch.testing.assert_close(plain.sigma[source], sigma, rtol=1e-12, atol=0)

    @BOTH
    @pytest.mark.parametrize("mode", ["three_digit", "staggered"])
    def test_every_mode_has_every_source(self, topology, mode):
        card = attrs.evolve(CARDS[topology], meta=CARDS[topology].meta | {"mode": mode})
        own, conventional = typical_noise(card, rows=16), conventional_noise(topology)
        ones = sum(w * w for w in get_mode(mode).weights)
        for name, found in own.by_inputs.items():
            assert found.sigma.keys() == conventional.by_inputs[name].sigma.keys()
            assert all(torch.isfinite(s).all() and s.mean() > 0 for s in found.sigma.values())
            if ones > 1:
                assert float(found.total.mean()) > float(conventional.by_inputs[name].total.mean())

    @BOTH
    def test_counts_are_the_tiles(self, topology):
        """The weighted count that the noise is of: its integral of the rate is what the tile counts, within start and lag."""
        tile, rng = tile_of(CARDS[topology]), np.random.default_rng(4)
        g = rng.uniform(1e-6, 20e-6, (2, 2, 40))
        signed = topology == "tied"
        codes = rng.integers(-127 if signed else 0, 128, (2, 40))
        minus = {"conductance_minus_s": g[1]} if signed else {}
        for mode in ("conventional", "split"):
            count = tile.respond(g[0], codes, clamp="ota", mode=mode, **minus).phase_count
            seen = tile_noise(tile, g[0], codes, mode=mode, pcm=False, **minus).count
            assert seen.numpy() == pytest.approx(count, abs=0.02 * np.abs(count).max() + 10)

    def test_two_sign_phases_are_readings_that_share_their_slow_noise(self):
        """What is new in each reading adds up as squares, truncation and each device's noise among it; the slow part cancels but
        for what differs, so nothing of it is left where both phases draw the same."""
        tile, rng = tile_of(CARDS["gated"]), np.random.default_rng(7)
        g, codes = rng.uniform(1e-6, 20e-6, (1, 40)), rng.integers(1, 128, (1, 20))
        g[:, 20:] = g[:, :20]
        alike = np.concatenate([codes, -codes], -1)
        for mode in ("conventional", "split"):
            both, one = (tile_noise(tile, g, x, mode=mode).sigma for x in (alike, np.maximum(alike, 0)))
            for source in ("pcm read noise", "quantisation"):
                assert float(both[source]) == pytest.approx(np.sqrt(2) * float(one[source]), rel=1e-3)
            assert float(both["cells"]) == pytest.approx(np.sqrt(2) * float(one["cells"]), rel=0.01)
            often, alone = (tile_noise(tile, g, x, mode=mode, lowest_hz=1e4).sigma for x in (alike, np.maximum(alike, 0)))
            for source in ("regulator", "mirror", "oscillator"):
                assert float(both[source]) < 1.001 * np.sqrt(2) * float(one[source])
                assert float(often[source]) == pytest.approx(float(both[source]), rel=1e-6)
            assert float(alone["oscillator"]) < 0.9 * float(one["oscillator"])

    def test_what_is_not_slow_and_what_is_unknown_is_refused(self):
        with pytest.raises(InputError, match=r"lowest frequency: expected noise .*, 1e\+06 Hz at most in mode split"):
            typical_noise(CARDS["gated"], rows=8, mode="split", lowest_hz=2e6)
        with pytest.raises(InputError, match="mode: expected one of conventional, split"):
            typical_noise(CARDS["gated"], rows=8, mode="spilt")
        with pytest.raises(InputError, match="conductance_minus_s: a tied column has cells of both signs"):
            tile_noise(tile_of(CARDS["tied"]), np.full((1, 8), 1e-6), np.zeros((1, 8), np.int64))

    def test_the_mode_table_has_the_noise(self):
        card = CARDS["tied"]
        table = mode_table([card], modes=["split"], vectors=8)
        own = {rule: product_noise(card, get_mode("split"), rule) for rule in ("reset", "carry")}
        for row in table.rows:
            assert row.noise == pytest.approx(100 * own[row.counts.rule] / row.counts.sigma)
            assert f"{row.noise:.2g}" in row.texts()
        # The ring that is held misses what it would have counted, and its noise.
        assert product_noise(card, get_mode("conventional"), "reset") < 0.8 * own["reset"] < 0.8 * own["carry"]
        bare = attrs.evolve(card, tables=tuple(x for x in card.tables if not x.name.startswith("noise_")))
        with pytest.raises(CardError, match="run: aimcard statistics"):
            product_noise(bare, get_mode("split"), "reset")


class TestPcm:
    def test_the_parts_of_the_read_noise_are_the_polynomial(self):
        """White noise and 1/f noise from 235 kHz up are what was measured, from 1 to 100 ns."""
        time, g = t([1e-9, 3e-9, 10e-9, 30e-9, 100e-9]), t([0.1e-6, 5e-6, 25e-6])[:, None]
        white = 3.41e-4 / (time * 1e9) * read_noise_scale(g) ** 2
        slow = common_read_noise(0 * time, time, 0 * time, time) * read_noise_scale(g) ** 2
        assert ((white + slow).sqrt() / read_noise_sigma(g, time)).numpy() == pytest.approx(1, abs=0.025)

    def test_two_pulses_one_after_the_other_are_one(self):
        g = t([[0.2e-6, 3e-6, 20e-6]])
        slope = torch.full((1, 1, 60), 1.5e14, dtype=torch.float64)
        whole, half = (torch.full((1, 3), n) for n in (48, 24))
        once = pcm_variance(g, [(0 * whole, whole)], (1,), slope, 0.2, T_S)
        twice = pcm_variance(g, [(0 * half, half), (half, whole)], (1, 1), slope, 0.2, T_S)
        alone = sum(pcm_variance(g, [pulse], (1,), slope, 0.2, T_S) for pulse in ((0 * half, half), (half, whole)))
        assert float(twice.sqrt() / once.sqrt()) == pytest.approx(1, abs=0.02)
        assert float(alone.sqrt() / once.sqrt()) < 0.9

    def test_the_longest_wires_law(self):
        """Mean square of the transfer over the rows is the derivative of what the end sees, and both are one without a wire."""
        y = t([1e-4, 1e-3, 5e-3, 2e-2]).requires_grad_()
        (slope,) = torch.autograd.grad(spread_conductance(y, 80.0).sum(), y)
        torch.testing.assert_close(slope, spread_gain(y.detach(), 80.0), rtol=1e-9, atol=0)
        # A tied column's own ladder.
        tile = tile_of(CARDS["tied"])
        g = torch.full((1, 512), 6e-6, dtype=torch.float64)
        column = tile.effective(g, g)
        total, r = column.rows.node_s.sum(-1), 512 * float(tile.values["r_bit_ohm"])
        assert float(spread_conductance(total, r) / column.y_s) == pytest.approx(1, abs=0.01)
        assert float(spread_gain(total, r) / column.transfer.square().mean()) == pytest.approx(1, abs=0.01)

    @pytest.mark.parametrize(("name", "rows"), [("freepdk45_gated", 24), ("freepdk45_tied", 24), ("freepdk45_gated", 96)])
    def test_devices_one_by_one_through_the_circuit(self, name, rows):
        """Each cell of a column moved alone, by the whole tile model, and the squares added up."""
        tile, rng = tile_of(find_card(name)), np.random.default_rng(1)
        tied = isinstance(tile, TiedTile)
        g = rng.uniform(1e-6, 24e-6, (2 if tied else 1, rows))
        codes = rng.integers(-127 if tied else 0, 128, (1, rows))
        both = g.ravel()
        sigma = read_noise_sigma(t(both), t(np.tile(np.abs(codes[0]), len(g))) * T_S).numpy()

        def counts(cells: np.ndarray) -> np.ndarray:
            minus = {"conductance_minus_s": cells[:, rows:]} if tied else {}
            found = tile.respond(cells[:, :rows], codes, clamp="ota", **minus).phase_count
            assert found is not None
            return found[0]

        each = (counts(both + 0.3 * np.diag(sigma)) - counts(both - 0.3 * np.diag(sigma))) / 0.6
        minus = {"conductance_minus_s": g[1:]} if tied else {}
        formula = tile_noise(tile, g[:1], codes, **minus).sigma["pcm read noise"]
        assert float(formula) == pytest.approx(np.sqrt((each**2).sum()), rel=0.02)

    @BOTH
    def test_a_sample_of_every_device(self, topology):
        tile, rng, rows, draws = tile_of(CARDS[topology]), np.random.default_rng(6), 24, 800
        tied = topology == "tied"
        g = rng.uniform(1e-6, 21e-6, (2 if tied else 1, 1, rows))
        codes = rng.integers(-127 if tied else 0, 128, (1, rows))
        sigma = [read_noise_sigma(t(side), t(np.abs(codes)) * T_S).numpy() for side in g]
        noisy = [np.abs(side + s * rng.normal(0, 1, (draws, rows))) for side, s in zip(g, sigma, strict=True)]
        given, drawn = ({"conductance_minus_s": x[1]} if tied else {} for x in (g, noisy))
        counts = tile.respond(noisy[0], codes, clamp="ota", **drawn).phase_count
        formula = tile_noise(tile, g[0], codes, **given).sigma["pcm read noise"]
        assert counts is not None
        assert counts.std() == pytest.approx(float(formula), rel=3 / np.sqrt(2 * draws))


class TestLayers:
    """A layer's drawn noise against the slots of the tile that it runs on."""

    ROWS, DRAWS = 96, 3000

    def layer(self, topology: str, mapping: Mapping, on: NonIdealities):
        """Standard deviation of a repeated product in counts (outputs,), and what was written and driven."""
        torch.manual_seed(2)
        layer = nn.Linear(self.ROWS, 3, bias=False)
        x = torch.randn(1, self.ROWS)
        hardware = Hardware(CARDS[topology])
        analog = convert_to_analog(layer, hardware, mapping=mapping, non_idealities=on)
        with torch.no_grad():
            seen = analog(x.expand(self.DRAWS, -1)).double().std(0)
            held = analog.crossbar.written(layer.weight, slice(0, self.ROWS), 0, on)
        codes = (x / x.abs().max() * hardware.code_max).round().to(torch.int64).numpy()
        lsb = hardware.unit_c * 24.9e-6 * hardware.code_max * hardware.counts_per_coulomb()
        counts = seen * lsb / held.scale[:, 0].double() / float(x.abs().max())
        plus, minus = (held.side(k).double().clamp(max=25e-6).numpy() for k in (0, 1))
        return counts.numpy(), plus, minus, codes

    def slots(self, topology, plus, minus, codes, mode, rule, source):
        """σ of the same product from the slots (outputs,); a gated one's four readings with their signs."""
        tile = tile_of(CARDS[topology])
        if topology == "tied":
            found = tile_noise(tile, plus, codes, minus, mode=mode, phase_rule=rule)
            return (found.sigma["pcm read noise"] if source == "pcm" else _circuit(found))[0].numpy()
        square = 0.0
        for side in (plus, minus):
            found = tile_noise(tile, side, codes, mode=mode, phase_rule=rule)
            square = square + (found.sigma["pcm read noise"] if source == "pcm" else _circuit(found))[0].square().numpy()
        return np.sqrt(square)

    @pytest.mark.parametrize(
        ("topology", "mode", "rule"),
        [
            ("gated", "conventional", "reset"), ("tied", "conventional", "reset"), ("gated", "split", "reset"),
            ("tied", "split", "reset"), ("tied", "bitwise", "carry"),
        ],
    )  # fmt: skip
    def test_the_circuits_noise(self, topology, mode, rule):
        on = NonIdealities(circuit_noise=True, adc_rounding=False, adc_clip=False, seed=3)
        counts, plus, minus, codes = self.layer(topology, Mapping(mode=mode, phase_rule=rule), on)
        expected = self.slots(topology, plus, minus, codes, mode, rule, "circuit")
        # Bins for slots and idle noise apart, 1.3 % is the draws' own.
        assert counts == pytest.approx(expected, rel=0.07)

    @BOTH
    @pytest.mark.parametrize(("mode", "way"), [("conventional", "analytical"), ("split", "analytical"), ("split", "device")])
    def test_read_noise(self, topology, mode, way):
        on = NonIdealities(read_noise=way, adc_rounding=False, adc_clip=False, seed=4)
        counts, plus, minus, codes = self.layer(topology, Mapping(mode=mode, phase_rule="reset"), on)
        expected = self.slots(topology, plus, minus, codes, mode, "reset", "pcm")
        assert counts == pytest.approx(expected, rel=0.07)


def _circuit(found) -> torch.Tensor:
    kept = [s.square() for name, s in found.sigma.items() if name not in ("quantisation", "pcm read noise")]
    return torch.stack(kept).sum(0).sqrt()
