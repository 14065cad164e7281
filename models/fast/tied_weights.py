"""Tied columns prepared for products: effective weights in closed form, for any number of tiles at once.

The equations are those of ``models/tied.py``. Its sweep along a column, y → (y + g)/(1 + r·(y + g)), is a second-order
linear recurrence in the voltage q along the column, q = 1 + r·Σ Σ g·q, whose repeated sums converge as fast as a cosine's
series: a few cumulative sums stand for 512 steps, and torch differentiates them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aimcard.models.fast.columns import low_precision as low_precision_pays
from aimcard.models.fast.tied_bytes import SmallWeights
from aimcard.models.fast.tied_circuit import TiedCircuit, edge_delays, zero_like
from aimcard.models.fast.tied_modes import MOST, Bend, Modes, add_bend, compiled_type
from aimcard.models.fast.tied_response import Response
from aimcard.models.tied import cell_current, on_resistance, source_voltage

if TYPE_CHECKING:
    from aimcard.models.fast.tied_lines import CellTable

#: Columns behind the rows of a product: even part, pulses, rest current, and zeros up to a whole vector of the processor.
EXTRA = 8


@dataclass(frozen=True)
class TiedWeights:
    """Columns ready for products; leading dimensions are tiles. Answers are charges [C] or counts.

    wide (..., lines, rows + 8): answer per LSB of code, then each line's factor of the even part, the pulses, the squares that
    the modes leave, and its idle answer. rows_of (..., rows, 3): row profiles of the first three. delta_lsb (..., 1, 1): LSBs
    that the edges add to every pulse. even (..., lines, rows): answer per LSB whatever the sign, None where rank one is enough.
    bend: for ``Bend``, None where the answer is linear in the current; small: the same in bytes, for compiled passes.
    y_s (..., lines): what the read-out sees [S].
    curvature: the most that a line's answer bends over a current of its usual size, a quarter of its rows on.
    """

    wide: Tensor
    rows_of: Tensor
    delta_lsb: Tensor
    even: Tensor | None
    bend: tuple[Tensor, Tensor, Tensor] | None
    y_s: Tensor
    curvature: float
    small: SmallWeights | None = None


def transfer(node_s: Tensor, r_bit_ohm: Tensor | float) -> tuple[Tensor, Tensor]:
    """As ``models.tied.transfer``: voltages h (..., rows) for 1 V at the clamp, and the conductance seen from there (...,).

    r_bit_ohm is a number, or a tensor of one element.
    """
    r, rows = float(r_bit_ohm), node_s.shape[-1]
    if r == 0.0:
        return torch.ones_like(node_s), node_s.sum(-1)
    wire = torch.full((rows,), r, dtype=node_s.dtype, device=node_s.device)
    wire[-1] = 0.5 * r
    # The n-th sum is at most s^n/(n!)², s = r·rows·Σ g.
    s = r * rows * float(node_s.detach().sum(-1).max())
    least, terms, size = math.log(0.1 * torch.finfo(node_s.dtype).eps), 0, 0.0
    while size > least:
        terms += 1
        size = terms * math.log(max(s, 1e-30)) - 2 * math.lgamma(terms + 1)
    beyond, q = torch.cumsum(node_s, -1), torch.ones_like(node_s)
    rise = torch.cumsum(wire * beyond, -1)
    for _ in range(terms - 1):
        q = 1 + torch.nn.functional.pad(rise[..., :-1], (1, 0))
        beyond = torch.cumsum(node_s * q, -1)
        rise = torch.cumsum(wire * beyond, -1)
    q = 1 + torch.nn.functional.pad(rise[..., :-1], (1, 0))
    end = 1 + rise[..., -1:]
    return q / end, (beyond[..., -1:] / end)[..., 0]


def _rank_one(m: Tensor) -> tuple[Tensor, Tensor]:
    """Row profile (..., rows) and line factors (..., lines) of matrices whose lines are nearly multiples of their mean."""
    profile = m.mean(-2)
    size = (profile * profile).sum(-1, keepdim=True).clamp(min=torch.finfo(m.dtype).tiny)
    return profile, (m @ profile[..., None])[..., 0] / size


def low_precision(values: Tensor) -> torch.dtype:
    """Type of the products of what bends: their error of 2e-3 is one in a term that is a few percent of the answer."""
    return torch.bfloat16 if values.dtype == torch.float32 and low_precision_pays(values.device) else values.dtype


@dataclass(frozen=True)
class Parts:
    """A column's currents per row in units of the response's, times its transfer, (..., lines, rows): odd and even in the input's
    sign; LSBs that the edges add to the odd ones, (..., 1, 1); rank-one forms of the even ones, of what edges add to them, and of
    the odd ones' squares. answer: the response; y_s (..., lines) [S]; rest (..., lines): the gates' current."""

    odd: Tensor
    even: Tensor
    delta: Tensor
    of_even: tuple[Tensor, Tensor]
    of_step: tuple[Tensor, Tensor]
    of_square: tuple[Tensor, Tensor]
    answer: Response
    y_s: Tensor
    rest: Tensor


def _parts(c: TiedCircuit, plus: Tensor, minus: Tensor, respond: Callable[[float], Response]) -> Parts:
    p, w = c.cell, c.w_um
    zero = zero_like(plus)
    gate = cell_current(p, zero, zero, zero, w)
    # Currents into a cell whose line is below (down) or above the common mode, the gates' apart.
    plus_down, plus_up, minus_down, minus_up = (
        cell_current(p, g, zero, source_voltage(p, zero + sign, g is plus), w) - gate
        for g, sign in ((plus, 1), (plus, -1), (minus, -1), (minus, 1))
    )
    r = on_resistance(p, w)
    node = plus / (1 + plus * r) + minus / (1 + minus * r) - 2 * gate / p.v_gate_v
    h, y = transfer(node, c.wire.r_bit_ohm)
    answer = respond(float(y.detach().max()))
    h = h / answer.top_a
    positive, negative = plus_down + minus_up, plus_up + minus_down
    odd, even = 0.5 * h * (positive - negative), 0.5 * h * (positive + negative)
    down, up = edge_delays(c)
    odd_step = 0.5 * h * (down * (plus_down - minus_down) + up * (minus_up - plus_up))
    step = 0.5 * h * (down * (plus_down + minus_down) + up * (minus_up + plus_up))
    dims = (-2, -1)
    delta = (odd_step * odd).sum(dims, keepdim=True) / odd.square().sum(dims, keepdim=True).clamp(min=torch.finfo(odd.dtype).tiny)
    return Parts(odd, even, delta, _rank_one(even), _rank_one(step), _rank_one(odd * odd), answer, y, 2 * gate * h.sum(-1))


def _compiled_parts(
    c: TiedCircuit, plus: Tensor, minus: Tensor, respond: Callable[[float], Response], table: CellTable
) -> Parts:
    from aimcard.models.fast.tied_lines import transfers, weighted

    found = transfers(table, plus, minus, float(c.wire.r_bit_ohm))
    answer = respond(float(found.y_s.max()))
    h = found.h.mul_(1 / answer.top_a)
    odd, delta, *pairs, even = weighted(table, plus, minus, h)
    of_even, of_step, of_square = ((pairs[k], pairs[k + 1]) for k in (0, 2, 4))
    return Parts(odd, even, delta, of_even, of_step, of_square, answer, found.y_s, 2 * table.gate_a * h.sum(-1))


def prepare(
    c: TiedCircuit, plus: Tensor, minus: Tensor, respond: Callable[[float], Response], *, two: bool = False,
    table: CellTable | None = None,
) -> TiedWeights:  # fmt: skip
    """Weights of pairs (..., lines, rows) [S], differentiable in them, in their type.

    respond: the response up to a column's conductance [S]. two: keep the whole even part. table: of the cells, for compiled
    passes, which are not differentiable.
    """
    parts = _parts(c, plus, minus, respond) if table is None else _compiled_parts(c, plus, minus, respond, table)
    odd, answer, y = parts.odd, parts.answer, parts.y_s
    each = answer.of(y, parts.rest)
    gain = each[1]
    (even_rows, even_lines), (step_rows, step_lines) = parts.of_even, parts.of_step
    if two:
        even_lines = torch.zeros_like(even_lines)
    if answer.linear:
        left_rows, left_lines, bend, curvature = torch.zeros_like(even_rows), torch.zeros_like(gain), None, 0.0
    else:
        left_rows, left_lines = parts.of_square
        low = odd.detach().to(low_precision(odd)).contiguous()
        bend = odd, low, each[2:, ..., None, :].detach().contiguous()
        left_lines = left_lines * each[2]
        usual = (odd.detach().square().sum(-1) / 4).sqrt()
        curvature = float((each[2] * usual / gain).detach().abs().max())
    none = torch.zeros_like(gain)
    behind = [even_lines * gain, step_lines * gain, left_lines, each[0] * c.slots, *[none] * (EXTRA - 4)]
    wide = torch.cat([odd * gain[..., None], torch.stack(behind, -1)], -1)
    rows_of = torch.stack([even_rows, step_rows, left_rows], -1)
    even = parts.even * gain[..., None] if two else None
    small = None
    if bend is not None and not (torch.is_grad_enabled() and odd.requires_grad) and compiled_type(odd):
        small = SmallWeights.of(odd, bend[2], gain, rows_of, wide[..., odd.shape[-1] : odd.shape[-1] + 4], parts.delta)
    return TiedWeights(wide, rows_of, parts.delta, even, bend, y, curvature, small)


def answers(weights: TiedWeights, x: Tensor, modes: Modes, *, idle: bool = True) -> Tensor:
    """Charges [C] or counts, (..., batch, lines), of signed codes (..., batch, rows); ``idle`` False leaves the idle ones out."""
    graph = torch.is_grad_enabled() and (x.requires_grad or weights.wide.requires_grad)
    if not graph and compiled_type(x) and modes.count <= MOST and weights.wide.ndim <= 3:
        return _compiled(weights, x, modes, float(idle))
    out = _widened(weights, x, modes, float(idle)) @ weights.wide.mT
    if weights.even is not None:
        out = out + x.abs() @ weights.even.mT
    if weights.bend is None:
        return out
    if graph:
        return out + Bend.apply(x, *weights.bend, modes)
    add_bend(out, x, *weights.bend[1:], modes)
    return out


def _compiled(weights: TiedWeights, x: Tensor, modes: Modes, idle: float) -> Tensor:
    """The same with compiled passes, (tiles, batch, lines) or (batch, lines)."""
    from aimcard.models.fast.tied_kernel import widen

    codes = x.detach().contiguous()
    tiles = codes if x.ndim == 3 else codes[None]
    out = None if weights.small is None else weights.small.answers(tiles, modes, idle)
    if out is None:
        wide = tiles.new_empty(*tiles.shape[:2], tiles.shape[2] + EXTRA)
        rows_of = weights.rows_of.mT.reshape(-1, 3, tiles.shape[2]).contiguous()
        widen(tiles.numpy(), weights.delta_lsb.reshape(-1).numpy(), rows_of.numpy(), np.float32(idle), wide.numpy())
        out = wide @ weights.wide.mT if x.ndim == 3 else (wide[0] @ weights.wide.mT)[None]
        if weights.small is not None:
            weights.small.add_bend(out, tiles, modes)
    if weights.even is not None:
        out += tiles.abs() @ weights.even.mT
    return out if x.ndim == 3 else out[0]


def _widened(weights: TiedWeights, x: Tensor, modes: Modes, idle: float) -> Tensor:
    """Codes lengthened by the edges, and the sums that go with the columns behind ``wide``."""
    sign, size = torch.sign(x), x.abs()
    behind = [size @ weights.rows_of[..., :1], sign.abs() @ weights.rows_of[..., 1:2]]
    behind.append(torch.zeros_like(behind[0]) if weights.bend is None else modes.left(x) @ weights.rows_of[..., 2:])
    behind += [torch.full_like(behind[0], idle), x.new_zeros(*x.shape[:-1], EXTRA - 4)]
    return torch.cat([x + weights.delta_lsb * sign, *behind], -1)
