"""Netlists to reference set for the tied topology: cells, source-line edges, fitted and held-out columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aimcard.calibrate.columns import CODE_MAX, POSITIONS, ROWS, Column
from aimcard.calibrate.counter_reach import counter_meta
from aimcard.calibrate.plan import Options, plan
from aimcard.calibrate.rings import LineRun, Rings, ring_arrays, run_rings
from aimcard.calibrate.simulate import hash_of, rate_record
from aimcard.calibrate.tied_columns import PairColumn
from aimcard.calibrate.tied_supplies import source_supply_record, supply_arrays
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.adc import HOLD_S, PHASE_RULES
from aimcard.models.pcm import G_MAX_S, G_MIN_S
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, overlay, slot_currents
from aimcard.netlists.levels import V_COMMON_V
from aimcard.netlists.ngspice import Deck, Waveforms, run, run_many, simulator_version
from aimcard.netlists.oscillator import COUNTS_PER_PERIOD
from aimcard.netlists.readout_decks import loop_gain
from aimcard.netlists.source_edges import EDGES, SourceLines, source_lines
from aimcard.netlists.tied import TIED_OPTIONS, TIED_TIGHT, SourceEdges, tied_column_deck
from aimcard.netlists.tied_cell_decks import tied_cell_arrays, tied_cell_deck
from aimcard.netlists.tied_driver import TiedDriverDesign, default_tied_driver
from aimcard.netlists.tied_readout import default_tied_readout, tied_loop_gain_deck, tied_static_deck

#: Column voltages about the common mode [V] (first, last, points), and the three levels of a source line.
V_COLUMN_GRID = (V_COMMON_V - 0.02, V_COMMON_V + 0.02, 5)
#: Line currents of the read-out's static curves and the ring's rate [A]: below minus the bias the regulator lets go.
READOUT_A = (-170e-6, 200e-6)
LOOP_CURRENTS_A = np.linspace(-170e-6, 170e-6, 5)


def simulate_tied(
    options: Options, cache_dir: str | Path | None = None, progress: bool = True, columns: Sequence[Column] | None = None
) -> ReferenceSet:
    """The whole reference set of ``options`` with topology tied; as ``calibrate.simulate.simulate`` otherwise."""
    technology = options.pdk
    bench = ColumnBench(technology, options.corner, options.temperature_c, options.readout)
    t_lsb_s = bench.readout.t_lsb_s
    design = default_tied_driver(technology)
    lines = source_lines(technology, options.corner, options.temperature_c, design, t_lsb_s=t_lsb_s,
                         v_read_v=bench.v_read_v, cache_dir=cache_dir)  # fmt: skip
    edges = dict(zip(POSITIONS, lines.straight.values(), strict=True))
    pulses = Pulses(t_lsb_s, delay_s=design.edge_delay_s, mode=options.mode)
    records = [source_record(edges, pulses, lines, design), cell_record(options, bench, cache_dir)]
    records.append(source_supply_record(options, design, t_lsb_s, bench.v_read_v, cache_dir, progress))
    records += readout_records(bench, options.jobs, cache_dir, progress)
    reach = counter_meta(records[-1], bench, "tied")
    idle_rate_hz = float(np.interp(0.0, records[-1]["current_a"], records[-1]["count_rate_hz"]))
    asked = [c for c in (plan(options) if columns is None else columns) if isinstance(c, PairColumn)]
    records += simulate_pairs(asked, bench, pulses, edges, options.jobs, cache_dir, progress, idle_rate_hz)
    wire = Wire()
    meta: dict[str, str | int | float] = {
        "technology": technology.name, "corner": options.corner, "temperature_c": options.temperature_c,
        "vdd_v": technology.vdd_v, "v_read_v": bench.v_read_v, "v_common_v": V_COMMON_V, "t_lsb_s": pulses.t_lsb_s,
        "code_max": CODE_MAX, "mode": options.mode, "topology": "tied", "simulator": simulator_version(),
        "guard_slots": pulses.guard, "edge_delay_s": pulses.delay_s, "rows": ROWS, "w_ref_um": options.w_ref_um,
        "w_min_um": options.w_range_um[0], "r_bit_ohm": wire.r_bit_ohm, "r_return_ohm": 0.0, "c_bit_f": wire.c_bit_f,
        "bias_a": default_tied_readout(technology).bias_a, "mirror_ratio": float(bench.readout.mirror_ratio),
        "seed": options.seed, "effort": options.effort,
        "counts_per_period": COUNTS_PER_PERIOD, "phase_rule": PHASE_RULES[0], "hold_s": HOLD_S, **reach,
    }  # fmt: skip
    return ReferenceSet(meta, records)


def edge_record(edges: dict[float, SourceEdges], pulses: Pulses) -> Record:
    """Equal-area delays of the four edges after the slot boundary, over the position."""
    arrays = {f"{n}_delay_s": np.array([getattr(e, n).delay_s for e in edges.values()]) + pulses.delay_s for n in EDGES}
    return Record("source-edge", "source_edge", "fit", {}, {"position": np.array(list(edges)), **arrays})


def source_record(
    edges: dict[float, SourceEdges], pulses: Pulses, lines: SourceLines, design: TiedDriverDesign
) -> Record:
    """Delays and gains of the simulated source lines, their recorded edges, and what loads them."""
    record = edge_record(edges, pulses)
    levels = {f"{name}_level": lines.level[:, k] for k, name in enumerate(EDGES)}
    arrays = record.arrays | {"down_gain": lines.gain[:, 0], "up_gain": lines.gain[:, 1], "time_s": lines.time_s} | levels
    attrs: dict[str, str | int | float] = {
        "columns": design.columns, "load_s": design.load_s, "r_row_ohm": design.r_row_ohm, "c_row_f": design.c_row_f,
        "common_delay_s": lines.common_delay_s,
    }  # fmt: skip
    return Record(record.name, record.kind, record.role, attrs, arrays, lines.deck_hash)


def cell_record(options: Options, bench: ColumnBench, cache_dir: str | Path | None) -> Record:
    """Static currents of always-on cells over their column's and source line's voltage."""
    lo, hi = options.w_range_um
    widths, g = np.unique([lo, 0.5 * (lo + hi), hi]), np.geomspace(G_MIN_S, 1.2 * G_MAX_S, 12)
    sources = (V_COMMON_V - bench.v_read_v, V_COMMON_V + bench.v_read_v, 3)
    deck = tied_cell_deck(options.pdk, options.corner, options.temperature_c, g, widths, V_COLUMN_GRID, sources)
    dc = run(deck, cache=cache_dir)
    arrays = tied_cell_arrays(dc, bench.technology.vdd_v, g, widths, V_COLUMN_GRID, sources)
    return Record("cell-dc", "cell_dc", "fit", {}, arrays, dc.deck_hash)


def readout_records(bench: ColumnBench, jobs: int | None, cache_dir: str | Path | None, progress: bool) -> list[Record]:
    """Static curves of the regulator on its bias, its loop gain on a column of 4 mS, and the ring's rate, which comes last."""
    t, where = bench.technology, {"corner": bench.corner, "temperature_c": bench.temperature_c}
    least, most = READOUT_A
    decks = [tied_static_deck(t, bench.readout, current_min_a=least, current_max_a=most, points=75, **where)]
    decks += [tied_loop_gain_deck(t, bench.readout, float(i), **where) for i in LOOP_CURRENTS_A]
    static, *waves = run_many(decks, jobs, cache_dir, "read-out", progress)
    gains = [loop_gain(w, float(i)) for w, i in zip(waves, LOOP_CURRENTS_A, strict=True)]
    arrays = {
        "current_a": static.scale, "v_clamp_v": static["v(bl)"], "mirror_a": static["i(vmir)"],
        "regulator_a": static["i(vreg)"], "supply_a": -static["i(vdd)"],
    }  # fmt: skip
    # Every second point of the static curves: the ring's rate is as smooth as they are.
    return [
        Record("readout-dc", "readout_dc", "fit", {}, arrays, static.deck_hash),
        Record("loop-gain", "loop_gain", "check", {},
               {"current_a": LOOP_CURRENTS_A, "frequency_hz": gains[0].frequency_hz,
                "gain_db": np.stack([20 * np.log10(np.abs(g.gain)) for g in gains]),
                "phase_deg": np.stack([g.phase_deg for g in gains]),
                "phase_margin_deg": np.array([g.phase_margin_deg for g in gains])}, waves[0].deck_hash),
        rate_record(bench, static.scale[::2], static["i(vreg)"][::2], jobs, cache_dir, progress),
    ]  # fmt: skip


