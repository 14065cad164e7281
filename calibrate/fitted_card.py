"""What a card says of its calibration in either topology: parameters with their errors, where they hold, fit and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.linalg import block_diag

import aimcard
from aimcard.calibrate.bootstrap import Errors
from aimcard.calibrate.parameters import Spec
from aimcard.calibrate.stages import Stages
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.card import FitSummary, Parameter, Provenance

#: What a card of either topology takes over from its set, where the set has it.
TAKEN_OVER = (
    "topology", "mode", "technology", "corner", "temperature_c", "vdd_v", "v_read_v", "t_lsb_s", "code_max", "rows",
    "guard_slots", "edge_delay_s", "w_ref_um", "r_bit_ohm", "r_return_ohm", "counter_reach_a",
)  # fmt: skip

GroupErrors = Sequence[tuple[tuple[str, ...], Errors]]


def card_meta(meta: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """A card's own from its set's; ``more``: what else is taken over."""
    return {key: meta[key] for key in (*TAKEN_OVER, *more) if key in meta} | {
        "w_select_um": float(meta["w_ref_um"]),
        "r_end_ohm": 0.5 * float(meta["r_bit_ohm"]),
        "mirror_ratio": float(meta.get("mirror_ratio", 1.0)),
    }


def standard_errors(errors: GroupErrors) -> dict[str, float]:
    """By name, in units of the specification's scale."""
    names = [n for group, _ in errors for n in group]
    return dict(zip(names, np.concatenate([e.stderr for _, e in errors]), strict=True))


def parameter(
    s: Stages, name: str, value: float, spec: Spec, stderr: float | None, description: str | None = None
) -> Parameter:
    """``name`` as its fits left it; stderr in units of the specification's scale, None if nothing is known of it."""
    return Parameter(
        name, value, None if stderr is None else float(stderr * spec.scale), spec.lo, spec.hi, spec.unit, spec.group,
        description or spec.description, name in s.at_bound, name not in s.unidentified,
    )  # fmt: skip


def correlations(errors: GroupErrors) -> dict[str, Any]:
    """A card's names and matrix. Groups are resampled apart, so nothing is known across them."""
    names = tuple(n for group, _ in errors for n in group)
    return {"correlation_names": names, "correlation": block_diag(*(e.correlation for _, e in errors if len(e.stderr)))}


def span(name: str, records: Sequence[Record]) -> tuple[float, float]:
    """Least and largest of an attribute."""
    values = [float(r.attrs[name]) for r in records]
    return min(values), max(values)


def width_span(meta: Mapping[str, Any], fitted: Sequence[Record]) -> tuple[float, float]:
    """Select widths that cells or columns were fitted at [µm]."""
    widths = (*span("w_select_um", fitted), float(meta["w_min_um"]), float(meta["w_ref_um"]))
    return min(widths), max(widths)


def fit_summary(s: Stages, columns: int) -> FitSummary:
    """Of all fits, of ``columns`` lines."""
    decks = {r.deck_hash for r in s.reference.select(role="fit") if r.deck_hash}
    return FitSummary(len(s.fitted), len(decks), columns, s.converged, tuple(s.messages))


def provenance(reference: ReferenceSet) -> Provenance:
    """Who simulated, which version fitted, and the set's hash."""
    return Provenance(str(reference.meta["simulator"]), aimcard.__version__, {"calibration": reference.content_hash})
