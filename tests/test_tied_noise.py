"""Noise of tied columns: ngspice's spectra against physics, the card's tables against laws and samples, layers against slots."""

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from aimcard.calibrate.tied_noise import TiedNoise, simulate_tied_noise, tables_of
from aimcard.data.shipped import find_card
from aimcard.models.card import Card
from aimcard.models.counting import Counting
from aimcard.models.errors import InputError
from aimcard.models.lut import lookup, lookup_slope
from aimcard.models.nn import Hardware, NonIdealities, convert_to_analog
from aimcard.models.nn.circuit_noise import bin_currents, column_conductance
from aimcard.models.noise import (
    COLUMN_POWERS,
    SINK,
    SOURCES,
    NoiseParameters,
    count_noise,
    flicker_variance,
    white_variance,
)
from aimcard.models.read_gain import spread_conductance
from aimcard.models.tied import on_resistance
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile_noise import tile_noise
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.ngspice import run
from aimcard.netlists.noise_decks import readout_noise
from aimcard.netlists.readout import default_readout
from aimcard.netlists.technology import get_technology
from aimcard.netlists.tied_noise import TIED_SOURCES, NoiseColumn, tied_noise_deck, tied_point, tied_point_deck
from aimcard.validation.noise_table import noise_table, typical_columns, typical_noise
from made_noise import count_sigma

FOUR_KT = 4 * 1.380649e-23 * 300.15
T_S, V_READ_V = 1e-9, 0.2


def bench_of(name: str) -> ColumnBench:
    technology = get_technology(name)
    return ColumnBench(technology, next(iter(technology.corners)), 27.0, default_readout(technology))


def tables_by_name(card: Card) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {t.name: (torch.tensor(t.x), torch.tensor(t.y)) for t in card.tables}


@pytest.fixture(scope="module")
def spectra() -> TiedNoise:
    return simulate_tied_noise(bench_of("freepdk45"), tables_by_name(find_card("freepdk45_tied")))


@pytest.fixture(scope="module")
def card(spectra) -> Card:
    """The shipped card with tables that were simulated here."""
    shipped = find_card("freepdk45_tied")
    plain = [t for t in shipped.tables if not t.name.startswith("noise_")]
    return attrs.evolve(shipped, tables=(*plain, *tables_of(spectra, tables_by_name(shipped))))


@pytest.fixture(scope="module")
def parameters(card) -> NoiseParameters:
    return NoiseParameters.of(card)


