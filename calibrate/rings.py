"""Mirror and ring of lines that were read out: decks on the recorded regulator current, phases, counts and supply charge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from aimcard.calibrate.columns import Column
from aimcard.models.adc import truncated
from aimcard.models.modes import Mode
from aimcard.netlists.column import LEAD_S, Pulses
from aimcard.netlists.column_decks import AFTER_S, ColumnBench, holds
from aimcard.netlists.ngspice import Deck, Waveforms, run_many
from aimcard.netlists.oscillator import phase_at, phases_between
from aimcard.netlists.oscillator_decks import oscillator_drive_deck


@dataclass(frozen=True)
class LineRun:
    """One line of one vector of a column."""

    column: Column
    vector: int
    line: int


#: Of each line and vector that was read out, by (id of its column, vector, line): phases gained by rule, and the charge
#: that its ring took from its supply [C].
Rings = dict[tuple[int, int, int], tuple[dict[str, np.ndarray], float]]


def run_rings(
    bench: ColumnBench, read: list[tuple[LineRun, Waveforms]], pulses: dict[float, Pulses], jobs: int | None,
    cache_dir: str | Path | None, progress: bool, idle_rate_hz: float,
) -> Rings:  # fmt: skip
    """Mirror and ring under the current that each line's regulator was recorded to draw; arguments as `simulate_columns`."""
    decks = [d for r, w in read for d in _ring_decks(bench, r, w, idle_rate_hz, pulses[r.column.position])]
    waves = run_many(decks, jobs, cache_dir, "oscillators", progress)
    each = len(waves) // max(len(read), 1)
    found: Rings = {}
    for k, (r, _) in enumerate(read):
        own, p = waves[each * k : each * (k + 1)], pulses[r.column.position]
        phases = _phases(bench, own, p, idle_rate_hz)
        found[id(r.column), r.vector, r.line] = phases, window_charge(own[0], "i(voscdd)", p, -1.0)
    return found


def window_charge(waves: Waveforms, signal: str, pulses: Pulses, sign: float = 1.0) -> float:
    """Integral of a current over the window [C]."""
    span = [LEAD_S, pulses.stop_s]
    return sign * float(waves.slot_means(signal, span)[0]) * (span[1] - span[0])


def held_on(time_s: np.ndarray, current_a: np.ndarray, idle_rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """A recorded current whose last value lasts until an idle ring has passed one more edge: a phase is read between two."""
    hold_s = max(0.0, 1.25 / idle_rate_hz - AFTER_S)
    return (np.append(time_s, time_s[-1] + hold_s), np.append(current_a, current_a[-1])) if hold_s > 0 else (time_s, current_a)


def _ring_decks(bench: ColumnBench, r: LineRun, w: Waveforms, idle_rate_hz: float, pulses: Pulses) -> list[Deck]:
    """The ring that runs on through all phases, and, where there are several, the one held between them."""
    time_s, current_a = held_on(w.time_s, w["i(vreg)"], idle_rate_hz)
    kinds = {"ring": ()} if len(pulses.pwm.phases) == 1 else {"ring": (), "held ring": holds(pulses)}
    return [
        oscillator_drive_deck(
            bench.technology, bench.readout, time_s, current_a, release_s=LEAD_S, holds=held,
            name=f"{kind} {r.column.name} v{r.vector} l{r.line}", corner=bench.corner, temperature_c=bench.temperature_c,
        )
        for kind, held in kinds.items()
    ]  # fmt: skip


def _phases(bench: ColumnBench, rings: list[Waveforms], pulses: Pulses, idle_rate_hz: float) -> dict[str, np.ndarray]:
    """Phases gained in each PWM phase [counts], (phases,): "carry" of a free ring; "reset" of one held between phases."""
    level = bench.technology.vdd_v / 2
    windows = pulses.phase_windows_s()
    free = phase_at(rings[0], [end for _, end in windows], released_s=LEAD_S, level_v=level)
    found = {"carry": np.diff(free, prepend=0.0)}
    if len(rings) > 1:
        closes = [*(a for a, _ in holds(pulses)), windows[-1][1]]
        gates = [(begin, close) for (begin, _), close in zip(windows, closes, strict=True)]
        found["reset"] = phases_between(rings[1], gates, level_v=level, idle_rate_hz=idle_rate_hz)
    return found


def ring_arrays(c: Column, rings: Rings, mode: Mode) -> dict[str, np.ndarray]:
    """What a column's record holds of its rings: phases, counts, supply charge; nothing where none ran."""
    if (id(c), 0, 0) not in rings:
        return {}
    each = [[rings[id(c), v, k] for k in range(len(c.conductance_s))] for v in range(len(c.codes))]
    counts = _counts([[phases for phases, _ in line] for line in each], mode)
    return counts | {"oscillator_charge_c": np.array([[charge for _, charge in line] for line in each])}


def _counts(phases: list[list[dict[str, np.ndarray]]], mode: Mode) -> dict[str, np.ndarray]:
    """A record's arrays of counts, from each vector's and line's phases by rule."""
    if len(mode.phases) == 1:
        (phase,) = np.moveaxis(np.array([[p["carry"] for p in line] for line in phases]), -1, 0)
        return {"phase_count": phase, "count": np.floor(phase).astype(np.int64)}
    arrays: dict[str, np.ndarray] = {}
    for rule, prefix in (("reset", ""), ("carry", "free_")):
        gained = np.array([[p[rule] for p in line] for line in phases])
        arrays[f"{prefix}phase_counts"] = gained
        arrays[f"{prefix}counts"] = truncated(torch.as_tensor(gained), rule).numpy().astype(np.int64)
    weights = np.array(mode.weights)
    return arrays | {"phase_count": arrays["phase_counts"] @ weights, "count": arrays["counts"] @ weights}
