"""Lines and counters in every PWM mode: fast against node by node, against ngspice, and the laws of the residue."""

import dataclasses

import attrs
import numpy as np
import pytest
import torch

from aimcard.data import shipped_card
from aimcard.models.adc import AdcParameters, phase, phase_counts, residue_sigma, truncated
from aimcard.models.column import conducting_sums, pulsed_sums, segment_bounds
from aimcard.models.errors import InputError
from aimcard.models.line import LineDrive, edge_charges, ideal_clamp, mode_drive, slot_currents, static_solution
from aimcard.models.modes import get_mode, mode_names
from aimcard.models.pulse import Edges
from aimcard.models.readout import regulated_clamp
from aimcard.models.tile import TileModel, ideal_charge, readout_parameters, weighted_charge
from aimcard.models.twin import static_line
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, column_deck
from aimcard.netlists.column_decks import slot_currents as simulated_slots
from aimcard.netlists.freepdk45 import FREEPDK45
from aimcard.netlists.ngspice import run
from aimcard.netlists.readout import default_readout

CODE_MAX, GUARD, ROWS = 31, 4, 24
MODES = mode_names()
NO_EDGES = Edges(0.0, 0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def model(card_of):
    card = card_of()
    size = {"rows": ROWS, "code_max": CODE_MAX, "guard_slots": GUARD, "segments": 64}
    return TileModel(attrs.evolve(card, meta=card.meta | size))


def draw(seed: int, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, CODE_MAX + 1, rows)
    codes[::5] = 0
    return rng.uniform(0.1e-6, 25e-6, rows), codes


def drive(name, g, x, edges=NO_EDGES) -> LineDrive:
    return mode_drive(get_mode(name, CODE_MAX), GUARD, torch.as_tensor(g), torch.as_tensor(x), 1e-9, 0.5, edges)


@pytest.mark.parametrize("clamp", ["ideal", "ota"])
@pytest.mark.parametrize("name", MODES)
def test_fast_line_is_the_node_by_node_one(model, name, clamp):
    g, x = draw(1)
    end = ideal_clamp(model.v_read_v) if clamp == "ideal" else regulated_clamp(readout_parameters(model.values, model.tables))
    line = model.line(10.0)
    fast = static_solution(line, dataclasses.replace(drive(name, g, x), passes=6), end).current_a.numpy()
    slow = static_line(model, g, x, clamp=clamp, wire_scale=10.0, mode=name).line_current_a
    # Every row is a segment: only the half cell of wire that a gate current sees differs.
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-7 * slow.max())


@pytest.mark.parametrize("name", MODES)
def test_conductances_have_the_same_gradient(model, name):
    """Fast and slow line agree in the derivative too: a difference quotient of the node-by-node solve."""
    g, x = draw(2)
    g_t = torch.tensor(g, requires_grad=True)
    d = mode_drive(get_mode(name, CODE_MAX), GUARD, g_t, torch.as_tensor(x), 1e-9, 0.5, NO_EDGES, 6)
    row = int(np.argmax(x))
    static_solution(model.line(10.0), d, ideal_clamp(model.v_read_v)).current_a.sum().backward()
    step = 1e-8 * (np.arange(ROWS) == row)
    up, down = (static_line(model, g + s, x, wire_scale=10.0, mode=name).line_current_a.sum() for s in (step, -step))
    assert g_t.grad is not None
    assert float(g_t.grad[row]) == pytest.approx((up - down) / 2e-8, rel=1e-5)


@pytest.mark.parametrize("name", MODES)
def test_without_wire_and_edges_every_mode_computes_the_same_charge(model, name):
    g, x = draw(3)
    line = model.line(0.0)
    found = []
    for mode in ("conventional", name):
        current = static_solution(line, drive(mode, g, x), ideal_clamp(model.v_read_v)).current_a
        current = current - current[-1]
        found.append(float(weighted_charge(current, get_mode(mode, CODE_MAX), GUARD, 1e-9)))
    assert found[1] == pytest.approx(found[0], rel=1e-12)
    # The select transistor takes some percent.
    assert 0.9 < found[0] / ideal_charge(g[None], x[None], 0.2, 1e-9)[0, 0] < 1.0


