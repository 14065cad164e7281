"""Element-wise passes around the products of second order, for all squares and groups at once (Triton)."""

# Triton compiles these functions, of its own types; Python never calls them.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportMissingImports=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from aimcard.models.fast import fused
from aimcard.models.fast.fused_numbers import Squares
from aimcard.models.fast.meanfield import Prepared
from aimcard.models.fast.weights import Plan, Weights

#: Vectors and lines of a program.
VECTORS = 4
LINES = 128


@triton.jit
def numbers_at(squares, group_of, vector, line, mask, k, batch, SQUARES: tl.constexpr, GROUPS: tl.constexpr):
    """``Squares``' scale, sign and cubic of vectors and lines, for square k."""
    at = k * batch + vector[:, None]
    if GROUPS > 1:
        group = tl.load(group_of + line, mask=mask, other=0)
        at = group[None, :] * SQUARES * batch + at
    mask = (vector < batch)[:, None] & mask[None, :] if GROUPS > 1 else (vector < batch)[:, None]
    own = tl.load(squares.scale + at, mask=mask, other=0.0), tl.load(squares.sign + at, mask=mask, other=0.0)
    return own[0], own[1], tl.load(squares.cubic + at, mask=mask, other=0.0)


@triton.jit
def take_squares(out, root, squares, group_of, batch, lines, stride, SQUARES: tl.constexpr, GROUPS: tl.constexpr,
                 VECTORS: tl.constexpr, LINES: tl.constexpr):  # fmt: skip
    """out −= Σ_k sign·m²·(1 + cubic·m), m = scale·root, k over the squares; out (batch, lines), vectors ``stride`` apart, root
    (squares, batch, lines)."""
    vector = tl.program_id(0) * VECTORS + tl.arange(0, VECTORS)
    line = tl.program_id(1) * LINES + tl.arange(0, LINES)
    mask = (vector < batch)[:, None] & (line < lines)[None, :]
    to = out + vector[:, None] * stride + line[None, :]
    answer = tl.load(to, mask=mask, other=0.0)
    for k in range(SQUARES):
        by, s, c = numbers_at(squares, group_of, vector, line, line < lines, k, batch, SQUARES, GROUPS)
        at = (k * batch + vector[:, None]) * lines + line[None, :]
        m = tl.load(root + at, mask=mask, other=0.0).to(tl.float32) * by
        answer -= s * m * m * (1 + c * m)
    tl.store(to, answer, mask=mask)


@triton.jit
def slope_squares(grad, root, squares, group_of, middle, bent, total, batch, lines, stride, SQUARES: tl.constexpr,
                  GROUPS: tl.constexpr, VECTORS: tl.constexpr, LINES: tl.constexpr):  # fmt: skip
    """Derivative of ``take_squares``' terms to root, times grad (batch, lines), into bent (squares, batch, lines); its sum over
    the lines times middle (lines,) into total (squares, batch)."""
    vector = tl.program_id(0) * VECTORS + tl.arange(0, VECTORS)
    k = tl.program_id(1)
    sums = tl.zeros((VECTORS, LINES), tl.float32)
    for first in range(0, lines, LINES):
        line = first + tl.arange(0, LINES)
        mask = (vector < batch)[:, None] & (line < lines)[None, :]
        by, s, c = numbers_at(squares, group_of, vector, line, line < lines, k, batch, SQUARES, GROUPS)
        at = (k * batch + vector[:, None]) * lines + line[None, :]
        m = tl.load(root + at, mask=mask, other=0.0).to(tl.float32) * by
        slope = tl.load(grad + vector[:, None] * stride + line[None, :], mask=mask, other=0.0) * m * (2 + 3 * c * m) * s * by
        tl.store(bent + at, slope.to(bent.dtype.element_ty), mask=mask)
        sums += slope * tl.load(middle + line, mask=line < lines, other=0.0)[None, :]
    tl.store(total + k * batch + vector, tl.sum(sums, 1), mask=vector < batch)


def bend(plan: Plan, weights: Weights, prepared: Prepared, out: Tensor) -> None:
    """Take all squares off the answers ``out`` (batch, lines), whose lines lie side by side."""
    root, numbers = _roots(plan, weights, prepared)
    (squares, batch, lines), groups = root.shape, len(prepared.scale)
    grid = (fused.programs(batch, VECTORS), fused.programs(lines, LINES))
    fused.launch(take_squares, grid, out, root, *numbers, batch, lines, out.stride(0), squares, groups, VECTORS, LINES)


def bend_slopes(plan: Plan, weights: Weights, prepared: Prepared, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients ``grad`` (batch, lines) of the answers brought to the squares' roots: (squares, batch, lines), in the type of the
    departures, and its sum over the lines' middle columns (squares, batch)."""
    root, numbers = _roots(plan, weights, prepared)
    (squares, batch, lines), groups = root.shape, len(prepared.scale)
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    bent, total = torch.empty_like(root), grad.new_empty(squares, batch)
    fused.launch(
        slope_squares, (fused.programs(batch, VECTORS), squares), grad, root, *numbers, weights.middle, bent, total, batch, lines,
        grad.stride(0), squares, groups, VECTORS, LINES,
    )  # fmt: skip
    return bent, total


def _roots(plan: Plan, weights: Weights, prepared: Prepared) -> tuple[Tensor, tuple[Squares, Tensor]]:
    """δ·z of all squares in one product, (squares, batch, lines); and what the kernels want to know of the squares."""
    assert plan.fused is not None
    low = weights.departure
    root = torch.matmul(prepared.z.to(low.dtype), low.T)
    squares = Squares(*(q.contiguous() for q in (prepared.scale, prepared.sign, prepared.cubic)))
    return root, (squares, plan.fused.numbers.group_of)
