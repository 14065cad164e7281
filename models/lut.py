"""A look-up table between measured points: a cubic spline kept monotone, in torch, differentiable in x and in its values.

Slopes are the not-a-knot cubic spline's, limited where they would overshoot: within three times the smaller secant
beside them the Hermite cubics are monotone (Fritsch and Carlson, SIAM J. Numer. Anal. 17, 238, 1980). On smooth data
the limit never acts and the table is the spline itself (error of fourth order in the knots' distance; plain PCHIP's
is of second to third). Outside the table it goes on in a straight line, so a gradient never vanishes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def slopes(x: Tensor, y: Tensor) -> Tensor:
    """Slope at every knot, shape (knots,)."""
    h = x[1:] - x[:-1]
    d = (y[1:] - y[:-1]) / h
    n = len(x)
    if n == 2:
        return torch.cat([d, d])
    if n == 3:
        # One parabola through all three.
        a = (d[1] - d[0]) / (h[0] + h[1])
        free = torch.stack([d[0] - a * h[0], d[0] + a * h[0], d[1] + a * h[1]])
    else:
        free = torch.linalg.solve(_matrix(h), _right(h, d)[:, None])[:, 0]
    left, right = torch.cat([d[:1], d]), torch.cat([d, d[-1:]])
    room = 3 * torch.minimum(left.abs(), right.abs())
    bounded = torch.sign(left) * torch.minimum(torch.clamp(free * torch.sign(left), min=0.0), room)
    return torch.where(left * right > 0, bounded, torch.zeros_like(free))


def _matrix(h: Tensor) -> Tensor:
    n = len(h) + 1
    a = torch.zeros(n, n, dtype=h.dtype)
    k = torch.arange(1, n - 1)
    a[k, k - 1], a[k, k], a[k, k + 1] = h[1:], 2 * (h[1:] + h[:-1]), h[:-1]
    # Not a knot: one cubic over the first two intervals, and over the last two.
    a[0, 0], a[0, 1] = h[1], h[0] + h[1]
    a[-1, -1], a[-1, -2] = h[-2], h[-1] + h[-2]
    return a


def _right(h: Tensor, d: Tensor) -> Tensor:
    inner = 3 * (h[1:] * d[:-1] + h[:-1] * d[1:])
    first = ((h[0] + 2 * (h[0] + h[1])) * h[1] * d[0] + h[0] ** 2 * d[1]) / (h[0] + h[1])
    last = (h[-1] ** 2 * d[-2] + (2 * (h[-1] + h[-2]) + h[-1]) * h[-2] * d[-1]) / (h[-1] + h[-2])
    return torch.cat([first[None], inner, last[None]])


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
