"""Mismatch of tied columns in the models: offset currents, shifted biases and gains, draws that repeat, populations."""

import attrs
import numpy as np
import pytest
import torch

from aimcard.data import shipped_card
from aimcard.models.card import Card, Spread
from aimcard.models.errors import CardError, InputError
from aimcard.models.lut import lookup, lookup_slope
from aimcard.models.mismatch import CELL_NAMES, Mismatch, threshold_sigma
from aimcard.models.tied import on_resistance
from aimcard.models.tied_chip import TiedChipTile
from aimcard.models.tied_mismatch import (
    TIED_READOUT_NAMES,
    TiedChip,
    TiedMismatch,
    draw_tied_chip,
    draw_tied_thresholds,
)
from aimcard.models.tied_tile import TiedTile
from aimcard.models.topology import tile_of
from aimcard.validation.population import draw_population, draw_tied_population

N, LINES, ROWS = len(TIED_READOUT_NAMES), 3, 24
CARD = Card.read(shipped_card("freepdk45_tied"))
CONSTANTS = {"i_idle_a": 2.02e-4, "i_ref_a": 0.0, "least_a": -1.7e-4}
SIGMAS = {"bias": 15e-6, "clamp": 2e-3, "mirror": 0.05, "rate": 0.05, "count": 0.3}


def spreads(covariance: np.ndarray | None = None, threshold_v: float = 0.0, **mean: float) -> tuple[Spread, Spread]:
    """Spreads of a tied card; without a covariance every column has the mean."""
    units = tuple(TIED_READOUT_NAMES.values())
    middle = np.array([mean.get(name, 0.0) for name in TIED_READOUT_NAMES])
    matrix = np.zeros((N, N)) if covariance is None else covariance
    cell = {"w_ref_um": 0.5, "on_per_v": 6.9, "on_per_v2": 24.0}
    return (
        Spread("readout", tuple(TIED_READOUT_NAMES), units, middle, matrix, 60, CONSTANTS),
        Spread("cell", CELL_NAMES, CELL_NAMES.values(), [0.0], [[threshold_v**2]], 200, cell),
    )


def independent() -> np.ndarray:
    """A read-out's numbers, each with a sigma of its size, higher terms smaller."""
    names = [name.split("_") for name in TIED_READOUT_NAMES]
    small = [0.1 ** int(n[1]) if len(n) > 1 and n[1].isdigit() else 1.0 for n in names]
    return np.diag([(SIGMAS[n[0]] * s) ** 2 for n, s in zip(names, small, strict=True)])


def card_with(*args, **mean) -> Card:
    return attrs.evolve(CARD, spreads=spreads(*args, **mean))


