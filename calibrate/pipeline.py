"""Reference set to card: run the stages, compare variants on columns held out of the fit, and write down what is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
import torch

from aimcard.calibrate.bootstrap import Errors, bootstrap
from aimcard.calibrate.energy import has_supplies, oscillator_table, run_energy
from aimcard.calibrate.fit import jacobian, tensors
from aimcard.calibrate.fitted_card import (
    card_meta,
    correlations,
    fit_summary,
    parameter,
    provenance,
    span,
    standard_errors,
    width_span,
)
from aimcard.calibrate.parameters import SPECS
from aimcard.calibrate.setting import Setting
from aimcard.calibrate.stages import (
    JOINT,
    PULSE,
    READOUT,
    Stages,
    cell_errors,
    joint_residual,
    readout_tables,
    run_cells,
    run_line,
    run_readout,
    run_wire,
    wire_errors,
)
from aimcard.calibrate.targets import Columns, column_current
from aimcard.data.reference import ReferenceSet
from aimcard.models.card import Card, Decision, Interval, Parameter, Table
from aimcard.models.cell import APPARENT_WEIGHTS
from aimcard.models.energy import OSCILLATOR_TABLE
from aimcard.models.errors import FitError
from aimcard.models.pulse import EDGE_TABLES

SEGMENTS = 64
#: What a variant must gain, in units of what the aims allow: below it the optimiser's own tolerance decides.
LEAST_GAIN = 0.02
#: What a slot's current may err by, as a share of the largest.
LINE_ERROR = 1e-4


def calibrate(
    reference: ReferenceSet, progress: bool = True, apparent_weight: str | None = None, fixed: Iterable[str] = ()
) -> Card:
    """A card from a reference set; the same set gives the same card, number for number.

    ``apparent_weight`` names the form of the cell's equation; None compares all forms on columns held out of the
    comparison's fits. ``fixed`` names parameters that are not fitted. Cards that are to be interpolated need the same
    form, and none of the parameters that a few columns leave open.

    Reads records of role ``fit`` only: cell_dc, cell_pulse, edge and columns with an ideal clamp; for the
    read-out also readout_dc, oscillator and columns with clamp "ota". Raises FitError if a needed record is missing.
    """
    threads = torch.get_num_threads()
    # Sums in another order are other numbers: one thread makes the card repeat on any machine.
    torch.set_num_threads(1)
    try:
        if reference.meta["topology"] == "tied":
            from aimcard.calibrate.tied_pipeline import calibrate_tied

            return calibrate_tied(reference, progress)
        return _calibrate_gated(reference, progress, apparent_weight, frozenset(fixed))
    finally:
        torch.set_num_threads(threads)


def _calibrate_gated(reference: ReferenceSet, progress: bool, apparent_weight: str | None, fixed: frozenset[str]) -> Card:
    needed = ("w_ref_um", "w_min_um", "r_bit_ohm", "r_return_ohm", "edge_delay_s", "rows", "guard_slots")
    missing = [key for key in needed if key not in reference.meta]
    if missing:
        raise FitError(
            f"{reference.source}: a calibration needs {', '.join(missing)} in the set's meta data, which are missing; "
            "see docs/reference-set.md"
        )
    return _calibrate(reference, progress, apparent_weight, fixed)


def _calibrate(reference: ReferenceSet, progress: bool, apparent_weight: str | None, fixed: frozenset[str]) -> Card:
    from aimcard.calibrate.steps import steps

    with steps(progress, 6) as step:
        s = Stages(reference, Setting.of(reference, SEGMENTS, apparent_weight or "rational"), fixed=fixed)
        step("single cells")
        run_cells(s)
        tables = readout_tables(reference)
        full_scale_a = math.inf if tables is None else float(tables["adc"][0][-1])
        ideal, ota = s.columns("ideal"), s.columns("ota", full_scale_a)
        if ideal is None:
            raise FitError(
                f"{reference.source}: expected columns with clamp 'ideal' and role 'fit'; there are none; "
                "simulate or measure some, see docs/reference-set.md"
            )
        if ota is not None and (tables is None or ota.phase_counts is None):
            raise FitError(
                f"{reference.source}: columns with clamp 'ota' need records readout_dc and oscillator, and phase_count; "
                "add these, or leave the columns out"
            )
        step("lines with an ideal clamp")
        run_wire(s, ideal)
        run_line(s, ideal)
        decisions: tuple[Decision, ...] = ()
        if apparent_weight is None:
            step("variants of the apparent weight")
            decisions = (compare_apparent_weights(s, reference, ideal),)
            s.setting = dataclasses.replace(s.setting, apparent_weight=decisions[0].winner)
        step("single cells and lines together")
        # Without the read-out's lines: the line's parameters would take over what the read-out's equations leave.
        s.fit("joint refinement", JOINT, joint_residual(s, ideal, None, None)[0])
        if ota is not None and tables is not None:
            step("lines with the read-out")
            run_readout(s, ota, tables)
        residual, owner = joint_residual(s, ideal, ota, tables)
        step("errors")
        names = tuple(n for n in s.fitted if n not in s.fixed and n in {*JOINT, *PULSE, *(READOUT if ota is not None else ())})
        with torch.no_grad():
            left = residual(tensors(s.values)).numpy()
        seed = int(reference.meta.get("seed", 0))
        errors = [(names, bootstrap(jacobian(names, s.values, residual), left, owner, seed))]
        # What columns tell of a parameter, too, is told better by them.
        errors += [(tuple(n for n in cells if n not in names), e.take([n not in names for n in cells]))
                   for cells, e in cell_errors(s, seed)]  # fmt: skip
        errors += wire_errors(s, ideal, seed)
        if has_supplies(reference):
            errors.append(run_energy(s, seed))
        return _card(s, errors, decisions, tables if ota is not None else None, ideal, ota)


def compare_apparent_weights(s: Stages, reference: ReferenceSet, ideal: Columns) -> Decision:
    """Fit each form of the apparent weight to half of the columns' cells and lines, judge it on the other half.

    The score is the rms of the other half's residuals, in units of what the aims allow.
    """
    half = np.arange(len(ideal.owner)) // 4 % 2 == 0
    if half.all():
        raise FitError(f"{reference.source}: expected two or more ideal-clamp columns to fit; got {len(ideal.owner)}")
    scores = {}
    for form in APPARENT_WEIGHTS:
        # From where the fit stands already: the forms differ little, and so do their optima.
        trial = Stages(reference, dataclasses.replace(s.setting, apparent_weight=form), dict(s.values))
        run_cells(trial)
        run_wire(trial, ideal.take(np.flatnonzero(half)))
        run_line(trial, ideal.take(np.flatnonzero(half)))
        with torch.no_grad():
            left = column_current(ideal.take(np.flatnonzero(~half)), trial.setting)(tensors(trial.values))
        # Six digits: the optimiser's last bits may differ from run to run with the memory's layout, and decide nothing.
        scores[form] = float(f"{float(left.square().mean().sqrt()):.6g}")
    best = min(scores, key=lambda form: scores[form])
    # The rational form is the exact series law: another must be clearly better, or chance would choose.
    clear = scores[best] < 0.95 * scores["rational"] and scores[best] < scores["rational"] - LEAST_GAIN
    winner = best if clear else "rational"
    others = min(score for form, score in scores.items() if form != winner)
    return Decision(
        "apparent_weight", winner, scores,
        "rms residual on columns held out of the comparison's fit; rational unless another is 5 % better",
        float(f"{others - scores[winner]:.3g}"),
    )  # fmt: skip


def _card(
    s: Stages, errors: list[tuple[tuple[str, ...], Errors]], decisions: tuple[Decision, ...],
    tables: dict[str, tuple[torch.Tensor, torch.Tensor]] | None, ideal: Columns, ota: Columns | None,
) -> Card:  # fmt: skip
    ref, meta = s.reference, s.reference.meta
    meta_of_card = card_meta(meta, "bleed_a") | {
        "segments": SEGMENTS, "apparent_weight": s.setting.apparent_weight, "phase_rule": s.setting.phase_rule,
        "hold_s": s.setting.hold_s, "n_phases": int(meta.get("counts_per_period", 1)),
    }  # fmt: skip
    if has_supplies(ref):
        (drivers,) = ref.select(kind="driver_supply", role="fit")
        meta_of_card["word_columns"] = int(drivers.attrs["columns"])
    return Card(
        meta=meta_of_card,
        parameters=_parameters(s, errors, tables is not None),
        domain=_domain(ref, None if tables is None else float(tables["adc"][0][-1])),
        fit=fit_summary(s, len(ideal.owner) + (0 if ota is None else len(ota.owner))),
        provenance=provenance(ref),
        tables=_tables(s, tables),
        decisions=decisions,
        **correlations(errors),
    )


def _parameters(s: Stages, errors: list[tuple[tuple[str, ...], Errors]], with_readout: bool) -> tuple[Parameter, ...]:
    stderr, found = standard_errors(errors), []
    for name, value in s.values.items():
        spec = SPECS[name]
        if (not with_readout and spec.group in ("read-out", "adc")) or (spec.group == "energy" and name not in s.fitted):
            continue
        found.append(parameter(s, name, value, spec, stderr.get(name)))
    bit, wire = SPECS["r_bit_ohm"], "return-line wire per cell, drawn like the bit line's"
    value = s.values["r_bit_ohm"] * s.setting.return_per_bit
    return (*found, parameter(s, "r_return_ohm", value, bit, stderr.get("r_bit_ohm"), wire))


def _domain(ref: ReferenceSet, table_a: float | None) -> dict[str, Interval]:
    """table_a: where the converter's table ends, None without one."""
    meta, fitted = ref.meta, ref.select(kind="column", role="fit")
    judged = ref.select(kind="column", role="held_out") or fitted
    g = np.concatenate([r["conductance_s"].ravel() for r in fitted + judged])
    line_a = max(float(r["current_a"].max()) for r in [r for r in fitted if r.attrs["clamp"] == "ota"] or fitted)
    if table_a is not None:
        line_a = min(line_a, table_a, float(meta.get("counter_reach_a", math.inf)))
    # A line whose pulses end recharges its cells: for a slot it may take a little current back. Where nothing leaks, that is
    # all there is, and the card's own error decides by how much.
    line_lo_a = min(0.0, *(float(r["current_a"].min()) for r in fitted + judged)) - LINE_ERROR * line_a
    celsius = float(meta["temperature_c"])
    return {
        "conductance_s": Interval(float(g.min()), float(g.max()), "S"),
        "line_current_a": Interval(line_lo_a, line_a, "A"),
        "code": Interval(0, int(meta["code_max"]), "1"),
        "wire_scale": Interval(*span("wire_scale", [*judged, *fitted]), "1"),
        "temperature_c": Interval(celsius, celsius, "degC"),
        "w_select_um": Interval(*width_span(meta, fitted), "um"),
        "position": Interval(*span("position", fitted), "1"),
    }


