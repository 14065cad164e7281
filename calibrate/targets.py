"""What is fitted to what: for each kind of record, its residuals against the equations of ``models``.

Every function takes named scalar tensors and returns residuals divided by the size of error that the aim allows there,
so that different kinds of record can stand in one least-squares sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.adc import HOLD_S, PHASE_RULES, phase_counts
from aimcard.models.cell import cell_current, gate_current, idle_weight, leakage_current
from aimcard.models.errors import FitError
from aimcard.models.line import LineDrive, ideal_clamp, mode_drive, slot_currents, static_solution
from aimcard.models.modes import Mode, get_mode
from aimcard.models.pulse import (
    EDGE_TABLES,
    R_REF_OHM,
    Edges,
    edges_at,
    fall_charge,
    fall_delay,
    recharge_amount,
    recharge_share,
    rise_charge,
    rise_delay,
)
from aimcard.models.readout import answered, mirror, regulated_clamp
from aimcard.models.tile import adc_parameters, line_current, line_parameters, readout_parameters

Values = Mapping[str, Tensor]
Tables = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Setting:
    """What the equations need besides parameters."""

    w_ref_um: float
    v_read_v: float
    vdd_v: float
    t_lsb_s: float
    segments: int
    return_per_bit: float
    edge_tables: dict[str, tuple[Tensor, Tensor]]
    apparent_weight: str = "rational"
    mode: Mode = get_mode("conventional")  # noqa: RUF009 (immutable)
    guard_slots: int = 4
    phase_rule: str = PHASE_RULES[0]
    hold_s: float = HOLD_S

    @classmethod
    def of(cls, reference: ReferenceSet, segments: int, apparent_weight: str = "rational") -> Setting:
        """What a set's meta data and edge record say. FitError without the edge record."""
        meta = reference.meta
        ratio = float(meta["r_return_ohm"]) / float(meta["r_bit_ohm"])
        return cls(
            float(meta["w_ref_um"]), float(meta["v_read_v"]), float(meta["vdd_v"]), float(meta["t_lsb_s"]), segments,
            ratio, edge_tables(reference), apparent_weight, get_mode(str(meta["mode"]), int(meta["code_max"])),
            int(meta["guard_slots"]), str(meta.get("phase_rule", PHASE_RULES[0])), float(meta.get("hold_s", HOLD_S)),
        )  # fmt: skip

    def line(self, values: Values, wire_scale: Tensor | float = 1.0):
        """Line parameters; the wires of both lines are drawn alike, so one fitted resistance stands for both."""
        full = dict(values) | {"r_return_ohm": values["r_bit_ohm"] * self.return_per_bit}
        return line_parameters(
            full, w_ref_um=self.w_ref_um, v_read_v=self.v_read_v, vdd_v=self.vdd_v, segments=self.segments, wire_scale=wire_scale,
            apparent_weight=self.apparent_weight,
        )  # fmt: skip


def edge_tables(reference: ReferenceSet) -> dict[str, tuple[Tensor, Tensor]]:
    """Delay and 10–90 % time of the word line's edges over the position, measured on the ``edge`` record.

    Delays count from the slot boundary: ``edge_delay_s`` of the set is the ideal edges' distance from it. FitError without one.
    """
    found = reference.select(kind="edge", role="fit")
    if len(found) != 1:
        raise FitError(
            f"{reference.source}: expected one record of kind edge with role fit; got {len(found)}; a set of held-out "
            "columns alone judges a card, and to calibrate takes a set of `aimcard simulate`"
        )
    (record,) = found
    time, position, vdd = record["time_s"], record["position"], float(reference.meta["vdd_v"])
    shift = float(reference.meta["edge_delay_s"])

    def crossing(wave: np.ndarray, share: float) -> float:
        above = wave >= share * vdd
        k = int(np.flatnonzero(above[1:] != above[:-1])[-1])
        return float(time[k] + (share * vdd - wave[k]) * (time[k + 1] - time[k]) / (wave[k + 1] - wave[k]))

    columns = {
        "edge_rise_delay": [shift + crossing(w, 0.5) for w in record["rise_v"]],
        "edge_fall_delay": [shift + crossing(w, 0.5) for w in record["fall_v"]],
        "edge_rise_time": [crossing(w, 0.9) - crossing(w, 0.1) for w in record["rise_v"]],
        "edge_fall_time": [crossing(w, 0.1) - crossing(w, 0.9) for w in record["fall_v"]],
    }
    return {name: (_t(position), _t(np.array(columns[name]))) for name in EDGE_TABLES}


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


