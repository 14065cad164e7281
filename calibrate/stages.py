"""The fits, one after another: each group of parameters from the records that isolate it, then all on whole columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from aimcard.calibrate.bootstrap import Errors, bootstrap
from aimcard.calibrate.cell_targets import cell_gate, cell_of, cell_off, cell_on, cell_pulse, gate_rows, off_rows, on_rows
from aimcard.calibrate.fit import Fit, Residual, jacobian, minimise, tensors, together
from aimcard.calibrate.parameters import SPECS, Spec
from aimcard.calibrate.setting import Setting
from aimcard.calibrate.targets import (
    LEAST_QUIET,
    Columns,
    base_current,
    column_current,
    column_readout,
    quiet_current,
    quiet_slots,
    stack_columns,
)
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.errors import FitError
from aimcard.models.readout import response_names

CELL_ON = ("r_on_ohm", "dw_um", "k_source_per_v", "k_drain_per_v")
LEAK = ("i_leak_a", "dw_leak_um", "v_leak_source_v", "v_leak_drain_v")
GATE = ("i_gate_a", "v_gate_source_v")
PULSE = (
    "t_rise_s", "k_rise", "t_fall_s", "k_fall", "k_gate", "t_fall_per_s", "q_rise_c", "q_fall_c", "i_fall_a",
    "c_fall_bit_f", "c_fall_return_f", "c_node_f", "i_recharge_a", "k_recharge_per_v", "dw_node_um", "dw_fall_um",
    "dw_recharge_um", "dw_late_um", "dw_cap_um",
)  # fmt: skip
LINE = (
    "c_rise_push_f", "g_rise_push_s", "c_fall_push_f", "g_fall_push_s", "c_small_push_f", "g_small_s", "n_rise_push",
    "n_fall_push", "c_idle_f", "dw_push_um", "dw_pull_um", "dw_small_um", "r_bit_ohm",
)  # fmt: skip
#: Bit and return line are drawn alike: one resistance.
WIRE = ("r_bit_ohm",)
READOUT = (
    *(n for block in ("clamp", "mirror") for field, group in response_names(block).items()
      for n in group if field != "on_half_a"),
    "phase_start", "t_wait_s",
)  # fmt: skip
#: Widths that a reference set of one select width cannot tell.
WIDTHS = (
    "dw_um", "dw_leak_um", "dw_node_um", "dw_fall_um", "dw_recharge_um", "dw_late_um", "dw_cap_um", "dw_push_um",
    "dw_pull_um", "dw_small_um",
)  # fmt: skip

#: A gate current below this is the simulator's own conductance to ground: such a technology's models have none [A].
LEAST_GATE_A = 1e-13


@dataclass
class Stages:
    """State of a calibration: current values, what each stage said, and the data of the column stages."""

    reference: ReferenceSet
    setting: Setting
    values: dict[str, float] = field(default_factory=lambda: {name: spec.start for name, spec in SPECS.items()})
    fitted: list[str] = field(default_factory=list)
    unidentified: set[str] = field(default_factory=set)
    at_bound: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    unconverged: set[str] = field(default_factory=set)
    specs: Mapping[str, Spec] = field(default_factory=lambda: SPECS)
    #: Names that stay where their fits would start.
    fixed: frozenset[str] = frozenset()

    def fit(self, stage: str, names: tuple[str, ...], residual: Residual) -> Fit:
        """Fit ``names``, keep the result, remember what must be said about it."""
        free = tuple(n for n in names if n not in self.fixed and not (self.one_width and n in WIDTHS))
        fit = minimise(stage, free, self.values, residual, self.specs)
        self.values = fit.values
        self.fitted = list(dict.fromkeys([*self.fitted, *free]))
        # A later stage may see what an earlier one could not.
        self.unidentified = (self.unidentified - set(free)) | set(fit.unidentified)
        self.at_bound = (self.at_bound - set(free)) | set(fit.at_bound)
        self.messages += fit.messages
        self.unconverged = (self.unconverged - set(free)) | (set() if fit.converged else set(free))
        return fit

    @property
    def converged(self) -> bool:
        """Whether the last fit of every parameter ended at an optimum."""
        return not self.unconverged

    @property
    def one_width(self) -> bool:
        """Whether all cells have one select width, so that nothing tells how a parameter goes with the width."""
        meta = self.reference.meta
        return float(meta["w_min_um"]) == float(meta["w_ref_um"])

    def record(self, kind: str):
        """The one record of ``kind`` that fits may use."""
        found = self.reference.select(kind=kind, role="fit")
        if not found:
            raise FitError(
                f"{self.reference.source}: expected a record of kind {kind} with role fit; there is none; "
                "see docs/reference-set.md for what a calibration reads"
            )
        return found[0]

    def columns(self, clamp: str, limit_a: float = math.inf) -> Columns | None:
        """The fit's columns with this clamp, None if there are none; lines of more current than ``limit_a`` are left out."""
        found = self.reference.select(kind="column", role="fit", clamp=clamp)
        within = [r for r in found if float(r["current_a"].max()) <= limit_a]
        if len(within) < len(found):
            self.messages.append(
                f"{len(found) - len(within)} of {len(found)} lines with clamp {clamp} left out: their current is beyond "
                f"the converter's table, {limit_a * 1e6:.0f} uA"
            )
        return stack_columns(within, self.setting) if within else None


