"""Inputs as pulse lengths: the range, rounding and clipping of the word-line drivers."""

from __future__ import annotations

import torch
from torch import Tensor


def straight_through(exact: Tensor, seen: Tensor) -> Tensor:
    """The value of ``seen`` with the gradient of ``exact``."""
    if not (torch.is_grad_enabled() and exact.requires_grad):
        return seen
    return exact + (seen - exact).detach()


def input_scale(x: Tensor, fixed: Tensor | None, clip: bool) -> Tensor:
    """The input that the largest code stands for, (..., batch, 1), of vectors (..., batch, rows); 1 where all inputs are zero.

    ``fixed`` None: each vector's largest. Without ``clip`` a fixed range gives way to a larger vector.
    """
    top = x.abs().amax(-1, keepdim=True)
    if fixed is not None:
        level = fixed.to(x.dtype).expand_as(top)
        top = level if clip else torch.maximum(top, level)
    return torch.where(top > 0, top, torch.ones_like(top))


def pulse_codes(x: Tensor, scale: Tensor, code_max: int, *, rounding: bool, clip: bool) -> Tensor:
    """Signed pulse lengths in LSB, (..., batch, rows); rounding is straight-through."""
    # In this order the largest input is code_max exactly, whatever the rounding.
    codes = x / scale * code_max
    if clip:
        codes = codes.clamp(-code_max, code_max)
    return straight_through(codes, codes.round()) if rounding else codes