def column(seed: int = 1, lines: int = LINES, rows: int = ROWS, vectors: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    plus, minus = rng.uniform(0.5e-6, 20e-6, (2, lines, rows))
    return {"conductance_s": plus, "conductance_minus_s": minus, "codes": rng.integers(-127, 128, (vectors, rows))}


def counts_of(tile: TiedTile, case: dict[str, np.ndarray], **options):
    """Phases (vectors, lines) less the resting column's, and the latter (lines,), neither truncated."""
    codes = np.concatenate([case["codes"], np.zeros_like(case["codes"][:1])])
    got = tile.respond(**(case | {"codes": codes}), clamp="ota", **options)
    assert got.phase_count is not None
    assert got.bias_counts is not None
    return got.phase_count[:-1] - got.phase_count[-1], got.phase_count[-1] + got.bias_counts[:, 0]


def test_no_spread_is_the_nominal_tile_and_a_spread_is_not():
    case = column()
    nominal = TiedTile(CARD).respond(**case, clamp="ota")
    still = tile_of(card_with()).chip(1, LINES, ROWS).respond(**case, clamp="ota")
    for name in ("current_a", "mirror_a", "phase_count", "count", "bias_counts"):
        assert np.array_equal(getattr(still, name), getattr(nominal, name)), name
    model = tile_of(card_with(independent(), 12.6e-3))
    chip = model.chip(1, LINES, ROWS).respond(**case, clamp="ota")
    assert np.abs(chip.phase_count - nominal.phase_count).min() > 0.1
    assert np.array_equal(chip.phase_count, model.chip(1, LINES, ROWS).respond(**case, clamp="ota").phase_count)
    assert not np.array_equal(chip.count, model.chip(2, LINES, ROWS).respond(**case, clamp="ota").count)


def test_a_column_of_a_chip_is_the_same_whatever_else_is_drawn():
    model, case = tile_of(card_with(independent(), 12.6e-3)), column()
    three = model.chip(7, LINES, ROWS).respond(**case, clamp="ota").phase_count
    first = {k: v if k == "codes" else v[:1] for k, v in case.items()}
    assert model.chip(7, 1, ROWS).respond(**first, clamp="ota").phase_count == pytest.approx(three[:, :1], rel=1e-12)
    m = TiedMismatch.of(model.card)
    assert torch.equal(draw_tied_thresholds(m, 7, 2, 9, 0.5), draw_tied_thresholds(m, 7, 5, ROWS, 0.5)[:, :2, :9])


def test_thresholds_of_a_pair_are_two_and_go_with_the_root_of_the_width():
    m = TiedMismatch.of(card_with(threshold_v=12.6e-3))
    wide, narrow = (draw_tied_thresholds(m, 1, 40, 500, w) for w in (0.5, 0.125))
    assert torch.allclose(narrow, 2 * wide)
    assert float(wide.std()) == pytest.approx(12.6e-3, rel=0.02)
    assert abs(np.corrcoef(wide[0].flatten(), wide[1].flatten())[0, 1]) < 4 / np.sqrt(wide[0].numel())
    assert threshold_sigma(m, 2.0) == pytest.approx(12.6e-3 / 2)


@pytest.mark.parametrize("g_s", [0.5e-6, 5e-6, 20e-6])
def test_an_offset_draws_a_current_with_the_columns_conductance(g_s):
    """dI = Y·V/(1 + R_out·Y): 4.4 uA per mV for 512 pairs of 5 uS, whose wire takes a tenth."""
    g = np.full((1, 512), g_s)
    nominal, moved = TiedTile(CARD), tile_of(card_with(clamp_0_v=1e-3)).chip(0, 1, 512)
    with torch.no_grad():
        y = float(nominal.effective(torch.as_tensor(g), torch.as_tensor(g)).y_s[0])
    rest, off = (float(t.offset_current_a(g, g)[0]) for t in (nominal, moved))
    r_out = -float(lookup_slope(*nominal.tables["clamp"], torch.tensor(0.5 * (rest + off), dtype=torch.float64)))
    assert off - rest == pytest.approx(1e-3 * y / (1 + r_out * y), rel=2e-3)
    if g_s == 5e-6:
        assert off - rest == pytest.approx(4.4e-6, rel=0.02)


def test_a_shifted_bias_moves_the_idle_count_and_leaves_the_columns_current():
    case, shift = column(vectors=3), 12e-6
    nominal, moved = TiedTile(CARD), tile_of(card_with(bias_a=shift)).chip(0, LINES, ROWS)
    drawn, rest = counts_of(moved, case)
    still, idle = counts_of(nominal, case)
    pair = case["conductance_s"], case["conductance_minus_s"]
    i, there = (torch.as_tensor(t.offset_current_a(*pair)) for t in (nominal, moved))
    rate, window_s = nominal.tables["adc"], nominal.slots * nominal.t_lsb_s
    assert rest - idle == pytest.approx((lookup(*rate, there + shift) - lookup(*rate, i)).numpy() * window_s, rel=2e-4)
    # A product counts with the rate's slope where the bias now is.
    slopes = [float(lookup_slope(*rate, i.mean() + s)) for s in (0.0, shift)]
    assert np.abs(drawn / still).mean() == pytest.approx(slopes[1] / slopes[0], rel=2e-3)
    ideal = [t.respond(**case, clamp="ota").charge_c for t in (nominal, moved)]
    # The regulator's voltage at a little more current is 0.1 mV lower, for which the resting column pays.
    assert np.ptp(ideal[1] - ideal[0], axis=0).max() < 2e-4 * np.abs(ideal[0]).max()


def test_a_gain_multiplies_counts_and_a_mirror_only_its_current():
    case = column(vectors=3)
    (still, idle), nominal = counts_of(TiedTile(CARD), case), TiedTile(CARD).respond(**case, clamp="ota")
    start = TiedTile(CARD).values["phase_start"]
    faster = tile_of(card_with(rate_0=0.1)).chip(0, LINES, ROWS)
    counts, rest = counts_of(faster, case)
    assert counts == pytest.approx(np.exp(0.1) * still, rel=1e-9)
    assert rest - start == pytest.approx(np.exp(0.1) * (idle - start), rel=1e-9)
    mirrored = tile_of(card_with(mirror_0=0.1)).chip(0, LINES, ROWS).respond(**case, clamp="ota")
    assert mirrored.mirror_a == pytest.approx(np.exp(0.1) * nominal.mirror_a, rel=1e-12)
    assert np.array_equal(mirrored.count, nominal.count)


def test_whatever_the_chip_a_zero_vector_counts_nothing():
    zero = column() | {"codes": np.zeros((1, ROWS), dtype=int)}
    got = tile_of(card_with(independent(), 12.6e-3)).chip(3, LINES, ROWS).respond(**zero, clamp="ota")
    assert np.all(got.count == 0)
    assert np.all((got.phase_count >= 0) & (got.phase_count < 1))
    assert len(np.unique(got.bias_counts)) == LINES


def chip_of(factor: np.ndarray) -> TiedChipTile:
    still = {name: torch.zeros(factor.shape[1], dtype=torch.float64) for name in TIED_READOUT_NAMES}
    return TiedChipTile(CARD, TiedChip(0, still, torch.as_tensor(factor), CONSTANTS))


def test_a_cells_own_transistor_is_a_resistance_in_its_row():
    """North of a column is south of its mirror image, each cell with its own transistor."""
    case, factor = column(lines=1), np.exp(np.random.default_rng(2).normal(0, 0.2, (2, 1, ROWS)))
    south = chip_of(factor).respond(**case, clamp="ota").phase_count
    turned = {name: values[:, ::-1] for name, values in case.items()}
    north = chip_of(factor[..., ::-1].copy()).respond(**turned, clamp="ota", read_out="north").phase_count
    assert north == pytest.approx(south, rel=1e-10)
    assert np.abs(south - TiedTile(CARD).respond(**case, clamp="ota").phase_count).max() > 0.1
    # The cells' law: a transistor of f·R takes its share of the voltage.
    r_on = float(on_resistance(TiedTile(CARD).parameters()[0], 0.5))
    g = torch.as_tensor(case["conductance_s"])
    seen = chip_of(factor).conducting(g, g, 0.5)[0]
    assert torch.allclose(seen / (1 + seen * r_on), g / (1 + g * r_on * torch.as_tensor(factor[0])), rtol=1e-12)


def test_effective_weights_of_a_chip_are_differentiable():
    model = tile_of(card_with(independent(), 12.6e-3)).chip(2, 1, 4)
    g = torch.full((1, 4), 8e-6, dtype=torch.float64, requires_grad=True)
    unit = lambda s: (model.effective(s * 1e-6, 5e-6 * torch.ones_like(s)).weight_a * 1e6).sum()  # noqa: E731
    assert torch.autograd.gradcheck(unit, ((g.detach() * 1e6).requires_grad_(),))


def test_drawn_columns_are_those_of_the_model():
    card, case = card_with(independent(), 12.6e-3), column(lines=1)
    pair, codes = np.stack([case["conductance_s"][0], case["conductance_minus_s"][0]]), case["codes"]
    signed, rest = draw_tied_population(card, pair, codes, chips=53, seed=5)
    assert signed.shape == (53, 2)
    assert signed == pytest.approx(draw_population(card, pair, codes, chips=53, seed=5), rel=1e-12)
    three = {n: v if n == "codes" else np.broadcast_to(v, (3, ROWS)) for n, v in case.items()}
    last = tile_of(card).chip(6, 3, ROWS)
    assert signed[50:] == pytest.approx(last.respond(**three, clamp="ota").phase_count.T, rel=1e-12)
    assert rest[50:] == pytest.approx(counts_of(last, three)[1], rel=1e-12)


def test_drawn_population_has_the_cards_mean_and_covariance():
    m, n = TiedMismatch(*spreads(independent(), 0.0, bias_a=3e-6, rate_0=-0.02)), 4000
    drawn = np.stack([v.numpy() for v in draw_tied_chip(m, 1, n, 1, 0.5).readout.values()], axis=1)
    assert np.abs((drawn.mean(0) - m.readout.mean) / m.readout.sigma).max() < 4.5 / np.sqrt(n)
    error = (np.cov(drawn.T) - m.readout.covariance) / np.outer(m.readout.sigma, m.readout.sigma)
    assert np.abs(error).max() < 4.5 * np.sqrt(2 / n)


@pytest.mark.parametrize("name", ["freepdk45_tied", "sky130_tied"])
def test_cards_that_ship_can_be_drawn_as_chips(name):
    model, case = TiedTile.read(shipped_card(name)), column(lines=2, vectors=1)
    counts = [counts_of(model.chip(seed, 2, ROWS), case)[0] for seed in (1, 1, 2)]
    assert np.array_equal(counts[0], counts[1])
    assert not np.array_equal(counts[0], counts[2])
    assert 0 < np.abs(counts[0] / counts_of(model, case)[0] - 1).max() < 1


def test_errors_name_what_is_missing():
    bare = attrs.evolve(CARD, spreads=())
    with pytest.raises(CardError, match=r"spreads/readout: missing.*run: aimcard statistics"):
        TiedTile(bare).chip(1, 2, 24)
    model = tile_of(card_with())
    with pytest.raises(InputError, match="drawn for shape"):
        model.chip(1, 2, ROWS).respond(**column(), clamp="ota")
    with pytest.raises(InputError, match="lines: expected 1 or more"):
        model.chip(1, 0, 24)
    # Numbers of a gated card are other numbers.
    with pytest.raises(CardError, match="run aimcard statistics again"):
        Mismatch.of(model.card)
    readout, cell = spreads()
    with pytest.raises(CardError, match="spreads/readout@least_a: missing"):
        TiedMismatch(attrs.evolve(readout, constants={"i_idle_a": 2e-4, "i_ref_a": 0.0}), cell)
