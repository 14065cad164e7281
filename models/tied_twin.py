"""A tied column node by node: the slow twin of ``models/tied.py``, the same cells without any expansion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from aimcard.models.ladder import ClampCurve, LadderSolution, line_current_gradient, solve_ladder
from aimcard.models.linear_ladder import Array
from aimcard.models.tied import TiedCell, cell_current, source_voltage


@dataclass(frozen=True)
class TiedPair:
    """Both cells of a row as one law for ``solve_ladder``, which takes the row's sign as ``on``.

    other_s: conductances of the cells that the ladder's own do not stand for, (rows,). swapped: the ladder's conductances
    are G− and ``other_s`` is G+. Voltages count from the common mode; the return line is the common mode itself.
    """

    cell: TiedCell
    w_select_um: float
    other_s: Array
    swapped: bool = False

    def _current(self, conductance_s: Tensor, v_column: Tensor, sign: Tensor) -> Tensor:
        own, other_v = (source_voltage(self.cell, sign, plus) for plus in (not self.swapped, self.swapped))
        other = torch.tensor(self.other_s)
        w = self.w_select_um
        return cell_current(self.cell, conductance_s, v_column, own, w) + cell_current(self.cell, other, v_column, other_v, w)

    def _derivative(self, conductance_s: Array, v_bit_v: Array, on: NDArray, of: int) -> tuple[Array, Array]:
        at = [torch.tensor(a, dtype=torch.float64) for a in np.broadcast_arrays(conductance_s, v_bit_v, on)]
        at[of].requires_grad_(True)
        current = self._current(at[0], at[1], at[2])
        (slope,) = torch.autograd.grad(current.sum(), at[of])
        return current.detach().numpy(), slope.numpy()

    def current(self, conductance_s: Array, v_bit_v: Array, v_return_v: Array, on: NDArray) -> tuple[Array, Array, Array]:
        """Current [A] and its derivatives [S] to the column's and the (fixed) return's voltage."""
        i, slope = self._derivative(conductance_s, v_bit_v, on, 1)
        return i, slope, np.zeros_like(slope)

    def current_per_conductance(self, conductance_s: Array, v_bit_v: Array, v_return_v: Array, on: NDArray) -> Array:
        """Derivative of the current to the conductance [V]."""
        return self._derivative(conductance_s, v_bit_v, on, 0)[1]


def static_column(
    cell: TiedCell, g_plus_s: ArrayLike, g_minus_s: ArrayLike, signs: ArrayLike, *, r_bit_ohm: float, w_select_um: float,
    v_clamp: float | ClampCurve = 0.0,
) -> LadderSolution:  # fmt: skip
    """Static currents for patterns of signs (patterns, rows) with g_plus_s, g_minus_s (rows,) [S].

    v_clamp: clamp voltage from the common mode, or a curve of the current as ``solve_ladder`` takes it.
    """
    law = TiedPair(cell, w_select_um, np.asarray(g_minus_s, dtype=float))
    return solve_ladder(law, g_plus_s, np.asarray(signs, dtype=float), r_bit_ohm=r_bit_ohm, r_return_ohm=0.0, v_clamp_v=v_clamp)


def static_gradients(
    cell: TiedCell, g_plus_s: ArrayLike, g_minus_s: ArrayLike, signs: ArrayLike, *, r_bit_ohm: float, w_select_um: float,
    v_clamp: float | ClampCurve = 0.0,
) -> tuple[LadderSolution, Array, Array]:  # fmt: skip
    """``static_column`` and the current's derivatives to G+ and G− [V], (patterns, rows) each."""
    s, found = np.asarray(signs, dtype=float), []
    for own, other, swapped in ((g_plus_s, g_minus_s, False), (g_minus_s, g_plus_s, True)):
        law = TiedPair(cell, w_select_um, np.asarray(other, dtype=float), swapped)
        found.append(line_current_gradient(law, own, s, r_bit_ohm=r_bit_ohm, r_return_ohm=0.0, v_clamp_v=v_clamp))
    return found[0][0], found[0][1], found[1][1]
