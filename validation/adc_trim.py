"""The ADC of each corner, temperature and supply read as the nominal one: by how much it is off, before and after a trim.

The digital side knows the nominal card. Two known currents, none (the bleed alone) and by default half of full scale, give every
chip a gain and an offset (`models/trim.py`); what is left is how differently the ADCs bend between and beyond the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from aimcard.data.reference import ReferenceSet
from aimcard.models.card import Card
from aimcard.models.card_text import rows_of_text
from aimcard.models.errors import InputError
from aimcard.models.modes import get_mode
from aimcard.models.topology import tile_of
from aimcard.models.trim import Trim, two_point_trim, window_counts
from aimcard.validation.predictors import model_of
from aimcard.validation.style import BLACK, new_figure, si, tidy
from aimcard.validation.sweep_style import label_of, style_of

#: Constant currents at which an ADC is compared.
POINTS = 121


@dataclass(frozen=True, eq=False)
class TileTrim:
    """Errors of the circuit's own phases on a column's vectors [counts], root mean square.

    before, after: against what the nominal card predicts, as read and after the ADC's trim. line: the trim fitted to the
    vectors themselves, the best that a gain and an offset can do. card: against the card of that corner, untrimmed.
    sigma: standard deviation of the phases over the vectors, median over lines; NaN for one vector.
    """

    vectors: int
    before: float
    after: float
    line: float
    card: float
    sigma: float


@dataclass(frozen=True, eq=False)
class AdcTrim:
    """One card's ADC against the nominal one. before_count, after_count: errors over ``current_a``, shape (points,)."""

    card: Card
    trim: Trim
    current_a: np.ndarray
    before_count: np.ndarray
    after_count: np.ndarray
    tile: TileTrim | None

    def between(self, second_a: float) -> np.ndarray:
        """Errors after the trim from no current to the second trim point [counts]."""
        return self.after_count[(self.current_a >= 0) & (self.current_a <= second_a)]

    def to_json(self) -> dict[str, Any]:
        """Gain and offset of the trim, and what the counts err by before and after it."""
        c, t = self.card.meta, self.tile
        found: dict[str, Any] = {
            "corner": c["corner"], "temperature_c": c["temperature_c"], "vdd_v": c["vdd_v"],
            "gain": self.trim.gain, "offset_count": self.trim.offset_count,
            "before_rms_count": rms(self.before_count), "before_max_count": peak(self.before_count),
            "after_rms_count": rms(self.after_count), "after_max_count": peak(self.after_count),
        }  # fmt: skip
        if t is not None:
            found["tile"] = {k: None if np.isnan(v) else v for k, v in vars(t).items()}
        return found


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def peak(values: np.ndarray) -> float:
    """Largest magnitude."""
    return float(np.abs(values).max())


@dataclass(frozen=True, eq=False)
class TrimReport:
    """Trims of several cards against ``nominal``. ``str()`` is the table, ``to_json()`` the document."""

    nominal: Card
    full_scale_a: float
    second_a: float
    trims: tuple[AdcTrim, ...]

    @property
    def least_a(self) -> float:
        """Where the comparison begins [A]: no current, or the same of the other sign on a tied line."""
        return min(float(t.current_a[0]) for t in self.trims)

    def to_json(self) -> dict[str, Any]:
        """The trims, and the nominal card and currents that they refer to."""
        return {
            "nominal": {key: self.nominal.meta[key] for key in ("corner", "temperature_c", "vdd_v")},
            "full_scale_a": self.full_scale_a,
            "trim_currents_a": [0.0, self.second_a],
            "full_scale_count": float(window_counts(self.nominal, np.array([self.full_scale_a]))[0]),
            "trims": [t.to_json() for t in self.trims],
        }

    def __str__(self) -> str:
        full = float(window_counts(self.nominal, np.array([self.full_scale_a]))[0])
        lines = [
            f"ADC read as that of {label_of(self.nominal)}: errors in counts of a whole window, {self.least_a * 1e6:.0f} to "
            f"{self.full_scale_a * 1e6:.0f} uA ({full:.0f} counts)",
            f"trim: gain and offset from readings of no current (bleed) and of {self.second_a * 1e6:.0f} uA",
        ]
        rows = [("card", "rms before", "max", "gain", "offset", "rms after", "max", "% of full scale", "max between trim points")]
        rows += [
            (label_of(t.card), f"{rms(t.before_count):.1f}", f"{peak(t.before_count):.1f}", f"{t.trim.gain:.4f}",
             f"{t.trim.offset_count:+.1f}", f"{rms(t.after_count):.2f}", f"{peak(t.after_count):.2f}",
             f"{100 * peak(t.after_count) / full:.2f}", f"{peak(t.between(self.second_a)):.2f}")
            for t in self.trims
        ]  # fmt: skip
        lines += rows_of_text(rows)
        tiles = [(t.card, t.tile) for t in self.trims if t.tile is not None]
        if tiles:
            lines.append("whole columns, simulated there: rms error of the count in counts, against the nominal card")
            rows = [("card", "vectors", "as read", "ADC trimmed", "best gain and offset", "its own card", "sigma")]
            rows += [
                (label_of(c), str(t.vectors), f"{t.before:.2f}", f"{t.after:.2f}", _shown(t.line, ".2f"), f"{t.card:.3f}",
                 _shown(t.sigma, ".1f"))
                for c, t in tiles
            ]  # fmt: skip
            lines += rows_of_text(rows)
            if any(np.isnan(t.line) for _c, t in tiles):
                lines.append("  -: the best gain and offset of a line take three vectors (sets without --quick have them)")
        return "\n".join(lines)


