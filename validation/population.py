"""A population of simulated chips against chips drawn from a card: mean, sigma, tails, and what a two-point trim leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.progress import track
from scipy.stats import binomtest, ks_2samp

from aimcard.models.card import Card
from aimcard.models.card_text import rows_of_text
from aimcard.models.errors import InputError
from aimcard.models.h5 import write_bytes
from aimcard.models.tile import Response
from aimcard.models.topology import tile_of
from aimcard.validation.style import BLUE, ORANGE, new_figure, tidy

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
#: Lines drawn at a time: bounds the memory of (lines × rows × slots).
BATCH = 50
NOTHING: Mapping[str, tuple[np.ndarray, np.ndarray]] = MappingProxyType({})


def draw_population(
    card: Card, conductance_s: np.ndarray, codes: np.ndarray, *, chips: int, seed: int, clamp: str = "ota",
    w_select_um: float | None = None, position: float = 0.5, progress: bool = False,
) -> np.ndarray:  # fmt: skip
    """Phases [counts], or charges [C] with an ideal clamp, of one line on ``chips`` drawn chips, (chips, vectors).

    conductance_s (rows,), or (2, rows), plus and minus, for a tied card, whose phases have a sign; codes (vectors, rows). Raises
    CardError if the card has no mismatch.
    """
    how = {"clamp": clamp, "w_select_um": w_select_um, "position": position}
    answers = _drawn(card, conductance_s, codes, chips, seed, progress, **how)
    return np.concatenate([(a.charge_c if a.phase_count is None else a.phase_count).T for a in answers])


def draw_tied_population(
    card: Card, conductance_s: np.ndarray, codes: np.ndarray, *, chips: int, seed: int, w_select_um: float | None = None,
    position: float = 0.5, progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """As ``draw_population`` for a column of a tied card, and what each chip counts at rest, (chips,)."""
    still = np.concatenate([codes, np.zeros_like(codes[:1])])
    signed, rest = [], []
    for a in _drawn(card, conductance_s, still, chips, seed, progress, clamp="ota", w_select_um=w_select_um, position=position):
        assert a.phase_count is not None
        assert a.bias_counts is not None
        signed.append(a.phase_count[:-1].T)
        rest.append(a.phase_count[-1] + a.bias_counts.sum(-1))
    return np.concatenate(signed), np.concatenate(rest)


def _drawn(
    card: Card, conductance_s: np.ndarray, codes: np.ndarray, chips: int, seed: int, progress: bool, *,
    w_select_um: float | None, **how: Any,
) -> Iterator[Response]:  # fmt: skip
    """Answers of a few lines at a time. A line of one chip and a line of another differ alike, so lines of a few chips stand
    for as many chips."""
    model = tile_of(card)
    starts = range(0, chips, BATCH)
    for start in track(starts, "drawing chips", transient=True) if progress else starts:
        lines, rows = min(BATCH, chips - start), conductance_s.shape[-1]
        chip = model.chip(seed + start // BATCH, lines, rows, w_select_um)
        plus, *minus = (np.broadcast_to(side, (lines, rows)) for side in np.atleast_2d(conductance_s))
        pair = {"conductance_minus_s": minus[0]} if minus else {}
        yield chip.respond(plus, codes, w_select_um=w_select_um, **pair, **how)


def two_point_trim(values: np.ndarray, nominal: np.ndarray, low: int, high: int, at: int) -> np.ndarray:
    """What is left at vector ``at`` after each chip's scale and offset are set on two vectors, (chips,).

    values (chips, vectors); nominal (vectors,): what the vectors low and high are trimmed to.
    """
    scale = (nominal[high] - nominal[low]) / (values[:, high] - values[:, low])
    return nominal[low] + scale * (values[:, at] - values[:, low]) - nominal[at]


@dataclass(frozen=True)
class PopulationScore:
    """One quantity. Sigmas' standard errors are those of normal samples, sigma/√(2(n−1)); ks: the largest distance of the
    two distribution functions; p: how often equal populations are further apart."""

    name: str
    chips: int
    mean: float
    mean_error: float
    sigma: float
    sigma_error: float
    quantiles: tuple[float, ...]
    model_mean: float
    model_sigma: float
    model_quantiles: tuple[float, ...]
    ks: float
    p: float
    below: int
    above: int
    tail_p: float


@dataclass(frozen=True, eq=False)
class PopulationResult:
    """Scores by quantity, and the samples behind them (simulated chips, drawn chips)."""

    scores: tuple[PopulationScore, ...]
    samples: dict[str, tuple[np.ndarray, np.ndarray]]
    unit: str = "counts"

    def to_json(self) -> dict[str, Any]:
        """Numbers and texts only, as the card's ``validation`` takes them."""
        return {s.name: {k: v for k, v in asdict(s).items() if k != "name"} for s in self.scores}

    def write_json(self, path: str | Path) -> Path:
        """Write ``to_json()`` with the samples of the simulated chips, whole or not at all."""
        document = {"unit": self.unit, "quantiles": QUANTILES, "scores": self.to_json()}
        document["simulated"] = {name: simulated.tolist() for name, (simulated, _) in self.samples.items()}
        write_bytes(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
        return Path(path)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [
            (
                self.unit, "chips", "mean", "drawn", "sigma", "drawn", "5 %", "drawn", "95 %", "drawn", "KS", "p",
                "in the tails", "p",
            )
        ]
        for s in self.scores:
            rows.append(
                (
                    s.name, str(s.chips), f"{s.mean:.5g} ± {_error(s.mean_error)}", f"{s.model_mean:.5g}",
                    f"{s.sigma:.3g} ± {_error(s.sigma_error)}", f"{s.model_sigma:.3g}", f"{s.quantiles[0]:.4g}",
                    f"{s.model_quantiles[0]:.4g}", f"{s.quantiles[-1]:.4g}", f"{s.model_quantiles[-1]:.4g}",
                    f"{s.ks:.3f}", f"{s.p:.2f}",
                    f"{s.below} + {s.above} of {0.1 * s.chips:.3g}", f"{s.tail_p:.2f}",
                )
            )  # fmt: skip
        return "\n".join(rows_of_text(rows, indent=""))


def _error(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def score_population(name: str, simulated: np.ndarray, drawn: np.ndarray) -> PopulationScore:
    """Simulated chips (chips,) against drawn ones (draws,). Raises InputError for fewer than 8 simulated chips."""
    n = len(simulated)
    if n < 8:
        raise InputError(f"chips: expected 8 or more to compare populations; got {n}")
    test: Any = ks_2samp(simulated, drawn)
    sigma = float(np.std(simulated, ddof=1))
    low, high = np.quantile(drawn, (QUANTILES[0], QUANTILES[-1]))
    below, above = int((simulated < low).sum()), int((simulated > high).sum())
    tails = binomtest(below + above, n, 1 - (QUANTILES[-1] - QUANTILES[0]))
    return PopulationScore(
        name, n, float(np.mean(simulated)), sigma / np.sqrt(n), sigma, sigma / np.sqrt(2 * (n - 1)),
        tuple(map(float, np.quantile(simulated, QUANTILES))), float(np.mean(drawn)), float(np.std(drawn, ddof=1)),
        tuple(map(float, np.quantile(drawn, QUANTILES))), float(test.statistic), float(test.pvalue),
        below, above, float(tails.pvalue),
    )  # fmt: skip


def compare_populations(
    names: tuple[str, ...], simulated: np.ndarray, drawn: np.ndarray, nominal: np.ndarray, unit: str = "counts",
    beside: Mapping[str, tuple[np.ndarray, np.ndarray]] = NOTHING,
) -> PopulationResult:  # fmt: skip
    """Scores of each vector (by name), (chips, vectors) each; of three, the first also trimmed on the others.

    nominal (vectors,): the simulated nominal chip, to which both populations are trimmed. beside: other quantities of the same
    chips, simulated and drawn, (chips,) each.
    """
    samples = {name: (simulated[:, v], drawn[:, v]) for v, name in enumerate(names)}
    if len(names) == 3:
        trimmed = [two_point_trim(x, nominal, 2, 1, 0) for x in (simulated, drawn)]
        samples[f"{names[0]}, trimmed"] = (trimmed[0], trimmed[1])
    samples |= beside
    return PopulationResult(tuple(score_population(n, *s) for n, s in samples.items()), samples, unit)


def population_figure(result: PopulationResult) -> Figure:
    """A histogram and a quantile-quantile plot for each quantity."""
    fig = new_figure(3.1 * len(result.samples), 5.4)
    axes = fig.subplots(2, len(result.samples), squeeze=False)
    for k, (name, (simulated, drawn)) in enumerate(result.samples.items()):
        top, below = axes[:, k]
        low, high = np.quantile(drawn, (0.001, 0.999))
        edges = np.linspace(min(low, simulated.min()), max(high, simulated.max()), 25)
        top.hist(drawn, edges, density=True, color=BLUE, alpha=0.5, label="drawn from the card")
        top.hist(simulated, edges, density=True, histtype="step", color=ORANGE, linewidth=1.6, label="ngspice")
        top.set_title(name)
        order = (np.arange(len(simulated)) + 0.5) / len(simulated)
        expected = np.quantile(drawn, order)
        below.plot(expected, np.sort(simulated), linestyle="", marker="o", markersize=3.5, color=ORANGE)
        below.axline((expected[0], expected[0]), slope=1, color=BLUE, linewidth=1)
        below.set_xlabel(f"quantile, drawn [{result.unit}]")
        top.set_xlabel(result.unit)
        for ax in (top, below):
            tidy(ax)
    axes[0, 0].set_ylabel("density")
    # Below the plots: inside them it would lie over a histogram's peak.
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, fontsize=8, frameon=False, ncols=2, loc="outside lower center")
    axes[1, 0].set_ylabel(f"quantile, ngspice [{result.unit}]")
    return fig
