"""Noise of a read-out, from ngspice's spectra to the tables of a card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aimcard.models.card_parts import Table
from aimcard.models.lut import lookup, lookup_slope
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.ngspice import run_many
from aimcard.netlists.noise_decks import Jitter, jitter, jitter_deck, readout_noise, readout_noise_deck, stage_current_deck

#: Sources of a gated line.
SOURCES = ("cells", "regulator", "mirror", "oscillator")
#: Line currents of the noise tables [A].
NOISE_CURRENTS_A = np.array([0.0, 5.0, 15.0, 40.0, 80.0, 150.0, 250.0, 450.0]) * 1e-6
#: Half of the distance of two operating points, as a share of the current between them, and at least [A].
SLOPE_STEP, LEAST_STEP_A = 0.02, 0.25e-6


def noise_tables(
    bench: ColumnBench, tables: Mapping[str, tuple[Tensor, Tensor]], *, cache_dir: str | Path | None = None
) -> tuple[list[Table], tuple[str, ...]]:
    """White and flicker tables by source, over the line current, and the hashes of their decks.

    ``tables``: the card's, of which ``adc`` says how a rate follows the line's current: relative noise of a stage's current
    times d ln rate/d ln stage current. The stages' own noise joins the oscillator's without that factor (`jitter_check`).
    """
    stage, point_hashes = stage_log_slope(bench, NOISE_CURRENTS_A, cache_dir=cache_dir)
    waves = run_many(
        [
            readout_noise_deck(
                bench.technology, bench.readout, float(i),
                corner=bench.corner, temperature_c=bench.temperature_c, read_v=bench.v_read_v,
            )
            for i in NOISE_CURRENTS_A
        ],
        1, cache_dir, progress=False,
    )  # fmt: skip
    i = torch.from_numpy(NOISE_CURRENTS_A)
    gain = ((lookup_slope(*tables["adc"], i) / lookup(*tables["adc"], i)).numpy() / stage) ** 2
    found = [readout_noise(w) for w in waves]
    out = []
    for source in SOURCES:
        for k, (kind, unit) in enumerate((("white", "1/Hz"), ("flicker", "1"))):
            values = gain * np.array([f[source][k] for f in found])
            if source == "oscillator":
                values = values + np.array([f["stages"][k] for f in found])
            text = f"relative rate noise of the {source}, one-sided density: white + flicker/f"
            name = f"noise_{source}_{kind}"
            out.append(Table(name, NOISE_CURRENTS_A, values, "A", unit, "line current", f"{kind} noise", text))
    return out, (*(w.deck_hash for w in waves), *point_hashes)


def stage_log_slope(
    bench: ColumnBench, current_a: np.ndarray, *, cache_dir: str | Path | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """d ln(stage current)/d(line current) [1/A] at line currents [A], same shape, and the hashes of its operating points.

    A stage's current is the geometric mean of its two starving transistors'. Differences of two operating points,
    ``SLOPE_STEP`` apart; without cells the line's current only rises.
    """
    step = np.maximum(SLOPE_STEP * current_a, LEAST_STEP_A)
    ends = np.stack([np.maximum(current_a - step, 0.0), current_a + step])
    waves = run_many(
        [
            stage_current_deck(
                bench.technology, bench.readout, float(i),
                corner=bench.corner, temperature_c=bench.temperature_c, read_v=bench.v_read_v,
            )
            for i in ends.ravel()
        ],
        1, cache_dir, progress=False,
    )  # fmt: skip
    line, n, p = (np.array([abs(float(w[f"i({v})"][0])) for w in waves]).reshape(ends.shape) for v in ("vreg", "vsn", "vsp"))
    return np.diff(0.5 * np.log(n * p), axis=0)[0] / np.diff(line, axis=0)[0], tuple(w.deck_hash for w in waves)


def jitter_check(
    bench: ColumnBench, current_a: float, *, relative_per_hz: float = 1e-12, seed: int = 1, periods: int = 400,
    cache_dir: str | Path | None = None,
) -> Jitter:  # fmt: skip
    """The ring at a line current, with white noise of this relative density injected across its starving transistors.

    ``Jitter.white_per_hz`` should come back as ``relative_per_hz``, and ``Jitter.exponent`` as 1.
    """
    where = {"corner": bench.corner, "temperature_c": bench.temperature_c}
    rest = run_many(
        [stage_current_deck(bench.technology, bench.readout, current_a, **where, read_v=bench.v_read_v)],
        1, cache_dir, progress=False,
    )[0]  # fmt: skip
    reg, n, p = (float(rest[f"i({name})"][0]) for name in ("vreg", "vsn", "vsp"))
    deck = jitter_deck(
        bench.technology, bench.readout, reg, (relative_per_hz * n * n, relative_per_hz * p * p),
        seed=seed, periods=periods, **where,
    )  # fmt: skip
    return jitter(run_many([deck], 1, cache_dir, progress=False)[0], bench.technology.vdd_v)
