"""Scores of a data set: all held-out columns of one clamp, input distribution and wire scale.

Each line of each record is scored alone (scores.py); a data set gives the median over them and the worst.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from aimcard.data.reference import Record
from aimcard.validation.predictors import PREDICTORS, QUANTITIES, Comparison
from aimcard.validation.scores import equal_counts, first_slot, later_slots, measures, sigma_mac

Measures = dict[str, np.ndarray]

# Where the largest, not the median, is the figure of a data set.
LARGEST = ("worst", "worst_gaussian")
COUNTED = ("equal_counts", "n_counts")


@dataclass(frozen=True, eq=False)
class RecordResult:
    """One record's comparisons by quantity, and its Gaussian twin's σ_MAC [unit of the quantity], (lines,).

    full_scale_a: ends of the card's count-rate table [A], or None without a read-out.
    """

    record: Record
    comparisons: dict[str, Comparison]
    sigma_gaussian: Measures
    full_scale_a: tuple[float, float] | None = None

    @cached_property
    def scores(self) -> dict[str, dict[str, Measures]]:
        """Quantity, predictor, measure: arrays (lines,)."""
        found = {}
        for quantity, c in self.comparisons.items():
            found[quantity] = score(c, self.sigma_gaussian.get(quantity))
            if quantity == "phase":
                self._add_counts(found[quantity])
        return found

    @cached_property
    def pair_scores(self) -> dict[str, dict[str, Measures]]:
        """The same for line 0 minus line 1; empty unless the record has two lines."""
        if self.record.sizes["lines"] != 2:
            return {}
        return {quantity: score(c.pair()) for quantity, c in self.comparisons.items()}

    def _add_counts(self, scores: dict[str, Measures]) -> None:
        c = self.comparisons["phase"]
        counts = self.record.arrays.get("count", np.floor(c.truth).astype(np.int64))
        for name, found in scores.items():
            found["rms_count"], found["sigma_count"] = found["rmse"], found["sigma"]
            if "phase_counts" in self.record:
                # Weighted phases: their sum has no floor that a counter shows.
                continue
            predicted = c.floor if name == "floor" else c.predicted[name]
            assert predicted is not None
            if np.isfinite(predicted).all():
                rows = c.floor_vectors if name == "floor" else slice(None)
                found["equal_counts"] = equal_counts(predicted, counts[rows])
                found["n_counts"] = np.full(predicted.shape[1], len(predicted))


def score(c: Comparison, sigma_gaussian: np.ndarray | None = None) -> dict[str, Measures]:
    """Measures of every predictor, each (lines,); of currents the first slot apart, as first_slot_*."""
    truth, ideal = later_slots(c.truth), later_slots(c.predicted["ideal"])
    found = {
        name: measures(later_slots(values), truth, ideal, sigma_gaussian=sigma_gaussian) for name, values in c.predicted.items()
    }
    if c.floor is not None:
        found["floor"] = measures(
            later_slots(c.floor),
            truth[c.floor_vectors],
            ideal,
            sigma=sigma_mac(truth),
            sigma_gaussian=sigma_gaussian,
        )
    if c.truth.ndim == 3:
        start = first_slot(c.truth)
        for name, values in c.predicted.items():
            at_start = measures(first_slot(values), start, first_slot(c.predicted["ideal"]))
            found[name] |= {f"first_slot_{key}": at_start[key] for key in ("one_minus_r2", "nrmse", "worst")}
    return found


@dataclass(frozen=True, eq=False)
class DataSet:
    """Records of one clamp, distribution and wire scale. The aims count for the role held_out alone."""

    clamp: str
    distribution: str
    wire_scale: float
    records: tuple[RecordResult, ...]

    @property
    def name(self) -> str:
        """Name of the data set, as `data_set_name` has it."""
        return data_set_name(self.clamp, self.distribution, self.wire_scale)

    @property
    def counts_for_aims(self) -> bool:
        """Whether all its records are of role held_out."""
        return all(r.record.role == "held_out" for r in self.records)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The data set's part of the JSON: see report.py. Numbers that are not defined are None."""
        found: dict[str, Any] = {
            "clamp": self.clamp,
            "distribution": self.distribution,
            "wire_scale": self.wire_scale,
            "w_select_um": sorted({float(r.record.attrs["w_select_um"]) for r in self.records}),
            "columns": len(self.records),
            "vectors": min(r.record.sizes["vectors"] for r in self.records),
            "lines": max(r.record.sizes["lines"] for r in self.records),
        }
        found |= summarise([r.scores for r in self.records])
        if pairs := summarise([r.pair_scores for r in self.records]):
            # A difference has no mean worth comparing an error with.
            for predictors in pairs.values():
                for values in predictors.values():
                    for key in ("rmse_ppm", "mean_error_ppm"):
                        values.pop(key)
            found["pair"] = pairs
        if (beyond := self._beyond_full_scale()) is not None:
            found["slots_beyond_full_scale"] = beyond
        found["records"] = {r.record.name: _record_summary(r) for r in self.records}
        return found

    def _beyond_full_scale(self) -> float | None:
        """Share of slots whose line current is beyond the card's count-rate table; None without one. A gated table starts
        at no current, which no slot is to be blamed for."""
        if self.clamp == "ideal":
            return None
        found = []
        for r in self.records:
            if r.full_scale_a is None:
                continue
            low, high = r.full_scale_a
            current = r.record["current_a"]
            found.append(((current > high) | ((current < low) & (low < 0))).ravel())
        return float(np.mean(np.concatenate(found))) if found else None