@pytest.mark.parametrize("name", MODES)
def test_sums_over_pulses_are_those_of_the_slots(name):
    g, x = draw(4)
    weights = torch.stack([torch.as_tensor(g), torch.ones(ROWS, dtype=torch.float64)])
    mode, bounds = get_mode(name, CODE_MAX), segment_bounds(ROWS, 5)
    slots = mode.window_slots(GUARD)
    pulses = mode.window_pulses(torch.as_tensor(x), torch.arange(ROWS), GUARD)
    found = pulsed_sums(weights, pulses, slots, bounds)
    for slot in range(slots):
        on = sum(((a <= slot) & (slot < b)).to(torch.float64) for a, b in pulses)
        for k, (a, b) in enumerate(bounds):
            torch.testing.assert_close(found[:, slot, k], (weights * on)[:, a:b].sum(-1), rtol=1e-12, atol=1e-18)
    assert (found[:, -GUARD:] == 0).all()


def test_conventional_pulses_given_as_pulses_change_nothing(model):
    g, x = draw(5)
    edges = Edges(200e-12, 190e-12, 80e-12, 70e-12)
    usual = drive("conventional", g, x, edges)
    pulses = ((torch.zeros_like(torch.as_tensor(x)), torch.as_tensor(x)),)
    given = dataclasses.replace(usual, pulses=pulses)
    line, end = model.line(3.0), ideal_clamp(model.v_read_v)
    a, b = (slot_currents(line, d, end)[0] for d in (usual, given))
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-18)
    weights = torch.as_tensor(g)[None]
    bounds = segment_bounds(ROWS, 4)
    whole = conducting_sums(weights, torch.as_tensor(x), 40, bounds)
    torch.testing.assert_close(pulsed_sums(torch.cat([weights, weights * 0 + 1]), pulses, 40, bounds)[:1], whole)


def test_edges_of_every_pulse_add_their_charge(model):
    """A row of two pulses far apart has twice the edge charge of a row of one."""
    g = np.array([20e-6])
    edges = Edges(200e-12, 190e-12, 80e-12, 70e-12)
    line, end = model.line(0.0), ideal_clamp(model.v_read_v)
    one, two = (
        dataclasses.replace(
            drive("conventional", g, np.array([5]), edges), slots=120,
            pulses=tuple((torch.tensor([a]), torch.tensor([a + 5])) for a in starts), starts=starts,
        )
        for starts in ((0,), (0, 60))
    )  # fmt: skip
    charges = [float(edge_charges(line, d, static_solution(line, d, end)).sum()) for d in (one, two)]
    assert charges[1] == pytest.approx(2 * charges[0], rel=1e-6)
    assert abs(charges[0]) > 1e-17


def test_what_a_next_pulse_cuts_off_of_a_recharge(model):
    """A small cell recharges slowly: soon pulsed again, it draws less than after a long rest, and less than twice."""
    g = np.array([0.2e-6])
    line, end = model.line(0.0), ideal_clamp(model.v_read_v)
    found = []
    for gap in (1, 100):
        starts = (0, 5 + gap)
        d = dataclasses.replace(
            drive("conventional", g, np.array([5])), slots=300, starts=starts,
            pulses=tuple((torch.tensor([a]), torch.tensor([a + 5])) for a in starts),
        )  # fmt: skip
        found.append(float(edge_charges(line, d, static_solution(line, d, end)).sum()))
    tau_s = line.pulse.c_node_f / g[0]
    lost = float(np.exp(-1e-9 / tau_s))
    assert 0.1 < lost < 0.9
    assert found[0] < found[1] * (1 - 0.2 * lost)


def adc(rate_hz: float = 1e9, start: float = 0.25) -> AdcParameters:
    i = torch.linspace(0, 1e-4, 5, dtype=torch.float64)
    return AdcParameters(i, rate_hz * (1 + i / 1e-5), start, 0.0)


def test_one_phase_counts_as_before_under_both_rules():
    current = torch.rand(3, 20, dtype=torch.float64) * 1e-4
    for rule in ("reset", "carry"):
        found = phase_counts(adc(), current, 1e-9, ((0, 20),), rule, 0.5e-9)
        torch.testing.assert_close(found[..., 0], phase(adc(), current, 1e-9))


