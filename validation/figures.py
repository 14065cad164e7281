"""Figures of a validation. Each function draws one and returns it; `write_all` writes them as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aimcard.data.reference import ReferenceSet
from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.validation.aims import AIMS, Aim
from aimcard.validation.data_sets import DataSet, RecordResult, figure
from aimcard.validation.predictors import Comparison
from aimcard.validation.readout_figures import lut, readout
from aimcard.validation.report import ValidationResult
from aimcard.validation.scores import later_slots, sigma_mac
from aimcard.validation.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PREDICTOR_STYLE,
    QUANTITY_LABEL,
    distribution_styles,
    new_figure,
    save,
    si,
    tidy,
    unit_of,
)

# Slots in a waveform's close-up of the turn-on.
CLOSE_UP = 6
SCORED = ("current", "charge", "phase")


def write_all(card: Card, reference: ReferenceSet, result: ValidationResult, folder: str | Path) -> list[Path]:
    """Draw every figure that card, reference set and result have data for; the paths written, in order."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Figure] = {"scores": scores(result)}
    for clamp in dict.fromkeys(s.clamp for s in result.data_sets.values()):
        recorded = [r for r in _records(result, clamp) if "waveform_a" in r.record]
        if recorded:
            drawn[f"waveform_{clamp}"] = waveform(recorded[0])
        if any(s.wire_scale == 1 for s in result.data_sets.values() if s.clamp == clamp):
            drawn[f"parity_{clamp}"] = parity(result, clamp)
    for quantity in SCORED:
        if any(quantity in s.summary for s in result.data_sets.values()):
            drawn[f"residuals_{quantity}"] = residuals(result, quantity)
    if _wire_sets(result):
        drawn["wire_scale"] = wire_scale(result)
    if any(t.name == "adc" for t in card.tables):
        drawn["lut"] = lut(card, reference)
    if reference.select(kind="readout_dc") or reference.select(kind="loop_gain"):
        drawn["readout"] = readout(card, reference)
    return [save(fig, out / f"{name}.png") for name, fig in drawn.items()]


def _records(result: ValidationResult, clamp: str) -> list[RecordResult]:
    return [r for s in result.data_sets.values() if s.clamp == clamp for r in s.records]


def waveform(result: RecordResult, line: int = 0) -> Figure:
    """A recorded 10 ps waveform with its slot means and the model's, and what is left between the two.

    Of the mirror where its waveform was recorded, else of the line. Raises InputError without a waveform.
    """
    record = result.record
    mirrored = "mirror_waveform_a" in record and "line_current" in result.comparisons
    if not mirrored and "waveform_a" not in record:
        raise InputError(f"records/{record.name}: expected a waveform to draw, got none")
    fine = record["mirror_waveform_a" if mirrored else "waveform_a"][line]
    name = "current" if mirrored or "line_current" not in result.comparisons else "line_current"
    what = "mirror current" if mirrored else "line current"
    vector = int(record.attrs.get("waveform_vector", 0))
    c = result.comparisons[name]
    truth, model = c.truth[vector, line], c.predicted["model"][vector, line]
    edge_ns, time_ns = 1e9 * record["slot_edge_s"], 1e9 * record["waveform_time_s"]
    factor, unit = si(truth, "A")
    error_factor, error_unit = si(model - truth, "A")
    fig = new_figure(10, 5.6)
    axes = fig.subplots(2, 2, sharex="col", height_ratios=(3, 1), width_ratios=(2, 1))
    spans = ((edge_ns[0], edge_ns[-1]), (edge_ns[0], edge_ns[min(CLOSE_UP, len(truth))]))
    for column, (start, end) in enumerate(spans):
        top, below = axes[0, column], axes[1, column]
        top.plot(time_ns, factor * fine, color=GREY, linewidth=0.8, label="reference, waveform")
        top.stairs(factor * truth, edge_ns, baseline=None, color=ORANGE, linewidth=2.2, label="reference, slot means")
        top.stairs(factor * model, edge_ns, baseline=None, color=BLUE, linewidth=1.1, label="model card, slot means")
        below.stairs(error_factor * (model - truth), edge_ns, baseline=None, color=BLUE, linewidth=1.1)
        below.axhline(0, color=BLACK, linewidth=0.6)
        below.set_xlabel("time (ns)")
        top.set_xlim(start, end)
        for ax in (top, below):
            tidy(ax)
    # Spikes of the edges would flatten the rest.
    low, high = factor * truth.min(), factor * truth.max()
    room = 0.12 * (high - low) or 1.0
    axes[0, 0].set_ylim(low - room, high + room)
    near = factor * fine[time_ns <= spans[1][1]]
    axes[0, 1].set_ylim(near.min() - room, near.max() + room)
    axes[0, 0].set_ylabel(f"{what} ({unit})")
    axes[1, 0].set_ylabel(f"model − reference\n({error_unit})")
    axes[0, 0].legend(frameon=False)
    axes[0, 1].set_title("turn-on", fontsize="medium")
    axes[0, 0].set_title(f"{record.name}, vector {vector}, line {line}", fontsize="medium")
    return fig


