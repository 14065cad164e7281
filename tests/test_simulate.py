"""Columns to records: shapes, phases, hashes, the cache, and a run that is killed half-way."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aimcard.calibrate.columns import Column, draw_codes, pair_conductances
from aimcard.calibrate.simulate import pulse_points, simulate_columns
from aimcard.data import shipped_card
from aimcard.data.reference import ReferenceSet
from aimcard.models.cell import cell_current
from aimcard.models.errors import SimulatorMissingError
from aimcard.models.tile import TileModel
from aimcard.netlists.column import Pulses
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.ngspice import simulator_version
from aimcard.netlists.readout import default_readout
from aimcard.netlists.technology import get_technology

TECHNOLOGY = get_technology("freepdk45")
BENCH = ColumnBench(TECHNOLOGY, "nom", 27.0, default_readout(TECHNOLOGY))
ROWS, LINES, SLOTS = 24, 2, 12
PULSES = {0.5: Pulses(code_max=8, guard=4)}


def column(name: str, clamp: str, role: str = "held_out", **more) -> Column:
    """One vector on a pair of 24 rows."""
    rng = np.random.default_rng(0)
    g = pair_conductances(rng, 25e-6, ROWS)
    codes = np.minimum(draw_codes(rng, "gaussian", 1, ROWS), 8)
    return Column(name, role, "gaussian", clamp, g, codes, 0.5, 0.5, column="held0", **more)


COLUMNS = [column("ideal", "ideal"), column("ota", "ota"), column("tight", "ideal", "floor", of="ideal")]


def records_of(cache: Path, columns=COLUMNS, jobs=1):
    return {r.name: r for r in simulate_columns(columns, BENCH, PULSES, jobs, cache, False)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("simulate")


@pytest.fixture(scope="module")
def records(cache):
    return records_of(cache)


@pytest.fixture
def decks_run(tmp_path, monkeypatch):
    """How many decks went to ngspice: the real one, behind a script on PATH that counts its calls."""
    real, log = shutil.which("ngspice"), tmp_path / "calls"
    folder = tmp_path / "counting"
    folder.mkdir()
    script = folder / "ngspice"
    script.write_text(f'#!/bin/sh\necho "$1" >> {log}\nexec {real} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda: log.read_text().split().count("-b") if log.exists() else 0


def test_records_are_what_the_set_s_form_asks_for(records, tmp_path):
    assert {name: r.role for name, r in records.items()} == {"ideal": "held_out", "ota": "held_out", "tight": "floor"}
    for record in records.values():
        assert record.kind == "column"
        assert record["current_a"].shape == (1, LINES, SLOTS)
        assert record["slot_edge_s"].shape == (SLOTS + 1,)
        assert record["codes"].shape == (1, ROWS)
        assert record.attrs["column"] == "held0"
        assert len(record.deck_hash) == 64
    assert records["tight"].attrs["of"] == "ideal"
    meta = {
        "technology": "freepdk45", "corner": "nom", "temperature_c": 27.0, "vdd_v": 1.0, "v_read_v": 0.2,
        "t_lsb_s": 1e-9, "code_max": 8, "mode": "conventional", "topology": "gated", "simulator": simulator_version(),
    }  # fmt: skip
    ReferenceSet(meta, records.values()).write(tmp_path / "set.h5")
    again = ReferenceSet.read(tmp_path / "set.h5")
    np.testing.assert_array_equal(again.records["ota"]["phase_count"], records["ota"]["phase_count"])


@pytest.mark.parametrize("v_read_v", [0.2, 0.25])
def test_lines_and_pulses_are_read_at_the_bench_s_voltage(v_read_v, cache):
    """The set records the bench's read voltage: cells at another one would be fitted to a law that is not theirs."""
    steady = replace(column("steady", "ideal"), codes=np.full((1, ROWS), 8))
    (record,) = simulate_columns([steady], replace(BENCH, v_read_v=v_read_v), PULSES, 1, cache, False)
    cell = TileModel.read(shipped_card()).line().cell
    volts = [torch.tensor(v, dtype=torch.float64) for v in (v_read_v, 0.0, 0.5)]
    law = cell_current(cell, torch.tensor(record["conductance_s"]), *volts).sum(-1).numpy()
    # Nothing switches in slots 3 to 6, and 24 cells of wire take 0.1 %.
    np.testing.assert_allclose(record["current_a"][0, :, 3:6].mean(-1), law, rtol=2e-3)
    points = pulse_points((0.3, 0.5), v_read_v)
    assert max(p["v_bit_v"] for p in points) == v_read_v
    assert {p["code"] for p in points if (p["v_bit_v"], p["v_return_v"]) == (v_read_v, 0.0)} == {1, 3}


def test_only_a_line_with_a_read_out_has_mirror_and_phase(records):
    for name in ("ideal", "tight"):
        assert not {"mirror_a", "phase_count", "count"} & set(records[name].arrays)
    ota = records["ota"]
    assert ota["mirror_a"].shape == (1, LINES, SLOTS)
    assert ota["phase_count"].shape == (1, LINES)
    # A counter truncates.
    rest = ota["phase_count"] - ota["count"]
    assert np.all((rest >= 0) & (rest < 1))
    # The line with more charge is ahead, and the bleed alone makes a count a nanosecond.
    charge = ota["current_a"].sum(axis=-1)[0]
    assert np.argsort(charge).tolist() == np.argsort(ota["phase_count"][0]).tolist()
    assert np.all(ota["phase_count"] > SLOTS)


