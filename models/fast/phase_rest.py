"""What the products of a mode's phases leave, learnt from the slow twin: a smooth function of how much of the tile is on.

Phases are short and turn on anew: the products take a recharge at the rate of a bin's current although much of it comes in the
guard slots, where the ring idles, and its voltage dependence in whole. Both go with how many cells had a pulse and with the
current, hardly with which ones. So a few lines are solved slot by slot for a fixed set of vectors, from dense to sparse,
once for a grouping of the columns, and the difference is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.modes import Mode

#: Lines on which it is learnt, and shares of the rows that are on in its vectors, each once with even and once with normal codes.
LINES = 7
SHARES = (1.0, 0.7, 0.4, 0.2, 0.1, 0.05)
#: Share of the rows below which an error no longer counts for more, and the ridge over the mean square of the features.
LEAST, RIDGE = 0.1, 1e-5


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


def features(table: Tensor, hist: Tensor, k: int) -> Tensor:
    """How much of the tile is on in phase ``k``, (batch, features), from each vector's histogram of codes (batch, codes)."""
    rows = hist.sum(1, keepdim=True)
    on = (table > 0).to(hist)
    n = hist @ on[k][:, None] / rows
    q = hist @ table[k].to(hist)[:, None] / (rows * table[k].amax())
    found = [n, n * n, n * n * n, q, q * q, q * n]
    if k:
        # Cells that still recharge from the phase before.
        found.append(hist @ (on[k - 1] * (1 - on[k]))[:, None] / rows)
    return torch.cat(found, 1)


@dataclass(frozen=True)
class Rest:
    """What a phase's answers still have too much of: coefficients (4, features) of polynomials in a line's distance from the mean
    conductance ``mean`` of all rows, and from its group's middle."""

    coefficients: Tensor
    mean: float

    @classmethod
    def fit(cls, seen: Tensor, error: Tensor, total: Tensor, off: Tensor) -> Rest:
        """From features (vectors, n), errors (vectors, lines), conductances (lines,) of all rows, and how far they are from their
        groups' middles."""
        weight = 1 / (LEAST + seen[:, :1])
        mean = float(total.mean())
        a = torch.einsum("vf,el->vlef", seen, _line(total, off, mean)).flatten(2)
        a = (a * weight[..., None]).flatten(0, 1)
        scale = a.abs().amax(0).clamp(min=1e-12)
        a = a / scale
        square = a.T @ a
        ridge = RIDGE * float(square.diagonal().mean()) * torch.eye(len(square), dtype=a.dtype)
        found = torch.linalg.solve(square + ridge, a.T @ (error * weight).flatten()) / scale
        return cls(found.unflatten(0, (-1, seen.shape[1])), mean)

    def of(self, seen: Tensor, total: Tensor, off: Tensor) -> Tensor:
        """Of features (batch, n), conductances (lines,) and distances (lines,), (batch, lines)."""
        return seen @ self.coefficients.to(seen).T @ _line(total, off, self.mean).to(seen)


def _line(total: Tensor, off: Tensor, mean: float) -> Tensor:
    """How far a line is from the mean one, (4, lines): its conductance beside it as a share, to the powers 0, 1 and 2, and how far
    it is from its group's middle."""
    e = (total / mean - 1).clamp(-1.0, 1.0)
    return torch.stack([torch.ones_like(e), e, e * e, off.clamp(-1.0, 1.0)])
