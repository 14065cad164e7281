"""Netlists to reference set for the tied topology: cells, source-line edges, fitted and held-out columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aimcard.calibrate.columns import CODE_MAX, G_MAX_S, G_MIN_S, POSITIONS, ROWS, Column
from aimcard.calibrate.plan import Options, plan
from aimcard.calibrate.simulate import hash_of
from aimcard.calibrate.tied_columns import PairColumn
from aimcard.data.reference import Record, ReferenceSet
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, overlay, slot_currents
from aimcard.netlists.ngspice import Deck, Waveforms, run, run_many, simulator_version
from aimcard.netlists.readout import default_readout
from aimcard.netlists.readout_decks import loop_gain
from aimcard.netlists.tied import TIED_OPTIONS, TIED_TIGHT, V_COMMON_V, SourceEdges, tied_column_deck
from aimcard.netlists.tied_cell_decks import tied_cell_arrays, tied_cell_deck
from aimcard.netlists.tied_readout import default_tied_readout, tied_loop_gain_deck, tied_static_deck

#: Column voltages about the common mode [V] (first, last, points), and the three levels of a source line.
V_COLUMN_GRID = (V_COMMON_V - 0.02, V_COMMON_V + 0.02, 5)
#: Line currents of the regulator's static curves end here [A]: below minus the bias it lets go.
READOUT_MAX_A = 170e-6
EDGES = ("down_start", "down_end", "up_start", "up_end")


def simulate_tied(
    options: Options, cache_dir: str | Path | None = None, progress: bool = True, columns: Sequence[Column] | None = None
) -> ReferenceSet:
    """The whole reference set of ``options`` with topology tied; as ``calibrate.simulate.simulate`` otherwise."""
    technology = options.pdk
    bench = ColumnBench(technology, options.corner, options.temperature_c, default_readout(technology))
    t_lsb_s = bench.readout.t_lsb_s if options.lsb_ns is None else options.lsb_ns * 1e-9
    edges, pulses = {place: SourceEdges() for place in POSITIONS}, Pulses(t_lsb_s, mode=options.mode)
    records = [edge_record(edges, pulses), cell_record(options, bench, cache_dir)]
    records += readout_records(bench, cache_dir)
    asked = [c for c in (plan(options) if columns is None else columns) if isinstance(c, PairColumn)]
    records += simulate_pairs(asked, bench, pulses, edges, options.jobs, cache_dir, progress)
    wire = Wire()
    meta: dict[str, str | int | float] = {
        "technology": technology.name, "corner": options.corner, "temperature_c": options.temperature_c,
        "vdd_v": technology.vdd_v, "v_read_v": bench.v_read_v, "v_common_v": V_COMMON_V, "t_lsb_s": pulses.t_lsb_s,
        "code_max": CODE_MAX, "mode": options.mode, "topology": "tied", "simulator": simulator_version(),
        "guard_slots": pulses.guard, "edge_delay_s": pulses.delay_s, "rows": ROWS, "w_ref_um": options.w_ref_um,
        "w_min_um": options.w_range_um[0], "r_bit_ohm": wire.r_bit_ohm, "r_return_ohm": 0.0, "c_bit_f": wire.c_bit_f,
        "bias_a": default_tied_readout(technology).bias_a, "mirror_ratio": float(bench.readout.mirror_ratio),
        "seed": options.seed, "effort": options.effort,
    }  # fmt: skip
    return ReferenceSet(meta, records)


def edge_record(edges: dict[float, SourceEdges], pulses: Pulses) -> Record:
    """Equal-area delays of the four edges after the slot boundary, over the position."""
    arrays = {f"{n}_delay_s": np.array([getattr(e, n).delay_s for e in edges.values()]) + pulses.delay_s for n in EDGES}
    return Record("source-edge", "source_edge", "fit", {}, {"position": np.array(list(edges)), **arrays})


def cell_record(options: Options, bench: ColumnBench, cache_dir: str | Path | None) -> Record:
    """Static currents of always-on cells over their column's and source line's voltage."""
    lo, hi = options.w_range_um
    widths, g = np.unique([lo, 0.5 * (lo + hi), hi]), np.geomspace(G_MIN_S, 1.2 * G_MAX_S, 12)
    sources = (V_COMMON_V - bench.v_read_v, V_COMMON_V + bench.v_read_v, 3)
    deck = tied_cell_deck(options.pdk, options.corner, options.temperature_c, g, widths, V_COLUMN_GRID, sources)
    dc = run(deck, cache=cache_dir)
    arrays = tied_cell_arrays(dc, bench.technology.vdd_v, g, widths, V_COLUMN_GRID, sources)
    return Record("cell-dc", "cell_dc", "fit", {}, arrays, dc.deck_hash)


def readout_records(bench: ColumnBench, cache_dir: str | Path | None) -> list[Record]:
    """Static curves of the regulator on its bias, and its loop gain on a column of 4 mS."""
    where = {"corner": bench.corner, "temperature_c": bench.temperature_c}
    limit = READOUT_MAX_A
    deck = tied_static_deck(bench.technology, bench.readout, current_max_a=limit, points=69, **where)
    static = run(deck, cache=cache_dir)
    loads = np.linspace(-limit, limit, 5)
    waves = [run(tied_loop_gain_deck(bench.technology, bench.readout, float(i), **where), cache=cache_dir) for i in loads]
    gains = [loop_gain(w, float(i)) for w, i in zip(waves, loads, strict=True)]
    return [
        Record("readout-dc", "readout_dc", "fit", {},
               {"current_a": static.scale, "v_clamp_v": static["v(bl)"], "mirror_a": static["i(vmir)"]}, static.deck_hash),
        Record("loop-gain", "loop_gain", "check", {},
               {"current_a": loads, "frequency_hz": gains[0].frequency_hz,
                "gain_db": np.stack([20 * np.log10(np.abs(g.gain)) for g in gains]),
                "phase_deg": np.stack([g.phase_deg for g in gains]),
                "phase_margin_deg": np.array([g.phase_margin_deg for g in gains])}, waves[0].deck_hash),
    ]  # fmt: skip


def pair_deck(
    c: PairColumn, vector: int, line: int, bench: ColumnBench, pulses: Pulses, edges: dict[float, SourceEdges]
) -> Deck:
    """The deck of one vector of one line of a record."""
    return tied_column_deck(
        bench, f"{c.name} v{vector} l{line}", g_plus_s=c.conductance_s[line], g_minus_s=c.conductance_minus_s[line],
        codes=c.codes[vector], cell=CellDesign(c.w_select_um), wire=Wire(scale=c.wire_scale), pulses=pulses,
        edges=edges[c.position], clamp=c.clamp, read_out=c.read_out,
        options=TIED_TIGHT if c.role == "floor" else TIED_OPTIONS,
    )  # fmt: skip


def simulate_pairs(
    columns: list[PairColumn], bench: ColumnBench, pulses: Pulses, edges: dict[float, SourceEdges], jobs: int | None,
    cache_dir: str | Path | None, progress: bool,
) -> list[Record]:  # fmt: skip
    """Column records of tied columns."""
    runs = [(c, v, k) for c in columns for v in range(len(c.codes)) for k in range(len(c.conductance_s))]
    decks = [pair_deck(c, v, k, bench, pulses, edges) for c, v, k in runs]
    waves = iter(run_many(decks, jobs, cache_dir, "columns", progress))
    return [_pair_record(c, [[next(waves) for _ in c.conductance_s] for _ in c.codes], pulses) for c in columns]


def _pair_record(c: PairColumn, waves: list[list[Waveforms]], pulses: Pulses) -> Record:
    arrays: dict[str, np.ndarray] = {
        "conductance_s": c.conductance_s, "conductance_minus_s": c.conductance_minus_s, "codes": c.codes,
        "slot_edge_s": pulses.slot_edge_s,
        "current_a": np.array([[slot_currents(w, pulses)["current_a"] for w in vector] for vector in waves]),
    }  # fmt: skip
    attrs: dict[str, str | int | float] = {
        "clamp": c.clamp, "distribution": c.distribution, "wire_scale": c.wire_scale, "r_bit_ohm": Wire().r_bit_ohm,
        "r_return_ohm": 0.0, "w_select_um": c.w_select_um, "position": c.position, "column": c.column,
        "read_out": c.read_out,
    }  # fmt: skip
    if c.of:
        attrs["of"] = c.of
    if c.role == "held_out" and c.distribution == "gaussian" and c.wire_scale == 1.0:
        wave = [overlay(w, pulses) for w in waves[0]]
        arrays |= {
            "waveform_time_s": wave[0]["waveform_time_s"], "waveform_a": np.stack([w["waveform_a"] for w in wave]),
        }  # fmt: skip
        attrs["waveform_vector"] = 0
    return Record(c.name, "column", c.role, attrs, arrays, hash_of([w.deck_hash for v in waves for w in v]))