def test_a_held_ring_loses_the_hold_and_starts_each_phase_anew():
    current = torch.full((30,), 2e-5, dtype=torch.float64)
    reset, carry = (phase_counts(adc(), current, 1e-9, ((0, 19), (19, 30)), rule, 0.5e-9) for rule in ("reset", "carry"))
    # 3 counts a slot.
    assert reset.tolist() == pytest.approx([57 + 0.25 - 1.5, 33 + 0.25])
    assert carry.tolist() == pytest.approx([57 + 0.25, 33])
    with pytest.raises(InputError, match=r"phase_rule: expected one of reset, carry; got 'cary' \(did you mean 'carry'\?\)"):
        phase_counts(adc(), current, 1e-9, ((0, 30),), "cary", 0.0)


def test_carried_residue_is_counted_once_and_a_dropped_one_is_lost():
    phases = torch.tensor(np.random.default_rng(6).uniform(5, 90, (500, 3)))
    assert torch.equal(truncated(phases, "carry").sum(-1), torch.floor(phases.sum(-1)))
    assert torch.equal(truncated(phases, "reset"), torch.floor(phases))
    assert float((truncated(phases, "reset").sum(-1) - torch.floor(phases.sum(-1))).min()) <= -1


@pytest.mark.parametrize("rule", ["reset", "carry"])
@pytest.mark.parametrize("weights", [(1,), (8, 1), (1, 8), (16, 4, 1), (64, 32, 16, 8, 4, 2, 1)])
def test_residue_of_even_fractions(rule, weights):
    phases = torch.tensor(np.random.default_rng(7).uniform(50, 90, (40000, len(weights))))
    error = ((truncated(phases, rule) - phases) * torch.tensor(weights, dtype=torch.float64)).sum(-1)
    # The standard error of a σ from 40000 draws is 0.35 %.
    assert float(error.std()) == pytest.approx(residue_sigma(weights, rule), rel=0.02)


def test_split_loses_eight_times_what_conventional_does():
    assert residue_sigma((1,), "reset") == pytest.approx(12**-0.5)
    assert residue_sigma((8, 1), "reset") == pytest.approx((65 / 12) ** 0.5)
    assert residue_sigma((8, 1), "carry") == pytest.approx((50 / 12) ** 0.5)
    assert residue_sigma((1, 8), "carry") == pytest.approx((113 / 12) ** 0.5)


@pytest.mark.parametrize("name", MODES)
def test_a_tile_answers_in_every_mode(model, name):
    """Phases add up with their weights; all modes follow the product, each at the gain and offset that its edges give."""
    rng = np.random.default_rng(8)
    g, x = rng.uniform(1e-6, 12e-6, (2, ROWS)), rng.integers(0, CODE_MAX + 1, (3, ROWS))
    mode = get_mode(name, CODE_MAX)
    r = model.respond(g, x, mode=name)
    assert r.current_a.shape == (3, 2, mode.window_slots(GUARD))
    assert r.phase_counts is not None
    assert r.counts is not None
    assert r.phase_count is not None
    assert r.phase_counts.shape == (3, 2, len(mode.phases))
    np.testing.assert_allclose(r.phase_counts @ np.array(mode.weights), r.phase_count)
    np.testing.assert_array_equal(r.counts @ np.array(mode.weights), r.count)
    # Measured: 0.9975 (three digits) to 0.99999; phases are weighted, so an edge's charge counts up to 16 times.
    assert np.corrcoef(r.phase_count.ravel(), ideal_charge(g, x, 0.2, 1e-9).ravel())[0, 1] > 0.997
    usual = model.respond(g, x, clamp="ideal").charge_c
    if len(mode.phases) == 1:
        np.testing.assert_allclose(model.respond(g, x, mode=name, clamp="ideal").charge_c, usual, rtol=2e-3)


