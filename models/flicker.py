"""1/f noise seen through windows: how the means of one process over several of them vary, alone and together.

A process of one-sided density c/f from f_low up has the covariance c·K(τ) at two times τ apart, K(τ) = ∫ cos(2πfτ)/f df =
−Ci(2π·f_low·τ) = −γ − ln(2π·f_low·τ) as long as f_low·τ is far below 1 (error (π·f_low·τ)²). Its mean over two windows is that
of −ln|t − t'| over both, an integral in closed form. A window with itself has 3/2 − γ − ln(2π·f_low·T), so two that are some
lengths apart share most of it: what changes once a second is the same in both.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def _twice_integrated(x: Tensor) -> Tensor:
    """A function with the second derivative ln|x|, even, zero at zero."""
    return 0.5 * torch.special.xlogy(x * x, x.abs()) - 0.75 * x * x


def flicker_covariance(begin: Tensor, end: Tensor, other_begin: Tensor, other_end: Tensor, lowest: float) -> Tensor:
    """Covariance of the means over two windows of 1/f noise of coefficient 1, elementwise; arguments broadcast.

    Times in any unit, ``lowest``, the lowest frequency that counts, in its inverse; times in double. An empty window gives zero.
    """
    area = (end - begin) * (other_end - other_begin)
    g = _twice_integrated
    total = g(end - other_begin) - g(begin - other_begin) - g(end - other_end) + g(begin - other_end)
    mean_log = total / torch.where(area > 0, area, torch.ones_like(area))
    found = -float(np.euler_gamma) - math.log(2 * math.pi * lowest) - mean_log
    return torch.where(area > 0, found, torch.zeros_like(found))


def flicker_kernel(begin_s: Tensor, end_s: Tensor, lowest_hz: float) -> Tensor:
    """``flicker_covariance`` of every two of these windows (phases,) [s], (phases, phases)."""
    a, b = begin_s.double() * 1e9, end_s.double() * 1e9
    return flicker_covariance(a[:, None], b[:, None], a[None], b[None], lowest_hz * 1e-9)
