"""What a tied row's source lines lose on their way: a switch, then a wire loaded by the cells of all columns.

A row's cells draw what their own conductances say, whatever other rows do, so the loss is a static gain of every cell's read
voltage. For a load that is uniform along the row the wire is the classical leaky line, v'' = r·g·v:

    gain(u) = cosh(k·(1 − u))/cosh(k) / (1 + R·Y),    Y = columns·g·tanh(k)/k,    k = columns·√(r·g)

with u from 0 at the driver to 1, g the conductance of one column's cell, r the wire of one column, R the switch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aimcard.models.tied import Scalar, SourceGain, TiedCell, on_resistance

#: Parameters of a card that say what source lines lose; a card without them has ideal ones.
SOURCE = ("r_row_ohm", "r_down_ohm", "r_up_ohm")


@dataclass(frozen=True)
class SourceLine:
    """r_row_ohm: wire of one column; r_down_ohm, r_up_ohm: switches to the lower and the upper rail.

    columns: cells along a line; load_s: their mean conductance.
    """

    r_row_ohm: Scalar
    r_down_ohm: Scalar
    r_up_ohm: Scalar
    columns: int
    load_s: float

    @classmethod
    def of(cls, values: Mapping[str, Scalar], columns: int, load_s: float) -> SourceLine:
        """From flat parameter values, ideal where they are missing."""
        return cls(*(values.get(name, 0.0) for name in SOURCE), columns=columns, load_s=load_s)


def source_gain(columns: int, r_row_ohm: Scalar, r_switch_ohm: Scalar, load_s: Scalar, position: Scalar) -> Tensor:
    """Share of the read voltage at ``position`` (0 at the driver, 1 far), each cell ``load_s`` [S]; arguments broadcast."""
    g, u = (torch.as_tensor(a, dtype=torch.float64) for a in (load_s, position))
    k2 = columns**2 * torch.as_tensor(r_row_ohm, dtype=torch.float64) * g
    # An ideal wire's k is zero, where the root has no derivative.
    k = torch.sqrt(k2.clamp(min=1e-12))
    wire = torch.cosh(k * (1 - u)) / torch.cosh(k)
    return torch.where(k2 > 1e-12, wire, torch.ones_like(wire)) / (1 + r_switch_ohm * columns * g * torch.tanh(k) / k)


def with_source_line(
    cell: TiedCell, line: SourceLine, position: Scalar, row_load_s: Sequence[Scalar] | None = None
) -> TiedCell:
    """The cell behind its source lines. row_load_s: mean conductances along the plus and the minus line, numbers or (rows,);
    None: the mean load for both."""
    if isinstance(line.r_row_ohm, (int, float)) and line.r_row_ohm == line.r_down_ohm == line.r_up_ohm == 0:
        return cell
    ohm = on_resistance(cell, cell.w_ref_um)
    gain = {}
    for side, g in zip(("plus", "minus"), row_load_s or (line.load_s, line.load_s), strict=True):
        for way, switch in (("down", line.r_down_ohm), ("up", line.r_up_ohm)):
            gain[f"{way}_{side}"] = source_gain(line.columns, line.r_row_ohm, switch, g / (1 + g * ohm), position)
    return replace(cell, gain=SourceGain(**gain))