def pair_deck(
    c: PairColumn, vector: int, line: int, bench: ColumnBench, pulses: Pulses, edges: dict[float, SourceEdges]
) -> Deck:
    """The deck of one vector of one line of a record."""
    return tied_column_deck(
        bench, f"{c.name} v{vector} l{line}", g_plus_s=c.conductance_s[line], g_minus_s=c.conductance_minus_s[line],
        codes=c.codes[vector], cell=CellDesign(c.w_select_um), wire=Wire(scale=c.wire_scale), pulses=pulses,
        edges=edges[c.position], clamp=c.clamp, read_out=c.read_out,
        options=TIED_TIGHT if c.role == "floor" else TIED_OPTIONS, save_supply=c.supply,
    )  # fmt: skip


def simulate_pairs(
    columns: list[PairColumn], bench: ColumnBench, pulses: Pulses, edges: dict[float, SourceEdges], jobs: int | None,
    cache_dir: str | Path | None, progress: bool, idle_rate_hz: float = 1e9,
) -> list[Record]:  # fmt: skip
    """Column records of tied columns; those with a read-out run twice, as ``calibrate.simulate.simulate_columns`` says."""
    each = [(c, v, k) for c in columns for v in range(len(c.codes)) for k in range(len(c.conductance_s))]
    waves = run_many([pair_deck(*one, bench, pulses, edges) for one in each], jobs, cache_dir, "columns", progress)
    read = [(LineRun(*one), w) for one, w in zip(each, waves, strict=True) if one[0].clamp == "ota" and one[0].role != "check"]
    rings = run_rings(bench, read, dict.fromkeys(edges, pulses), jobs, cache_dir, progress, idle_rate_hz)
    done = iter(waves)
    return [_pair_record(c, [[next(done) for _ in c.conductance_s] for _ in c.codes], pulses, rings) for c in columns]