class TestSpectra:
    @pytest.mark.parametrize("technology", ["freepdk45", "sky130"])
    def test_elements_add_up_and_idle_cells_are_as_loud_as_active_ones(self, technology):
        bench = bench_of(technology)
        found = []
        for active in (1.0, 0.5):
            column = NoiseColumn(60e-6, 3e-3, active)
            waves = run(tied_noise_deck(bench, column))
            parts = [waves[n] ** 2 for n in waves.names if n != "onoise_spectrum" and not n.endswith(".1overf")]
            assert np.sum(parts, axis=0) == pytest.approx(waves["onoise_spectrum"] ** 2, rel=1e-9)
            point = tied_point(run(tied_point_deck(bench, column)))
            found.append((point, readout_noise(waves, TIED_SOURCES)))
        (busy, loud), (idle, same) = found
        assert busy.conductance_s == pytest.approx(idle.conductance_s, rel=2e-3)
        for source in ("cells", "bias", "regulator", "mirror", "oscillator"):
            assert loud[source][0] == pytest.approx(same[source][0], rel=0.01)
        # Relative to what the regulator carries, bias included, and through what its loop takes: 4kTG/I², G of all cells.
        carried = default_bias(technology) + busy.current_a
        johnson = FOUR_KT * busy.conductance_s / carried**2
        assert loud["cells"][0] == pytest.approx(johnson, rel=0.25)
        # Johnson noise of resistors and of transistors without current to speak of has no 1/f part.
        assert loud["cells"][1] < 1e-3 * loud["mirror"][1]

    def test_all_that_is_connected_has_the_noise_of_its_conductance(self, spectra):
        """Nyquist: of transistors, resistors and wires together 4kTY is left, at every current of either sign."""
        y = spectra.of_points("conductance_s")
        assert spectra.injected("cells", 0) / (FOUR_KT * y) == pytest.approx(1, abs=0.01)
        # Of the drivers' resistances, some 40 Ω of 200 kΩ, 1e-4 of that.
        assert (spectra.injected("drivers", 0) < 1e-3 * spectra.injected("cells", 0)).all()

    def test_voltage_noise_goes_with_the_conductance_and_the_bias_without(self, spectra):
        y = spectra.of_points("conductance_s")
        for kind, rel in ((0, 0.01), (1, 0.02)):
            bias = spectra.injected("bias", kind)
            assert bias / bias[:, :1] == pytest.approx(1, abs=rel)
            # Two parameters at three conductances: (Y + sink)² times a voltage noise, alike at all currents.
            root = np.sqrt(spectra.injected("regulator", kind))
            slope = np.diff(root, axis=1) / np.diff(y, axis=1)
            assert slope == pytest.approx(slope.mean(), rel=rel)
        # A larger column than any of the tables, at rest.
        column = NoiseColumn(0.0, 12e-3)
        bench = bench_of("freepdk45")
        point = tied_point(run(tied_point_deck(bench, column)))
        seen = readout_noise(run(tied_noise_deck(bench, column)), TIED_SOURCES)["regulator"][0]
        tables = {t.name: (torch.tensor(t.x), torch.tensor(t.y)) for t in tables_of(spectra, shipped_tables())}
        at = torch.tensor(point.current_a, dtype=torch.float64)
        through = point.conductance_s + float(lookup(*tables[SINK], at))
        r_out = -float(lookup_slope(*shipped_tables()["clamp"], at))
        density = float(lookup(*tables["noise_regulator_white"], at)) * (through / (1 + r_out * point.conductance_s)) ** 2
        assert density * point.log_slope_per_a**2 == pytest.approx(seen, rel=0.02)

    def test_a_column_that_cannot_carry_its_current_is_refused(self):
        with pytest.raises(InputError, match=r"conductance_s: expected more than 0\.0005 S in active rows"):
            tied_noise_deck(bench_of("freepdk45"), NoiseColumn(1e-4, 4e-4))


def default_bias(technology: str) -> float:
    return float(find_card(f"{technology}_tied").meta["bias_a"])


def shipped_tables() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return tables_by_name(find_card("freepdk45_tied"))


def straight(sizes: dict[str, tuple[float, float]], rate: float = 1.2e14, r_out: float = 5.0) -> NoiseParameters:
    """Constant tables, a straight rate and a straight clamp: white and flicker by source."""
    x = torch.tensor([-200e-6, 0.0, 200e-6], dtype=torch.float64)
    tables = {"adc": (x, rate * (x + 250e-6)), "clamp": (x, 0.399 - r_out * x), SINK: (x, torch.full_like(x, 5e-5))}
    for source, both in sizes.items():
        for kind, size in zip(("white", "flicker"), both, strict=True):
            tables[f"noise_{source}_{kind}"] = x, torch.full_like(x, size)
    return NoiseParameters(tables, tuple(sizes), tied=True)


COLUMN = {"cells": (FOUR_KT, 0.0), "drivers": (7e-22, 1e-18), "bias": (1.6e-21, 1.2e-15), "regulator": (2.4e-17, 1.3e-11)}