def test_phase_is_the_mirror_s_charge_at_about_the_published_gain(records):
    # Ten counts a period and about 100 MHz per µA (docs/readout.md): 1 count a fC.
    ota = records["ota"]
    charge_c = ota["mirror_a"].sum(axis=-1) * 1e-9
    assert np.all(np.abs(ota["phase_count"] / (charge_c * 1e15) - 1) < 0.15)


def test_waveforms_come_with_gaussian_inputs_and_agree_with_their_slots(records):
    for name, shown, stored in (("ideal", "waveform_a", "current_a"), ("ota", "mirror_waveform_a", "mirror_a")):
        record = records[name]
        assert record.attrs["waveform_vector"] == 0
        time_s, wave = record["waveform_time_s"], record[shown]
        assert wave.shape == (LINES, time_s.size)
        assert time_s[-1] == pytest.approx(SLOTS * 1e-9)
        charge = np.trapezoid(wave, time_s, axis=-1)
        np.testing.assert_allclose(charge, record[stored][0].sum(axis=-1) * 1e-9, rtol=2e-3)
    assert "waveform_a" not in records["tight"].arrays


def test_the_floor_is_the_same_column_run_tighter(records):
    usual, tight = records["ideal"], records["tight"]
    np.testing.assert_array_equal(usual["conductance_s"], tight["conductance_s"])
    np.testing.assert_array_equal(usual["codes"], tight["codes"])
    assert usual.deck_hash != tight.deck_hash
    assert not np.array_equal(usual["current_a"], tight["current_a"])
    np.testing.assert_allclose(usual["current_a"].sum(-1), tight["current_a"].sum(-1), rtol=2e-4)


def test_a_saturated_check_has_a_mirror_and_no_phase(cache):
    record = records_of(cache, [column("saturated", "ota", "check")])["saturated"]
    assert "mirror_a" in record.arrays
    assert "phase_count" not in record.arrays


def test_the_second_call_simulates_nothing_and_repeats_every_number(records, cache, decks_run):
    again = records_of(cache)
    assert decks_run() == 0
    for name, record in records.items():
        assert again[name].deck_hash == record.deck_hash
        assert set(again[name].arrays) == set(record.arrays)
        for array in record.arrays:
            np.testing.assert_array_equal(again[name][array], record[array])


def test_without_ngspice_even_finished_columns_name_the_package(records, cache, tmp_path, monkeypatch):
    # A result belongs to a simulator's version; with none there is no key to look it up by.
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SimulatorMissingError, match="apt-get install ngspice"):
        records_of(cache)


def test_another_code_or_corner_is_another_deck(records, cache):
    changed = column("ideal", "ideal")
    codes = changed.codes.copy()
    codes[0, 0] = 8 - codes[0, 0] or 1
    other = Column("ideal", "held_out", "gaussian", "ideal", changed.conductance_s, codes, 0.5, 0.5, column="held0")
    assert records_of(cache, [other])["ideal"].deck_hash != records["ideal"].deck_hash
    slow = ColumnBench(TECHNOLOGY, "ss", 27.0, default_readout(TECHNOLOGY))
    (record,) = simulate_columns([changed], slow, PULSES, 1, cache, False)
    assert record.deck_hash != records["ideal"].deck_hash
    assert record["current_a"].sum() < records["ideal"]["current_a"].sum()


KILLED = """
    import numpy as np
    from aimcard.calibrate.columns import Column
    from aimcard.calibrate.simulate import simulate_columns
    from aimcard.netlists.column import Pulses
    from aimcard.netlists.column_decks import ColumnBench
    from aimcard.netlists.readout import default_readout
    from aimcard.netlists.technology import get_technology
    t = get_technology("freepdk45")
    rng = np.random.default_rng(4)
    g, codes = rng.uniform(1e-6, 5e-6, (2, 24)), rng.integers(0, 9, (3, 24))
    column = Column("killed", "held_out", "uniform", "ideal", g, codes, 0.5, 0.5)
    bench = ColumnBench(t, "nom", 27.0, default_readout(t))
"""
CALL = 'simulate_columns([column], bench, {0.5: Pulses(code_max=8, guard=4)}, 1, FOLDER, False)'


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, decks_run):
    total, folder = 6, tmp_path / "cache"
    source = textwrap.dedent(KILLED) + CALL.replace("FOLDER", repr(str(folder)))
    # The killed run has the plain ngspice: only what the second run starts is counted.
    plain = {**os.environ, "PATH": os.environ["PATH"].partition(os.pathsep)[2]}
    process = subprocess.Popen([sys.executable, "-c", source], env=plain, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    try:
        while len(list((folder / "results").glob("*.waves"))) < 2:
            assert time.monotonic() < end, "waited in vain"
            assert process.poll() is None, "ended too early"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    kept = len(list((folder / "results").glob("*.waves")))
    assert 2 <= kept < total
    names: dict = {}
    exec(textwrap.dedent(KILLED), names)  # the same column, in this process
    arguments = ([names["column"]], names["bench"], {0.5: Pulses(code_max=8, guard=4)}, 1)
    (resumed,) = simulate_columns(*arguments, folder, False)
    assert decks_run() == total - kept
    (whole,) = simulate_columns(*arguments, tmp_path / "fresh", False)
    np.testing.assert_array_equal(resumed["current_a"], whole["current_a"])
    assert resumed.deck_hash == whole.deck_hash
