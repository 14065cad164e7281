"""What single cells are fitted to: residuals of ``cell_dc`` and ``cell_pulse`` records against the cell's equations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aimcard.calibrate.error_units import CELL_ERROR, GATE_ERROR, LEAK_ERROR, PULSE_SLOT_ERROR_C, PULSE_SUM_ERROR
from aimcard.calibrate.fit import Residual, Values
from aimcard.calibrate.setting import Setting
from aimcard.data.reference import Record
from aimcard.models.cell import cell_current, gate_current, idle_weight, leakage_current
from aimcard.models.pulse import (
    R_REF_OHM,
    edges_at,
    fall_charge,
    fall_delay,
    recharge_amount,
    recharge_share,
    rise_charge,
    rise_delay,
)


def _t(array: np.ndarray) -> Tensor:
    return torch.tensor(np.array(array))


def on_rows(record: Record) -> np.ndarray:
    """Points of a ``cell_dc`` record that conduct."""
    return record["v_gate_v"] > 0


def off_rows(record: Record) -> np.ndarray:
    """Points of a ``cell_dc`` record that leak."""
    return (record["v_gate_v"] == 0) & (record["current_a"] > 0)


def gate_rows(record: Record) -> np.ndarray:
    """Conducting points of a ``cell_dc`` record whose gate takes a current."""
    return on_rows(record) & (record["gate_current_a"] > 0)


def cell_of(record: Record, rows: np.ndarray) -> np.ndarray:
    """Which cell, a conductance behind a width, each of ``rows`` belongs to: indices from 0."""
    cells = np.stack([record["conductance_s"][rows], record["w_select_um"][rows]])
    return np.unique(cells, axis=1, return_inverse=True)[1].reshape(-1)


def cell_on(record: Record, setting: Setting) -> Residual:
    """Conducting cells of a ``cell_dc`` record: relative error of the current, in units of CELL_ERROR."""
    on = on_rows(record)
    g, vb, vr, w, i = (
        _t(record[n][on]) for n in ("conductance_s", "v_bit_v", "v_return_v", "w_select_um", "current_a")
    )

    def residual(values: Values) -> Tensor:
        return (cell_current(setting.line(values).cell, g, vb, vr, w) / i - 1) / CELL_ERROR

    return residual


def cell_off(record: Record, setting: Setting) -> Residual:
    """Idle cells: logarithm of the leakage, in units of LEAK_ERROR of the largest (a line cares for the sum)."""
    off = off_rows(record)
    g, vb, vr, w, i = (
        _t(record[n][off]) for n in ("conductance_s", "v_bit_v", "v_return_v", "w_select_um", "current_a")
    )
    weight = i / i.max()

    def residual(values: Values) -> Tensor:
        cell = setting.line(values).cell
        model = leakage_current(cell, vb, vr, w) * idle_weight(cell, g, w)
        return weight * torch.log(model / i) / LEAK_ERROR

    return residual


def cell_gate(record: Record, setting: Setting) -> Residual:
    """Gate current of conducting cells: logarithm, in units of GATE_ERROR."""
    on = gate_rows(record)
    vr, w, i = (_t(record[n][on]) for n in ("v_return_v", "w_select_um", "gate_current_a"))

    def residual(values: Values) -> Tensor:
        return torch.log(gate_current(setting.line(values).cell, vr, w) / i) / GATE_ERROR

    return residual


def cell_pulse(record: Record, setting: Setting) -> Residual:
    """Single pulses: charge per slot against the static law plus edges, in units of PULSE_SLOT_ERROR_C; their sums in
    PULSE_SUM_ERROR of these.

    A line adds hundreds of pulses: what each errs by in all counts there, not how the slots share it.
    """
    g, x, u, w, vb, vr = (
        _t(record[n]) for n in ("conductance_s", "code", "position", "w_select_um", "v_bit_v", "v_return_v")
    )
    edges = _t(record["slot_edge_s"])
    slots = len(edges) - 1
    charge = _t(record["current_a"]) * setting.t_lsb_s
    on = (x[:, None] > torch.arange(slots)).to(torch.float64)
    first = torch.nn.functional.one_hot(torch.zeros_like(x), slots).to(torch.float64)
    last = torch.nn.functional.one_hot(x, slots).to(torch.float64)
    # The static currents are known better than the equation says them: take them from the record itself.
    i_idle = charge[:, -1] / setting.t_lsb_s
    steady = torch.where(x > 1, charge[:, 1] / setting.t_lsb_s, torch.nan)

    e = edges_at(setting.edge_tables, u)

    # A single cell's return node is a source: nothing is pushed into a wire.
    none = {
        n: torch.zeros((), dtype=torch.float64)
        for n in ("c_rise_push_f", "g_rise_push_s", "c_fall_push_f", "g_fall_push_s", "c_small_push_f")
    }

    def residual(values: Values) -> Tensor:
        p = setting.line(dict(values) | none)
        i_on = torch.where(x > 1, steady, cell_current(p.cell, g, vb, vr, w))
        static = i_idle[:, None] + on * (i_on - i_idle)[:, None]
        rise = rise_charge(p.pulse, e, i_on, vr, w, R_REF_OHM) - rise_delay(p.pulse, e) * (i_on - i_idle)
        fall = fall_charge(p.pulse, e, g, i_on, vr, w, R_REF_OHM) + fall_delay(p.pulse, e) * (i_on - i_idle)
        share = recharge_share(p.pulse, e, g, x, edges, setting.t_lsb_s, w)
        amount = recharge_amount(p.pulse, e, g, vb, vr, w)
        model = static * setting.t_lsb_s + rise[:, None] * first + fall[:, None] * last + amount[:, None] * share
        error = (model - charge) / PULSE_SLOT_ERROR_C
        return torch.cat([error.flatten(), error.sum(-1) / PULSE_SUM_ERROR])

    return residual
