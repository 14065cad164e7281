"""∫ h(I(t)) dt of tied columns, h the bent part of a read-out's response, by a few products.

A column's current I(t) = Σ_i w_i·sign(x_i)·[t < |x_i|] is seen through its first K cosines in the window T, in a time s
that runs the slower the more pulses end: t = T·s/√(1 + c − c·s²),

    e_m(t) = √(2·ds/dt)·cos((m − ½)πs).

With c = 0 these are the best K functions for pulses whose ends are spread evenly (the Karhunen-Loève expansion of Brownian
motion); with c > 0 more of them go to the window's begin, where the codes of Gaussian inputs end. At the K midpoints
s_q = (q − ½)/K they stay orthogonal (DCT-IV), so the current there is one product each,

    I_q = Σ_i w_i·F_q(x_i),    F_q(x) = Σ_m e_m(t_q)·∫_0^x e_m dt,

odd in x and smooth, and Σ_q a_q·I_q², a_q = dt/ds(s_q)/K, is the part of ∫I² dt that K functions hold. What they leave of it,
Σ_i w_i²·r(x_i) with r(x) = |x| − Σ_q a_q·F_q(x)², hardly differs from line to line but for Σ w²: a rank-one term.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimcard.models.fast.autocast import without_autocast
from aimcard.models.fast.compiled import available

#: Vectors at a time: their intermediate results stay in the processor's cache.
BLOCK = 32
#: Most functions whose polynomials are exact enough in float32, and how many terms more than functions they need.
MOST, MORE = 5, 5
#: c of the module's head, of functions that are polynomials; more functions have the whole window evenly.
WARP = 0.8


def _sines(x: Tensor, count: int, code_max: int) -> list[Tensor]:
    """sin((m − ½)πx/T) for m = 1 … count."""
    s = torch.sin(x * (math.pi / (2 * code_max)))
    if count == 1:
        return [s]
    twice_cos = 2 - 4 * s * s
    # sin(−θ) starts the recursion.
    out = [s, s * (twice_cos + 1)]
    for _ in range(count - 2):
        out.append(torch.addcmul(-out[-2], twice_cos, out[-1]))
    return out


def _cosines(x: Tensor, count: int, code_max: int) -> list[Tensor]:
    """cos((m − ½)πx/T) for m = 1 … count."""
    c = torch.cos(x * (math.pi / (2 * code_max)))
    twice_cos = 4 * c * c - 2
    out = [c, c * (twice_cos - 1)]
    for _ in range(count - 2):
        out.append(torch.addcmul(-out[-2], twice_cos, out[-1]))
    return out[:count]


def _mix(functions: list[Tensor], factors: list[list[float]], dtype: torch.dtype) -> Tensor:
    """Σ_m factors[q][m]·functions[m], stacked over q, (count, *shape)."""
    out = torch.empty(len(factors), *functions[0].shape, dtype=dtype, device=functions[0].device)
    for q, row in enumerate(factors):
        total = functions[0] * row[0]
        for f, a in zip(functions[1:], row[1:], strict=True):
            total.add_(f, alpha=a)
        out[q] = total
    return out


def compiled_type(x: Tensor) -> bool:
    """Whether there are compiled passes for numbers like these."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and available()


