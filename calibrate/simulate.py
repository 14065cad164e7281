"""Netlists to reference set: every deck that a calibration and its validation need, run by ngspice."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aimcard.calibrate.columns import CODE_MAX, POSITIONS, Column
from aimcard.calibrate.counter_reach import counter_meta
from aimcard.calibrate.plan import Options, plan
from aimcard.calibrate.rings import LineRun, Rings, ring_arrays, run_rings, window_charge
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.adc import HOLD_S, PHASE_RULES
from aimcard.models.errors import SimulationError
from aimcard.models.pcm import G_MAX_S, G_MIN_S
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.cell_decks import cell_dc_arrays, cell_dc_deck, cell_pulse_arrays, cell_pulse_deck
from aimcard.netlists.column import Edge, Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, column_deck, overlay, slot_currents
from aimcard.netlists.driver import DriverEdges, default_driver, driver_deck, driver_supply, edges
from aimcard.netlists.ngspice import ACCURATE, TIGHT, Deck, Waveforms, run, run_many, simulator_version
from aimcard.netlists.oscillator import COUNTS_PER_PERIOD
from aimcard.netlists.oscillator_decks import oscillator_rate, oscillator_rate_deck
from aimcard.netlists.readout_decks import (
    conductance_steps,
    loop_gain,
    loop_gain_deck,
    readout_static,
    readout_static_deck,
    readout_step_deck,
)

#: Line currents of the read-out's static curves and the ring's rate [A]; zero is the bleed alone.
STATIC_MAX_A = 600e-6
RATE_CURRENTS_A = np.concatenate(
    [np.linspace(0, 20e-6, 11)[:-1], np.linspace(20e-6, 200e-6, 19), np.linspace(220e-6, 560e-6, 12)]
)
LOOP_CURRENTS_A = np.array([0.0, 5e-6, 20e-6, 60e-6, 150e-6, 300e-6, 450e-6])
STEP_LEVELS_S = np.array([0.05, 1.0, 0.5, 1.5, 0.1]) * 1e-3
STEP_HOLD_S = 20e-9
V_BIT_GRID, V_RETURN_GRID = (0.12, 0.24, 7), (0.0, 0.06, 7)


def simulate(
    options: Options, cache_dir: str | Path | None = None, progress: bool = True, columns: list[Column] | None = None
) -> ReferenceSet:
    """The whole reference set of ``options``: cells, driver, read-out, oscillator, fitted and held-out columns.

    ``columns`` None: those of ``plan(options)``.
    Finished decks are kept in ``cache_dir`` (None: the default cache), so a killed run goes on where it stopped.
    Raises SimulationError or SimulatorMissingError as ``netlists.ngspice.run_many``.
    """
    if options.topology == "tied":
        from aimcard.calibrate.tied_simulate import simulate_tied

        return simulate_tied(options, cache_dir, progress, columns)
    technology = options.pdk
    bench = ColumnBench(technology, options.corner, options.temperature_c, options.readout)
    t_lsb_s, delay_s = bench.readout.t_lsb_s, default_driver(technology).edge_delay_s
    driver = edges(technology, options.corner, options.temperature_c, t_lsb_s=t_lsb_s, cache_dir=cache_dir)
    by_position = dict(zip(POSITIONS, driver.edge, strict=True))
    pulses = {
        position: Pulses(t_lsb_s, delay_s=delay_s, edge=edge, mode=options.mode) for position, edge in by_position.items()
    }
    records = [_driver_record(driver), _driver_supply_record(options, t_lsb_s, cache_dir, progress)]
    records += _cells(options, bench, pulses[POSITIONS[1]], by_position, cache_dir)
    records += _readout(bench, options.jobs, cache_dir, progress)
    ring = next(r for r in records if r.kind == "oscillator")
    reach, idle_rate_hz = counter_meta(ring, bench, "gated"), float(ring["count_rate_hz"][0])
    asked = plan(options) if columns is None else columns
    records += simulate_columns(asked, bench, pulses, options.jobs, cache_dir, progress, idle_rate_hz)
    any_pulses = pulses[POSITIONS[1]]
    meta: dict[str, str | int | float] = {
        "technology": technology.name, "corner": options.corner, "temperature_c": options.temperature_c,
        "vdd_v": technology.vdd_v, "v_read_v": bench.v_read_v, "t_lsb_s": any_pulses.t_lsb_s, "code_max": CODE_MAX,
        "mode": options.mode, "topology": "gated", "simulator": simulator_version(),
        "guard_slots": any_pulses.guard, "edge_delay_s": any_pulses.delay_s, "rows": options.size.rows,
        "w_ref_um": options.w_ref_um, "w_min_um": options.w_range_um[0], "r_bit_ohm": Wire().r_bit_ohm,
        "r_return_ohm": Wire().r_return_ohm, "c_bit_f": Wire().c_bit_f, "c_return_f": Wire().c_return_f,
        "mirror_ratio": float(bench.readout.mirror_ratio), "counts_per_period": COUNTS_PER_PERIOD,
        "bleed_a": bench.readout.bleed_a, "seed": options.seed, "effort": options.effort,
        "phase_rule": PHASE_RULES[0], "hold_s": HOLD_S, **reach,
    }  # fmt: skip
    return ReferenceSet(meta, records)


def _driver_record(driver: DriverEdges) -> Record:
    arrays = {
        "time_s": driver.time_s,
        "position": np.array(POSITIONS),
        "rise_v": driver.rise_v,
        "fall_v": driver.fall_v,
    }
    attrs: dict[str, str | int | float] = {
        f"{kind}_{what}_{name}_s": float(values[k, j])
        for k, name in enumerate(driver.position)
        for what, values in (("delay", driver.delay_s), ("transition", driver.transition_s))
        for j, kind in enumerate(("rise", "fall"))
    }
    return Record("driver", "edge", "fit", attrs, arrays)


#: Pulses [LSB] whose drivers' supply is recorded; edges and length can be told apart.
SUPPLY_CODES = (1, 4, 12)


def _driver_supply_record(options: Options, t_lsb_s: float, cache_dir: str | Path | None, progress: bool) -> Record:
    where = {"corner": options.corner, "temperature_c": options.temperature_c, "t_lsb_s": t_lsb_s}
    design = default_driver(options.pdk)
    decks = [driver_deck(options.pdk, design, code, **where) for code in SUPPLY_CODES]
    waves = run_many(decks, options.jobs, cache_dir, "drivers' supply", progress)
    found = [driver_supply(w, code) for w, code in zip(waves, SUPPLY_CODES, strict=True)]
    arrays = {name: np.array([getattr(f, name) for f in found]) for name in ("code", "window_s", "charge_c", "rest_a")}
    attrs: dict[str, str | int | float] = {"columns": design.columns}
    return Record("driver-supply", "driver_supply", "fit", attrs, arrays, hash_of(sorted(w.deck_hash for w in waves)))


def pulse_points(widths_um: Sequence[float], v_read_v: float) -> list[dict[str, float]]:
    """Single cells whose pulses are simulated, as `cell_pulse_deck` takes them: at the read voltage, and where the line's
    own voltage or the return line's has moved."""
    read, lowered = (v_read_v, 0.0), (round(0.9 * v_read_v, 6), 0.0)
    return [
        {"conductance_s": float(g), "code": float(code), "position": place, "w_select_um": float(w),
         "v_bit_v": level[0], "v_return_v": level[1]}
        for w in sorted(set(widths_um))
        for place in POSITIONS
        for level in (read, lowered, (v_read_v, 0.015))
        for code in (1, 3)
        for g in np.geomspace(G_MIN_S, G_MAX_S, 7)
        if code == 3 or (place == 0.5 and level == read)
    ]  # fmt: skip


