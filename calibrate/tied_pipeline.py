"""Reference set to model card for the tied topology: cells, columns, both together, errors, and then the read-out."""

from __future__ import annotations

import numpy as np
import torch

from aimcard.calibrate.bootstrap import Errors, bootstrap
from aimcard.calibrate.energy import has_supplies, oscillator_rows, run_energy
from aimcard.calibrate.fit import jacobian, tensors, together
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
from aimcard.calibrate.stages import Stages
from aimcard.calibrate.steps import steps
from aimcard.calibrate.tied_parameters import TIED_SPECS
from aimcard.calibrate.tied_readout_fit import check_readout_columns, offset_parameters, run_tied_readout, table_rows
from aimcard.calibrate.tied_targets import TiedSetting, source_line_residual, stack_pairs, tied_cells, tied_lines
from aimcard.data.reference import ReferenceSet
from aimcard.models.adc import HOLD_S, PHASE_RULES
from aimcard.models.card import Card, Interval, Table
from aimcard.models.errors import FitError
from aimcard.models.tied_readout import Tables
from aimcard.models.tied_tile import CELL, EDGE_TABLES, PULSE, WIDTH, WIRE
from aimcard.netlists.oscillator import COUNTS_PER_PERIOD

SWITCHES = ("r_down_ohm", "r_up_ohm")
NEEDED_META = ("w_ref_um", "w_min_um", "v_common_v", "r_bit_ohm", "rows", "guard_slots", "edge_delay_s")


def calibrate_tied(reference: ReferenceSet, progress: bool = True) -> Card:
    """A card from a tied reference set: records cell_dc, source_edge and columns of role ``fit``.

    Raises FitError if one of them, or meta data, is missing.
    """
    if missing := [key for key in NEEDED_META if key not in reference.meta]:
        raise FitError(f"{reference.source}: a tied calibration needs {', '.join(missing)} in the set's meta data")
    setting = TiedSetting.of(reference)
    found = reference.select(kind="column", role="fit", clamp="ideal")
    if not found:
        raise FitError(f"{reference.source}: expected columns with clamp 'ideal' and role 'fit'; there are none")
    if lacking := [r.name for r in found if "conductance_minus_s" not in r]:
        raise FitError(f"{reference.source}: records/{lacking[0]}/conductance_minus_s: missing (a tied column has pairs)")
    check_readout_columns(reference)
    s = Stages(reference, setting, {n: spec.start for n, spec in TIED_SPECS.items()}, specs=TIED_SPECS)  # pyright: ignore[reportArgumentType]
    with steps(progress, 5) as step:
        step("single cells")
        cells, cell_of = tied_cells(s.record("cell_dc"), setting)
        s.fit("cells", CELL, cells)
        source = s.record("source_edge")
        if "down_gain" in source:
            # The row's wire is given; the switches are what is measured.
            s.values["r_row_ohm"] = float(source.attrs["r_row_ohm"])
            s.fit("source lines", SWITCHES, source_line_residual(source, setting))
        else:
            s.values.update(dict.fromkeys(SWITCHES, 0.0))
        columns = stack_pairs(found, setting)
        step("columns with an ideal clamp")
        lines = tied_lines(columns, setting)
        wire = WIRE if s.one_width else (*WIRE, WIDTH)
        s.fit("columns", (*wire, *PULSE), lines)
        step("cells and columns together")
        both = together([cells, lines])
        s.fit("joint refinement", (*CELL, *wire, *PULSE), both)
        step("errors")
        names = tuple(n for n in s.fitted if n not in SWITCHES)
        with torch.no_grad():
            left = both(tensors(s.values)).numpy()
        # Cells and columns were drawn independently of each other, so both are resampled.
        each = (len(left) - len(cell_of)) // len(columns.owner)
        owner = np.concatenate([cell_of, cell_of.max() + 1 + np.repeat(columns.owner, each)])
        seed = int(reference.meta.get("seed", 0))
        errors = [(names, bootstrap(jacobian(names, s.values, both, TIED_SPECS), left, owner, seed))]
        step("columns with the read-out")
        readout = run_tied_readout(s, setting, seed)
        if readout is not None:
            errors.append((readout.names, readout.errors))
        if has_supplies(reference):
            errors.append(run_energy(s, seed))
    return _card(s, setting, errors, len(columns.owner), None if readout is None else readout.tables)