def _pair_record(c: PairColumn, waves: list[list[Waveforms]], pulses: Pulses, rings: Rings) -> Record:
    arrays: dict[str, np.ndarray] = {
        "conductance_s": c.conductance_s, "conductance_minus_s": c.conductance_minus_s, "codes": c.codes,
        "slot_edge_s": pulses.slot_edge_s,
    }  # fmt: skip
    slots = [[slot_currents(w, pulses) for w in vector] for vector in waves]
    arrays |= {name: np.array([[line[name] for line in vector] for vector in slots]) for name in slots[0][0]}
    arrays |= ring_arrays(c, rings, pulses.pwm)
    arrays |= supply_arrays(c, waves, pulses)
    attrs: dict[str, str | int | float] = {
        "clamp": c.clamp, "distribution": c.distribution, "wire_scale": c.wire_scale, "r_bit_ohm": Wire().r_bit_ohm,
        "r_return_ohm": 0.0, "w_select_um": c.w_select_um, "position": c.position, "column": c.column,
        "read_out": c.read_out,
    }  # fmt: skip
    if c.of:
        attrs["of"] = c.of
    if c.role == "held_out" and c.distribution == "gaussian" and c.wire_scale == 1.0:
        wave = [overlay(w, pulses) for w in waves[0]]
        arrays["waveform_time_s"] = wave[0]["waveform_time_s"]
        for name in ("waveform_a", "mirror_waveform_a"):
            if name in wave[0]:
                arrays[name] = np.stack([w[name] for w in wave])
        attrs["waveform_vector"] = 0
    return Record(c.name, "column", c.role, attrs, arrays, hash_of([w.deck_hash for v in waves for w in v]))