def _cells(
    options: Options, bench: ColumnBench, pulses: Pulses, by_position: dict[float, Edge], cache_dir: str | Path | None
) -> list[Record]:
    technology, where = bench.technology, (bench.corner, bench.temperature_c)
    lo, hi = options.w_range_um
    widths = np.unique([lo, 0.5 * (lo + hi), hi])
    g = np.geomspace(G_MIN_S, 1.2 * G_MAX_S, 12)
    dc = run(cell_dc_deck(technology, CellDesign(), *where, g, widths, V_BIT_GRID, V_RETURN_GRID), cache=cache_dir)
    points = pulse_points((lo, hi), bench.v_read_v)
    # Short windows: what an edge adds is over 40 LSB after a pulse of 3.
    short = dataclasses.replace(pulses, code_max=3, guard=40)
    pulse = run(cell_pulse_deck(technology, CellDesign(), *where, short, by_position, points), cache=cache_dir)
    return [
        Record("cell-dc", "cell_dc", "fit", {},
               cell_dc_arrays(dc, technology, g, widths, V_BIT_GRID, V_RETURN_GRID), dc.deck_hash),
        Record("cell-pulse", "cell_pulse", "fit", {}, cell_pulse_arrays(pulse, short, points), pulse.deck_hash),
    ]  # fmt: skip


