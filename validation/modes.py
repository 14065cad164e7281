"""PWM modes: their list, and how well a card predicts lines that were simulated in one of them.

1 − R² and RMSE of the card on the held-out Gaussian columns of a reference set in that mode, whatever mode the card was
fitted in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.card import Card
from aimcard.models.card_text import rows_of_text
from aimcard.models.errors import InputError
from aimcard.models.modes import GUARD_SLOTS, get_mode, mode_names
from aimcard.validation.data_sets import DataSet, figure
from aimcard.validation.report import validate


def pair_of(reference: ReferenceSet) -> Record:
    """The first held-out Gaussian pair with a read-out at nominal wire; InputError without one."""
    for r in reference.select(kind="column", role="held_out", clamp="ota", distribution="gaussian", wire_scale=1.0):
        if r.sizes["lines"] == 2:
            return r
    raise InputError(f"{reference.source}: expected a held-out Gaussian pair of lines with clamp 'ota'; there is none")


@dataclass(frozen=True)
class Prediction:
    """A card on a reference set of a mode: 1 − R² by quantity, rms error of the weighted phase, ε_MAC [%] of it.

    after_offset: 1 − R² of the phase once each line's mean error is taken off, as a calibrated offset does. card_affine and
    ideal_affine: 1 − R² by quantity of the card and of the ideal product, each with a scale and an offset a line that are
    fitted to the vectors that score them (None with two vectors or fewer).
    """

    mode: str
    fitted_in: str
    vectors: int
    one_minus_r2: dict[str, float | None]
    card_affine: dict[str, float | None]
    ideal_affine: dict[str, float | None]
    after_offset: float | None
    rms_count: float | None
    sigma_count: float | None
    eps_mac: float | None

    @property
    def charge(self) -> float | None:
        """1 − R² of the charge into an ideal clamp."""
        return self.one_minus_r2["charge, ideal clamp"]

    @property
    def phase(self) -> float | None:
        """1 − R² of the weighted phase."""
        return self.one_minus_r2["phase"]

    def to_json(self) -> dict[str, Any]:
        """All figures by name."""
        return asdict(self)


def predicted(card: Card, reference: ReferenceSet) -> Prediction:
    """Figures of the Gaussian columns at nominal wire; raises as ``validate``."""
    chosen = reference.select(kind="column", role="held_out", distribution="gaussian", wire_scale=1.0)
    whole = validate(card, ReferenceSet(reference.meta, chosen, reference.source), progress=False).data_sets
    sets = {name: s.summary for name, s in whole.items()}
    ideal, ota = sets.get("ideal-gaussian-1x", {}), sets.get("ota-gaussian-1x", {})
    seen = {"charge, ideal clamp": (ideal, "charge"), "mirror charge": (ota, "charge"), "phase": (ota, "phase")}
    own, corrected, affine = (
        {label: figure(summary, quantity, "one_minus_r2", predictor) for label, (summary, quantity) in seen.items()}
        for predictor in ("model", "model_affine", "ideal_affine")
    )
    return Prediction(
        str(reference.meta["mode"]), str(card.meta["mode"]), int((ota or ideal).get("vectors", 0)), own, corrected, affine,
        _after_offset(whole.get("ota-gaussian-1x")),
        figure(ota, "phase", "rms_count"), figure(ota, "phase", "sigma_count"), figure(ota, "phase", "eps_mac"),
    )  # fmt: skip


def _after_offset(data_set: DataSet | None) -> float | None:
    found = []
    for c in [] if data_set is None else [r.comparisons["phase"] for r in data_set.records if "phase" in r.comparisons]:
        error = c.predicted["model"] - c.truth
        # The mean takes one of the vectors' freedoms, of the error and of the truth alike.
        if len(error) > 1:
            found += list(error.var(axis=0) / c.truth.var(axis=0))
    return float(np.median(found)) if found else None


def list_modes(names: Sequence[str] = (), guard: int = GUARD_SLOTS) -> str:
    """Modes (none named: all registered) as a table: phases, weights and window; InputError for an unknown name."""
    rows = [("mode", "phases", "weights", "window [LSB]", "with guards", "")]
    for name in names or mode_names():
        m = get_mode(name)
        weights = ", ".join(map(str, m.weights))
        rows.append((name, str(len(m.phases)), weights, str(m.window_slots(0)), str(m.window_slots(guard)), m.summary))
    return "\n".join(rows_of_text(rows))


def _shown(value: float | None, form: str = ".2g") -> str:
    return "-" if value is None else format(value, form)


def prediction_table(found: Iterable[tuple[tuple[str, str], Prediction]]) -> str:
    """Predictions by topology and mode, as text."""
    rows: list[tuple[str, ...]] = [
        ("topology", "mode", "fitted in", "vectors", "charge 1-R2", "mirror charge", "phase", "less offset", "rms [counts]",
         "σ", "ε_MAC %")
    ]  # fmt: skip
    beside: list[tuple[str, ...]] = [
        ("topology", "mode", *(f"{q}, {p}" for q in ("charge", "mirror charge", "phase") for p in ("card", "card+", "ideal+")))
    ]
    for (topology, mode), p in found:
        rows.append(
            (topology, mode, p.fitted_in, str(p.vectors), *map(_shown, p.one_minus_r2.values()), _shown(p.after_offset),
             _shown(p.rms_count, ".3g"),
             _shown(p.sigma_count, ".4g"), _shown(p.eps_mac, ".2g"))
        )  # fmt: skip
        figures = zip(*(v.values() for v in (p.one_minus_r2, p.card_affine, p.ideal_affine)), strict=True)
        beside.append((topology, mode, *(_shown(v) for three in figures for v in three)))
    return "\n".join([
        "predicted against simulated, held-out lines (medians over lines):", *rows_of_text(rows), "",
        "1-R2 of the card, and of card and ideal product (+) after a scale and an offset a line. These are fitted to the vectors "
        "that score them, of n vectors' n - 1 degrees of freedom n - 2 are left:",
        *rows_of_text(beside),
    ])  # fmt: skip
