"""Which columns are simulated: conductances and codes for the fit, and others, held out, for the judgement."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import qmc

from aimcard.models.pcm import G_MAX_S, G_MIN_S

ROWS = 512
CODE_MAX = 127
#: Positions along the word line whose edges the driver's simulation records.
POSITIONS = (0.0, 0.5, 1.0)
#: Wire scales of every fourth fitted line; held-out columns are at others.
WIRE_SCALES = (1.5, 5.0, 8.0)


@dataclass(frozen=True)
class Column:
    """One record to simulate: conductance_s (lines, rows), codes (vectors, rows)."""

    name: str
    role: str
    distribution: str
    clamp: str
    conductance_s: np.ndarray
    codes: np.ndarray
    w_select_um: float
    position: float
    wire_scale: float = 1.0
    column: str = ""
    of: str = ""
    supply: bool = False

    @property
    def runs(self) -> int:
        """Decks that the record takes: one for each line and vector."""
        return len(self.conductance_s) * len(self.codes)


def fit_columns(clamp: str, count: int, seed: int, w_range_um: tuple[float, float]) -> list[Column]:
    """``count`` single lines spread over their situations by a Sobol sequence.

    With an ideal clamp every fourth line has more resistive wire (WIRE_SCALES in turn), for the terms that need it, and
    every eighth has long codes only: slots in which nothing switches, which tell the wire from what edges do.
    Dimensions: share of rows that conduct, mean conductance (log), its spread, select width, position, longest code,
    share of rows at the least conductance (half of a pair's cells rest there).
    All codes up to the longest occur, as in use: a step of a few cells at a time is answered differently from a large one.
    """
    # Sobol's balance holds for powers of two; any prefix of a power of two is still well spread.
    sampler = qmc.Sobol(7, seed=np.random.default_rng(seed))  # pyright: ignore[reportCallIssue]
    points = sampler.random_base2(int(np.ceil(np.log2(max(count, 2)))))
    columns = []
    for k in range(count):
        share, level, spread, width, place, reach, rest = points[k]
        rng = np.random.default_rng([seed, 17, k])
        mean = 1.0e-6 * 12.0**level
        shape = 0.6 * 5.0**spread
        g = np.clip(rng.gamma(shape, mean / shape, ROWS), G_MIN_S, G_MAX_S)
        g[rng.random(ROWS) < 0.6 * rest] = G_MIN_S
        top = round(40 + reach * (CODE_MAX - 40))
        codes = rng.integers(1, top + 1, ROWS)
        if clamp == "ideal" and k % 8 == 1:
            codes = rng.integers(3 * top // 4, top + 1, ROWS)
        codes[rng.random(ROWS) > 0.25 + 0.75 * share] = 0
        lo, hi = w_range_um
        # A tenth of the range beyond both ends: a fit is weakest at the edge of its points.
        w = lo + (1.2 * width - 0.1) * (hi - lo)
        columns.append(
            Column(
                f"fit-{clamp}-{k:02d}",
                "fit",
                "sobol",
                clamp,
                g[None],
                codes[None],
                round(float(w), 3),
                POSITIONS[min(int(place * 3), 2)],
                WIRE_SCALES[(k // 4) % len(WIRE_SCALES)] if clamp == "ideal" and k % 4 == 3 else 1.0,
                column=f"fit{k:02d}",
            )
        )
    return columns


def thinned(column: Column, rows: int, lines: int, code_step: int) -> Column:
    """The column's first rows and lines, its codes rounded up to multiples of ``code_step``: fewer cells and edges to
    simulate. Codes stay within CODE_MAX."""
    codes = -(-column.codes[:, :rows] // code_step) * code_step
    codes = np.minimum(codes, CODE_MAX // code_step * code_step)
    return replace(column, conductance_s=column.conductance_s[:lines, :rows], codes=codes)


def pair_conductances(rng: np.random.Generator, g_max_s: float, rows: int = ROWS) -> np.ndarray:
    """G+ and G− (2, rows) of normal weights, clipped at three sigma: the line of the other sign rests at g_min."""
    w = np.clip(rng.normal(0.0, 1.0, rows) / 3, -1, 1)
    return G_MIN_S + np.stack([np.maximum(w, 0), np.maximum(-w, 0)]) * (g_max_s - G_MIN_S)


def draw_codes(rng: np.random.Generator, distribution: str, vectors: int, rows: int = ROWS) -> np.ndarray:
    """Codes (vectors, rows).

    gaussian: normal inputs of either sign, one sign phase (the rows of the other sign idle), σ a third of full scale.
    uniform: all codes alike, every row. sparse: nine rows in ten idle. all-on: every row between 3/4 and full scale.
    """
    shape = (vectors, rows)
    if distribution == "gaussian":
        return np.clip(np.round(rng.normal(0, CODE_MAX / 3, shape)), 0, CODE_MAX).astype(np.int64)
    if distribution == "uniform":
        return rng.integers(0, CODE_MAX + 1, shape)
    if distribution == "sparse":
        return np.where(rng.random(shape) < 0.1, rng.integers(1, CODE_MAX + 1, shape), 0)
    if distribution == "all-on":
        return rng.integers(96, CODE_MAX + 1, shape)
    raise ValueError(distribution)


DISTRIBUTIONS = ("gaussian", "uniform", "sparse", "all-on")
#: Held-out columns: place of the select width in its range, g_max [S] and position, in the order in which they are added.
VARIANTS = ((1.0, G_MAX_S, 0.5), (0.0, 15e-6, 1.0), (0.5, G_MAX_S, 0.0), (1.0, 8e-6, 1.0))


def held_out_columns(
    columns: int, vectors: int, seed: int, distributions: dict[str, tuple[str, ...]], wire_scales: tuple[float, ...],
    w_range_um: tuple[float, float],
) -> list[Column]:  # fmt: skip
    """Pairs of lines that no fit sees: distributions of inputs per clamp, Gaussian ones at other wire resistances too."""
    out: list[Column] = []
    for c in range(columns):
        share, g_max, position = VARIANTS[c % len(VARIANTS)]
        w = round(w_range_um[0] + share * (w_range_um[1] - w_range_um[0]), 6)
        rng = np.random.default_rng([seed, 29, c])
        g = pair_conductances(rng, g_max)
        for distribution in DISTRIBUTIONS:
            codes = draw_codes(rng, distribution, vectors, len(g[0]))
            for clamp in ("ideal", "ota"):
                if distribution not in distributions[clamp]:
                    continue
                out.append(
                    Column(
                        f"{clamp}-{distribution}-1x-{c}",
                        "held_out",
                        distribution,
                        clamp,
                        g,
                        codes,
                        w,
                        position,
                        column=f"held{c}",
                    )
                )
                if clamp == "ideal" and distribution == "gaussian":
                    out += [
                        Column(
                            f"ideal-{distribution}-{scale:g}x-{c}",
                            "held_out",
                            distribution,
                            clamp,
                            g,
                            codes,
                            w,
                            position,
                            wire_scale=scale,
                            column=f"held{c}",
                        )
                        for scale in wire_scales
                    ]
    return out


def floor_columns(held_out: list[Column], vectors: int) -> list[Column]:
    """The first vectors of the first Gaussian column of each clamp again, for a tighter run: the reference's own error."""
    out = []
    for clamp in ("ideal", "ota"):
        first = next(c for c in held_out if c.clamp == clamp and c.distribution == "gaussian" and c.wire_scale == 1)
        out.append(
            Column(
                f"floor-{first.name}",
                "floor",
                first.distribution,
                clamp,
                first.conductance_s,
                first.codes[:vectors],
                first.w_select_um,
                first.position,
                column=first.column,
                of=first.name,
            )
        )
    return out


def supply_column(held_out: list[Column]) -> Column:
    """The first vector of the first Gaussian column with the read-out again, with V_DD's current recorded."""
    first = next(c for c in held_out if c.clamp == "ota" and c.distribution == "gaussian")
    return replace(
        first, name=f"supply-{first.name}", role="check", codes=first.codes[:1], of=first.name, supply=True
    )


def saturated_column(w_select_um: float) -> Column:
    """All rows on at g_max: some 2 mA. Held out, far beyond the ADC's full scale, to show how it saturates."""
    g = np.full((1, ROWS), G_MAX_S)
    codes = draw_codes(np.random.default_rng(5), "all-on", 2)
    return Column("ota-saturated-1x-0", "check", "saturated", "ota", g, codes, w_select_um, 0.5, column="saturated")
