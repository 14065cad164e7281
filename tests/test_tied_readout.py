"""The tied read-out's equations: what its counts mean, what steps leave, gradients; and a small column in ngspice."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from aimcard.calibrate.tied_readout_fit import READOUT_SPECS, offset_parameters
from aimcard.models import tied
from aimcard.models.errors import InputError
from aimcard.models.readout import step_charges
from aimcard.models.tied_readout import read, resting, signed, tied_clamp, tied_readout
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import LEAD_S, Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, slot_currents
from aimcard.netlists.ngspice import run
from aimcard.netlists.oscillator import phase_at
from aimcard.netlists.oscillator_decks import oscillator_drive_deck, oscillator_rate, oscillator_rate_deck
from aimcard.netlists.readout import ReadoutDesign
from aimcard.netlists.technology import get_technology
from aimcard.netlists.tied import V_COMMON_V, tied_column_deck
from aimcard.netlists.tied_readout import tied_static_deck

BIAS_A, T_S, SLOTS = 200e-6, 1e-9, 20
WINDOW = ((0, SLOTS),)
HOW = (T_S, WINDOW, "reset", 0.5e-9)
LINE_A = torch.linspace(-170e-6, 200e-6, 38, dtype=torch.float64)
# About FreePDK45's: the clamp falls 5 Ω, less at more current; the rate bends down.
CLAMP_V = 0.3989 - 5e-4 * torch.log1p(LINE_A / BIAS_A)
RATE_HZ = 1.2e14 * (LINE_A + BIAS_A) * (1 - (LINE_A + BIAS_A) / 4e-3)
TABLES = {"clamp": (LINE_A, CLAMP_V), "mirror": (LINE_A, (LINE_A + BIAS_A) / 8), "adc": (LINE_A, RATE_HZ)}
VALUES = {n: s.start - s.scale for n, s in READOUT_SPECS.items()} | {"phase_start": 0.6, "t_wait_s": 2e-10}
PAIR = tied.TiedCell(1400.0, 0.005, 2.5, -10.0, 20.0, 1e-10, 0.16, 0.5, 0.2)
EDGES = tied.TiedEdges(*(4 * [2e-10]))


def reading(line_a: torch.Tensor, values=VALUES, tables=TABLES, y_s: float = 4e-3):
    """Phases and counts, signed, of slot currents (..., slots) that rest in their last slot."""
    readout = tied_readout(values, tables, torch.full(line_a.shape[:-1], y_s, dtype=torch.float64), 1.0, BIAS_A)
    got = read(readout, line_a, line_a, *HOW)
    return got, signed(got.phases, resting(readout, line_a[..., -1], *HOW), "reset")


def pulse(level_a: float, slots: int, rest_a: float = 0.0) -> torch.Tensor:
    line = torch.full((1, SLOTS), rest_a, dtype=torch.float64)
    line[:, :slots] += level_a
    return line


@pytest.mark.parametrize("rest_a", [-60e-6, -4e-6, 0.0, 30e-6])
def test_a_resting_column_counts_nothing(rest_a):
    _, (phase, count, bias) = reading(pulse(0.0, 0, rest_a))
    assert float(count) == 0
    assert 0 <= float(phase) < 1
    # What is subtracted is the bias' count, and that of the column's own offset current.
    rate = 1.2e14 * (rest_a + BIAS_A) * (1 - (rest_a + BIAS_A) / 4e-3)
    assert float(bias) == pytest.approx(rate * SLOTS * T_S, abs=1.7)


def test_opposite_currents_count_opposite_but_for_the_converters_bend():
    """Counts are odd in the current as far as the rate is straight; else the even part is its second difference's."""
    still = {n: 0.0 if n.endswith("_s") else v for n, v in VALUES.items()}
    up, down, rest = (float(reading(pulse(level, 15), still)[0].phases) for level in (50e-6, -50e-6, 0.0))
    assert up + down - 2 * rest == pytest.approx(-2 * 1.2e14 / 4e-3 * (50e-6) ** 2 * 15 * T_S, rel=1e-3)
    straight = TABLES | {"adc": (LINE_A, 1.2e14 * (LINE_A + BIAS_A))}
    counts = [float(reading(pulse(level, 15), still, straight)[1][1]) for level in (50e-6, -50e-6)]
    assert abs(sum(counts)) <= 1
    assert counts[0] == pytest.approx(1.2e14 * 50e-6 * 15 * T_S, abs=1)


