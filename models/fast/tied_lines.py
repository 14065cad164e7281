"""Tied columns from tables and one sweep, compiled with numba: what ``tied_weights.prepare`` takes from columns.

It is made for matrices that change with every call, such as those of an attention's products.

A cell's currents depend on its conductance alone, so they are read from a table; the sweep along a column is that of
``models.tied.transfer`` without a division a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch import Tensor

from aimcard.models.fast.tied_circuit import TiedCircuit, edge_delays
from aimcard.models.tied import cell_current, on_resistance, source_voltage

_options = {"fastmath": True, "nogil": True, "boundscheck": False, "error_model": "numpy", "cache": True}
#: Points of a table, on even steps of √G: between them a straight line is within 1e-7 of the largest current.
POINTS = 2049
#: Columns of a table: odd and even current, what edges add to either, and the conductance to the column's voltage.
ODD, EVEN, ODD_STEP, STEP, NODE = range(5)


@dataclass(frozen=True)
class CellTable:
    """Currents of a cell at its source lines' two voltages, per volt of the column's transfer: values (2, points, 5), of cells on
    the plus and on the minus line, on even steps of √G [√S]."""

    step: float
    values: np.ndarray
    gate_a: float
    g_gate_s: float

    @classmethod
    def of(cls, c: TiedCircuit, top_s: float) -> CellTable:
        """For conductances up to ``top_s`` [S]."""
        p, w = c.cell, c.w_um
        u = torch.linspace(0, top_s**0.5, POINTS, dtype=torch.float64)
        zero = torch.zeros((), dtype=torch.float64)
        g, gate, r = u * u, cell_current(p, zero, zero, zero, w), on_resistance(p, w)
        down_lsb, up_lsb = edge_delays(c)
        sides = []
        for plus in (True, False):
            sign = 1 if plus else -1
            down, up = (cell_current(p, g, zero, source_voltage(p, zero + s, plus), w) - gate for s in (sign, -sign))
            sides.append(
                torch.stack(
                    [
                        sign * (down - up) / 2, (down + up) / 2, sign * (down_lsb * down - up_lsb * up) / 2,
                        (down_lsb * down + up_lsb * up) / 2, g / (1 + g * r),
                    ], -1,
                )
            )  # fmt: skip
        gate_a = float(gate)
        return cls(float(u[1]), torch.stack(sides).float().numpy(), gate_a, -2 * gate_a / float(p.v_gate_v))

    def covers(self, plus: Tensor, minus: Tensor) -> bool:
        """Whether these conductances [S] lie on the table."""
        return max(float(plus.max()), float(minus.max())) <= (self.step * (POINTS - 1)) ** 2


@dataclass(frozen=True)
class Transfers:
    """h (..., lines, rows) and y_s (..., lines) of ``models.tied.transfer``."""

    h: Tensor
    y_s: Tensor


def transfers(table: CellTable, plus: Tensor, minus: Tensor, r_bit_ohm: float) -> Transfers:
    """Of pairs (..., lines, rows) [S], float32."""
    h, y = torch.empty_like(plus, memory_format=torch.contiguous_format), plus.new_empty(plus.shape[:-1])
    rows = plus.shape[-1]
    first, second = (t.reshape(-1, rows).contiguous().numpy() for t in (plus, minus))
    step, to_h, to_y = np.float32(table.step), h.view(-1, rows).numpy(), y.view(-1).numpy()
    _sweep(first, second, table.values, step, table.g_gate_s, r_bit_ohm, to_h, to_y)
    return Transfers(h, y)


def weighted(table: CellTable, plus: Tensor, minus: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    """Odd current per row (..., lines, rows), its edges' lengthening [LSB] (..., 1, 1); row profiles (..., rows) and line factors
    (..., lines) of the even current, of what the edges add, and of the odd current's square; then the even current itself."""
    lines, rows = plus.shape[-2:]
    tiles = plus.numel() // (lines * rows)
    odd, even = torch.empty(tiles, lines, rows), torch.empty(tiles, lines, rows)
    delta, profile, factor = torch.empty(tiles), torch.empty(tiles, 3, rows), torch.empty(tiles, 3, lines)
    first, second, along = (t.reshape(tiles, lines, rows).contiguous().numpy() for t in (plus, minus, h))
    _weigh(
        first, second, along, table.values, np.float32(table.step), odd.numpy(), even.numpy(), delta.numpy(), profile.numpy(),
        factor.numpy(),
    )  # fmt: skip
    shape = plus.shape[:-2]
    pairs = [q for k in range(3) for q in (profile[:, k].reshape(*shape, rows), factor[:, k].reshape(*shape, lines))]
    return odd.view(plus.shape), delta.view(*shape, 1, 1), *pairs, even.view(plus.shape)


