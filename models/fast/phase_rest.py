"""What the products of a mode's phases still leave, learnt from the slow twin: a smooth function of how much of the tile is on.

What the slots make of the course of the current is known (``models/fast/phase_slots.py``); how a pulse's charge goes with its
own place on the wire, and with a recharge that is cut off, is taken on average only. Both go with how many cells had a pulse,
hardly with which ones. So a few lines are solved slot by slot for a fixed set of vectors, from dense to sparse, once for a
grouping of the columns, and the difference is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.modes import Mode

#: Lines on which it is learnt, and shares of the rows that are on in its vectors, each once with even and once with normal codes.
LINES = 12
SHARES = (1.0, 1.0, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05)
#: Share of the rows below which an error no longer counts for more, and ridges over the mean square of the features.
LEAST, RIDGES = 0.1, (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e2, 1e9)


def sample_codes(mode: Mode, rows: int) -> Tensor:
    """Whole codes (vectors, rows) on which the rest is learnt, always the same."""
    rng = torch.Generator().manual_seed(0)
    even = torch.randint(0, mode.code_max + 1, (len(SHARES), rows), generator=rng)
    normal = (torch.randn(len(SHARES), rows, generator=rng).abs() * (mode.code_max / 3)).round().clamp(max=mode.code_max).long()
    on = torch.rand(2, len(SHARES), rows, generator=rng) < torch.tensor(SHARES)[:, None]
    return torch.cat([even * on[0], normal * on[1]])


def sample_lines(total: Tensor) -> Tensor:
    """Lines on which the rest is learnt, from the least to the most conductance (lines,)."""
    order = total.argsort()
    return order[torch.linspace(0, len(order) - 1, min(LINES, len(order))).round().long()]


#: Features at most, and shares of the tile that they are made of.
TERMS = 7


def share_tables(table: Tensor, k: int) -> Tensor:
    """By code (3, codes): whether it has a pulse in phase ``k``, its part of the longest, and whether its cell still recharges
    from the phase before; table (phases, codes)."""
    on = (table > 0).double()
    before = on[k - 1] * (1 - on[k]) if k else torch.zeros_like(on[k])
    return torch.stack([on[k], table[k].double() / table[k].amax(), before])


def features(table: Tensor, hist: Tensor, k: int) -> Tensor:
    """How much of the tile is on in phase ``k``, (batch, features), from each vector's histogram of codes (batch, codes)."""
    n, q, before = (hist @ share_tables(table, k).to(hist).T / hist.sum(1, keepdim=True)).unbind(1)
    found = [n, n * n, n * n * n, q, q * q, q * n]
    return torch.stack([*found, before] if k else found, 1)


def line_shapes(total: Tensor, off: Tensor, place: Tensor, bends: bool) -> Tensor:
    """What of a line the rest goes with, (3, lines), in parts of the mean line: 1, how far the line is from its group's middle,
    and how far its conductance lies to the near end, where a rate bends; else 1 and the first two powers of its conductance."""
    if bends:
        return torch.stack([torch.ones_like(off), off, place]).clamp(-1.0, 1.0)
    e = (total / total.mean() - 1).clamp(-1.0, 1.0)
    return torch.stack([torch.ones_like(e), e, e * e])


@dataclass(frozen=True)
class Rest:
    """What a phase's answers still have too much of: coefficients (shapes, features) of ``features`` and ``line_shapes``."""

    coefficients: Tensor

    @classmethod
    def fit(cls, seen: Tensor, error: Tensor, shapes: Tensor) -> Rest:
        """From features (vectors, n), errors (vectors, lines), and shapes (m, lines)."""
        weight = 1 / (LEAST + seen[:, :1])
        a = torch.einsum("vf,el->vlef", seen * weight, shapes).flatten(2)
        scale = a.abs().amax((0, 1)).clamp(min=1e-12)
        a, error = a / scale, error * weight
        even, odd = slice(0, None, 2), slice(1, None, 2)

        def missed(ridge: float) -> float:
            """What a fit to every other vector does not tell of the others."""
            pairs = ((even, odd), (odd, even))
            return sum(float((error[h] - a[h] @ _solve(a[o], error[o], ridge)).square().sum()) for h, o in pairs)

        found = _solve(a, error, min(RIDGES, key=missed)) / scale
        return cls(found.unflatten(0, (-1, seen.shape[1])))

    def of(self, seen: Tensor, shapes: Tensor) -> Tensor:
        """Of features (batch, n) and shapes (m, lines), (batch, lines)."""
        return (seen @ self.coefficients.to(seen).T) @ shapes.to(seen)


def _solve(a: Tensor, error: Tensor, ridge: float) -> Tensor:
    a = a.flatten(0, 1)
    square = a.T @ a
    size = ridge * float(square.diagonal().mean())
    return torch.linalg.solve(square + size * torch.eye(len(square), dtype=a.dtype), a.T @ error.flatten())