def _readout(bench: ColumnBench, jobs: int | None, cache_dir: str | Path | None, progress: bool) -> list[Record]:
    t, d = bench.technology, bench.readout
    corner, celsius, v = bench.corner, bench.temperature_c, bench.v_read_v
    static = readout_static_deck(
        t, d, corner=corner, temperature_c=celsius, read_v=v, current_max_a=STATIC_MAX_A, points=121
    )
    loops = [loop_gain_deck(t, d, float(i), corner=corner, temperature_c=celsius, read_v=v) for i in LOOP_CURRENTS_A]
    hold_s = max(STEP_HOLD_S, 8 * d.t_lsb_s)
    step_t, step_g = conductance_steps(STEP_LEVELS_S, hold_s)
    step = readout_step_deck(t, d, step_t, step_g, corner=corner, temperature_c=celsius, read_v=v)
    first = run_many([static, step, *loops], jobs, cache_dir, "read-out", progress)
    curves = readout_static(first[0])
    # The ring is driven through the mirror by the regulator's current: the line's plus the bleed.
    reg = np.interp(RATE_CURRENTS_A, curves.current_a, curves.regulator_a)
    gains = [loop_gain(w, float(i)) for w, i in zip(first[2:], LOOP_CURRENTS_A, strict=True)]
    time = np.arange(0, step_t[-1], 25e-12)
    volts = v * STEP_LEVELS_S
    parts = [
        slice(round(k * hold_s / 25e-12), round((k + 1) * hold_s / 25e-12))
        for k in range(1, len(STEP_LEVELS_S))
    ]
    v_step, i_step = (np.interp(time, first[1].time_s, first[1][name]) for name in ("v(bl)", "i(vmir)"))
    n = min(p.stop - p.start for p in parts)
    n = min(n, len(time) - parts[-1].start)
    return [
        Record("readout-dc", "readout_dc", "fit", {},
               {"current_a": curves.current_a, "v_clamp_v": curves.clamp_v, "mirror_a": curves.mirror_a,
                "regulator_a": curves.regulator_a, "supply_a": curves.supply_a}, first[0].deck_hash),
        Record("readout-step", "readout_step", "check", {},
               {"time_s": time[:n], "from_a": volts[:-1], "to_a": volts[1:],
                "v_clamp_v": np.stack([v_step[p.start : p.start + n] for p in parts]),
                "mirror_a": np.stack([i_step[p.start : p.start + n] for p in parts])}, first[1].deck_hash),
        Record("loop-gain", "loop_gain", "check", {},
               {"current_a": LOOP_CURRENTS_A, "frequency_hz": gains[0].frequency_hz,
                "gain_db": np.stack([20 * np.log10(np.abs(g.gain)) for g in gains]),
                "phase_deg": np.stack([g.phase_deg for g in gains]),
                "phase_margin_deg": np.array([g.phase_margin_deg for g in gains])}, first[2].deck_hash),
        rate_record(bench, RATE_CURRENTS_A, reg, jobs, cache_dir, progress),
    ]  # fmt: skip


def rate_record(
    bench: ColumnBench, line_a: np.ndarray, regulator_a: np.ndarray, jobs: int | None, cache_dir: str | Path | None,
    progress: bool,
) -> Record:  # fmt: skip
    """Count rates over the line current, the mirror driven by the regulator's current there, both (n,) [A]."""
    t, d = bench.technology, bench.readout
    where = {"corner": bench.corner, "temperature_c": bench.temperature_c}
    decks = [oscillator_rate_deck(t, d, float(i), **where) for i in regulator_a]
    waves = run_many(decks, jobs, cache_dir, "oscillator", progress)
    rates = []
    for w, i in zip(waves, regulator_a, strict=True):
        try:
            rates.append(oscillator_rate(w, float(i), t.vdd_v))
        except SimulationError:
            # A slow corner's ring turns fewer times than the design's gain promises: give it three times as long.
            longer = oscillator_rate_deck(t, d, float(i), **where, periods=27)
            rates.append(oscillator_rate(run(longer, cache=cache_dir), float(i), t.vdd_v))
    arrays = {
        "current_a": line_a, "count_rate_hz": np.array([r.rate_hz for r in rates]),
        "mirror_a": np.array([r.mirror_a for r in rates]), "supply_a": np.array([r.supply_a for r in rates]),
    }  # fmt: skip
    return Record("oscillator", "oscillator", "fit", {}, arrays, waves[0].deck_hash)


