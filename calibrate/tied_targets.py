"""What a tied column's parameters are fitted to: single cells, and slot currents of whole columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.modes import Mode, get_mode
from aimcard.models.tied import RowPulses, TiedEdges, cell_current, fixed_clamp, slot_currents
from aimcard.models.tied_tile import EDGE_TABLES, row_pulses, tied_edges_at, tied_parameters

Values = Mapping[str, Tensor]
#: A cell's error counts in 10 ppm of its read current; below this conductance in 10 ppm of this one's.
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
    mode: Mode = CONVENTIONAL
    guard: int = 4

    @classmethod
    def of(cls, reference: ReferenceSet) -> TiedSetting:
        (record,) = reference.select(kind="source_edge", role="fit")
        place = torch.tensor(record["position"])
        tables = {n: (place, torch.tensor(record[f"{n.removeprefix('edge_')}_delay_s"])) for n in EDGE_TABLES}
        keys, meta = ("w_ref_um", "v_read_v", "v_common_v", "t_lsb_s"), reference.meta
        mode = get_mode(str(meta["mode"]), int(meta["code_max"]))
        return cls(*(float(meta[key]) for key in keys), tables, mode, int(meta["guard_slots"]))

    def parameters(self, values: Values, wire_scale: Tensor | float = 1.0):
        """Cell, wire and pulse parameters of these values."""
        return tied_parameters(values, w_ref_um=self.w_ref_um, v_read_v=self.v_read_v, wire_scale=wire_scale)


def tied_cells(record: Record, setting: TiedSetting) -> tuple[Callable[[Values], Tensor], np.ndarray]:
    """Residuals of a ``cell_dc`` record in units of 10 ppm of a read current, and the cell that each belongs to."""
    g, column, source, w, i = (
        torch.tensor(record[n]) for n in ("conductance_s", "v_bit_v", "v_return_v", "w_select_um", "current_a")
    )
    unit = 1e-5 * setting.v_read_v * torch.clamp(g, min=LEAST_S)
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
    edges: TiedEdges
    owner: np.ndarray
    current_a: Tensor
    #: As ``models/tied.py`` takes them; None in conventional PWM.
    pulses: RowPulses | None = None


def stack_pairs(records: list[Record], setting: TiedSetting) -> TiedColumns:
    """All lines and vectors of ``column`` records of equal rows and slots as one batch."""
    plus, minus, x, w, scale, place, owner, current, order = ([] for _ in range(9))
    for k, r in enumerate(records):
        turned = slice(None, None, -1) if r.attrs.get("read_out", "south") == "north" else slice(None)
        for v, codes in enumerate(r["codes"]):
            for line in range(r.sizes["lines"]):
                plus.append(r["conductance_s"][line, turned])
                minus.append(r["conductance_minus_s"][line, turned])
                x.append(codes[turned])
                order.append(np.arange(len(codes))[turned])
                current.append(r["current_a"][v, line])
                for rows, name in ((w, "w_select_um"), (scale, "wire_scale"), (place, "position")):
                    rows.append([float(r.attrs[name])])
                owner.append(k)
    stacked = [torch.tensor(np.stack(rows)) for rows in (plus, minus, x, w, scale)]
    edges = tied_edges_at(setting.edge_tables, torch.tensor(place, dtype=torch.float64))
    pulses = row_pulses(setting.mode, setting.guard, stacked[2], torch.tensor(np.stack(order)))
    return TiedColumns(*stacked, edges, np.array(owner), torch.tensor(np.stack(current)), pulses)


def model_current(c: TiedColumns, setting: TiedSetting, values: Values) -> Tensor:
    """Slot currents of the stacked columns with an ideal clamp, (columns, slots)."""
    cell, wire, pulse = setting.parameters(values, c.wire_scale)
    slots = c.current_a.shape[-1]
    return slot_currents(
        cell, wire, pulse, c.edges, c.g_plus_s, c.g_minus_s, c.codes, slots, setting.t_lsb_s, c.w_select_um, fixed_clamp(),
        pulses=c.pulses,
    )[0]


def tied_lines(c: TiedColumns, setting: TiedSetting) -> Callable[[Values], Tensor]:
    """Errors (columns, slots + phases): of each phase's charge and first slot in 2e-5 of Σ |i|·t, of other slots in 2e-4
    of the rms current.

    A tied charge may vanish, so its error counts against the window's mean magnitude.
    """
    truth, windows = c.current_a, setting.mode.windows(setting.guard)
    rms = truth.square().mean(-1, keepdim=True).sqrt()
    total = 2e-5 * truth.abs().sum(-1, keepdim=True)

    def residual(values: Values) -> Tensor:
        error = model_current(c, setting, values) - truth
        parts = []
        for first, beyond in windows:
            within = error[..., first:beyond]
            parts += [within.sum(-1, keepdim=True) / total, within[..., :1] / total, within[..., 1:] / (2e-4 * rms)]
        return torch.cat(parts, dim=-1).flatten()

    return residual