def _tables(s: Stages, tables: dict[str, tuple[torch.Tensor, torch.Tensor]] | None) -> tuple[Table, ...]:
    words = {
        "clamp": ("A", "V", "line current", "clamp voltage", "voltage that the regulator holds, static"),
        "mirror": ("A", "A", "line current", "mirror current", "mirror output, static, bleed included"),
        "adc": ("A", "Hz", "line current", "count rate", "edges counted per second, mirror and bleed included"),
        OSCILLATOR_TABLE: ("A", "A", "line current", "supply current", "oscillator's supply, mirror and bleed included"),
        "edge_rise_delay": ("1", "s", "position", "delay", "rising word line through V_DD/2 after the slot boundary"),
        "edge_fall_delay": ("1", "s", "position", "delay", "falling word line through V_DD/2 after the slot boundary"),
        "edge_rise_time": ("1", "s", "position", "time", "10 to 90 % of the rising word line"),
        "edge_fall_time": ("1", "s", "position", "time", "90 to 10 % of the falling word line"),
    }
    every = {**{n: s.setting.edge_tables[n] for n in EDGE_TABLES}, **(tables or {})}
    if tables is not None and has_supplies(s.reference):
        every[OSCILLATOR_TABLE] = oscillator_table(s.reference)
    return tuple(Table(name, x.numpy(), y.numpy(), *words[name]) for name, (x, y) in every.items())
