"""A look-up table between measured points: monotone cubic Hermite (PCHIP), in torch, differentiable in x and in its values.

Slopes by Fritsch and Carlson's harmonic mean (SIAM J. Numer. Anal. 17, 238, 1980), as scipy's PchipInterpolator, against
which it is tested. Outside the table it goes on in a straight line with the end's slope, so a gradient never vanishes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def slopes(x: Tensor, y: Tensor) -> Tensor:
    """Slope at every knot, shape (knots,): no overshoot, so a monotone table stays monotone between its knots."""
    h = x[1:] - x[:-1]
    d = (y[1:] - y[:-1]) / h
    if len(x) == 2:
        return torch.cat([d, d])
    w1 = 2 * h[1:] + h[:-1]
    w2 = h[1:] + 2 * h[:-1]
    same = d[:-1] * d[1:] > 0
    safe = torch.where(same, d[:-1], torch.ones_like(d[:-1]))
    safe_next = torch.where(same, d[1:], torch.ones_like(d[1:]))
    inner = torch.where(same, (w1 + w2) / (w1 / safe + w2 / safe_next), torch.zeros_like(safe))
    return torch.cat([_end(h[0], h[1], d[0], d[1])[None], inner, _end(h[-1], h[-2], d[-1], d[-2])[None]])


def _end(h0: Tensor, h1: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
    # One-sided three-point slope, limited so that the end interval keeps its shape.
    s = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
    s = torch.where(s * d0 <= 0, torch.zeros_like(s), s)
    return torch.where((d0 * d1 <= 0) & (s.abs() > 3 * d0.abs()), 3 * d0, s)


def lookup(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """Value of the table (x, y), each (knots,), at ``at`` (any shape)."""
    m = slopes(x, y)
    k = torch.clamp(torch.searchsorted(x, at.detach().contiguous(), right=True) - 1, 0, len(x) - 2)
    h = x[k + 1] - x[k]
    t = (at - x[k]) / h
    inside = torch.clamp(t, 0.0, 1.0)
    t2, t3 = inside * inside, inside * inside * inside
    value = (
        (2 * t3 - 3 * t2 + 1) * y[k] + (t3 - 2 * t2 + inside) * h * m[k]
        + (3 * t2 - 2 * t3) * y[k + 1] + (t3 - t2) * h * m[k + 1]
    )  # fmt: skip
    beyond = torch.where(t < 0, t * m[k], torch.where(t > 1, (t - 1) * m[k + 1], torch.zeros_like(t)))
    return value + beyond * h


def lookup_slope(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """dy/dx of ``lookup`` at ``at``."""
    m = slopes(x, y)
    k = torch.clamp(torch.searchsorted(x, at.detach().contiguous(), right=True) - 1, 0, len(x) - 2)
    h = x[k + 1] - x[k]
    t = torch.clamp((at - x[k]) / h, 0.0, 1.0)
    return (
        (6 * t * t - 6 * t) * (y[k] - y[k + 1]) / h
        + (3 * t * t - 4 * t + 1) * m[k] + (3 * t * t - 2 * t) * m[k + 1]
    )  # fmt: skip
