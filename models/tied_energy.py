"""Charges of a tied column over one product, phase by phase: from V_DD through its read-out, and from the three rails.

A column's current is what its rails deliver and take: an active row's cells carry current from the upper rail into the
column and from the column into the lower rail, whatever the column's own sum is. Static currents of each slot, all PWM modes;
edges move charge between neighbouring slots and cost what the drivers' own model says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from aimcard.models.energy import OSCILLATOR_TABLE
from aimcard.models.errors import CardError
from aimcard.models.lut import lookup
from aimcard.models.modes import Mode
from aimcard.models.source_line import with_source_line
from aimcard.models.tied import Scalar, TiedCell, cell_current, effective_column, regulated_clamp, solve_column, source_voltage
from aimcard.models.tied_tile import TiedTile

#: Tables of a card that the charges need.
ENERGY_TABLES = ("clamp", "mirror", OSCILLATOR_TABLE)


def rail_currents(p: TiedCell, g_plus_s: Tensor, g_minus_s: Tensor, s: Tensor, v_node: Tensor, w_select_um: Scalar) -> Tensor:
    """Currents [A] that the lower, the middle and the upper rail deliver to columns, (..., slots, 3).

    g_plus_s, g_minus_s (..., rows); s (..., slots, rows) as from ``models.tied.signs``; v_node of that shape, the columns'
    voltages from the common mode. With the gates' own current left out, they and the column's current sum to zero.
    """
    bare = replace(p, i_gate_a=0.0)
    plus, minus = (
        -cell_current(bare, g[..., None, :], v_node, source_voltage(p, s, side), w_select_um)
        for g, side in ((g_plus_s, True), (g_minus_s, False))
    )
    up, down, rest = (s < 0).to(s.dtype), (s > 0).to(s.dtype), (s == 0).to(s.dtype)
    rails = (down * plus + up * minus, rest * (plus + minus), up * plus + down * minus)
    return torch.stack([r.sum(-1) for r in rails], dim=-1)


def mode_signs(mode: Mode, codes: np.ndarray, guard: int) -> np.ndarray:
    """−1, 0 or 1 of every row in every slot of the window, (vectors, slots, rows), for signed codes (vectors, rows)."""
    slot = np.arange(mode.window_slots(guard))[None, :, None]
    active = np.zeros((len(codes), slot.size, codes.shape[1]), dtype=bool)
    for start, stop in mode.window_pulses(codes, np.arange(codes.shape[1]), guard):
        active |= (slot >= np.asarray(start)[:, None, :]) & (slot < np.asarray(stop)[:, None, :])
    return np.sign(codes)[:, None, :] * active


@dataclass(frozen=True)
class PhaseCharges:
    """One PWM phase: charges [C] of lines (vectors, lines), of rails (vectors, lines, 3); pulses of all rows and their lengths
    in sum [s], (vectors,); the phase's window [s]."""

    line_c: np.ndarray
    mirror_c: np.ndarray
    oscillator_c: np.ndarray
    rail_c: np.ndarray
    pulses: np.ndarray
    on_s: np.ndarray
    window_s: float


def tied_charges(
    tile: TiedTile, g_plus_s: np.ndarray, g_minus_s: np.ndarray, codes: np.ndarray, mode: Mode, *, wire_scale: float = 1.0,
    w_select_um: float | None = None, position: float = 0.5,
) -> tuple[PhaseCharges, ...]:  # fmt: skip
    """Charges of columns (lines, rows) on their regulator for signed codes (vectors, rows), by phase.

    Row order is from the read-out's far end. Raises CardError if the card lacks the read-out's tables.
    """
    if missing := [name for name in ENERGY_TABLES if name not in tile.tables]:
        raise CardError(
            f"{tile.card.source}: tables/{missing[0]}: missing (the energy model needs it); calibrate from a set with a "
            "read-out and supply currents"
        )
    cell, wire, _ = tile.parameters(wire_scale)
    cell = with_source_line(cell, tile.source_line, position)
    w = tile.w_ref_um if w_select_um is None else float(w_select_um)
    plus, minus = (torch.as_tensor(np.array(g, dtype=float)) for g in (g_plus_s, g_minus_s))
    current_a, clamp_v = tile.tables["clamp"]
    clamp = regulated_clamp(current_a, clamp_v - float(tile.card.meta["v_common_v"]))
    t, guard = tile.t_lsb_s, tile.guard_slots
    slots: dict[str, list[Tensor]] = {"line": [], "mirror": [], "oscillator": [], "rail": []}
    with torch.no_grad():
        c = effective_column(cell, wire, plus, minus, w)
        for signs in torch.as_tensor(mode_signs(mode, codes, guard), dtype=torch.float64):
            # Lines broadcast against slots of one vector.
            s = signs.expand(len(plus), -1, -1)
            found = solve_column(c, s, clamp)
            slots["line"].append(found.current_a)
            slots["mirror"].append(lookup(*tile.tables["mirror"], found.current_a))
            slots["oscillator"].append(lookup(*tile.tables[OSCILLATOR_TABLE], found.current_a))
            slots["rail"].append(rail_currents(cell, plus, minus, s, found.v_node, w))
    stacked = {name: torch.stack(each).numpy() for name, each in slots.items()}
    widths = [np.asarray(stop) - np.asarray(start) for start, stop in mode.pulses(codes, np.arange(codes.shape[1]))]
    phases = []
    for (first, beyond), width in zip(mode.windows(guard), widths, strict=True):
        line, mirror, oscillator, rail = (
            stacked[name][:, :, first:beyond].sum(2) * t for name in ("line", "mirror", "oscillator", "rail")
        )
        phases.append(PhaseCharges(line, mirror, oscillator, rail, (width > 0).sum(-1), width.sum(-1) * t, (beyond - first) * t))
    return tuple(phases)