def trim_report(
    nominal: Card, cards: Sequence[Card], references: Sequence[ReferenceSet | None] | None = None,
    full_scale_a: float | None = None, second_a: float | None = None,
) -> TrimReport:  # fmt: skip
    """Trim every card's ADC to ``nominal``'s; with its reference set, its simulated columns too.

    full_scale_a: end of the comparison [A], by default that of the nominal card's validity, as far as every table goes;
    second_a: the second trim current [A], by default half of it. Raises InputError if they are not above 0 and within
    every card's table, or if a card is of another technology or topology than the nominal one; CardError for a card
    without a read-out.
    """
    for card in cards:
        for key in ("technology", "topology"):
            if card.meta[key] != nominal.meta[key]:
                raise InputError(
                    f"nominal: expected a card of {key} {card.meta[key]!r}, as {card.source} is; "
                    f"got {nominal.meta[key]!r}; name another"
                )
    limit = min(float(c.table("adc").x[-1]) for c in (nominal, *cards))
    full = min(float(nominal.domain["line_current_a"].hi), limit) if full_scale_a is None else float(full_scale_a)
    second = 0.5 * full if second_a is None else float(second_a)
    for name, value in (("full scale", full), ("second trim current", second)):
        if not 0 < value <= limit * (1 + 1e-9):
            raise InputError(
                f"{name}: expected a current above 0 and up to {limit * 1e6:.4g} uA, where the tables end; "
                f"got {value * 1e6:.4g} uA"
            )
    # A tied line's current has both signs.
    least = max(0.0 if nominal.meta["topology"] == "gated" else -full, *(float(c.table("adc").x[0]) for c in (nominal, *cards)))
    current = np.linspace(least, full, POINTS)
    known = np.array([0.0, second])
    true, whole = window_counts(nominal, known), window_counts(nominal, current)
    found = []
    for card, reference in zip(cards, references or [None] * len(cards), strict=True):
        read = window_counts(card, known)
        trim = two_point_trim((read[0], read[1]), (true[0], true[1]))
        counts = window_counts(card, current)
        tile = None if reference is None else _tile(nominal, card, reference, trim)
        found.append(AdcTrim(card, trim, current, counts - whole, trim(counts) - whole, tile))
    return TrimReport(nominal, full, second, tuple(found))


def _shown(value: float, digits: str) -> str:
    return "-" if np.isnan(value) else format(value, digits)


def _tile(nominal: Card, card: Card, reference: ReferenceSet, trim: Trim) -> TileTrim | None:
    """Held-out columns with a read-out: the circuit's phases, trimmed or not, against the nominal card's."""
    records = [r for r in reference.select(kind="column", role="held_out", clamp="ota") if "phase_count" in r]
    if not records:
        return None
    parts: dict[str, list[np.ndarray]] = {"before": [], "after": [], "line": [], "card": []}
    sigma, vectors = [], 0
    models = (tile_of(nominal), tile_of(card))
    mode = get_mode(str(reference.meta["mode"]), models[0].code_max)
    for r in records:
        # Of a tied column the oscillator's own phases, bias included: the trim takes the bias' own change off, too.
        told, own = (model_of(r, m, mode)["phase"] for m in models)
        read = r["phase_count"]
        # One gain and one offset for the line's vectors; two vectors or fewer are fitted whatever they are.
        slope = [np.polyfit(x, y, 1) if len(x) > 2 else (np.nan, np.nan) for x, y in zip(read.T, told.T, strict=True)]
        best = np.stack([np.polyval(s, x) for s, x in zip(slope, read.T, strict=True)], axis=1)
        parts["before"].append((read - told).ravel())
        parts["after"].append((trim(read) - told).ravel())
        parts["line"].append((best - told).ravel())
        parts["card"].append((read - own).ravel())
        sigma += list(read.std(axis=0)) if len(read) > 1 else [np.nan]
        vectors += read.size
    return TileTrim(vectors, **{k: rms(np.concatenate(v)) for k, v in parts.items()}, sigma=float(np.median(sigma)))


def trim_figure(report: TrimReport) -> Figure:
    """Error over the line's current, as read and after the trim, one curve a card."""
    fig = new_figure(7.4, 6.6)
    top, below = fig.subplots(2, 1, sharex=True)
    factor, unit = si(report.full_scale_a, "A")
    for t in report.trims:
        style = style_of(t.card)
        top.plot(factor * t.current_a, t.before_count, label=label_of(t.card), **style)
        below.plot(factor * t.current_a, t.after_count, **style)
    below.plot([0, factor * report.second_a], [0, 0], "k^", markersize=6, label="trim points", linestyle="")
    top.set_ylabel("error as read (counts)")
    below.set_ylabel("error after trim (counts)")
    below.set_xlabel(f"constant line current ({unit})")
    top.set_title(f"ADC read as that of {label_of(report.nominal)}", fontsize="medium")
    for ax in (top, below):
        ax.axhline(0, color=BLACK, linewidth=0.6)
        tidy(ax)
    # All in one, beside the plots: inside one, the triangle of a legend looks like a third trim point.
    handles, labels = (a + b for a, b in zip(*(ax.get_legend_handles_labels() for ax in (top, below)), strict=True))
    fig.legend(handles, labels, loc="outside right upper", frameon=False, fontsize="small")
    return fig
