"""What a tied column's parameters are fitted to: single cells, and slot currents of whole columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimcard.calibrate.error_units import CELL_ERROR, CHARGE_ERROR, GAIN_ERROR, SLOT_ERROR
from aimcard.calibrate.fit import Residual, Values
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.errors import FitError
from aimcard.models.modes import Mode, get_mode
from aimcard.models.source_line import SourceLine, with_source_line
from aimcard.models.tied import (
    Clamp,
    RowPulses,
    TiedCell,
    TiedEdges,
    TiedPulse,
    TiedWire,
    cell_current,
    effective_column,
    fixed_clamp,
    slot_currents,
)
from aimcard.models.tied_tile import EDGE_TABLES, row_pulses, tied_edges_at, tied_parameters

#: A cell's error counts as a share of its read current; below this conductance, of this one's. Chosen by hand.
LEAST_S = 1e-6
CONVENTIONAL = get_mode("conventional")


@dataclass(frozen=True)
class TiedSetting:
    """What the tied equations need besides parameters."""

    w_ref_um: float
    v_read_v: float
    v_common_v: float
    t_lsb_s: float
    edge_tables: dict[str, tuple[Tensor, Tensor]]
    #: Cells along a source line and their mean conductance [S].
    row_columns: int = 1
    row_load_s: float = 0.0
    mode: Mode = CONVENTIONAL
    guard: int = 4

    @classmethod
    def of(cls, reference: ReferenceSet) -> TiedSetting:
        """What a set's meta data and source-edge record say. FitError unless it has one of these with role fit."""
        found = reference.select(kind="source_edge", role="fit")
        if len(found) != 1:
            raise FitError(
                f"{reference.source}: expected one record of kind source_edge with role fit; got {len(found)}; a set of held-out "
                "columns alone judges a card, and to calibrate takes a set of `aimcard simulate`"
            )
        (record,) = found
        place = torch.tensor(record["position"])
        tables = {n: (place, torch.tensor(record[f"{n.removeprefix('edge_')}_delay_s"])) for n in EDGE_TABLES}
        meta = reference.meta
        return cls(
            w_ref_um=float(meta["w_ref_um"]), v_read_v=float(meta["v_read_v"]), v_common_v=float(meta["v_common_v"]),
            t_lsb_s=float(meta["t_lsb_s"]), edge_tables=tables, row_columns=int(record.attrs.get("columns", 1)),
            row_load_s=float(record.attrs.get("load_s", 0.0)), mode=get_mode(str(meta["mode"]), int(meta["code_max"])),
            guard=int(meta["guard_slots"]),
        )  # fmt: skip

    def windows(self, slots: int) -> tuple[tuple[int, int], ...]:
        """Slots (first, beyond) of the PWM phases."""
        return ((0, slots),) if len(self.mode.phases) == 1 else self.mode.windows(self.guard)

    def parameters(
        self, values: Values, wire_scale: Tensor | float = 1.0, position: Tensor | float | None = None
    ) -> tuple[TiedCell, TiedWire, TiedPulse]:
        """Cell, wire and pulse parameters of these values; with a position, the cell behind its source lines."""
        cell, wire, pulse = tied_parameters(values, w_ref_um=self.w_ref_um, v_read_v=self.v_read_v, wire_scale=wire_scale)
        if position is not None and self.row_load_s > 0:
            cell = with_source_line(cell, SourceLine.of(values, self.row_columns, self.row_load_s), position)
        return cell, wire, pulse


def source_line_residual(record: Record, setting: TiedSetting) -> Residual:
    """Errors of the gains of a ``source_edge`` record in units of GAIN_ERROR."""
    position, *gains = (torch.tensor(record[n]) for n in ("position", "down_gain", "up_gain"))

    def residual(values: Values) -> Tensor:
        gain = setting.parameters(values, position=position)[0].gain
        model = (gain.down_plus, gain.up_plus)
        return torch.cat([(torch.as_tensor(m) - g) / GAIN_ERROR for m, g in zip(model, gains, strict=True)])

    return residual


def tied_cells(record: Record, setting: TiedSetting) -> tuple[Residual, np.ndarray]:
    """Residuals of a ``cell_dc`` record in units of CELL_ERROR of a read current, and the cell that each belongs to."""
    g, column, source, w, i = (
        torch.tensor(record[n]) for n in ("conductance_s", "v_bit_v", "v_return_v", "w_select_um", "current_a")
    )
    unit = CELL_ERROR * setting.v_read_v * torch.clamp(g, min=LEAST_S)
    cell_of = np.unique(np.stack([record["conductance_s"], record["w_select_um"]]), axis=1, return_inverse=True)[1]

    def residual(values: Values) -> Tensor:
        cell = setting.parameters(values)[0]
        model = cell_current(cell, g, column - setting.v_common_v, source - setting.v_common_v, w)
        return (model - i) / unit

    return residual, cell_of


