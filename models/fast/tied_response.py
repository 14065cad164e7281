"""What a tied read-out answers to a column's current, as polynomials: regulator, mirror and oscillator in a few numbers a line.

The regulator's voltage and the column's conductance Y make I = J + Y·v(I) of the current J that the column would draw with its
end at the common mode; the answer per LSB is I·T, or the counts at I. It is a polynomial in J whose coefficients
are polynomials in Y, so lines need no look-up of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimcard.models.fast.tied_circuit import TiedCircuit
from aimcard.models.lut import lookup
from aimcard.models.tied import regulated_clamp

#: Degrees in the current, tried in this order, and in the column's conductance.
DEGREES = (4, 6, 8, 10, 12)
DEGREE_Y = 5
#: Unit of the current where nothing bounds it [A].
LINEAR_TOP_A = 1e-4
#: Largest error of a polynomial, of the answer at the range's end.
CLOSE = 2e-5


def _at(c: TiedCircuit, counts: bool, y_s: Tensor, j_a: Tensor) -> Tensor:
    """The answer per LSB, counts or charge [C]; y_s (conductances, 1), j_a (currents,), both in double."""
    y, j = torch.broadcast_tensors(y_s, j_a)
    current = j if c.clamp is None else regulated_clamp(*c.clamp, iterations=12)(y, j)[1]
    if not counts:
        return current * c.t_lsb_s
    assert c.rate is not None
    rate = lookup(*c.rate, current) if c.effects.adc else current * c.counts_per_coulomb + lookup(*c.rate, current.new_zeros(()))
    return rate * c.t_lsb_s


@dataclass(frozen=True)
class Response:
    """Answers per LSB of a current in units of ``top_a`` [A]: coefficients (degree + 1, degree in Y + 1), Y over ``top_s``."""

    top_a: float
    top_s: float
    coefficients: Tensor

    @property
    def linear(self) -> bool:
        """Whether no term beyond the first is there."""
        return len(self.coefficients) <= 2

    def of(self, y_s: Tensor, rest: Tensor) -> Tensor:
        """Coefficients of every line, (degree + 1, ..., lines), of conductances y_s (..., lines) [S], differentiable.

        rest (..., lines): the line's current at rest, in units of ``top_a``; the coefficients are about it.
        """
        c, at = self.coefficients.to(y_s), y_s / self.top_s
        lines = c[:, -1].reshape(-1, *[1] * y_s.ndim).expand(-1, *y_s.shape)
        for k in reversed(range(c.shape[1] - 1)):
            lines = lines * at + c[:, k].reshape(-1, *[1] * y_s.ndim)
        n = torch.arange(1, len(c), dtype=y_s.dtype, device=y_s.device).reshape(-1, *[1] * y_s.ndim)
        return lines + torch.cat([lines[1:] * n * rest, torch.zeros_like(lines[:1])])


def response(c: TiedCircuit, counts: bool, y_top_s: float) -> Response:
    """The response for column conductances up to ``y_top_s`` [S]."""
    tables = [t for t in (c.clamp, c.rate if counts and c.effects.adc else None) if t is not None]
    if not tables:
        ends = torch.tensor([0.0, LINEAR_TOP_A], dtype=torch.float64)
        zero, end = (float(v) for v in _at(c, counts, torch.zeros(1, dtype=torch.float64), ends))
        return Response(LINEAR_TOP_A, 1.0, torch.tensor([[zero], [end - zero]], dtype=torch.float64))
    top = min(min(-float(i[0]), float(i[-1])) for i, _ in tables)
    degree_y = 0 if c.clamp is None else DEGREE_Y
    u = np.cos(np.pi * (np.arange(48) + 0.5) / 48)
    w = 0.5 + 0.5 * np.cos(np.pi * (np.arange(degree_y + 1) + 0.5) / (degree_y + 1))
    with torch.no_grad():
        seen = _at(c, counts, torch.tensor(w)[:, None] * y_top_s, torch.tensor(u) * top).numpy()
    by_y = np.linalg.solve(np.vander(w, increasing=True), seen)
    for degree in DEGREES:
        basis = np.polynomial.chebyshev.chebvander(u, degree)
        fit = np.linalg.lstsq(basis, by_y.T, rcond=None)[0]
        worst = np.abs(basis @ fit @ np.vander(w, increasing=True).T - seen.T).max()
        if worst <= CLOSE * np.ptp(seen):
            break
    powers = np.stack([_power_basis(fit[:, k]) for k in range(degree_y + 1)], 1)
    # Most lines are near zero for most of the window: there it is exact.
    with torch.no_grad():
        middle = _at(c, counts, torch.tensor(w)[:, None] * y_top_s, torch.zeros(1, dtype=torch.float64)).numpy()[:, 0]
    powers[0] = np.linalg.solve(np.vander(w, increasing=True), middle)
    return Response(top, y_top_s, torch.tensor(powers))


def _power_basis(chebyshev: np.ndarray) -> np.ndarray:
    out = np.zeros(len(chebyshev))
    found = np.polynomial.chebyshev.cheb2poly(chebyshev)
    out[: len(found)] = found
    return out


def rounded_up(y_s: float) -> float:
    """The next power of two, so that a response is worked out anew only when conductances double."""
    return 2.0 ** math.ceil(math.log2(max(y_s, 1e-6)))