def readout_tables(reference: ReferenceSet) -> dict[str, tuple[Tensor, Tensor]] | None:
    """Clamp, mirror and ADC tables as measured; None if the set has no read-out."""
    static = reference.select(kind="readout_dc", role="fit")
    ring = reference.select(kind="oscillator", role="fit")
    if not static or not ring:
        return None
    s, o = static[0], ring[0]
    for record, name in ((s, "mirror_a"), (o, "count_rate_hz")):
        if not (np.diff(record[name]) > 0).all():
            raise FitError(
                f"{reference.source}: records/{record.name}/{name}: expected values that rise with the current "
                "(a monotone converter); they do not; check the read-out's range"
            )

    def t(record: Record, name: str) -> Tensor:
        return torch.tensor(np.array(record[name]))

    return {
        "clamp": (t(s, "current_a"), t(s, "v_clamp_v")),
        "mirror": (t(s, "current_a"), t(s, "mirror_a")),
        "adc": (t(o, "current_a"), t(o, "count_rate_hz")),
    }


def run_cells(s: Stages) -> None:
    """Apparent weight, leakage, gate current and pulse terms from single cells."""
    dc = s.record("cell_dc")
    s.fit("apparent weight", CELL_ON, cell_on(dc, s.setting))
    s.fit("leakage", LEAK, cell_off(dc, s.setting))
    if "gate_current_a" in dc and float(dc["gate_current_a"].max()) > LEAST_GATE_A:
        s.fit("gate current", GATE, cell_gate(dc, s.setting))
    else:
        s.values["i_gate_a"] = 0.0
    s.fit("pulse", PULSE, cell_pulse(s.record("cell_pulse"), s.setting))


def cell_errors(s: Stages, seed: int) -> list[tuple[tuple[str, ...], Errors]]:
    """Errors of the static cell's parameters, from a bootstrap over its cells; run_cells went before."""
    dc = s.record("cell_dc")
    groups = [(CELL_ON, cell_on, on_rows), (LEAK, cell_off, off_rows)]
    if "gate_current_a" in dc:
        groups.append((GATE, cell_gate, gate_rows))
    found = []
    for names, target, rows in groups:
        free = tuple(n for n in names if n in s.fitted)
        residual = target(dc, s.setting)
        with torch.no_grad():
            left = residual(tensors(s.values)).numpy()
        found.append((free, bootstrap(jacobian(free, s.values, residual), left, cell_of(dc, rows(dc)), seed)))
    return found


def run_wire(s: Stages, columns: Columns) -> None:
    """The wire from lines in which nothing switches for a while, if there are any; whole lines leave it alone then,
    or it would take up what their edges' terms leave."""
    lines = np.flatnonzero(quiet_slots(columns) >= LEAST_QUIET)
    if len(lines) and not s.fixed & set(WIRE):
        s.fit("wire", WIRE, quiet_current(columns.take(lines), s.setting))
        s.fixed |= set(WIRE)


def wire_errors(s: Stages, columns: Columns, seed: int) -> list[tuple[tuple[str, ...], Errors]]:
    """Errors of what ``run_wire`` fitted, from a bootstrap over its lines; two are needed."""
    lines = np.flatnonzero(quiet_slots(columns) >= LEAST_QUIET)
    if len(lines) < 2 or not set(WIRE) <= s.fixed & set(s.fitted):
        return []
    residual = quiet_current(columns.take(lines), s.setting)
    with torch.no_grad():
        left = residual(tensors(s.values)).numpy()
    return [(WIRE, bootstrap(jacobian(WIRE, s.values, residual), left, np.arange(len(lines)), seed))]


def run_line(s: Stages, columns: Columns) -> Fit:
    """Wire and pushed charges from whole lines with an ideal clamp."""
    return s.fit("line", LINE, column_current(columns, s.setting))


def run_readout(s: Stages, columns: Columns, tables: dict[str, tuple[Tensor, Tensor]]) -> Fit:
    """Dynamics of clamp, mirror and oscillator from whole lines with the read-out; the lines stay as fitted."""
    with torch.no_grad():
        line = base_current(columns, s.setting, tables, tensors(s.values))
    return s.fit("read-out", READOUT, column_readout(columns, s.setting, tables, line))


def joint_residual(
    s: Stages, ideal: Columns, ota: Columns | None, tables: dict[str, tuple[Tensor, Tensor]] | None
) -> tuple[Residual, np.ndarray]:
    """Single pulses and all columns in one sum, and the column index of every residual (−1 for the cells).

    The single cells keep what a column cannot tell: without them the pulse terms drift along their correlations.
    """
    parts: list[Residual] = [cell_pulse(s.record("cell_pulse"), s.setting), column_current(ideal, s.setting)]
    if ota is not None and tables is not None:
        parts.append(column_readout(ota, s.setting, tables))
    with torch.no_grad():
        counts = [len(part(tensors(s.values))) for part in parts]
    owner = [np.full(counts[0], -1), np.repeat(np.arange(len(ideal.owner)), counts[1] // len(ideal.owner))]
    if len(parts) > 2 and ota is not None:
        owner.append(len(ideal.owner) + np.repeat(np.arange(len(ota.owner)), counts[2] // len(ota.owner)))
    return together(parts), np.concatenate(owner)


#: Parameters of the lines that whole columns, with and without the read-out, tell more about than single cells do.
JOINT = (*LINE, "q_fall_c", "i_fall_a", "t_fall_s", "i_leak_a")