def data_set_name(clamp: str, distribution: str, wire_scale: float) -> str:
    """Name of the data set of a clamp, a distribution and a wire scale, such as ``ideal-gaussian-1x``."""
    return f"{clamp}-{distribution}-{wire_scale:g}x"


def data_sets(results: Iterable[RecordResult]) -> dict[str, DataSet]:
    """Group records; data sets in the order of their first record."""
    groups: dict[tuple[str, str, float], list[RecordResult]] = {}
    for r in results:
        a = r.record.attrs
        key = (str(a["clamp"]), str(a["distribution"]), float(a["wire_scale"]))
        groups.setdefault(key, []).append(r)
    return {(d := DataSet(*key, tuple(group))).name: d for key, group in groups.items()}


def summarise(scores: list[dict[str, dict[str, Measures]]]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Quantity, predictor, figure: the median over all lines of all records, and the worst of them."""
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for quantity in QUANTITIES:
        for predictor in PREDICTORS:
            parts = [s[quantity][predictor] for s in scores if predictor in s.get(quantity, {})]
            if parts:
                found.setdefault(quantity, {})[predictor] = _figures(parts)
    return found


def _figures(parts: list[Measures]) -> dict[str, float | None]:
    names = list(dict.fromkeys(name for part in parts for name in part))
    joined = {name: np.concatenate([part[name] for part in parts if name in part]) for name in names}
    found: dict[str, float | None] = {}
    for name, values in joined.items():
        if name in COUNTED:
            found[name] = int(values.sum())
        elif name in LARGEST:
            found[name] = _reduced(np.max, values)
        else:
            found[name] = _reduced(np.median, values)
    found["worst_one_minus_r2"] = _reduced(np.max, joined["one_minus_r2"])
    if "one_minus_r2_gaussian" in joined:
        found["worst_one_minus_r2_gaussian"] = _reduced(np.max, joined["one_minus_r2_gaussian"])
    if "n_counts" in found:
        found["equal_share"] = found["equal_counts"] / found["n_counts"]  # type: ignore[operator]
    return found


def _reduced(how: Any, values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(how(known)) if known.size else None


def _record_summary(result: RecordResult) -> dict[str, Any]:
    """The model's 1 − R² on each line, and which column it was."""
    a = result.record.attrs
    found: dict[str, Any] = {key: a[key] for key in ("column", "w_select_um", "position") if key in a}
    found["one_minus_r2"] = {
        quantity: [None if np.isnan(v) else float(v) for v in scores["model"]["one_minus_r2"]]
        for quantity, scores in result.scores.items()
    }
    return found


def figure(summary: Mapping[str, Any], quantity: str, name: str, predictor: str = "model") -> float | None:
    """One figure of a data set's summary, or None if it has none."""
    return summary.get(quantity, {}).get(predictor, {}).get(name)