@dataclass(frozen=True)
class TiedColumns:
    """Column records stacked, one leading index per line and vector."""

    g_plus_s: Tensor
    g_minus_s: Tensor
    codes: Tensor
    w_select_um: Tensor
    wire_scale: Tensor
    position: Tensor
    edges: TiedEdges
    owner: np.ndarray
    current_a: Tensor
    mirror_a: Tensor | None = None
    phases: Tensor | None = None
    #: As ``models/tied.py`` takes them; None in conventional PWM.
    pulses: RowPulses | None = None


def stack_pairs(records: list[Record], setting: TiedSetting) -> TiedColumns:
    """All lines and vectors of ``column`` records of equal rows and slots as one batch."""
    plus, minus, x, w, scale, place, owner, current, order = ([] for _ in range(9))
    for k, r in enumerate(records):
        turned = slice(None, None, -1) if r.attrs.get("read_out", "south") == "north" else slice(None)
        for v, vector in enumerate(r["codes"]):
            for line in range(r.sizes["lines"]):
                plus.append(r["conductance_s"][line, turned])
                minus.append(r["conductance_minus_s"][line, turned])
                x.append(vector[turned])
                order.append(np.arange(len(vector))[turned])
                current.append(r["current_a"][v, line])
                for rows, name in ((w, "w_select_um"), (scale, "wire_scale"), (place, "position")):
                    rows.append([float(r.attrs[name])])
                owner.append(k)
    g_plus, g_minus, codes, width, wire_scale = (torch.tensor(np.stack(rows)) for rows in (plus, minus, x, w, scale))
    position = torch.tensor(place, dtype=torch.float64)
    edges = tied_edges_at(setting.edge_tables, position)
    read = [torch.cat([torch.tensor(r[n]).flatten(0, 1) for r in records]) if all(n in r for r in records) else None
            for n in ("mirror_a", "phase_counts", "phase_count")]  # fmt: skip
    phases = read[1] if read[1] is not None or read[2] is None else read[2][:, None]
    pulses = row_pulses(setting.mode, setting.guard, codes, torch.tensor(np.stack(order)))
    return TiedColumns(
        g_plus, g_minus, codes, width, wire_scale, position, edges, np.array(owner), torch.tensor(np.stack(current)),
        read[0], phases, pulses,
    )  # fmt: skip


def base_currents(c: TiedColumns, setting: TiedSetting, values: Values, clamp: Clamp) -> tuple[Tensor, Tensor, Tensor]:
    """Slot currents of the stacked columns at a clamp, their static ones, (columns, slots), and Y [S], (columns,)."""
    cell, wire, pulse = setting.parameters(values, c.wire_scale, c.position)
    slots = c.current_a.shape[-1]
    current, solution = slot_currents(
        cell, wire, pulse, c.edges, c.g_plus_s, c.g_minus_s, c.codes, slots, setting.t_lsb_s, c.w_select_um, clamp,
        pulses=c.pulses,
    )  # fmt: skip
    return current, solution.current_a, effective_column(cell, wire, c.g_plus_s, c.g_minus_s, c.w_select_um).y_s


def model_current(c: TiedColumns, setting: TiedSetting, values: Values) -> Tensor:
    """Slot currents of the stacked columns with an ideal clamp, (columns, slots)."""
    return base_currents(c, setting, values, fixed_clamp())[0]


def weighed(error: Tensor, line_a: Tensor, windows: tuple[tuple[int, int], ...]) -> Tensor:
    """Errors (columns, slots + phases): of slots in SLOT_ERROR of the line's rms current, of each phase's charge and first
    slot in CHARGE_ERROR of Σ |i|·t. windows: slots (first, beyond) of the phases.

    A tied charge may vanish, so its error counts against the window's mean magnitude.
    """
    rms = line_a.square().mean(-1, keepdim=True).sqrt()
    total = CHARGE_ERROR * line_a.abs().sum(-1, keepdim=True)
    parts = []
    for first, beyond in windows:
        within = error[..., first:beyond]
        parts += [within.sum(-1, keepdim=True) / total, within[..., :1] / total, within[..., 1:] / (SLOT_ERROR * rms)]
    return torch.cat(parts, dim=-1)



def tied_lines(c: TiedColumns, setting: TiedSetting) -> Residual:
    """Slot currents of columns with an ideal clamp."""
    windows = setting.windows(c.current_a.shape[-1])
    return lambda values: weighed(model_current(c, setting, values) - c.current_a, c.current_a, windows).flatten()