def simulate_columns(
    columns: list[Column], bench: ColumnBench, pulses: dict[float, Pulses], jobs: int | None,
    cache_dir: str | Path | None, progress: bool, idle_rate_hz: float = 1e9,
) -> list[Record]:  # fmt: skip
    """Column records. Lines with a read-out run twice: the line, then its mirror and ring on the recorded current.

    idle_rate_hz: count rate at the end of a window; a phase is read between two edges, so the ring runs on until one more.
    """
    runs = [LineRun(c, v, k) for c in columns for v in range(len(c.codes)) for k in range(len(c.conductance_s))]
    waves = run_many([_line_deck(bench, r, pulses) for r in runs], jobs, cache_dir, "columns", progress)
    read = [(r, w) for r, w in zip(runs, waves, strict=True) if r.column.clamp == "ota" and r.column.role != "check"]
    rings = run_rings(bench, read, pulses, jobs, cache_dir, progress, idle_rate_hz)
    done = {(id(r.column), r.vector, r.line): w for r, w in zip(runs, waves, strict=True)}
    return [_column_record(c, done, rings, pulses[c.position]) for c in columns]


def _line_deck(bench: ColumnBench, r: LineRun, pulses: dict[float, Pulses]) -> Deck:
    c = r.column
    return column_deck(
        bench, f"{c.name} v{r.vector} l{r.line}", conductance_s=c.conductance_s[r.line], codes=c.codes[r.vector],
        cell=CellDesign(c.w_select_um), wire=Wire(scale=c.wire_scale), pulses=pulses[c.position], clamp=c.clamp,
        options=TIGHT if c.role == "floor" else ACCURATE, save_supply=c.supply,
    )  # fmt: skip


def _column_record(
    c: Column, done: dict[tuple[int, int, int], Waveforms], rings: Rings, pulses: Pulses
) -> Record:
    vectors, lines = range(len(c.codes)), range(len(c.conductance_s))
    slots = [[slot_currents(done[id(c), v, k], pulses) for k in lines] for v in vectors]
    arrays: dict[str, np.ndarray] = {
        "conductance_s": c.conductance_s, "codes": c.codes, "slot_edge_s": pulses.slot_edge_s,
    }  # fmt: skip
    for name in slots[0][0]:
        arrays[name] = np.array([[slots[v][k][name] for k in lines] for v in vectors])
    arrays |= ring_arrays(c, rings, pulses.pwm)
    if "i(vdd)" in done[id(c), 0, 0]:
        arrays["vdd_charge_c"] = np.array(
            [[window_charge(done[id(c), v, k], "i(vdd)", pulses, -1.0) for k in lines] for v in vectors]
        )
    attrs: dict[str, str | int | float] = {
        "clamp": c.clamp, "distribution": c.distribution, "wire_scale": c.wire_scale, "r_bit_ohm": Wire().r_bit_ohm,
        "r_return_ohm": Wire().r_return_ohm, "w_select_um": c.w_select_um, "position": c.position, "column": c.column,
    }  # fmt: skip
    if c.of:
        attrs["of"] = c.of
    if c.role == "held_out" and c.distribution == "gaussian" and c.wire_scale == 1.0:
        wave = [overlay(done[id(c), 0, k], pulses) for k in lines]
        arrays["waveform_time_s"] = wave[0]["waveform_time_s"]
        for name in ("waveform_a", "mirror_waveform_a"):
            if name in wave[0]:
                arrays[name] = np.stack([w[name] for w in wave])
        attrs["waveform_vector"] = 0
    hashes = sorted(w.deck_hash for (i, _, _), w in done.items() if i == id(c))
    return Record(c.name, "column", c.role, attrs, arrays, hash_of(hashes))


def hash_of(hashes: list[str]) -> str:
    """One hash for the decks of a record."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
