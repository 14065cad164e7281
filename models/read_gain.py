"""What a PCM's read noise is worth at the read-out: the share of V·δG that select transistor, wires and regulator leave.

To first order, a conductance that is off by δG changes the read-out's current by

    δI = V·δG · 1/(1 + G·R_on)² · transfer out · share of V across the cell · 1/(1 + R_out·Y)

(adjoint). A gated line is driven from its read-out: both the voltage across a cell and the transfer out are the line's
attenuation h, and the regulator's resistance comes with it both times. A tied column is driven from its source lines: the
voltage is what these leave of it, and only the transfer out is the column's. With the conductance spread evenly along a wire of
resistance r, k² = r·Y: the line seen from its read-out is Y·tanh(k)/k, and the mean of h² over the rows is the derivative of
that. The clamp's R_out is the slope of the card's table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimcard.models.cell import on_resistance
from aimcard.models.lut import lookup_slope
from aimcard.models.modes import Mode
from aimcard.models.source_line import with_source_line
from aimcard.models.tied import EffectiveColumn
from aimcard.models.tied import on_resistance as tied_on_resistance
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel, ideal_current

Scalar = Tensor | float


def device_share(conductance_s: Tensor, r_on_ohm: Scalar) -> Tensor:
    """Derivative of the apparent conductance: 1/(1 + G·R_on)²."""
    return 1 / (1 + conductance_s * r_on_ohm) ** 2


def _attenuation(y_s: Tensor, r_ohm: float) -> Tensor:
    return torch.sqrt((r_ohm * y_s).clamp(min=1e-12))


def spread_conductance(y_s: Tensor, r_ohm: float) -> Tensor:
    """Conductance seen from the end of a wire of ``r_ohm`` in all with ``y_s`` spread evenly along it: Y·tanh(k)/k, k² = r·Y."""
    k = _attenuation(y_s, r_ohm)
    return y_s * torch.tanh(k) / k


def spread_gain(y_s: Tensor, r_ohm: float) -> Tensor:
    """Mean over the rows of the squared transfer to that end, ½·(tanh(k)/k + 1/cosh²(k)): the derivative of the above."""
    k = _attenuation(y_s, r_ohm)
    return 0.5 * (torch.tanh(k) / k + 1 / torch.cosh(k) ** 2)


def gated_line_gain(y_s: Tensor, r_column_ohm: float, r_out_ohm: Scalar) -> Tensor:
    """Share of V·δG that a gated line of conducting cells ``y_s`` in all leaves, transistors apart; any shape."""
    return spread_gain(y_s, r_column_ohm) / (1 + r_out_ohm * spread_conductance(y_s, r_column_ohm)) ** 2


def tied_line_gain(y_s: Tensor, r_column_ohm: float, r_out_ohm: Scalar) -> Tensor:
    """The same of a tied column of all its cells ``y_s``, as the root of the mean square over rows, source lines apart."""
    return spread_gain(y_s, r_column_ohm).sqrt() / (1 + r_out_ohm * spread_conductance(y_s, r_column_ohm))


def source_share(tile: TiedTile, position: float = 0.5) -> float:
    """Share of the read voltage that a tied tile's source lines leave, the mean of both lines and directions."""
    gain = with_source_line(tile.parameters()[0], tile.source_line, position).gain
    return float(sum(torch.as_tensor(g) for g in (gain.down_plus, gain.up_plus, gain.down_minus, gain.up_minus)) / 4)


@dataclass(frozen=True)
class ReadGain:
    """Shares of V·δG that arrive: device (lines, cells), constant; line, broadcasts to (vectors, lines, slots)."""

    device: Tensor
    line: Tensor


def gated_read_gain(tile: TileModel, conductance_s: np.ndarray, codes: np.ndarray, current_a: Tensor, mode: Mode) -> ReadGain:
    """Of lines (lines, rows) [S] under codes (vectors, rows), with the slot currents that the tile answers with."""
    r_on = float(on_resistance(tile.line().cell, float(tile.card.meta["w_select_um"])))
    g = torch.as_tensor(conductance_s)
    conducting = (g / (1 + g * r_on)).numpy()
    slots, guard = current_a.shape[-1], tile.guard_slots
    y = torch.from_numpy(ideal_current(conducting, codes, 1.0, slots, mode, guard))
    r_column = g.shape[-1] * float(tile.values["r_bit_ohm"] + tile.values["r_return_ohm"])
    return ReadGain(device_share(g, r_on), gated_line_gain(y, r_column, -lookup_slope(*tile.tables["clamp"], current_a)))


def tied_read_gain(tile: TiedTile, plus_s: Tensor, minus_s: Tensor, column: EffectiveColumn, current_a: Tensor) -> ReadGain:
    """Of tied columns, plus_s and minus_s (lines, rows) [S]: cells of ``device`` are the plus and then the minus ones."""
    r_on = float(tied_on_resistance(tile.parameters()[0], float(tile.card.meta["w_select_um"])))
    out = source_share(tile) * column.transfer
    device = torch.cat([device_share(g, r_on) * out for g in (plus_s, minus_s)], -1)
    loop = 1 - lookup_slope(*tile.tables["clamp"], current_a) * column.y_s[:, None]
    return ReadGain(device, 1 / loop)
