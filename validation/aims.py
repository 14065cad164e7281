"""What a card is meant to reach on held-out columns, and what it reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aimcard.models.card_text import rows_of_text
from aimcard.validation.data_sets import DataSet, figure

#: The ADC resolves a line's MAC if its σ is at least this many counts.
LEAST_SIGMA_COUNT = 64.0
# A model cannot be told from its reference below this multiple of the reference's own error.
FLOOR_FACTOR = 2.0


@dataclass(frozen=True)
class Aim:
    """``limit`` for the median over lines of ``measure`` in data sets of ``clamp`` and ``wire_scale``."""

    label: str
    quantity: str
    clamp: str
    limit: float
    wire_scale: float = 1.0
    measure: str = "one_minus_r2"


AIMS = (
    Aim("1-R2 current, ideal clamp", "current", "ideal", 1e-5),
    Aim("1-R2 current, OTA and mirror", "current", "ota", 5e-5),
    Aim("1-R2 charge, ideal clamp", "charge", "ideal", 1e-6),
    Aim("1-R2 charge, OTA and mirror", "charge", "ota", 1e-5),
    Aim("1-R2 ADC phase", "phase", "ota", 1e-5),
    Aim("rms phase error, counts", "phase", "ota", 0.1, measure="rms_count"),
    Aim("1-R2 charge, ideal clamp, 3x wire", "charge", "ideal", 1e-5, 3.0),
    Aim("1-R2 charge, ideal clamp, 10x wire", "charge", "ideal", 1e-4, 10.0),
)


@dataclass(frozen=True)
class AimResult:
    """The aim's figure in every data set that it covers, by name: the model's, and the floor's.

    sigma_count: σ_MAC [counts] by data set, for the phase error only.
    """

    aim: Aim
    reached: dict[str, float]
    floor: dict[str, float]
    sigma_count: dict[str, float]

    @property
    def median(self) -> float | None:
        """Median of the data sets' figures."""
        return float(np.median(list(self.reached.values()))) if self.reached else None

    @property
    def worst_data_set(self) -> str | None:
        """Name of the data set with the largest figure; None if the aim covers none."""
        return max(self.reached, key=lambda name: self.reached[name]) if self.reached else None

    @property
    def short(self) -> list[str]:
        """Data sets that miss the limit."""
        return [name for name, value in self.reached.items() if not value <= self.aim.limit]

    @property
    def resolved(self) -> bool:
        """Of the phase error: σ_MAC of Gaussian inputs (without such, of any) has the counts asked for."""
        gaussian = [v for name, v in self.sigma_count.items() if "-gaussian-" in name]
        return self.aim.measure != "rms_count" or max(gaussian or [*self.sigma_count.values(), 0.0]) >= LEAST_SIGMA_COUNT

    @property
    def mark(self) -> str:
        """ "pass" if every data set meets the limit, "short", or "no data"."""
        if not self.reached:
            return "no data"
        return "short" if self.short or not self.resolved else "pass"

    @property
    def note(self) -> str:
        """What a reader has to know beside the mark."""
        if not self.reached:
            return ""
        notes = []
        if self.short:
            notes.append(f"{len(self.short)} of {len(self.reached)} data sets short")
        limited = [n for n in self.short if n in self.floor and self.reached[n] <= FLOOR_FACTOR * self.floor[n]]
        if limited:
            notes.append(f"{', '.join(limited)} within {FLOOR_FACTOR:g} times the reference's floor")
        if not self.resolved:
            notes.append(f"σ_MAC below {LEAST_SIGMA_COUNT:g} counts")
        return "; ".join(notes)

    def to_json(self) -> dict[str, Any]:
        """The aim, the figures reached, and the verdict."""
        return {
            "label": self.aim.label,
            "quantity": self.aim.quantity,
            "clamp": self.aim.clamp,
            "wire_scale": self.aim.wire_scale,
            "measure": self.aim.measure,
            "limit": self.aim.limit,
            "median": self.median,
            "worst_data_set": self.worst_data_set,
            "reached": self.reached,
            "floor": self.floor,
            "mark": self.mark,
            "note": self.note,
        }


def judge(sets: Mapping[str, DataSet]) -> tuple[AimResult, ...]:
    """Every aim against the data sets of held-out columns."""
    return tuple(_judge(aim, sets) for aim in AIMS)


def _judge(aim: Aim, sets: Mapping[str, DataSet]) -> AimResult:
    covered = {
        name: s.summary
        for name, s in sets.items()
        if s.counts_for_aims and s.clamp == aim.clamp and np.isclose(s.wire_scale, aim.wire_scale)
    }

    def all_of(measure: str, predictor: str = "model") -> dict[str, float]:
        found = {name: figure(summary, aim.quantity, measure, predictor) for name, summary in covered.items()}
        return {name: value for name, value in found.items() if value is not None}

    sigma = all_of("sigma_count") if aim.measure == "rms_count" else {}
    return AimResult(aim, all_of(aim.measure), all_of(aim.measure, "floor"), sigma)


def aims_table(results: tuple[AimResult, ...]) -> list[str]:
    """The aims as lines of text: the median over data sets, the worst of them, and each one's figure."""
    rows = [("aim", "limit", "median", "worst data set", "", "mark", "")]
    for r in results:
        if r.median is None or r.worst_data_set is None:
            rows.append((r.aim.label, f"{r.aim.limit:g}", "-", "-", "", r.mark, r.note))
            continue
        worst = r.reached[r.worst_data_set]
        rows.append(
            (
                r.aim.label,
                f"{r.aim.limit:g}",
                f"{r.median:.2g}",
                f"{worst:.2g}",
                r.worst_data_set,
                r.mark,
                r.note,
            )
        )
    return rows_of_text(rows)