@pytest.mark.parametrize("level_a", [-120e-6, 0.0, 120e-6])
def test_slope_of_a_count_is_the_rate_tables(level_a):
    """A little more current in slots where nothing switches adds the static table's slope times the time."""
    extra = torch.zeros(SLOTS, dtype=torch.float64)
    extra[6:11] = 1e-9
    line = pulse(level_a, 15)
    readout = tied_readout(VALUES, TABLES, torch.full((1,), 4e-3, dtype=torch.float64), 1.0, BIAS_A)
    # The added current is in the slot means alone, not in the steps that clamp and mirror answer to.
    one, two = (float(read(readout, base, line, *HOW).phases) for base in (line, line + extra))
    slope = 1.2e14 * (1 - 2 * (level_a + BIAS_A) / 4e-3)
    assert (two - one) / 5e-18 == pytest.approx(slope, rel=1e-3)


def test_what_steps_leave_sums_to_nothing_if_the_speed_does_not_change():
    """Charge is conserved: the column ends where it began, and what a step took its return gives back."""
    steady = VALUES | {n: 0.0 for n in VALUES if "idle" in n}
    line = torch.tensor(np.random.default_rng(1).normal(0, 4e-5, (3, SLOTS)))
    line[:, 15:] = -4e-6
    got = reading(line, steady)[0]
    assert (got.current_a - line).abs().max() > 1e-7
    assert_allclose(got.current_a.sum(-1), line.sum(-1), rtol=0, atol=1e-12 * SLOTS * 4e-5)
    # The mirror's lag, too: a straight mirror's charge is the line's over the ratio.
    assert_allclose(got.mirror_a.sum(-1), (line.sum(-1) + SLOTS * BIAS_A) / 8, rtol=1e-12)


def test_a_first_slot_is_a_step_like_any_other():
    """The loop never turns off: moving the whole window by one slot moves what its steps leave."""
    readout = tied_readout(VALUES, TABLES, torch.full((1,), 4e-3, dtype=torch.float64), 1.0, BIAS_A)
    early = pulse(50e-6, 6, -4e-6) + BIAS_A
    late = torch.roll(early, 1, -1)
    rest = early[..., -1:]
    now, later = (step_charges(readout.readout.clamp, line, (0,), rest) for line in (early, late))
    assert_allclose(later[..., 1:], now[..., :-1], rtol=0, atol=1e-30)
    assert float(now[..., 0].abs()) > 1e-17


def test_a_column_of_more_conductance_loses_more():
    """The regulator is off its voltage for L·ΔI, whatever the column; the charge of it goes with Y."""
    only = {n: 0.0 if n.startswith("clamp") and n.endswith("_s") else v for n, v in VALUES.items()}
    only["clamp_step_0_y_s"] = -1e-10
    lost = [float((reading(pulse(50e-6, 15), only, y_s=y)[0].current_a - pulse(50e-6, 15))[0, 0]) for y in (2e-3, 4e-3)]
    assert lost[1] == pytest.approx(2 * lost[0])
    assert lost[1] == pytest.approx(-1e-10 * 50e-6 / T_S)


def test_phases_that_reset_and_phases_that_carry():
    """Two PWM phases with one resting column's counts taken off each; a free ring keeps its fraction."""
    windows, line = ((0, 12), (12, SLOTS)), pulse(50e-6, 8)
    readout = tied_readout(VALUES, TABLES, torch.full((1,), 4e-3, dtype=torch.float64), 1.0, BIAS_A)
    found = {}
    for rule in ("reset", "carry"):
        how = (T_S, windows, rule, 0.5e-9)
        got = read(readout, line, line, *how)
        found[rule] = signed(got.phases, resting(readout, line[..., -1], *how), rule)
        assert found[rule][1].shape == (1, 2)
        # The second phase is idle all along.
        assert 0 <= float(found[rule][1][0, 1].abs()) <= 1
    whole = reading(line)[1][0].sum()
    assert float(found["carry"][0].sum()) == pytest.approx(float(whole), abs=1)


def test_offset_of_a_column_is_its_conductance_times_the_regulators():
    offset_v, offset_a = offset_parameters(TABLES, 0.4)
    assert offset_v.value == pytest.approx(-1.1e-3)
    # The regulator's own 2.5 Ω beside the column's 250 Ω take 1 %.
    assert offset_a.value == pytest.approx(-4.4e-6, rel=0.02)
    assert abs(offset_a.value) < 4.4e-6


