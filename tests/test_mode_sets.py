"""Columns of several PWM phases from ngspice to a reference set; the ring at a phase boundary; the command line."""

import numpy as np
import pytest

from aimcard import __main__ as command
from aimcard.calibrate.columns import Column
from aimcard.calibrate.mode_sets import mode_columns
from aimcard.calibrate.plan import Options
from aimcard.calibrate.simulate import simulate_columns
from aimcard.models.errors import InputError
from aimcard.netlists.column import LEAD_S, Pulses
from aimcard.netlists.column_decks import ColumnBench, holds
from aimcard.netlists.freepdk45 import FREEPDK45
from aimcard.netlists.oscillator import phase_at, phases_between, stage_nodes
from aimcard.netlists.readout import default_readout
from aimcard.netlists.waveforms import Waveforms

IDLE_HZ = 1.5e9


def ring(rate_hz: float, free: list[tuple[float, float]], stop_s: float) -> Waveforms:
    """Stage voltages of a ring whose edges are ``1/rate_hz`` apart while free, each span starting anew."""
    time = np.arange(0.0, stop_s, 1e-12)
    values = np.zeros((5, len(time)))
    for begin, end in free:
        edges = np.arange(begin + 1 / rate_hz, end, 1 / rate_hz)
        for k in range(5):
            flips = (time[:, None] >= edges[k::5]).sum(1)
            inside = (time >= begin) & (time < end)
            values[k] = np.where(inside, flips % 2, values[k])
    return Waveforms(tuple(f"v({n})" for n in stage_nodes()), "time", time, values, "", "")


def test_a_gate_counts_the_edges_that_it_lets_through():
    free = ring(2e9, [(0.0, 30e-9)], 30e-9)
    gates = [(0.0, 10.2e-9), (10.2e-9, 20.1e-9)]
    at = phase_at(free, [10.2e-9, 20.1e-9], released_s=0.0, level_v=0.5)
    assert at.tolist() == pytest.approx([20.4, 40.2], abs=0.01)
    # Of a ring that starts anew at each gate, and is reset 20 ps after the first one closes.
    held = ring(2e9, [(0.0, 9.72e-9), (10.2e-9, 30e-9)], 30e-9)
    found = phases_between(held, [(0.0, 9.7e-9), gates[1]], level_v=0.5, idle_rate_hz=2e9)
    assert found.tolist() == pytest.approx([19.4, 19.8], abs=0.02)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    rng = np.random.default_rng(11)
    g, codes = rng.uniform(1e-6, 12e-6, (1, 16)), rng.integers(0, 16, (1, 16))
    column = Column("split", "held_out", "uniform", "ota", g, codes, 0.5, 0.5)
    bench = ColumnBench(FREEPDK45, "nom", 27.0, default_readout(FREEPDK45))
    pulses = {0.5: Pulses(code_max=15, mode="split")}
    return simulate_columns([column], bench, pulses, 1, tmp_path_factory.mktemp("modes"), False, IDLE_HZ)[0]


def test_a_split_column_has_phases_by_both_rules(record):
    assert record["current_a"].shape == (1, 1, 1 + 4 + 7 + 4)
    for prefix in ("", "free_"):
        assert record[f"{prefix}phase_counts"].shape == (1, 1, 2)
        assert record[f"{prefix}counts"].dtype == np.int64
    weights = np.array([8, 1])
    np.testing.assert_allclose(record["phase_count"], record["phase_counts"] @ weights)
    np.testing.assert_array_equal(record["count"], record["counts"] @ weights)
    np.testing.assert_array_equal(record["counts"], np.floor(record["phase_counts"]))
    np.testing.assert_array_equal(record["free_counts"].sum(-1), np.floor(record["free_phase_counts"].sum(-1)))


def test_a_held_ring_loses_what_the_idle_line_counts_in_the_hold(record):
    (held,), (free,) = record["phase_counts"][0], record["free_phase_counts"][0]
    # Half a slot of the idle ring, to a third of a count: edges are uneven, and the release takes its time.
    assert held[0] - free[0] == pytest.approx(-0.5e-9 * IDLE_HZ, abs=0.35)
    assert abs(held[1] - free[1]) < 0.5


def test_a_hold_lies_in_the_guard_of_every_phase_but_the_last():
    pulses = Pulses(mode="three_digit")
    ends = [LEAD_S + 11e-9, LEAD_S + 18e-9]
    np.testing.assert_allclose(holds(pulses), [(end - 0.5e-9, end) for end in ends])
    assert holds(Pulses()) == ()


def test_mode_columns_are_the_same_in_every_mode():
    a, b = mode_columns(2, 1), mode_columns(2, 1)
    assert [c.name for c in a] == ["ideal-gaussian-1x-0", "ota-gaussian-1x-0"]
    np.testing.assert_array_equal(a[0].codes, b[1].codes)
    with pytest.raises(InputError, match="vectors: expected 1 or more; got 0"):
        mode_columns(0)


def test_an_unknown_mode_is_one_line(capsys):
    with pytest.raises(InputError, match=r"mode: expected one of conventional, split"):
        Options(mode="splt")
    assert command.main(["calibrate", "--mode", "splt"]) == 2
    error = capsys.readouterr().err
    assert "mode: expected one of conventional" in error
    assert "did you mean 'split'?" in error
    assert len(error.strip().splitlines()) == 1


def test_modes_are_listed(capsys):
    assert command.main(["modes"]) == 0
    assert "split_lsb_first" in capsys.readouterr().out