@numba.njit(**_options)
def _sweep(plus, minus, table, step, gate, r, h, y):
    """Fill h (lines, rows), y (lines,): the voltage along a column, 1 at its far end, is q = 1 + r·ΣΣ G·q."""
    lines, rows = plus.shape
    inverse, last = np.float32(1) / step, np.float32(table.shape[1] - 2)
    node = np.empty(rows, np.float32)
    for c in range(lines):
        for i in range(rows):
            a, b = np.sqrt(plus[c, i]) * inverse, np.sqrt(minus[c, i]) * inverse
            m, n = np.int32(min(a, last)), np.int32(min(b, last))
            a, b = a - np.float32(m), b - np.float32(n)
            first = table[0, m, 4] + a * (table[0, m + 1, 4] - table[0, m, 4])
            node[i] = first + table[1, n, 4] + b * (table[1, n + 1, 4] - table[1, n, 4])
        q, beyond = 1.0, 0.0
        for i in range(rows):
            h[c, i] = q
            beyond += (node[i] + gate) * q
            q += (r if i < rows - 1 else 0.5 * r) * beyond
        y[c] = beyond / q
        inverse_end = np.float32(1.0 / q)
        for i in range(rows):
            h[c, i] *= inverse_end


@numba.njit(**_options)
def _weigh(plus, minus, h, table, step, odd, even, delta, profile, factor):
    """As ``weighted``; (tiles, lines, rows), profile (tiles, 3, rows), factor (tiles, 3, lines)."""
    tiles, lines, rows = plus.shape
    inverse, last, tiny = np.float32(1) / step, np.float32(table.shape[1] - 2), 1e-300
    added = np.empty((lines, rows), np.float32)
    for t in range(tiles):
        longer, square = 0.0, 0.0
        profile[t] = 0
        for c in range(lines):
            both, of_square = np.float32(0), np.float32(0)
            for i in range(rows):
                a, b = np.sqrt(plus[t, c, i]) * inverse, np.sqrt(minus[t, c, i]) * inverse
                m, n = np.int32(min(a, last)), np.int32(min(b, last))
                a, b, v = a - np.float32(m), b - np.float32(n), h[t, c, i]
                first = table[0, m, 0] + a * (table[0, m + 1, 0] - table[0, m, 0])
                o = v * (first + table[1, n, 0] + b * (table[1, n + 1, 0] - table[1, n, 0]))
                first = table[0, m, 1] + a * (table[0, m + 1, 1] - table[0, m, 1])
                e = v * (first + table[1, n, 1] + b * (table[1, n + 1, 1] - table[1, n, 1]))
                first = table[0, m, 2] + a * (table[0, m + 1, 2] - table[0, m, 2])
                s = v * (first + table[1, n, 2] + b * (table[1, n + 1, 2] - table[1, n, 2]))
                first = table[0, m, 3] + a * (table[0, m + 1, 3] - table[0, m, 3])
                d = v * (first + table[1, n, 3] + b * (table[1, n + 1, 3] - table[1, n, 3]))
                odd[t, c, i], even[t, c, i], added[c, i] = o, e, d
                both += s * o
                of_square += o * o
                profile[t, 0, i] += e
                profile[t, 1, i] += d
                profile[t, 2, i] += o * o
            longer += both
            square += of_square
        delta[t] = longer / max(square, tiny)
        sizes = np.zeros(3)
        for k in range(3):
            for i in range(rows):
                profile[t, k, i] /= np.float32(lines)
                sizes[k] += np.float64(profile[t, k, i]) ** 2
        for c in range(lines):
            x, y, z = 0.0, 0.0, 0.0
            for i in range(rows):
                o = odd[t, c, i]
                x += even[t, c, i] * profile[t, 0, i]
                y += added[c, i] * profile[t, 1, i]
                z += np.float64(o * o) * profile[t, 2, i]
            factor[t, 0, c], factor[t, 1, c] = x / max(sizes[0], tiny), y / max(sizes[1], tiny)
            factor[t, 2, c] = z / max(sizes[2], tiny)