def _card(
    s: Stages, setting: TiedSetting, errors: list[tuple[tuple[str, ...], Errors]], n_columns: int, readout: Tables | None
) -> Card:
    ref, meta = s.reference, s.reference.meta
    stderr, known = standard_errors(errors), [n for n in s.specs if n in s.values]
    parameters = [parameter(s, n, s.values[n], s.specs[n], stderr.get(n)) for n in known]
    if readout is not None:
        parameters += offset_parameters(readout, setting.v_common_v)
    words = {
        "down_start": "down from the common mode", "down_end": "back up to the common mode",
        "up_start": "up from the common mode", "up_end": "back down to the common mode",
    }  # fmt: skip
    return Card(
        meta=card_meta(meta, "v_common_v", "bias_a") | {
            "segments": int(meta["rows"]),
            "n_phases": int(meta.get("counts_per_period", 1 if readout is None else COUNTS_PER_PERIOD)),
            "phase_rule": str(meta.get("phase_rule", PHASE_RULES[0])), "hold_s": float(meta.get("hold_s", HOLD_S)),
            "row_columns": setting.row_columns, "row_load_s": setting.row_load_s,
        } | ({"word_columns": int(s.record("driver_supply").attrs["columns"])} if has_supplies(ref) else {}),
        parameters=tuple(parameters),
        domain=_domain(ref, readout),
        fit=fit_summary(s, n_columns),
        provenance=provenance(ref),
        tables=tuple(
            Table(name, x.numpy(), y.numpy(), "1", "s", "position", "delay",
                  f"source line's edge {words[name.removeprefix('edge_')]}, equal-area delay after the slot boundary")
            for name, (x, y) in ((n, setting.edge_tables[n]) for n in EDGE_TABLES)
        ) + (_static_tables(ref) if readout is None else table_rows(readout)) + oscillator_rows(ref),
        **correlations(errors),
    )  # fmt: skip


def _domain(ref: ReferenceSet, readout: Tables | None) -> dict[str, Interval]:
    meta, fitted = ref.meta, ref.select(kind="column", role="fit")
    every = [*(ref.select(kind="column", role="held_out") or fitted), *fitted]
    g = np.concatenate([r[n].ravel() for r in every for n in ("conductance_s", "conductance_minus_s")])
    most = max(float(np.abs(r["current_a"]).max()) for r in fitted)
    table = (-np.inf, np.inf) if readout is None else (float(readout["adc"][0][0]), float(readout["adc"][0][-1]))
    reach_a = np.inf if readout is None else float(meta.get("counter_reach_a", np.inf))
    code, celsius = int(meta["code_max"]), float(meta["temperature_c"])
    return {
        "conductance_s": Interval(float(g.min()), float(g.max()), "S"),
        "line_current_a": Interval(max(-most, table[0]), min(most, table[1], reach_a), "A"),
        "code": Interval(-code, code, "1"),
        "wire_scale": Interval(*span("wire_scale", every), "1"),
        "temperature_c": Interval(celsius, celsius, "degC"),
        "w_select_um": Interval(*width_span(meta, fitted), "um"),
        "position": Interval(*span("position", fitted), "1"),
    }


def _static_tables(reference: ReferenceSet) -> tuple[Table, ...]:
    """Clamp voltage and mirror current over the line's, of a set that has no more of a read-out than these."""
    found = reference.select(kind="readout_dc", role="fit")
    if not found:
        return ()
    i, clamp_v, mirror_a = (found[0][n] for n in ("current_a", "v_clamp_v", "mirror_a"))
    return (
        Table("clamp", i, clamp_v, "A", "V", "line current", "clamp voltage", "voltage that the regulator holds, static"),
        Table("mirror", i, mirror_a, "A", "A", "line current", "mirror current", "mirror output, static, bias included"),
    )