def test_gradient_of_counts_in_conductances():
    plus, minus = (1e-5 * torch.rand(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    codes = torch.tensor([[5, -3, 2, -7, 0, 9]]).expand(2, -1)
    pulse_terms, wire = tied.TiedPulse(2e-12, 2e-12, 1e-7), tied.TiedWire(5.0, 3e-15)
    clamp = tied_clamp(TABLES, 0.4)

    def phases(scaled_plus: torch.Tensor, scaled_minus: torch.Tensor) -> torch.Tensor:
        g = 1e-5 * scaled_plus, 1e-5 * scaled_minus
        base, solution = tied.slot_currents(PAIR, wire, pulse_terms, EDGES, *g, codes, SLOTS, T_S, 0.5, clamp)
        y = tied.effective_column(PAIR, wire, *g, 0.5).y_s
        readout = tied_readout(VALUES, TABLES, y, 1.0, BIAS_A)
        got = read(readout, base, solution.current_a, *HOW)
        return signed(got.phases, resting(readout, solution.current_a[..., -1], *HOW), "reset")[0]

    inputs = tuple((1e5 * g).requires_grad_(True) for g in (plus, minus))
    assert torch.autograd.gradcheck(phases, inputs, rtol=1e-4, atol=1e-6, fast_mode=True)
    (slope,) = torch.autograd.grad(phases(*inputs).sum(), inputs[:1])
    # More G+ counts more for a positive code, less for a negative one, and an idle row hardly.
    assert (torch.sign(slope) == torch.sign(codes))[:, codes[0] != 0].all()
    assert slope[:, 4].abs().max() < 0.05 * slope.abs().max()


def test_a_missing_parameter_is_one_line():
    some = {n: v for n, v in VALUES.items() if n != "mirror_step_1_y_s"}
    with pytest.raises(InputError, match="a tied read-out needs mirror_step_1_y_s, which are not given"):
        tied_readout(some, TABLES, torch.ones(1), 1.0, BIAS_A)


FREEPDK45 = get_technology("freepdk45")
BENCH = ColumnBench(FREEPDK45, "nom", 27.0, ReadoutDesign())
PULSES = Pulses(code_max=15, guard=3)
CIRCUIT_HOW = (T_S, ((0, PULSES.slots),), "reset", 0.5e-9)


@pytest.fixture(scope="module")
def circuit() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Static tables of the shipped design from ngspice, the ring's rate at six line currents."""
    static = run(tied_static_deck(FREEPDK45, BENCH.readout, current_min_a=-60e-6, current_max_a=60e-6, points=21))
    line_a, regulator_a = static.scale[::4], static["i(vreg)"][::4]
    rates = [oscillator_rate(run(oscillator_rate_deck(FREEPDK45, BENCH.readout, float(i))), float(i), 1.0) for i in regulator_a]
    t = lambda a: torch.tensor(np.asarray(a))  # noqa: E731
    return {
        "clamp": (t(static.scale), t(static["v(bl)"])), "mirror": (t(static.scale), t(static["i(vmir)"])),
        "adc": (t(line_a), t([r.rate_hz for r in rates])),
    }  # fmt: skip


def test_signed_count_of_a_small_column_in_ngspice(circuit):
    """Regulator, mirror and ring of two vectors, one of them zero, against the static tables: 20 to 50 counts to 0.15."""
    rng = np.random.default_rng(5)
    plus, minus = rng.uniform(0.1e-6, 25e-6, (2, 24))
    minus *= 0.5
    drawn = np.where(rng.random(24) < 0.8, 1, -1) * rng.integers(1, 16, 24)
    still = {n: 0.0 if "step" in n else v for n, v in VALUES.items()}
    y_s = torch.tensor([float((plus + minus).sum())])
    readout = tied_readout(still, circuit, y_s, 1.0, BIAS_A)
    found = {}
    for name, codes in (("zero", 0 * drawn), ("up", drawn), ("down", -drawn)):
        deck = tied_column_deck(
            BENCH, name, g_plus_s=plus, g_minus_s=minus, codes=codes, cell=CellDesign(0.5), wire=Wire(), pulses=PULSES,
            clamp="ota",
        )  # fmt: skip
        waves = run(deck)
        line = torch.tensor(slot_currents(waves, PULSES)["current_a"])[None]
        ring = run(oscillator_drive_deck(
            FREEPDK45, BENCH.readout, waves.time_s, waves["i(vreg)"], release_s=LEAD_S, name=f"ring {name}"
        ))  # fmt: skip
        truth = float(phase_at(ring, [PULSES.stop_s], released_s=LEAD_S, level_v=0.5)[0])
        found[name] = truth, float(read(readout, line, line, *CIRCUIT_HOW).phases), line
    # A resting column counts what its own current makes of the rate, and signed counts follow from the recorded current.
    start = found["zero"][0] - found["zero"][1]
    assert abs(start) < 0.1
    for name, least in (("up", 20), ("down", -20)):
        truth = found[name][0] - found["zero"][0]
        assert truth / least > 1
        assert found[name][1] - found["zero"][1] == pytest.approx(truth, abs=0.15)
    # The offset's current rests in all three.
    rest = float(found["zero"][2][0, -1])
    offset_a = float(tied_clamp(circuit, V_COMMON_V)(y_s, torch.zeros_like(y_s))[1])
    assert rest == pytest.approx(offset_a, rel=0.05)
