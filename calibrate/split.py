"""Whether the read-out may be cut at the mirror's input: the split flow against one deck of all of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from aimcard.calibrate.columns import ROWS, pair_conductances
from aimcard.data.reference import Record
from aimcard.models.errors import InputError
from aimcard.models.pcm import G_MAX_S
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.column import LEAD_S, Pulses, Wire
from aimcard.netlists.column_decks import ColumnBench, column_deck
from aimcard.netlists.ngspice import run_many
from aimcard.netlists.oscillator import phase_at
from aimcard.netlists.oscillator_decks import RING_OPTIONS, oscillator_drive_deck

#: A short window: the whole read-out in one deck costs 512 rows a time point every 2 ps.
SHORT = Pulses(code_max=31, guard=4)


def split_check(
    bench: ColumnBench, pulses: Pulses = SHORT, *, rows: int = ROWS, vectors: int = 1, seed: int = 1,
    g_max_s: float = G_MAX_S, cell: CellDesign | None = None, wire: Wire | None = None,
    jobs: int | None = None, cache_dir: str | Path | None = None, progress: bool = False,
) -> Record:  # fmt: skip
    """One line of normal weights under normal inputs (half its rows idle), read both ways at the window's end.

    Split: the line with regulator and mirror (the oscillator's input as load), then mirror and ring under its
    recorded i(vreg), at the reference set's settings. Full: all of it in one deck, at the ring's. The record (kind
    ``split_check``) holds both phases [counts], (vectors,), and as ``extra_split_mirror_c`` and ``extra_full_mirror_c``
    the mirror's charge over the window [C], (vectors,). ``extra_same_step_phase_count`` and
    ``extra_same_step_mirror_c`` are the split flow's at the full deck's time step: the cut alone is left.
    Raises InputError for less than one row or vector, and as ``run_many``.
    """
    for name, value in (("rows", rows), ("vectors", vectors)):
        if value < 1:
            raise InputError(f"{name}: expected 1 or more; got {value}")
    cell = cell if cell is not None else CellDesign()
    wire = wire if wire is not None else Wire()
    rng = np.random.default_rng([seed, 43])
    g = pair_conductances(rng, g_max_s, rows)[0]
    inputs = rng.normal(0.0, pulses.code_max / 3, (vectors, rows))
    codes = np.clip(np.round(inputs), 0, pulses.code_max).astype(np.int64)
    settings: dict[str, tuple[str, dict[str, Any]]] = {
        "split": ("ota", {}),
        "same_step": ("ota", {"options": RING_OPTIONS, "step_s": bench.readout.ring_step_s}),
        "full": ("full", {"options": RING_OPTIONS}),
    }
    decks = [
        column_deck(
            bench, f"split check {key} v{v}", conductance_s=g, codes=x, cell=cell, wire=wire, pulses=pulses,
            clamp=clamp, **how,
        )
        for key, (clamp, how) in settings.items()
        for v, x in enumerate(codes)
    ]  # fmt: skip
    waves = run_many(decks, jobs, cache_dir, "split check: columns", progress)
    lines = {key: waves[k * vectors : (k + 1) * vectors] for k, key in enumerate(settings)}
    drives = [
        oscillator_drive_deck(
            bench.technology, bench.readout, w.time_s, w["i(vreg)"], release_s=LEAD_S,
            name=f"split check ring {key} v{v}", corner=bench.corner, temperature_c=bench.temperature_c,
        )
        for key in ("split", "same_step")
        for v, w in enumerate(lines[key])
    ]  # fmt: skip
    rings = run_many(drives, jobs, cache_dir, "split check: rings", progress)
    counted = {"split": rings[:vectors], "same_step": rings[vectors:], "full": lines["full"]}
    window, level = [LEAD_S, pulses.stop_s], bench.technology.vdd_v / 2
    arrays: dict[str, np.ndarray] = {}
    for key, name in (("split", ""), ("full", ""), ("same_step", "extra_")):
        phases = [phase_at(w, window[1:], released_s=LEAD_S, level_v=level)[0] for w in counted[key]]
        means = [w.slot_means("i(vmir)", window)[0] for w in lines[key]]
        arrays[f"{name}{key}_phase_count"] = np.array(phases)
        arrays[f"extra_{key}_mirror_c"] = np.array(means) * (window[1] - window[0])
    attrs: dict[str, str | int | float] = {
        "rows": rows, "code_max": pulses.code_max, "g_max_s": g_max_s, "w_select_um": cell.w_select_um, "seed": seed,
    }  # fmt: skip
    hashes = "".join(w.deck_hash for w in (*waves, *rings))
    return Record("split-check", "split_check", "check", attrs, arrays, hashlib.sha256(hashes.encode()).hexdigest())