def cell_on(record: Record, setting: Setting) -> Callable[[Values], Tensor]:
    """Conducting cells of a ``cell_dc`` record: relative error of the current, in units of 10 ppm."""
    on = on_rows(record)
    g, vb, vr, w, i = (
        _t(record[n][on]) for n in ("conductance_s", "v_bit_v", "v_return_v", "w_select_um", "current_a")
    )

    def residual(values: Values) -> Tensor:
        return (cell_current(setting.line(values).cell, g, vb, vr, w) / i - 1) / 1e-5

    return residual


def cell_off(record: Record, setting: Setting) -> Callable[[Values], Tensor]:
    """Idle cells: logarithm of the leakage, in units of 1 % of the largest (a line cares for the sum)."""
    off = off_rows(record)
    g, vb, vr, w, i = (
        _t(record[n][off]) for n in ("conductance_s", "v_bit_v", "v_return_v", "w_select_um", "current_a")
    )
    weight = i / i.max()

    def residual(values: Values) -> Tensor:
        cell = setting.line(values).cell
        model = leakage_current(cell, vb, vr, w) * idle_weight(cell, g, w)
        return weight * torch.log(model / i) / 1e-2

    return residual


def cell_gate(record: Record, setting: Setting) -> Callable[[Values], Tensor]:
    """Gate current of conducting cells: logarithm, in units of 1 %."""
    on = gate_rows(record)
    vr, w, i = (_t(record[n][on]) for n in ("v_return_v", "w_select_um", "gate_current_a"))

    def residual(values: Values) -> Tensor:
        return torch.log(gate_current(setting.line(values).cell, vr, w) / i) / 1e-2

    return residual


def cell_pulse(record: Record, setting: Setting) -> Callable[[Values], Tensor]:
    """Single pulses: charge per slot against the static law plus edges, in units of 1 aC; their sums in units of 0.5 aC.

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
        error = (model - charge) / 1e-18
        return torch.cat([error.flatten(), error.sum(-1) / 0.5])

    return residual


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
    """Slot errors in 2e-4 of the line's rms current, errors of the charge and of the first slot in 2e-5 of the charge.

    These are the sizes that the aims for R² allow. Shape (lines, slots + 1): charge, first slot, other slots.
    """
    unit = 2e-4 * truth.square().mean(-1, keepdim=True).sqrt()
    total = 2e-5 * truth.sum(-1, keepdim=True)
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


def quiet_current(columns: Columns, setting: Setting) -> Callable[[Values], Tensor]:
    """Lines while nothing switches: relative error of their mean current, in units of 2 ppm. Cells and wire alone act."""
    quiet = torch.as_tensor(quiet_slots(columns))[:, None]
    slot = torch.arange(columns.drive.slots)
    weight = ((slot >= SETTLED) & (slot < SETTLED + quiet)).to(torch.float64) / quiet
    truth = (columns.current_a * weight).sum(-1)

    def residual(values: Values) -> Tensor:
        p = setting.line(values, columns.wire_scale)
        static = static_solution(p, columns.drive, ideal_clamp(p.cell.v_read_v)).current_a
        return ((static * weight).sum(-1) / truth - 1) / 2e-6

    return residual


def column_current(columns: Columns, setting: Setting) -> Callable[[Values], Tensor]:
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
) -> Callable[[Values], Tensor]:
    """Lines with their read-out: line current, mirror current, and the phase in units of 0.02 counts.

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
                (count - truth_phase) / 0.02,
            ],
            dim=-1,
        ).flatten()

    return residual


def together(parts: list[Callable[[Values], Tensor]]) -> Callable[[Values], Tensor]:
    """One residual vector of several targets."""

    def residual(values: Values) -> Tensor:
        return torch.cat([part(values) for part in parts])

    return residual
