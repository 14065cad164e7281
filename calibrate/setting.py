"""What the equations of a gated calibration need besides parameters: the set's meta data, and its recorded edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimcard.calibrate.fit import Values
from aimcard.data.reference import ReferenceSet
from aimcard.models.adc import HOLD_S, PHASE_RULES
from aimcard.models.errors import FitError
from aimcard.models.modes import Mode, get_mode
from aimcard.models.pulse import EDGE_TABLES
from aimcard.models.tile import line_parameters


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
    return {name: (torch.tensor(position), torch.tensor(columns[name], dtype=torch.float64)) for name in EDGE_TABLES}
