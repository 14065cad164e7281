"""One column, solved node by node: the slow twin of the fast Thévenin column.

Static currents of a bit line and its return line for a batch of on/off patterns, every cell at its own pair
of nodes, with any cell law, by Newton. Row 0 is the far end, row N-1 is next to the read-out. A line has its
wire resistance per cell between neighbouring nodes and half a cell between its last node and its clamp or
ground.

Method: Newton on the cell currents; linear_ladder.py solves each linearised ladder exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aimcard.models.checks import check_choice
from aimcard.models.errors import AimcardError, InputError
from aimcard.models.linear_ladder import Array, cell_blocks, solve_linear_ladder

ClampCurve = Callable[[Array], tuple[Array, Array]]

RETURN_GROUNDS = ("near", "far", "both")
RELATIVE_RESIDUAL = 1e-12
MAX_ITERATIONS = 20
# Patterns per elimination: keeps the sweep's arrays in cache and bounds its memory.
_BLOCK = 512


class CellLaw(Protocol):
    """Static current of a cell from its bit-line node to its return-line node.

    Arrays broadcast to (patterns, rows), or (patterns, lines, rows) with a shared return. Parameters of the
    law itself may differ per row (and line), not per pattern.
    """

    def current(self, conductance_s: Array, v_bit_v: Array, v_return_v: Array, on: NDArray) -> tuple[Array, Array, Array]:
        """Current [A] and its derivatives [S] to the bit-line and the return-line voltage."""
        ...


class DifferentiableCellLaw(CellLaw, Protocol):
    """A cell law that also knows its derivative to the conductance."""

    def current_per_conductance(self, conductance_s: Array, v_bit_v: Array, v_return_v: Array, on: NDArray) -> Array:
        """Derivative of the current to the conductance [V]."""
        ...


@runtime_checkable
class InjectingCellLaw(Protocol):
    """A cell law whose cells also let a current into the return line that no bit line delivers (a gate's)."""

    def return_injection(self, v_return_v: Array, on: NDArray) -> tuple[Array, Array]:
        """Current of one cell into its return node [A] and its derivative [S]; all arrays (patterns, rows)."""
        ...


@dataclass(frozen=True)
class OhmicCell:
    """i = G·v while on; while off a linear leak that is ``leakage_a`` at 0.2 V."""

    leakage_a: float = 0.0

    def current(self, conductance_s: Array, v_bit_v: Array, v_return_v: Array, on: NDArray) -> tuple[Array, Array, Array]:
        """Current [A] and its derivatives to the bit and the return voltage [S]."""
        g = np.where(on, conductance_s, self.leakage_a / 0.2)
        return g * (v_bit_v - v_return_v), g, -g

    def current_per_conductance(self, conductance_s: Array, v_bit_v: Array, v_return_v: Array, on: NDArray) -> Array:
        """Derivative of the current to the conductance [V], zero while off."""
        return np.where(on, v_bit_v - v_return_v, 0.0) + 0.0 * conductance_s


@dataclass(frozen=True)
class LadderSolution:
    """Static solution of a column; [lines] is absent unless two lines share a return.

    line_current_a : current that the clamp delivers to the bit line [A], shape (patterns[, lines])
    return_near_a, return_far_a : current into the ground at either end of the return line [A], (patterns,)
    v_clamp_v : voltage of the clamp [V], (patterns[, lines])
    v_bit_v : bit-line nodes [V], (patterns[, lines], rows)
    v_return_v : return-line nodes [V], (patterns, rows)
    cell_current_a : [A], (patterns[, lines], rows)
    iterations : Newton steps taken (the most of any pattern)
    residual : largest error of a cell current sum relative to the sum of the cell currents
    """

    line_current_a: Array
    return_near_a: Array
    return_far_a: Array
    v_clamp_v: Array
    v_bit_v: Array
    v_return_v: Array
    cell_current_a: Array
    iterations: int
    residual: float

    @property
    def return_current_a(self) -> Array:
        """Current into ground at both ends together [A], shape (patterns,)."""
        return self.return_near_a + self.return_far_a

    def __str__(self) -> str:
        patterns, rows = self.v_return_v.shape
        lo, hi = (f"{1e6 * x:.4g}" for x in (self.line_current_a.min(), self.line_current_a.max()))
        steps = f"{self.iterations} Newton steps"
        return f"{patterns} patterns of {rows} rows: line current {lo} to {hi} µA, {steps}"


def solve_ladder(
    cell: CellLaw,
    conductance_s: ArrayLike,
    on: ArrayLike,
    *,
    r_bit_ohm: float,
    r_return_ohm: float,
    v_clamp_v: ArrayLike | ClampCurve,
    return_ground: str = "near",
    shared_return: bool = False,
) -> LadderSolution:
    """Solve a column for every pattern.

    cell : the cells' law; with a method ``return_injection`` (InjectingCellLaw) also their current into the return
    conductance_s : [S], shape (rows,) or (patterns, rows); with ``shared_return`` (2, rows) or
        (patterns, 2, rows)
    on : truth of the select gate (or whatever the cell law takes), shape (rows,) or (patterns, rows)
    r_bit_ohm, r_return_ohm : wire resistance per cell
    v_clamp_v : read voltage at the clamp [V], scalar or (patterns[, lines]); or a curve
        ``curve(line_current_a) -> (voltage_v, dvoltage/dcurrent)``, solved together with the column
    return_ground : where the return line is grounded, "near" (read-out end), "far" or "both"
    shared_return : two bit lines (G+, G-) whose cells of a row share one return node

    Raises InputError for bad shapes, signs and names; AimcardError if Newton has not converged to 1e-12 of
    the line current in 20 steps.
    """
    ladder = _Ladder(cell, conductance_s, on, r_bit_ohm, r_return_ohm, v_clamp_v, return_ground, shared_return)
    return ladder.solve()


def line_current_gradient(
    cell: DifferentiableCellLaw,
    conductance_s: ArrayLike,
    on: ArrayLike,
    *,
    r_bit_ohm: float,
    r_return_ohm: float,
    v_clamp_v: ArrayLike | ClampCurve,
    return_ground: str = "near",
    shared_return: bool = False,
) -> tuple[LadderSolution, Array]:
    """The solution and dI_line/dG [V], shape (patterns, rows); arguments and errors as in ``solve_ladder``.

    With a shared return the shape is (patterns, lines of the current, lines of the conductance, rows). The
    adjoint of a ladder is the same ladder with transposed cell blocks and 1 V on the line in question (for
    ohmic cells: reciprocity, dI/dG_i = v_i²/V), so the gradient costs one more elimination per line.
    """
    ladder = _Ladder(cell, conductance_s, on, r_bit_ohm, r_return_ohm, v_clamp_v, return_ground, shared_return)
    solution = ladder.solve()
    return solution, ladder.gradient(cell, solution)


class _Ladder:
    """Checked arguments of one call, lines always explicit: conductance (patterns | 1, lines, rows)."""

    def __init__(
        self,
        cell: CellLaw,
        conductance_s: ArrayLike,
        on: ArrayLike,
        r_bit_ohm: float,
        r_return_ohm: float,
        v_clamp_v: ArrayLike | ClampCurve,
        return_ground: str,
        shared_return: bool,
    ) -> None:
        check_choice("return_ground", return_ground, RETURN_GROUNDS)
        for name, r in (("r_bit_ohm", r_bit_ohm), ("r_return_ohm", r_return_ohm)):
            if not 0.0 <= r < np.inf:
                raise InputError(f"{name}: expected a finite resistance per cell of at least 0 ohm; got {r}")
        g = np.asarray(conductance_s, dtype=np.float64)
        if not np.all((g >= 0) & (g < np.inf)):
            raise InputError("conductance_s: expected finite values of at least 0 S; got one below 0, inf or NaN")
        self.shared = shared_return
        self.lines = 2 if shared_return else 1
        inner = (*((2,) if shared_return else ()), g.shape[-1] if g.ndim else 0)
        if g.ndim not in (len(inner), len(inner) + 1) or g.shape[-len(inner) :] != inner or g.size == 0:
            names = "2, rows" if shared_return else "rows"
            raise InputError(f"conductance_s: expected shape ({names}) or (patterns, {names}); got {g.shape}")
        gates = np.asarray(on)
        self.rows = g.shape[-1]
        if gates.ndim not in (1, 2) or gates.shape[-1] != self.rows or gates.size == 0:
            raise InputError(
                f"on: expected shape ({self.rows},) or (patterns, {self.rows}), the rows of conductance_s; got {gates.shape}"
            )
        g = g.reshape(-1, self.lines, self.rows)
        gates = gates.reshape(-1, self.rows)
        self.patterns = max(len(g), len(gates))
        self.curve: ClampCurve | None = None
        self.v_fixed = np.zeros((1, self.lines))
        if callable(v_clamp_v):
            self.curve = v_clamp_v
        else:
            v = np.asarray(v_clamp_v, dtype=np.float64)
            if not np.all(np.isfinite(v)):
                raise InputError("v_clamp_v: expected finite voltages; got inf or NaN")
            v = v[..., None] if v.ndim and not shared_return else v
            if v.ndim > 2 or (v.ndim and v.shape[-1] != self.lines):
                raise InputError(f"v_clamp_v: expected a scalar or shape (patterns[, lines]); got {np.shape(v_clamp_v)}")
            self.v_fixed = np.broadcast_to(v, (len(v) if v.ndim == 2 else 1, self.lines))
            self.patterns = max(self.patterns, len(self.v_fixed))
        for name, count in (("conductance_s", len(g)), ("on", len(gates)), ("v_clamp_v", len(self.v_fixed))):
            if count not in (1, self.patterns):
                raise InputError(f"{name}: expected 1 or {self.patterns} patterns, as the others; got {count}")
        self.cell, self.g, self.gates = cell, g, gates
        self.r = np.array([r_bit_ohm] * self.lines + [r_return_ohm])
        # A return line without resistance is one node at ground, wherever it is grounded.
        self.near = return_ground != "far" or r_return_ohm == 0
        self.far = return_ground != "near" and r_return_ohm > 0

    def solve(self) -> LadderSolution:
        # A cell law that runs away is reported below as not converged, not as a numpy warning.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            blocks = [self._solve_block(start) for start in range(0, self.patterns, _BLOCK)]
        arrays = [np.concatenate(parts) for parts in zip(*(b[:6] for b in blocks), strict=True)]
        end, far, v_clamp, v_bit, v_return, current = arrays
        return LadderSolution(
            line_current_a=self._squeeze(end[:, :-1]),
            return_near_a=-end[:, -1] if self.near else np.zeros(self.patterns),
            return_far_a=far[:, -1],
            v_clamp_v=self._squeeze(v_clamp),
            v_bit_v=self._squeeze(v_bit),
            v_return_v=v_return,
            cell_current_a=self._squeeze(current),
            iterations=max(b[6] for b in blocks),
            residual=max(b[7] for b in blocks),
        )

    def gradient(self, cell: DifferentiableCellLaw, solution: LadderSolution) -> Array:
        shape = (self.patterns, self.lines, self.rows)
        v_bit, v_return = solution.v_bit_v.reshape(shape), solution.v_return_v
        current = solution.line_current_a.reshape(self.patterns, self.lines)
        result = np.empty((self.patterns, self.lines, *shape[1:]))
        for start in range(0, self.patterns, _BLOCK):
            part = slice(start, start + _BLOCK)
            g, gates, _ = self._block(part)
            arguments = self._cell_arguments(g, gates, v_bit[part], v_return[part])
            _, a, e = self._broadcast(cell.current(*arguments), v_bit[part].shape)
            per_g = self._broadcast((cell.current_per_conductance(*arguments),), v_bit[part].shape)[0]
            _, slope = self._clamp(current[part], self.v_fixed[:1])
            _, injected_slope = self._injection(gates, v_return[part])
            y = cell_blocks(a, e, injected_slope).swapaxes(1, 2)
            for line in range(self.lines):
                unit = np.zeros((len(a), self.lines))
                unit[:, line] = 1.0
                adjoint = self._linear(y, np.zeros((self.rows, self.lines + 1, len(a))), unit, slope)[0]
                difference = adjoint[:, :-1] - adjoint[:, -1:]
                result[part, line] = difference.transpose(2, 1, 0) * per_g
        return result if self.shared else result[:, 0, 0]

    def _squeeze(self, x: Array) -> Array:
        return x if self.shared else x[:, 0]

    def _block(self, part: slice) -> tuple[Array, NDArray, Array]:
        return tuple(x[part] if len(x) > 1 else x for x in (self.g, self.gates, self.v_fixed))  # type: ignore[return-value]

    def _cell_arguments(self, g: Array, gates: NDArray, v_bit: Array, v_return: Array):
        if self.shared:
            return g, v_bit, v_return[:, None], gates[:, None]
        return g[:, 0], v_bit[:, 0], v_return, gates

    def _broadcast(self, values: tuple[Array, ...], shape: tuple[int, ...]) -> tuple[Array, ...]:
        inner = shape if self.shared else (shape[0], shape[2])
        return tuple(np.broadcast_to(x, inner).reshape(shape) for x in values)

    def _injection(self, gates: NDArray, v_return: Array) -> tuple[Array, Array]:
        """Current of a row's cells into the return line that comes from elsewhere, and its slope, (patterns, rows)."""
        if not isinstance(self.cell, InjectingCellLaw):
            return np.zeros_like(v_return), np.zeros_like(v_return)
        current, slope = self.cell.return_injection(v_return, gates)
        return self.lines * current, self.lines * slope

    def _solve_block(self, start: int):
        part = slice(start, start + _BLOCK)
        g, gates, v_fixed = self._block(part)
        count = min(_BLOCK, self.patterns - start)
        shape = (count, self.lines, self.rows)
        v_return = np.zeros((count, self.rows))
        line_current = np.zeros((count, self.lines))
        v_clamp, slope = self._clamp(line_current, v_fixed)
        v_bit = np.repeat(v_clamp[:, :, None], self.rows, axis=2)
        i, a, e = self._broadcast(self.cell.current(*self._cell_arguments(g, gates, v_bit, v_return)), shape)
        j, j_slope = self._injection(gates, v_return)
        for iteration in range(1, MAX_ITERATIONS + 1):
            offset = i - a * v_bit - e * v_return[:, None]
            j_offset = j - j_slope * v_return
            taken = -offset.sum(axis=1, keepdims=True) - j_offset[:, None]
            source = np.concatenate([offset, taken], axis=1).transpose(2, 1, 0)
            v, end, far = self._linear(cell_blocks(a, e, j_slope), source, v_clamp - slope * line_current, slope)
            v_bit, v_return = v[:, :-1].transpose(2, 1, 0), v[:, -1].T
            # The sweep satisfies every wire equation, so what is left is how far the cells (and the clamp)
            # are from their linearisation.
            linear = offset + a * v_bit + e * v_return[:, None]
            i, a, e = self._broadcast(self.cell.current(*self._cell_arguments(g, gates, v_bit, v_return)), shape)
            j_linear = j_offset + j_slope * v_return
            j, j_slope = self._injection(gates, v_return)
            expected = v_clamp + slope * (end[:-1].T - line_current)
            line_current = end[:-1].T
            v_clamp, slope = self._clamp(line_current, v_fixed)
            scale = np.abs(i).sum(axis=(1, 2))
            error = np.abs(i - linear).sum(axis=(1, 2)) + np.abs(j - j_linear).sum(axis=1)
            error = error / np.where(scale > 0, scale, 1.0)
            clamp_error = np.abs(v_clamp - expected).max(axis=1) / np.maximum(np.abs(v_clamp).max(axis=1), 1e-3)
            error = np.maximum(error, clamp_error)
            if np.all(error <= RELATIVE_RESIDUAL):
                worst = float(error.max())
                return end.T, far.T, v_clamp, v_bit, v_return, i, iteration, worst
        worst = int(np.argmax(np.nan_to_num(error, nan=np.inf)))
        raise AimcardError(
            f"ladder: expected Newton to reach {RELATIVE_RESIDUAL:g} of the line current in {MAX_ITERATIONS} "
            f"steps; got {error[worst]:.1e} at pattern {start + worst}; check the cell law's derivatives"
        )

    def _clamp(self, line_current: Array, v_fixed: Array) -> tuple[Array, Array]:
        """Clamp voltage and its slope, (patterns, lines) each."""
        if self.curve is None:
            return np.broadcast_to(v_fixed, line_current.shape), np.zeros_like(line_current)
        v, slope = self.curve(self._squeeze(line_current))
        shape = self._squeeze(line_current).shape
        return tuple(np.broadcast_to(x, shape).reshape(line_current.shape) for x in (v, slope))  # type: ignore[return-value]

    def _linear(self, a: Array, b: Array, v_end: Array, slope: Array) -> tuple[Array, Array, Array]:
        return solve_linear_ladder(a, b, self.r, v_end, slope, near=self.near, far=self.far)