def parity(result: ValidationResult, clamp: str) -> Figure:
    """Charge and (with a read-out) phase at nominal wire: model and ideal MAC against the reference."""
    sets = [s for s in result.data_sets.values() if s.clamp == clamp and s.wire_scale == 1]
    shown = [q for q in ("charge", "phase") if any(q in r.comparisons for s in sets for r in s.records)]
    styles = distribution_styles([s.distribution for s in sets])
    fig = new_figure(1.2 + 4.8 * len(shown), 5.8)
    axes = fig.subplots(2, len(shown), sharex="col", height_ratios=(3, 1.2), squeeze=False)
    for column, quantity in enumerate(shown):
        found = [(s.distribution, r.comparisons[quantity]) for s in sets for r in s.records if quantity in r.comparisons]
        _parity_column(axes[0, column], axes[1, column], quantity, found, styles)
    marks = [
        Line2D([], [], linestyle="", marker=marker, color=color, label=f"model card, {name}")
        for name, (color, marker) in styles.items()
    ]
    marks.append(Line2D([], [], linestyle="", marker="+", color=GREY, label="ideal MAC"))
    axes[0, 0].legend(handles=marks, frameon=False, fontsize="small")
    fig.suptitle(f"held-out columns, {_clamp_text(clamp)}, nominal wire", fontsize="medium")
    return fig


def _parity_column(
    top: Axes,
    below: Axes,
    quantity: str,
    found: list[tuple[str, Comparison]],
    styles: dict[str, tuple[str, str]],
) -> None:
    unit = unit_of(quantity)
    factor, shown_unit = si(np.concatenate([c.truth.ravel() for _, c in found]), unit)
    errors = [(c.predicted["model"] - c.truth).ravel() for _, c in found]
    error_factor, error_unit = si(np.concatenate(errors), unit)
    for (distribution, c), error in zip(found, errors, strict=True):
        color, marker = styles[distribution]
        x = factor * c.truth.ravel()
        top.plot(x, factor * c.predicted["ideal"].ravel(), linestyle="", marker="+", color=GREY, markersize=5)
        top.plot(x, factor * c.predicted["model"].ravel(), linestyle="", marker=marker, color=color, markersize=4)
        below.plot(x, error_factor * error, linestyle="", marker=marker, color=color, markersize=4)
    low, high = top.get_xlim()
    top.plot([low, high], [low, high], color=BLACK, linewidth=0.7, zorder=1)
    below.axhline(0, color=BLACK, linewidth=0.7, zorder=1)
    label = QUANTITY_LABEL[quantity]
    top.set_ylabel(f"predicted {label} ({shown_unit})")
    below.set_ylabel(f"model − reference\n({error_unit})")
    below.set_xlabel(f"{label} in the reference ({shown_unit})")
    for ax in (top, below):
        tidy(ax)


def residuals(result: ValidationResult, quantity: str) -> Figure:
    """Share of errors below |error|/σ_MAC: a panel a data set, a curve a predictor, each line by its σ."""
    sets = [s for s in result.data_sets.values() if quantity in s.summary]
    columns = min(4, len(sets))
    rows = -(-len(sets) // columns)
    fig = new_figure(1.0 + 3.0 * max(columns, 2), 1.1 + 2.4 * rows)
    axes = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    used: dict[str, Line2D] = {}
    for ax, data_set in zip(axes.flat, sets, strict=False):
        for name, (color, _, label) in PREDICTOR_STYLE.items():
            errors = _relative_errors(data_set, quantity, name)
            if errors.size:
                share = np.arange(1, len(errors) + 1) / len(errors)
                used[label] = ax.plot(errors, share, color=color, drawstyle="steps-post", linewidth=1.4, label=label)[0]
        ax.set_xscale("log")
        ax.set_ylim(0, 1.03)
        ax.set_title(data_set.name, fontsize="small")
        tidy(ax)
    for k, ax in enumerate(axes.flat):
        ax.set_visible(k < len(sets))
        ax.tick_params(labelbottom=k + columns >= len(sets))
    fig.supxlabel(f"|error| of the {QUANTITY_LABEL[quantity]} / σ_MAC of its line", fontsize="medium")
    fig.supylabel("share of vectors (slots) below", fontsize="medium")
    fig.legend(used.values(), used.keys(), loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    return fig


def _relative_errors(data_set: DataSet, quantity: str, predictor: str) -> np.ndarray:
    """Sorted |error|/σ_MAC over lines, vectors and slots; those that are zero or not defined are left out."""
    parts = []
    for r in data_set.records:
        if quantity not in r.comparisons:
            continue
        c = r.comparisons[quantity]
        truth = later_slots(c.truth)
        sigma = sigma_mac(truth).reshape((1, -1) + (1,) * (truth.ndim - 2))
        if predictor == "floor":
            if c.floor is None:
                continue
            error = later_slots(c.floor) - truth[c.floor_vectors]
        else:
            error = later_slots(c.predicted[predictor]) - truth
        parts.append((np.abs(error) / sigma).ravel())
    errors = np.sort(np.concatenate(parts)) if parts else np.zeros(0)
    return errors[(errors > 0) & np.isfinite(errors)]


def scores(result: ValidationResult) -> Figure:
    """1 − R² of every data set and predictor on a log axis: medians, the model's worst line, and the aims."""
    sets = list(result.data_sets.values())
    shown = [q for q in SCORED if any(q in s.summary for s in sets)]
    fig = new_figure(2.2 + 3.2 * len(shown), 1.7 + 0.34 * len(sets))
    axes = fig.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for ax, quantity in zip(axes, shown, strict=True):
        for y, data_set in enumerate(sets):
            _score_row(ax, y, data_set, quantity)
        ax.set_xscale("log")
        ax.set_xlabel(f"1 − R² of the {QUANTITY_LABEL[quantity]}")
        tidy(ax)
    axes[0].set_yticks(range(len(sets)), [s.name for s in sets])
    axes[0].set_ylim(len(sets) - 0.5, -0.5)
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=color, label=label) for color, marker, label in PREDICTOR_STYLE.values()
    ]
    handles.append(Line2D([], [], color=PREDICTOR_STYLE["model"][0], linewidth=1.2, label="to the model's worst line"))
    handles.append(Line2D([], [], linestyle="", marker="|", color=BLACK, markersize=11, label="aim"))
    fig.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    return fig