class TestLaws:
    LINE = torch.tensor([[3e-5] * 20 + [0.0] * 10], dtype=torch.float64)

    def sigma(self, p: NoiseParameters, line: torch.Tensor, y: float, jitter_s: float = 0.0) -> dict[str, torch.Tensor]:
        once, column_s = Counting.once(line.shape[-1], T_S), torch.tensor([y], dtype=torch.float64)
        found = count_noise(p, line[None], once, jitter_s=jitter_s, column_s=column_s)
        return {name: float(s) for name, s in found.sigma.items()}

    def test_cells_are_johnson_noise_through_the_slope_of_the_rate(self):
        y, rate, window = 4e-3, 1.2e14, 30 * T_S
        seen = self.sigma(straight(COLUMN), self.LINE, y)["cells"]
        assert seen == pytest.approx(np.sqrt(0.5 * FOUR_KT * y * window) * rate / (1 + 5.0 * y), rel=1e-9)

    def test_what_grows_with_the_conductance_and_what_does_not(self):
        """r_out 0: the regulator's voltage noise with Y + sink, cells with the root of Y, the bias not at all."""
        p = straight(COLUMN, r_out=0.0)
        one, four = (self.sigma(p, self.LINE, y) for y in (1e-3, 4e-3))
        growth = {source: four[source] / one[source] for source in COLUMN}
        assert growth == pytest.approx({"cells": 2, "drivers": 4, "bias": 1, "regulator": 4.05 / 1.05})

    def test_white_noise_grows_with_the_window_and_no_noise_is_none(self):
        p = straight({n: (white, 0.0) for n, (white, _) in COLUMN.items()})
        short, long = (self.sigma(p, torch.zeros(1, slots, dtype=torch.float64), 2e-3) for slots in (20, 80))
        for source in COLUMN:
            assert long[source] == pytest.approx(2 * short[source])
        none = self.sigma(straight(dict.fromkeys(COLUMN, (0.0, 0.0))), self.LINE, 2e-3)
        assert all(none[source] == 0 for source in (*COLUMN, "clock"))

    def test_noise_at_the_columns_node_has_no_sign(self):
        """Behind a straight converter the noise currents count alike, whichever way the column's own flows."""
        p = straight(COLUMN)
        up, down = (self.sigma(p, s * self.LINE, 2e-3) for s in (1, -1))
        for source in COLUMN:
            assert up[source] == pytest.approx(down[source], rel=1e-9)

    def test_against_samples_of_the_noise_current(self, parameters):
        """White noise drawn at the column's node, through the loop and the rate's own table, against the closed form."""
        rng, y, slots, draws = np.random.default_rng(3), 4e-3, 131, 4000
        line = torch.tensor(rng.normal(0, 3e-5, slots))
        y_s, through = torch.tensor(y, dtype=torch.float64), {}
        r_out = -lookup_slope(*parameters.tables["clamp"], line)
        for source in ("bias", "regulator"):
            size = lookup(*parameters.tables[f"noise_{source}_white"], line)
            own = y_s + (lookup(*parameters.tables[SINK], line) if source == "regulator" else 0.0)
            through[source] = (size * own ** COLUMN_POWERS[source]).sqrt() / (1 + r_out * y)
        for source, amplitude in through.items():
            noise = torch.tensor(rng.normal(0, 1, (draws, slots))) * amplitude * np.sqrt(0.5 / T_S)
            counts = (lookup(*parameters.tables["adc"], line + noise) * T_S).sum(-1)
            white, _ = parameters.densities(source, line, y_s)
            expected = white_variance(lookup(*parameters.tables["adc"], line), white, T_S)
            assert float(counts.var()) == pytest.approx(float(expected), rel=4 * np.sqrt(2 / draws))

    def test_a_tied_column_needs_its_conductance(self, parameters):
        with pytest.raises(InputError, match="column_s: noise of a tied column goes with its conductance"):
            parameters.densities("cells", torch.zeros(3, dtype=torch.float64))


class TestTable:
    def test_tables_have_every_source_and_only_positive_numbers(self, card, spectra):
        found = {t.name: t for t in card.tables if t.name.startswith("noise_")}
        assert found.keys() == {SINK, *(f"noise_{s}_{kind}" for s in SOURCES for kind in ("white", "flicker"))}
        assert all((t.y >= 0).all() for t in found.values())
        assert len(set(spectra.deck_hashes)) == len(spectra.deck_hashes)

    def test_cards_that_ship_have_the_tables_that_the_command_makes(self, card):
        shipped, made = (tables_by_name(c) for c in (find_card("freepdk45_tied"), card))
        for name, (x, y) in made.items():
            torch.testing.assert_close(shipped[name][0], x, rtol=1e-9, atol=0)
            torch.testing.assert_close(shipped[name][1], y, rtol=1e-4, atol=0)
        assert NoiseParameters.of(find_card("sky130_tied")).sources == SOURCES

    @pytest.mark.parametrize("source", SOURCES)
    def test_interpolation_between_the_tables_points(self, source, parameters):
        """Relative densities follow smooth laws between the points: leave one out and find it again."""
        x, y = parameters.tables[f"noise_{source}_white"]
        for k in range(2, len(x) - 2):
            kept = torch.arange(len(x)) != k
            # A spline of half the points errs some ten times as much as the table itself.
            assert float(lookup(x[kept], y[kept], x[k])) == pytest.approx(float(y[k]), rel=0.05)

    def test_a_typical_columns_noise(self, card):
        noise = typical_noise(card, rows=16)
        assert noise.idle is not None
        text = noise_table(card, rows=16, jitter_s=0.0, lowest_hz=1e5)
        for word in ("drivers", "bias", "idle count, read once", "count (signed)"):
            assert word in text
        # At rest nothing counts, and the oscillator, which runs on the bias, hardly knows what the column draws.
        assert noise.idle.count.abs().max() < 1e-9
        busy = noise.by_inputs["gaussian"]
        assert float(busy.count.mean().abs()) < float(busy.count.std()) * 3
        assert busy.sigma["oscillator"].mean() == pytest.approx(float(noise.idle.sigma["oscillator"].mean()), rel=0.1)
        assert float(noise.idle.sigma["pcm read noise"].max()) == 0


