"""PWM modes side by side: how well a card predicts each, and how far the circuit's own counts are from the ideal product.

Two kinds of figure. *Predicted against simulated*: 1 − R² and RMSE of the card on the held-out columns of a reference
set in that mode, whatever mode the card was fitted in. *Counts against the ideal product*: what the card, so checked, says of
many vectors on the same pair of lines: the error of count(G+) − count(G−) after one scale and one offset, in % of the
largest ideal product (ε_MAC) and of σ_MAC, before and after truncation. The difference of the two is the counters'
share: quantisation and what each phase boundary loses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aimcard.data.reference import Record, ReferenceSet
from aimcard.data.shipped import reference_for
from aimcard.models.adc import PHASE_RULES, residue_sigma
from aimcard.models.card import Card
from aimcard.models.card_text import rows_of_text
from aimcard.models.errors import CardError, InputError
from aimcard.models.modes import Mode, get_mode, mode_names
from aimcard.models.tile import TileModel
from aimcard.validation.data_sets import DataSet, figure
from aimcard.validation.report import validate
from aimcard.validation.scores import affine, affine_fit, full_scale, sigma_mac

#: Spread of the inputs, a share of the largest code: the Gaussian columns' (calibrate/columns.py).
SIGMA_SHARE = 1 / 3


@dataclass(frozen=True)
class CountError:
    """count(G+) − count(G−) against the ideal product after its best affine correction, over ``vectors`` Gaussian vectors.

    sigma_count: σ_MAC of the weighted counts. eps_phase, eps_count: error before and after truncation, in % of the
    largest ideal product; nrmse_phase, nrmse_count: in % of σ_MAC. truncation: RMSE of truncated minus untruncated
    about its mean, and ``expected`` what evenly spread fractions give, both in % of σ_MAC.
    """

    mode: Mode
    rule: str
    window_slots: int
    vectors: int
    sigma_count: float
    eps_phase: float
    eps_count: float
    nrmse_phase: float
    nrmse_count: float
    truncation: float
    expected: float


def pair_of(reference: ReferenceSet) -> Record:
    """The first held-out Gaussian pair with a read-out at nominal wire; InputError without one."""
    for r in reference.select(kind="column", role="held_out", clamp="ota", distribution="gaussian", wire_scale=1.0):
        if r.sizes["lines"] == 2:
            return r
    raise InputError(f"{reference.source}: expected a held-out Gaussian pair of lines with clamp 'ota'; there is none")


def count_error(
    model: TileModel, record: Record, mode: Mode, rule: str = PHASE_RULES[0], vectors: int = 48, seed: int = 3
) -> CountError:
    """Counts in a mode against the ideal product on the pair of ``record``; InputError for fewer than 4 vectors."""
    if vectors < 4:
        raise InputError(f"vectors: expected 4 or more, two numbers are fitted to them; got {vectors}")
    if not model.has_readout:
        raise CardError(f"{model.card.source}: tables/adc: missing; a card without a read-out has no counts")
    rng = np.random.default_rng(seed)
    g, a = record["conductance_s"], record.attrs
    drawn = np.round(rng.normal(0, SIGMA_SHARE * model.code_max, (vectors, g.shape[1])))
    codes = np.clip(drawn, 0, model.code_max).astype(np.int64)
    r = model.respond(g, codes, mode=mode, phase_rule=rule, w_select_um=float(a["w_select_um"]), position=float(a["position"]))
    assert r.phase_count is not None
    assert r.count is not None
    ideal = (codes @ (g[0] - g[1]))[:, None]
    phase, count = (x[:, :1] - x[:, 1:] for x in (r.phase_count, r.count.astype(float)))
    scale = abs(float(affine_fit(ideal, phase)[0][0])) * full_scale(ideal)
    sigma = sigma_mac(count)

    def error(y: np.ndarray) -> float:
        left = y - affine(ideal, *affine_fit(ideal, y))
        # Two fitted numbers take two of the vectors' freedoms.
        return float(np.sqrt((left**2).sum() / (vectors - 2)))

    lost = count - phase
    expected = np.sqrt(2) * residue_sigma(mode.weights, rule)
    eps, share = 100 / float(scale[0]), 100 / float(sigma[0])
    return CountError(
        mode, rule, mode.window_slots(model.guard_slots), vectors, float(sigma[0]), eps * error(phase), eps * error(count),
        share * error(phase), share * error(count), share * float(lost.std()), share * expected,
    )  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """A card on a reference set of a mode: 1 − R² by quantity, rms error of the weighted phase, ε_MAC [%] of it.

    after_offset: 1 − R² of the phase once each line's mean error is taken off, as a calibrated offset does.
    """

    mode: str
    fitted_in: str
    vectors: int
    one_minus_r2: dict[str, float | None]
    after_offset: float | None
    rms_count: float | None
    sigma_count: float | None
    eps_mac: float | None


def predicted(card: Card, reference: ReferenceSet) -> Prediction:
    """Figures of the Gaussian columns at nominal wire; raises as ``validate``."""
    whole = validate(card, reference, progress=False).data_sets
    sets = {name: s.summary for name, s in whole.items()}
    ideal, ota = sets.get("ideal-gaussian-1x", {}), sets.get("ota-gaussian-1x", {})
    found = {
        "charge, ideal clamp": figure(ideal, "charge", "one_minus_r2"),
        "mirror charge": figure(ota, "charge", "one_minus_r2"),
        "phase": figure(ota, "phase", "one_minus_r2"),
    }
    return Prediction(
        str(reference.meta["mode"]), str(card.meta["mode"]), int((ota or ideal).get("vectors", 0)), found,
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


def list_modes(guard: int = 4) -> str:
    """All registered modes as a table: phases, weights and window."""
    rows = [("mode", "phases", "weights", "window [LSB]", "with guards", "")]
    for name in mode_names():
        m = get_mode(name)
        weights = ", ".join(map(str, m.weights))
        rows.append((name, str(len(m.phases)), weights, str(m.window_slots(0)), str(m.window_slots(guard)), m.summary))
    return "\n".join(rows_of_text(rows))


def _shown(value: float | None, form: str = ".2g") -> str:
    return "-" if value is None else format(value, form)


def prediction_table(found: Iterable[Prediction]) -> str:
    rows = [
        ("mode", "fitted in", "vectors", "charge 1-R2", "mirror charge", "phase", "less offset", "rms [counts]", "σ", "ε_MAC %")
    ]
    for p in found:
        rows.append(
            (p.mode, p.fitted_in, str(p.vectors), *map(_shown, p.one_minus_r2.values()), _shown(p.after_offset),
             _shown(p.rms_count, ".3g"),
             _shown(p.sigma_count, ".4g"), _shown(p.eps_mac, ".2g"))
        )  # fmt: skip
    return "\n".join(["predicted against simulated, held-out lines (medians over lines):", *rows_of_text(rows)])


def count_table(found: Iterable[CountError]) -> str:
    rows = [("mode", "ring", "window", "σ [counts]", "R2", "1-R2", "ε_MAC %", "untruncated", "RMSE/σ %", "truncated", "evenly")]
    for e in found:
        rest = (e.nrmse_count / 100) ** 2
        rows.append(
            (e.mode.name, e.rule, str(e.window_slots), f"{e.sigma_count:.4g}", f"{1 - rest:.6f}", f"{rest:.2g}",
             f"{e.eps_count:.3g}", f"{e.eps_phase:.3g}", f"{e.nrmse_count:.3g}", f"{e.truncation:.3g}", f"{e.expected:.3g}")
        )  # fmt: skip
    return "\n".join(["counts of a pair against the ideal product after scale and offset:", *rows_of_text(rows)])


def compare_modes(card: Card, references: Sequence[ReferenceSet] = (), modes: Sequence[str] = (), vectors: int = 48) -> str:
    """Both tables as text: ``references`` for the first; ``modes`` (none: all) for the second, under each phase rule."""
    model = TileModel(card)
    parts = [prediction_table(predicted(card, r) for r in references)] if references else []
    pair = pair_of(next(iter(references), None) or reference_for(card))
    rows = []
    for name in modes or mode_names():
        mode = get_mode(name, model.code_max)
        for rule in PHASE_RULES if len(mode.phases) > 1 else PHASE_RULES[:1]:
            rows.append(count_error(model, pair, mode, rule, vectors))
    return "\n\n".join([*parts, count_table(rows)])
