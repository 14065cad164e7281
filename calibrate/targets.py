"""What lines are fitted to: residuals of ``column`` records against the equations of ``models``.

Every function returns residuals of named scalar tensors, divided by the error that counts as one (``error_units``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimcard.calibrate.error_units import CHARGE_ERROR, PHASE_ERROR_COUNT, QUIET_ERROR, SLOT_ERROR
from aimcard.calibrate.fit import Residual, Values
from aimcard.calibrate.setting import Setting
from aimcard.data.reference import Record
from aimcard.models.adc import phase_counts
from aimcard.models.line import LineDrive, ideal_clamp, mode_drive, slot_currents, static_solution
from aimcard.models.pulse import Edges, edges_at
from aimcard.models.readout import answered, mirror, regulated_clamp
from aimcard.models.tile import adc_parameters, line_current, readout_parameters

Tables = Mapping[str, tuple[Tensor, Tensor]]


def _t(array: np.ndarray) -> Tensor:
    return torch.tensor(np.array(array))


@dataclass(frozen=True)
class Columns:
    """Single-vector ``column`` records stacked, one leading index per line: the equations then run once for all."""

    drive: LineDrive
    wire_scale: Tensor
    owner: np.ndarray
    current_a: Tensor
    mirror_a: Tensor | None
    phase_counts: Tensor | None

    def take(self, lines: np.ndarray) -> Columns:
        """The lines with these indices."""
        k = torch.as_tensor(lines)
        d = self.drive
        edges = Edges(*(getattr(d.edges, name)[k] for name in ("rise_delay_s", "fall_delay_s", "rise_s", "fall_s")))
        pulses = None if d.pulses is None else tuple((a[k], b[k]) for a, b in d.pulses)  # type: ignore[index]
        drive = dataclasses.replace(
            d, conductance_s=d.conductance_s[k], codes=d.codes[k], edges=edges, pulses=pulses,
            w_select_um=d.w_select_um[k],  # type: ignore[index]
        )  # fmt: skip
        return Columns(
            drive, self.wire_scale[k], self.owner[lines], self.current_a[k],
            None if self.mirror_a is None else self.mirror_a[k],
            None if self.phase_counts is None else self.phase_counts[k],
        )  # fmt: skip


def stack_columns(records: list[Record], setting: Setting) -> Columns:
    """All lines and vectors of ``column`` records of equal rows and slots as one batch."""
    g, x, w, u, owner, scale = [], [], [], [], [], []
    for k, r in enumerate(records):
        for codes in r["codes"]:
            for line in r["conductance_s"]:
                g.append(line)
                x.append(codes)
                w.append([float(r.attrs["w_select_um"])])
                u.append([float(r.attrs["position"])])
                owner.append(k)
                scale.append([float(r.attrs["wire_scale"])])

    def every(name: str) -> Tensor | None:
        if not all(name in r for r in records):
            return None
        return torch.cat([_t(r[name]).flatten(0, 1) for r in records])

    drive = mode_drive(
        setting.mode, setting.guard_slots, _t(np.stack(g)), _t(np.stack(x)),
        setting.t_lsb_s, _t(np.array(w)), edges_at(setting.edge_tables, _t(np.array(u))),
    )  # fmt: skip
    current = every("current_a")
    assert current is not None
    phases = every("phase_counts")
    if phases is None and (whole := every("phase_count")) is not None and len(setting.mode.phases) == 1:
        phases = whole[:, None]
    return Columns(drive, _t(np.array(scale)), np.array(owner), current, every("mirror_a"), phases)


def _weighed(error: Tensor, truth: Tensor) -> Tensor:
    """Slot errors in SLOT_ERROR of the line's rms current, errors of the charge and of the first slot in CHARGE_ERROR of the
    charge. Shape (lines, slots + 1): charge, first slot, other slots.
    """
    unit = SLOT_ERROR * truth.square().mean(-1, keepdim=True).sqrt()
    total = CHARGE_ERROR * truth.sum(-1, keepdim=True)
    return torch.cat([error.sum(-1, keepdim=True) / total, error[..., :1] / total, error[..., 1:] / unit], dim=-1)


#: Slots after turn-on that still settle, and the least number of quiet ones that tell the wire.
SETTLED, LEAST_QUIET = 2, 8


def quiet_slots(columns: Columns) -> np.ndarray:
    """Slots of each line, (lines,), after turn-on in which nothing switches: up to one before its shortest pulse ends.

    Zero in modes whose pulses do not all start together.
    """
    codes = columns.drive.codes
    if columns.drive.pulses is not None:
        return np.zeros(len(codes), dtype=int)
    shortest = torch.where(codes > 0, codes, torch.full_like(codes, columns.drive.slots)).amin(-1)
    return (shortest - 1 - SETTLED).clamp(min=0).numpy()


def quiet_current(columns: Columns, setting: Setting) -> Residual:
    """Lines while nothing switches: relative error of their mean current, in units of QUIET_ERROR. Cells and wire alone act."""
    quiet = torch.as_tensor(quiet_slots(columns))[:, None]
    slot = torch.arange(columns.drive.slots)
    weight = ((slot >= SETTLED) & (slot < SETTLED + quiet)).to(torch.float64) / quiet
    truth = (columns.current_a * weight).sum(-1)

    def residual(values: Values) -> Tensor:
        p = setting.line(values, columns.wire_scale)
        static = static_solution(p, columns.drive, ideal_clamp(p.cell.v_read_v)).current_a
        return ((static * weight).sum(-1) / truth - 1) / QUIET_ERROR

    return residual


def column_current(columns: Columns, setting: Setting) -> Residual:
    """Slot currents of lines with an ideal clamp."""

    def residual(values: Values) -> Tensor:
        model = line_current(setting.line(values, columns.wire_scale), columns.drive, None)[0]
        return _weighed(model - columns.current_a, columns.current_a).flatten()

    return residual


def base_current(columns: Columns, setting: Setting, tables: Tables, values: Values) -> tuple[Tensor, Tensor]:
    """Slot currents of lines with the read-out's static clamp, without its step responses, and the static currents
    behind them, both (lines, slots)."""
    clamp = regulated_clamp(readout_parameters(values, tables))
    current, static = slot_currents(setting.line(values, columns.wire_scale), columns.drive, clamp)
    return current, static.current_a


def column_readout(
    columns: Columns, setting: Setting, tables: Tables, line: tuple[Tensor, Tensor] | None = None
) -> Residual:
    """Lines with their read-out: line current, mirror current, and the phase in units of PHASE_ERROR_COUNT.

    ``line``: ``base_current`` for line parameters that are not being fitted, which saves solving the lines.
    """
    assert columns.mirror_a is not None
    assert columns.phase_counts is not None
    truth_mirror, truth_phase = columns.mirror_a, columns.phase_counts
    starts, windows = columns.drive.starts, setting.mode.windows(setting.guard_slots)

    def residual(values: Values) -> Tensor:
        readout = readout_parameters(values, tables)
        base, static = base_current(columns, setting, tables, values) if line is None else line
        current, seen = answered(readout, base, static, setting.t_lsb_s, starts)
        adc = adc_parameters(values, tables)
        count = phase_counts(adc, seen, setting.t_lsb_s, windows, setting.phase_rule, setting.hold_s)
        return torch.cat(
            [
                _weighed(current - columns.current_a, columns.current_a),
                _weighed(mirror(readout, seen) - truth_mirror, truth_mirror),
                (count - truth_phase) / PHASE_ERROR_COUNT,
            ],
            dim=-1,
        ).flatten()

    return residual