ROWS = 48


class TestLayers:
    def test_bins_against_slots(self, card, parameters):
        tile = TiedTile(card)
        plus, minus, vectors = typical_columns(ROWS, tile.code_max)
        g = torch.tensor(plus), torch.tensor(minus)
        column = tile.effective(*g)
        r_on = float(on_resistance(tile.parameters()[0], float(card.meta["w_select_um"])))
        near = spread_conductance(column_conductance(*g, r_on), ROWS * float(tile.values["r_bit_ohm"]))
        torch.testing.assert_close(near, column.y_s, rtol=0.01, atol=0)
        for codes in vectors.values():
            twin = tile_noise(tile, plus, codes, minus, pcm=False)
            sources = torch.stack([s.square() for name, s in twin.sigma.items() if name != "quantisation"]).sum(0).sqrt()
            binned = bin_currents(g[0] - g[1], torch.tensor(codes).double(), V_READ_V, tile.slots)
            seen = count_sigma(parameters, binned, T_S, tile.slots, column_s=near)
            torch.testing.assert_close(seen, sources, rtol=0.05, atol=0)

    def test_a_layer_draws_every_reading_and_its_idle_count_once(self, card):
        torch.manual_seed(1)
        layer, x = nn.Linear(ROWS, 3, dtype=torch.float64), torch.randn(1, ROWS, dtype=torch.float64)
        hardware = Hardware(card)
        outs = []
        with torch.no_grad():
            for seed in range(60):
                on = NonIdealities.none(circuit_noise=True, adc=True, seed=seed)
                analog = convert_to_analog(layer, hardware, non_idealities=on)
                outs.append(torch.stack([analog(x.expand(40, -1)) for _ in range(2)]))
            held = analog.crossbar.written(layer.weight, slice(0, ROWS), 0, on)
            g, scale = (held.side(0), held.side(1)), x.abs().max()
            codes = x / scale * hardware.code_max
            p, near = NoiseParameters.of(card), column_conductance(*g, 0.0)
            slots = hardware.model.slots
            one, idle = (
                count_sigma(p, bin_currents(g[0] - g[1], c, V_READ_V, slots), T_S, slots, column_s=near)
                for c in (codes, torch.zeros_like(codes))
            )
            lsb = hardware.unit_c * 24.9e-6 * hardware.code_max * hardware.counts_per_coulomb()
            per_count = held.scale[:, 0] * scale / lsb
            again = convert_to_analog(layer, hardware, non_idealities=on)(x.expand(40, -1))
        out = torch.stack(outs)
        assert torch.equal(out[-1, 0], again)
        # Within a layer readings differ by their own noise; between layers by the idle count's too, which both calls share.
        torch.testing.assert_close(out.var((1, 2)).mean(0).sqrt(), (one * per_count)[0], rtol=0.05, atol=0)
        means = out.mean(2)
        assert torch.corrcoef(means[:, :, 0].T)[0, 1] > 0.9
        torch.testing.assert_close(means.mean(1).std(0), (idle * per_count)[0], rtol=4 / np.sqrt(2 * 60), atol=0)

    def test_flicker_noise_adds_up_as_amplitudes(self, parameters):
        """What hardly changes within a window grows with its length, not with the length's root."""
        rate = torch.full((2, 131), 2.8e10, dtype=torch.float64)
        _, flicker = parameters.densities("oscillator", torch.zeros_like(rate))
        short, long = (flicker_variance(rate[0, :n], flicker[0, :n], Counting.once(n, T_S)) for n in (60, 120))
        assert 1.9 < float((long / short).sqrt()) < 2.0