def _score_row(ax: Axes, y: int, data_set: DataSet, quantity: str) -> None:
    summary = data_set.summary
    for name, (color, marker, _) in PREDICTOR_STYLE.items():
        value = figure(summary, quantity, "one_minus_r2", name)
        worst = figure(summary, quantity, "worst_one_minus_r2", name)
        if value:
            ax.plot([value], [y], linestyle="", marker=marker, color=color, markersize=6)
            if name == "model" and worst:
                ax.plot([value, worst], [y, y], color=color, linewidth=1.2)
    for limit in [a.limit for a in _aims(quantity, data_set.clamp) if np.isclose(a.wire_scale, data_set.wire_scale)]:
        if data_set.counts_for_aims and quantity in summary:
            ax.plot([limit], [y], linestyle="", marker="|", color=BLACK, markersize=13, markeredgewidth=1.6)


def _aims(quantity: str, clamp: str) -> list[Aim]:
    return [a for a in AIMS if a.quantity == quantity and a.clamp == clamp and a.measure == "one_minus_r2"]


def _wire_sets(result: ValidationResult) -> dict[tuple[str, str], list[DataSet]]:
    """Data sets of one clamp and distribution at several wire scales, by rising scale."""
    groups: dict[tuple[str, str], list[DataSet]] = {}
    for s in sorted(result.data_sets.values(), key=lambda s: s.wire_scale):
        groups.setdefault((s.clamp, s.distribution), []).append(s)
    return {key: group for key, group in groups.items() if len(group) > 1}


def wire_scale(result: ValidationResult) -> Figure:
    """1 − R² of the charge over the wire's scale, no new fit; a panel for each clamp and distribution."""
    groups = _wire_sets(result)
    if not groups:
        raise InputError("data_sets: expected one clamp and distribution at two wire scales or more, got none")
    fig = new_figure(1.4 + 4.6 * len(groups), 4.6)
    axes = fig.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for ax, ((clamp, distribution), sets) in zip(axes, groups.items(), strict=True):
        for name, (color, marker, label) in PREDICTOR_STYLE.items():
            values = [(s.wire_scale, figure(s.summary, "charge", "one_minus_r2", name)) for s in sets]
            points = [(x, y) for x, y in values if y]
            if points:
                ax.plot(*zip(*points, strict=True), color=color, marker=marker, label=label)
        aims = [(a.wire_scale, a.limit) for a in _aims("charge", clamp)]
        ax.plot(*zip(*aims, strict=True), linestyle="", marker="_", color=BLACK, markersize=16, label="aim")
        ax.set(xscale="log", yscale="log", xlabel="wire resistance per cell / nominal")
        scales = sorted({s.wire_scale for s in sets} | {x for x, _ in aims})
        ax.set_xticks(scales, [f"{x:g}" for x in scales])
        ax.set_xticks([], minor=True)
        ax.set_title(f"{_clamp_text(clamp)}, {distribution} inputs", fontsize="medium")
        tidy(ax)
    axes[0].set_ylabel("1 − R² of the charge")
    axes[0].legend(frameon=False, fontsize="small")
    return fig


def _clamp_text(clamp: str) -> str:
    return {"ideal": "ideal clamp", "ota": "OTA and mirror"}.get(clamp, clamp)
