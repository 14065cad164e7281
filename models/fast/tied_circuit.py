"""What of a tied card acts under given effects: the card's parameters with the switched-off ones at their ideal values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aimcard.models.errors import InputError
from aimcard.models.fast.effects import Effects
from aimcard.models.source_line import with_source_line
from aimcard.models.tied import TiedCell, TiedEdges, TiedPulse, TiedWire
from aimcard.models.tied_tile import TiedTile, tied_edges_at

#: A static curve: knots (points,) of the signed line current [A], and values.
Curve = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TiedCircuit:
    """A tied column's parameters. clamp: regulator's voltage from the common mode [V] over the signed line current, None for
    an ideal one; rate: count rate [Hz] over the same current, bias included, None for a card without a converter."""

    cell: TiedCell
    wire: TiedWire
    pulse: TiedPulse
    edges: TiedEdges
    clamp: Curve | None
    rate: Curve | None
    effects: Effects
    code_max: int
    slots: int
    t_lsb_s: float
    w_um: float

    @property
    def counts_per_coulomb(self) -> float:
        """Mean slope of the rate table. InputError for a card without one."""
        if self.rate is None:
            raise InputError("phase: this tied card has no table 'adc'; take the charge, or give rate=(current, rate)")
        i, rate = self.rate
        return float((rate[-1] - rate[0]) / (i[-1] - i[0]))


def tied_circuit(
    tile: TiedTile, effects: Effects, wire_scale: float, w_select_um: float | None, position: float, rate: Curve | None = None
) -> TiedCircuit:
    """The circuit of a tile; ``rate`` stands in for the card's own table ``adc``, which wins where there is one."""
    cell, wire, pulse = tile.parameters(wire_scale)
    edges = tied_edges_at(tile.tables, position)
    if effects.ir_drop:
        cell = with_source_line(cell, tile.source_line, position)
    else:
        wire = replace(wire, r_bit_ohm=0.0)
    if not effects.apparent_weight:
        cell = replace(cell, r_on_ohm=0.0)
    if not effects.leakage:
        cell = replace(cell, i_gate_a=0.0)
    if not effects.pulse:
        pulse, edges = TiedPulse(0.0, 0.0, 0.0), TiedEdges(0.0, 0.0, 0.0, 0.0)
        wire = replace(wire, c_column_f=0.0, c_width_f=0.0)
    clamp = None
    if effects.regulator and "clamp" in tile.tables:
        current, volt = tile.tables["clamp"]
        clamp = (current, volt - float(tile.card.meta["v_common_v"]))
    width = float(tile.card.meta["w_select_um"]) if w_select_um is None else float(w_select_um)
    return TiedCircuit(
        cell, wire, pulse, edges, clamp, tile.tables.get("adc", rate), effects, tile.code_max, tile.slots, tile.t_lsb_s,
        width,
    )  # fmt: skip


def edge_delays(c: TiedCircuit) -> tuple[float, float]:
    """LSBs by which edges lengthen a pulse of a line that goes down, and up. A cell's own lag comes at both ends: no length."""
    e, p = c.edges, c.pulse
    own = p.t_end_s - p.t_start_s
    down, up = e.down_end_s - e.down_start_s + own, e.up_end_s - e.up_start_s + own
    return float(down) / c.t_lsb_s, float(up) / c.t_lsb_s


def zero_like(values: Tensor) -> Tensor:
    """A zero of the same type, for laws that take voltages as tensors."""
    return torch.zeros((), dtype=values.dtype, device=values.device)
