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


def noise_tables(
    bench: ColumnBench, tables: Mapping[str, tuple[Tensor, Tensor]], *, cache_dir: str | Path | None = None
) -> tuple[list[Table], tuple[str, ...]]:
    """White and flicker tables by source, over the line current, and the hashes of their decks.

    ``tables``: the card's, of which ``adc`` and ``mirror`` say how a rate follows its current: relative noise of the current
    times d ln rate/d ln mirror current. The stages' own noise joins the oscillator's without that factor (`jitter_check`).
    """
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
    gain = rate_exponent(tables, NOISE_CURRENTS_A) ** 2
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
    return out, tuple(w.deck_hash for w in waves)


def rate_exponent(tables: Mapping[str, tuple[Tensor, Tensor]], current_a: np.ndarray) -> np.ndarray:
    """d ln rate/d ln mirror current at line currents [A], same shape: 1 for a ring whose rate is proportional."""
    i = torch.from_numpy(np.array(current_a))
    log_slope = {name: lookup_slope(*tables[name], i) / lookup(*tables[name], i) for name in ("adc", "mirror")}
    return (log_slope["adc"] / log_slope["mirror"]).numpy()


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
