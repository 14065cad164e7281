"""Noise of a tied read-out, from ngspice's spectra to the tables of a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aimcard.models.card_parts import Table
from aimcard.models.lut import lookup, lookup_slope
from aimcard.models.noise import COLUMN_POWERS, SINK, SOURCES
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.ngspice import run_many
from aimcard.netlists.noise_decks import readout_noise
from aimcard.netlists.tied_noise import TIED_SOURCES, NoiseColumn, NoisePoint, tied_noise_deck, tied_point, tied_point_deck

#: Where between the converter's least and largest current the tables have points: the relative noise rises towards the least.
GIVES_BACK, DRAWS = np.array([1.0, 0.94, 0.85, 0.72, 0.55, 0.3]), np.array([0.0, 0.3, 0.65, 1.0])
#: Conductances of the columns, in units of what the largest current at the read voltage needs.
CONDUCTANCES = np.array([1.2, 2.0, 4.0])
KINDS = (("white", "/Hz"), ("flicker", ""))


@dataclass(frozen=True, eq=False)
class TiedNoise:
    """Spectra over line currents (currents,) [A] and columns: what each point is, and (white, flicker) by source there.

    r_out_ohm (currents,): of the regulator at rest.
    """

    current_a: np.ndarray
    r_out_ohm: np.ndarray
    points: tuple[tuple[NoisePoint, ...], ...]
    found: tuple[tuple[dict[str, tuple[float, float]], ...], ...]
    deck_hashes: tuple[str, ...]

    def of_points(self, name: str) -> np.ndarray:
        """A field of the points, (currents, columns)."""
        return np.array([[getattr(p, name) for p in row] for row in self.points])

    def seen(self, source: str, kind: int) -> np.ndarray:
        """Density of a source at the stage, (currents, columns); kind 0 white [1/Hz], 1 flicker."""
        return np.array([[f[source][kind] for f in row] for row in self.found])

    def injected(self, source: str, kind: int) -> np.ndarray:
        """The same as a current into the column's node [A²/Hz], [A²]: the loop and the stage's law taken off."""
        taken = 1 + self.r_out_ohm[:, None] * self.of_points("conductance_s")
        return self.seen(source, kind) * (taken / self.of_points("log_slope_per_a")) ** 2


def simulate_tied_noise(
    bench: ColumnBench, tables: Mapping[str, tuple[Tensor, Tensor]], *, cache_dir: str | Path | None = None
) -> TiedNoise:
    """The spectra that a card's tables are made of, over the currents of its table ``adc``."""
    least, most = (float(tables["adc"][0][k]) for k in (0, -1))
    current = np.concatenate([least * GIVES_BACK, most * DRAWS])
    r_out = -lookup_slope(*tables["clamp"], torch.from_numpy(current)).numpy()
    needed = max(-least, most) / bench.v_read_v
    columns = [NoiseColumn(float(i), float(c * needed)) for i in current for c in CONDUCTANCES]

    def points(of: list[NoiseColumn]) -> list[NoisePoint]:
        decks = [tied_point_deck(bench, c) for c in of]
        return [tied_point(w) for w in run_many(decks, 1, cache_dir, progress=False)]

    # A noiseless current beside the cells brings the line to its current; the column answers to it with its conductance. Where
    # the regulator's resistance changes fast one step of Newton's is not enough.
    r_each = np.repeat(r_out, len(CONDUCTANCES))
    for _ in range(2):
        columns = [
            replace(c, trim_a=c.trim_a + (c.current_a - p.current_a) * (1 + float(r) * p.conductance_s))
            for c, p, r in zip(columns, points(columns), r_each, strict=True)
        ]
    waves = run_many([tied_noise_deck(bench, c) for c in columns], 1, cache_dir, progress=False)
    rows, found = iter(points(columns)), iter([readout_noise(w, TIED_SOURCES) for w in waves])
    each = [[(next(rows), next(found)) for _ in CONDUCTANCES] for _ in current]
    return TiedNoise(
        current, r_out, tuple(tuple(p for p, _ in row) for row in each), tuple(tuple(f for _, f in row) for row in each),
        tuple(w.deck_hash for w in waves),
    )  # fmt: skip


def sink_conductance(n: TiedNoise) -> np.ndarray:
    """Conductance beside the column's at its node [S], (currents,): the bias sink's. The regulator's voltage noise draws a
    current through both."""
    y, root = n.of_points("conductance_s"), np.sqrt(n.injected("regulator", 0))
    lines = [np.polyfit(a, b, 1) for a, b in zip(y, root, strict=True)]
    return np.array([max(0.0, offset / slope) for slope, offset in lines])


def tied_noise_tables(
    bench: ColumnBench, tables: Mapping[str, tuple[Tensor, Tensor]], *, cache_dir: str | Path | None = None
) -> tuple[list[Table], tuple[str, ...]]:
    """Noise tables of a tied card with these tables, and the hashes of their decks; what ``noise_tables`` is for gated ones."""
    found = simulate_tied_noise(bench, tables, cache_dir=cache_dir)
    return tables_of(found, tables), found.deck_hashes


def tables_of(n: TiedNoise, tables: Mapping[str, tuple[Tensor, Tensor]]) -> list[Table]:
    """White and flicker tables by source, over the line current, and the sink's conductance.

    Sources at the column's node are kept as the current that they inject, over their power of its conductance
    (``models.noise.COLUMN_POWERS``); mirror and oscillator as relative noise of the rate: what the stage's current shows,
    times how the rate follows it (``tables``: the card's). A stage's own noise joins the oscillator's without that factor.
    """
    sink = sink_conductance(n)
    i, y = torch.from_numpy(n.current_a), n.of_points("conductance_s")
    rate = (lookup_slope(*tables["adc"], i) / lookup(*tables["adc"], i)).numpy()
    # Behind the mirror a column's conductance does not matter; the first is the one that hits its current best.
    gain = (rate / n.of_points("log_slope_per_a")[:, 0]) ** 2
    out = [Table(SINK, n.current_a, sink, "A", "S", "line current", "conductance of the bias sink beside the column's")]
    for source in SOURCES:
        for k, (kind, per_hz) in enumerate(KINDS):
            if source in COLUMN_POWERS:
                power = COLUMN_POWERS[source]
                through = y + sink[:, None] if source == "regulator" else y
                values = (n.injected(source, k) / through**power).mean(-1)
                unit = ("A^2", "A^2/S", "V^2")[power] + per_hz
                text = f"noise current of the {source} into a tied column per S^{power}, one-sided: white + flicker/f"
            else:
                values = gain * n.seen(source, k)[:, 0]
                if source == "oscillator":
                    values = values + n.seen("stages", k)[:, 0]
                unit = "1" + per_hz
                text = f"relative rate noise of the {source}, one-sided density: white + flicker/f"
            out.append(Table(f"noise_{source}_{kind}", n.current_a, values, "A", unit, "line current", f"{kind} noise", text))
    return out