@pytest.mark.parametrize("rule", ["reset", "carry"])
@pytest.mark.parametrize("name", MODES)
def test_a_straight_ring_counts_the_same_in_every_mode(model, name, rule):
    """Without wire, edges and hold, what the line draws beyond its rest gives equal weighted counts, whatever the phases."""
    g, x = draw(10)
    i = torch.linspace(0, 1e-3, 5, dtype=torch.float64)
    ring = AdcParameters(i, 1e9 + 1e14 * i, 0.0, 0.0)
    found = []
    for mode in (get_mode(n, CODE_MAX) for n in ("conventional", name)):
        current = static_solution(model.line(0.0), drive(mode.name, g, x), ideal_clamp(model.v_read_v)).current_a
        phases = phase_counts(ring, current, 1e-9, mode.windows(GUARD), rule, 0.0)
        rest = 1e-9 * (1e9 + 1e14 * current[-1]) * torch.tensor([b - a for a, b in mode.windows(GUARD)])
        found.append(float(((phases - rest) * torch.tensor(mode.weights)).sum()))
    assert found[1] == pytest.approx(found[0], rel=1e-10)
    assert found[0] > 10


TECHNOLOGY = FREEPDK45
BENCH = ColumnBench(TECHNOLOGY, "nom", 27.0, default_readout(TECHNOLOGY))


@pytest.mark.parametrize(("name", "charge_error"), [("split", 1.5e-4), ("end_aligned_halves", 5e-6), ("bitwise", 6e-4)])
def test_a_small_column_in_ngspice(name, charge_error, tmp_path):
    """The shipped card, fitted in conventional mode on 512 rows, predicts a simulated line in another mode.

    A charge's error is that of an edge times the weights of the phases: measured 9e-5, 1e-6 and 5e-4.
    """
    g, x = draw(9)
    pulses = Pulses(code_max=CODE_MAX, guard=GUARD, mode=name)
    deck = column_deck(BENCH, name, conductance_s=g, codes=x, cell=CellDesign(0.5), wire=Wire(), pulses=pulses, clamp="ideal")
    truth = simulated_slots(run(deck, cache=tmp_path), pulses)["current_a"]
    card = TileModel.read(shipped_card("freepdk45_gated"))
    # 100 ps ramps, 150 ps after the slot's boundary: crossings half-way, 80 ps from 10 to 90 %.
    edges = Edges(200e-12, 200e-12, 80e-12, 80e-12)
    ours = slot_currents(card.line(), drive(name, g, x, edges), ideal_clamp(card.v_read_v))[0].numpy()
    # The card knows its driver's edges, not these ramps: a slot with edges errs by 1.8 ps of the current that steps there
    # (measured, and 1e-4 of the peak where hardly any does); one without errs by 4e-5 of the peak.
    mode = get_mode(name, CODE_MAX)
    on = np.zeros((mode.window_slots(GUARD), ROWS))
    for start, stop in mode.window_pulses(x, np.arange(ROWS), GUARD):
        on += (np.arange(len(on))[:, None] >= start) & (np.arange(len(on))[:, None] < stop)
    stepped = np.abs(on - np.roll(on, 1, 0)) @ (0.2 * g)
    assert (np.abs(ours - truth) < 2e-3 * stepped + np.where(stepped > 0, 2e-4, 1e-4) * truth.max()).all()
    charge = [float(weighted_charge(torch.as_tensor(i), mode, GUARD, 1e-9)) for i in (ours, truth)]
    assert charge[0] == pytest.approx(charge[1], rel=charge_error)


def test_rows_of_equal_pulses_share_a_source():
    pulses = Pulses(code_max=CODE_MAX, mode="end_aligned_halves")
    assert pulses.patterns(np.array([5, 5, 5, 0])) == [((0, 5),), ((26, 31),), ((0, 5),), ()]
    split = Pulses(code_max=CODE_MAX, mode="split")
    assert split.patterns(np.array([9, 8, 1])) == [((0, 1), (7, 8)), ((0, 1),), ((7, 8),)]
    deck = column_deck(
        BENCH, "shared", conductance_s=np.full(4, 1e-6), codes=np.array([9, 9, 8, 0]), cell=CellDesign(0.5), wire=Wire(),
        pulses=split, clamp="ideal",
    )  # fmt: skip
    assert sum(line.startswith("Vw") for line in deck.text.splitlines()) == 3