def _fitted(basis: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(basis, values, rcond=None)[0]


class Modes:
    """K cosines of the window of ``code_max`` LSB; weights (K,): a_q [LSB]."""

    def __init__(self, count: int, code_max: int) -> None:
        self.count, self.code_max = count, code_max
        self.warp = WARP if count <= MOST else 0.0
        half, middle = np.arange(count) + 0.5, (np.arange(count) + 0.5) / count
        self.weights = self._slowness(middle) / count
        self.factors = [[2 / (m * math.pi) * math.cos(m * math.pi * q) for m in half] for q in middle]
        self.rates = [[a * m * math.pi / code_max for a, m in zip(row, half, strict=True)] for row in self.factors]
        # The integrals of the functions, and F_q as polynomials in s, for few functions.
        s = np.linspace(0, 1, 4001)
        each = np.sqrt(2 * self._slowness(s)) * np.cos(np.pi * np.outer(half, s))
        held = np.concatenate([np.zeros((count, 1)), np.cumsum((each[:, 1:] + each[:, :-1]) / 2, 1) * s[1]], 1)
        at = np.sqrt(2 / self._slowness(middle))[:, None] * np.cos(np.pi * np.outer(middle, half))
        v = np.sin(np.pi / 2 * (np.arange(200) + 0.5) / 200)
        values = np.stack([np.interp(v, s, f) for f in at @ held])
        self.odd = _fitted(v[:, None] ** (2 * np.arange(count + MORE) + 1), values.T).T
        # For the compiled passes.
        root = math.sqrt(1 + self.warp)
        self.numbers = self.odd.astype(np.float32), np.array([1 / code_max, self.warp, root], np.float32)
        self.units = (np.abs(values).max(1) / 127).astype(np.float32)
        # Best slope through sign(x), per LSB, of Gaussian codes of 0.3 of the range.
        self.of_sign = math.sqrt(2 / math.pi) / (0.3 * code_max)

    def _slowness(self, s: np.ndarray) -> np.ndarray:
        """dt/ds [LSB]."""
        return self.code_max * (1 + self.warp) / (1 + self.warp - self.warp * s * s) ** 1.5

    def _place(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """s of codes, of either sign, and its derivative [1/LSB]."""
        u = x / self.code_max
        wide = 1 + self.warp * u * u
        root = math.sqrt(1 + self.warp)
        return u * root / wide.sqrt(), root / (self.code_max * wide * wide.sqrt())

    def compiled(self, x: Tensor) -> bool:
        """Whether the compiled passes do for these codes of one tile."""
        return self.count <= MOST and x.ndim == 2 and compiled_type(x)

    def features(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """F_q(x), (K, *x.shape)."""
        if self.count > MOST:
            return _mix(_sines(x, self.count, self.code_max), self.factors, dtype)
        s, _ = self._place(x)
        return torch.stack([_horner(row, s * s) * s for row in self.odd.tolist()]).to(dtype)

    def slopes(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """dF_q/dx [1/LSB], (K, *x.shape)."""
        if self.count > MOST:
            return _mix(_cosines(x, self.count, self.code_max), self.rates, dtype)
        s, rate = self._place(x)
        odd = (self.odd * (2 * np.arange(self.odd.shape[1]) + 1)).tolist()
        return torch.stack([_horner(row, s * s) * rate for row in odd]).to(dtype)

    def left(self, x: Tensor) -> Tensor:
        """r(x) [LSB]: what the K functions leave of a pulse's square."""
        out = x.abs()
        for f, a in zip(self.features(x, x.dtype), self.weights.tolist(), strict=True):
            out = out - a * f * f
        return out


def _horner(factors: list[float], z: Tensor) -> Tensor:
    out = torch.full_like(z, factors[-1])
    for c in factors[-2::-1]:
        out = out * z + c
    return out


def polynomial(u: Tensor, coefficients: Tensor) -> Tensor:
    """Σ_n c_n·u^(n + 2) with c (degree − 1, ..., 1, lines), u (..., batch, lines)."""
    out = coefficients[-1].expand_as(u)
    for c in coefficients[:-1].flip(0):
        out = torch.addcmul(c, out, u)
    return out * u * u


def polynomial_slope(u: Tensor, coefficients: Tensor) -> Tensor:
    """Its derivative to u."""
    n = len(coefficients)
    powers = torch.arange(2, n + 2, dtype=u.dtype, device=u.device).reshape(n, *[1] * (coefficients.ndim - 1))
    c = coefficients * powers
    out = c[-1].expand_as(u)
    for row in c[:-1].flip(0):
        out = torch.addcmul(row, out, u)
    return out * u


def add_bend(out: Tensor, x: Tensor, low: Tensor, coefficients: Tensor, modes: Modes, *, keep: bool = False) -> list[Tensor]:
    """Add Σ_q a_q·h(u_q) to ``out`` in place, block by block; the products u of every block if they are kept."""
    kept, compiled, x = [], modes.compiled(x), x.contiguous()
    weights = modes.weights.tolist()
    for a in range(0, x.shape[-2], BLOCK):
        part, goal = x[..., a : a + BLOCK, :], out[..., a : a + BLOCK, :]
        f = _compiled_features(part, modes, low.dtype) if compiled else modes.features(part, low.dtype)
        # One product a tile for all functions.
        u = (f.movedim(0, -3).flatten(-3, -2) @ low.mT).unflatten(-2, (modes.count, -1)).movedim(-3, 0)
        if compiled:
            _compiled_bend(goal, u, coefficients[:, 0], modes)
        else:
            for one, weight in zip(u, weights, strict=True):
                goal.add_(polynomial(one.to(x.dtype).clamp(-1.0, 1.0), coefficients), alpha=weight)
        if keep:
            kept.append(u)
    return kept


def _bits(values: Tensor) -> np.ndarray:
    return values.view(torch.uint16 if values.dtype == torch.bfloat16 else torch.uint32).numpy()


def _compiled_features(x: Tensor, modes: Modes, dtype: torch.dtype) -> Tensor:
    from aimcard.models.fast.tied_kernel import features

    out = torch.empty(modes.count, *x.shape, dtype=dtype)
    features(x.detach().numpy(), *modes.numbers, dtype == torch.bfloat16, _bits(out))
    return out


def _compiled_bend(out: Tensor, u: Tensor, coefficients: Tensor, modes: Modes) -> None:
    from aimcard.models.fast.tied_kernel import bend

    bend(_bits(u), u.dtype == torch.bfloat16, coefficients.numpy(), modes.weights.astype(np.float32), out.numpy())


class Bend(torch.autograd.Function):
    """``apply(x, weight, low, coefficients, modes)``: Σ_q a_q·h(u_q), (..., batch, lines), with u_q = F_q(x)·weightᵀ.

    weight (..., lines, rows): currents per row over the largest that the polynomials hold for; low: the same in the type of the
    products. The polynomials' coefficients are taken as constants in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, low: Tensor, coefficients: Tensor, modes: Modes) -> Tensor:  # type: ignore[override]
        """Keeps the products for the backward pass."""
        out = x.new_zeros(*x.shape[:-1], weight.shape[-2])
        ctx.modes = modes
        ctx.save_for_backward(x, weight, low, coefficients, *add_bend(out, x, low, coefficients, modes, keep=True))
        return out

    @staticmethod
    @without_autocast
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """A product more per function for the codes, and one for the weights."""
        (grad,) = grads
        x, weight, low, coefficients, *kept = ctx.saved_tensors
        modes: Modes = ctx.modes
        to_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for a, u in zip(range(0, x.shape[-2], BLOCK), kept, strict=True):
            part = x[..., a : a + BLOCK, :]
            wide = u.to(x.dtype)
            slope = polynomial_slope(wide.clamp(-1.0, 1.0), coefficients) * (wide.abs() <= 1.0)
            weights = torch.tensor(modes.weights).to(wide).reshape(-1, *[1] * (wide.ndim - 1))
            back = (slope * (grad[..., a : a + BLOCK, :] * weights)).to(low.dtype)
            if to_x is not None:
                rows = torch.matmul(back, low)
                to_x[..., a : a + BLOCK, :] = (rows.to(x.dtype) * modes.slopes(part, x.dtype)).sum(0)
            if to_weight is not None:
                for b, f in zip(back, modes.features(part, low.dtype), strict=True):
                    to_weight += (b.mT @ f).to(x.dtype)
        return to_x, to_weight, None, None, None
