"""A card's line node by node: the slow twin of the fast line, with the same cell equations and no segments.

What the fast model gives up lies between the two: cells clumped into segments, and a fixed number of passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from aimcard.models.cell import CellParameters, cell_current, gate_current, idle_weight, leakage_current
from aimcard.models.checks import check_choice, check_codes, check_conductances
from aimcard.models.errors import InputError
from aimcard.models.ladder import ClampCurve, LadderSolution, line_current_gradient, solve_ladder
from aimcard.models.linear_ladder import Array
from aimcard.models.lut import lookup, lookup_slope
from aimcard.models.modes import Mode, get_mode
from aimcard.models.tile import TileModel


@dataclass(frozen=True)
class CardCell:
    """The cell of ``models/cell.py`` as a law for ``solve_ladder``; its derivatives are torch's own.

    A conducting cell also lets its gate current into the return line; an idle one passes its leakage.
    """

    cell: CellParameters
    w_select_um: float

    def _current(self, conductance_s: Tensor, v_bit: Tensor, v_return: Tensor, on: Tensor) -> Tensor:
        leak = leakage_current(self.cell, v_bit, v_return, self.w_select_um)
        idle = leak * idle_weight(self.cell, conductance_s, self.w_select_um)
        return torch.where(on, cell_current(self.cell, conductance_s, v_bit, v_return, self.w_select_um), idle)

    def _derivatives(
        self, conductance_s: Array, v_bit_v: Array, v_return_v: Array, on: NDArray, of: tuple[int, ...]
    ) -> tuple[Array, ...]:
        arrays = np.broadcast_arrays(conductance_s, v_bit_v, v_return_v)
        at = [torch.tensor(a, dtype=torch.float64) for a in arrays]
        for k in of:
            at[k].requires_grad_(True)
        gate = torch.tensor(np.broadcast_to(np.asarray(on, dtype=bool), arrays[0].shape))
        current = self._current(at[0], at[1], at[2], gate)
        # Every cell's current depends on its own voltages only, so the sum's gradient is each cell's derivative.
        parts = torch.autograd.grad(current.sum(), [at[k] for k in of])
        return (current.detach().numpy(), *(p.numpy() for p in parts))

    def current(self, conductance_s: Array, v_bit_v: Array, v_return_v: Array, on: NDArray) -> tuple[Array, Array, Array]:
        """Current [A] and its derivatives [S] to the bit-line and the return-line voltage."""
        i, to_bit, to_return = self._derivatives(conductance_s, v_bit_v, v_return_v, on, (1, 2))
        return i, to_bit, to_return

    def current_per_conductance(self, conductance_s: Array, v_bit_v: Array, v_return_v: Array, on: NDArray) -> Array:
        """Derivative of the current to the conductance [V]."""
        return self._derivatives(conductance_s, v_bit_v, v_return_v, on, (0,))[1]

    def return_injection(self, v_return_v: Array, on: NDArray) -> tuple[Array, Array]:
        """Gate current into the return line [A] and its derivative [S] to that line's voltage."""
        v = torch.tensor(v_return_v, dtype=torch.float64, requires_grad=True)
        gate = torch.tensor(np.broadcast_to(np.asarray(on, dtype=bool), v.shape))
        current = gate_current(self.cell, v, self.w_select_um) * gate
        (slope,) = torch.autograd.grad(current.sum(), v)
        return current.detach().numpy(), slope.numpy()


def clamp_curve(i_a: Tensor, v_v: Tensor) -> ClampCurve:
    """The table clamp voltage against line current, each (knots,), as the ladder wants it."""

    def curve(line_current_a: Array) -> tuple[Array, Array]:
        at = torch.tensor(line_current_a, dtype=torch.float64)
        return lookup(i_a, v_v, at).numpy(), lookup_slope(i_a, v_v, at).numpy()

    return curve


def _column(
    model: TileModel,
    conductance_s: ArrayLike,
    codes: ArrayLike,
    clamp: str,
    wire_scale: float,
    w_select_um: float | None,
    mode: str | Mode | None,
):
    g = check_conductances(np.atleast_2d(conductance_s))
    x = check_codes(np.atleast_2d(codes), rows=g.shape[1], code_max=model.code_max)
    if len(g) != 1 or len(x) != 1:
        raise InputError(f"conductance_s, codes: expected one line and one vector; got {len(g)} and {len(x)}")
    check_choice("clamp", clamp, ("ideal", "ota") if model.has_readout else ("ideal",))
    line = model.line(wire_scale)
    w = float(model.card.meta["w_select_um"]) if w_select_um is None else float(w_select_um)
    pwm = model.mode if mode is None else get_mode(mode, model.code_max)
    slot = np.arange(pwm.window_slots(model.guard_slots))[:, None]
    pulses = pwm.window_pulses(x[0], np.arange(x.shape[1]), model.guard_slots)
    on = np.any([(start <= slot) & (slot < stop) for start, stop in pulses], axis=0)
    settings = {
        "r_bit_ohm": float(line.wire.r_bit_ohm), "r_return_ohm": float(line.wire.r_return_ohm),
        "v_clamp_v": model.v_read_v if clamp == "ideal" else clamp_curve(*model.tables["clamp"]),
    }  # fmt: skip
    return CardCell(line.cell, w), g[0], on, settings


def static_line(
    model: TileModel,
    conductance_s: ArrayLike,
    codes: ArrayLike,
    *,
    clamp: str = "ideal",
    wire_scale: float = 1.0,
    w_select_um: float | None = None,
    mode: str | Mode | None = None,
) -> LadderSolution:
    """One line, static in every slot: conductance_s (rows,) [S], codes (rows,); patterns of the solution are slots.

    Edges and read-out dynamics are left out. clamp: "ideal", or "ota" for the card's table of the clamp's voltage.
    Raises InputError as ``TileModel.respond``; AimcardError if Newton does not converge.
    """
    cell, g, on, settings = _column(model, conductance_s, codes, clamp, wire_scale, w_select_um, mode)
    return solve_ladder(cell, g, on, **settings)


def static_gradient(
    model: TileModel,
    conductance_s: ArrayLike,
    codes: ArrayLike,
    *,
    clamp: str = "ideal",
    wire_scale: float = 1.0,
    w_select_um: float | None = None,
    mode: str | Mode | None = None,
) -> tuple[LadderSolution, Array]:
    """``static_line`` and its derivative to every conductance [V], (slots, rows)."""
    cell, g, on, settings = _column(model, conductance_s, codes, clamp, wire_scale, w_select_um, mode)
    return line_current_gradient(cell, g, on, **settings)
