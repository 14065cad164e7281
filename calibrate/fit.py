"""One least-squares fit: lmfit's Levenberg–Marquardt with the torch equations' own derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lmfit
import numpy as np
import torch
from torch import Tensor

from aimcard.calibrate.parameters import SPECS, Spec
from aimcard.models.errors import FitError

Values = Mapping[str, Tensor]
Residual = Callable[[Values], Tensor]


@dataclass(frozen=True)
class Fit:
    """Result of one stage. ``values`` are all values, ``free`` the fitted names; ``jacobian`` (points, free) and
    ``residual`` (points,) are in natural units per scaled parameter; ``messages`` say what a reader must know.
    """

    values: dict[str, float]
    free: tuple[str, ...]
    residual: np.ndarray
    jacobian: np.ndarray
    converged: bool
    unidentified: tuple[str, ...]
    at_bound: tuple[str, ...]
    messages: tuple[str, ...]

    @property
    def rms(self) -> float:
        """Root mean square of the residuals, in units of what the aims allow."""
        return float(np.sqrt(np.mean(self.residual**2)))


def tensors(values: Mapping[str, float]) -> dict[str, Tensor]:
    """Values as float64 scalars."""
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def _at_bound(p: lmfit.Parameter) -> bool:
    value, lo, hi = float(p.value or 0.0), float(p.min), float(p.max)
    return value - lo < 1e-6 * max(1.0, abs(lo)) or hi - value < 1e-6 * max(1.0, abs(hi))


def jacobian(
    names: Sequence[str], values: Mapping[str, float], residual: Residual, specs: Mapping[str, Spec] = SPECS
) -> np.ndarray:
    """Derivatives of the residuals to the scaled parameters ``names`` at ``values``, (points, names)."""
    scale = [specs[n].scale for n in names]
    fixed = tensors(values)
    z = torch.tensor([values[n] / s for n, s in zip(names, scale, strict=True)], dtype=torch.float64)
    vector = lambda z: residual(fixed | {n: z[k] * scale[k] for k, n in enumerate(names)})  # noqa: E731
    return torch.func.jacfwd(vector)(z).detach().numpy()


def minimise(
    stage: str, free: Sequence[str], values: Mapping[str, float], residual: Residual, specs: Mapping[str, Spec] = SPECS
) -> Fit:
    """Fit ``free`` from ``values`` so that residual(values) is least in squares; float64 throughout.

    ``residual`` maps named scalar tensors to a vector of residuals, each already divided by its own weight.
    Raises FitError if the residuals are not finite at the start or there are fewer points than parameters.
    """
    names = tuple(free)
    scale = np.array([specs[n].scale for n in names])
    fixed = tensors(values)
    inner = lmfit.Parameters()
    for n, s in zip(names, scale, strict=True):
        spec = specs[n]
        inner.add(n, value=values[n] / s, min=spec.lo / s, max=spec.hi / s)

    def vector(z: Tensor) -> Tensor:
        return residual(fixed | {n: z[k] * scale[k] for k, n in enumerate(names)})

    def numbers(p: lmfit.Parameters) -> Tensor:
        return torch.tensor([p[n].value for n in names], dtype=torch.float64)

    def fun(p: lmfit.Parameters) -> np.ndarray:
        with torch.no_grad():
            return vector(numbers(p)).numpy()

    def jac(p: lmfit.Parameters) -> np.ndarray:
        return torch.func.jacfwd(vector)(numbers(p)).detach().numpy()

    start = fun(inner)
    if not np.isfinite(start).all():
        raise FitError(
            f"fit of {stage}: the residuals are not finite at the start values; check the reference set's records"
        )
    if start.size < len(names):
        raise FitError(
            f"fit of {stage}: expected at least {len(names)} data points for {len(names)} parameters; got {start.size}; "
            "give more records"
        )
    # lmfit's result has its attributes set at run time.
    out: Any = lmfit.Minimizer(fun, inner, scale_covar=False).minimize(
        method="leastsq", Dfun=jac, col_deriv=False, ftol=1e-6, xtol=1e-5, max_nfev=100
    )
    params = out.params
    j = jac(params)
    norm = np.linalg.norm(j, axis=0)
    # Parameters, or directions, that move no residual: below 1e-9 of the largest, and below 1e-7 once all are scaled alike.
    weak: list[str] = [n for n, x in zip(names, norm, strict=True) if x <= 1e-9 * norm.max()]
    if not weak:
        _, sv, vt = np.linalg.svd(j / norm, full_matrices=False)
        for k in np.flatnonzero(sv < 1e-7 * sv[0]):
            weak += [names[int(i)] for i in np.flatnonzero(np.abs(vt[k]) > 0.3)]
    bound = [n for n in names if _at_bound(params[n])]
    messages = []
    # MINPACK's 6 to 8: the sum of squares cannot be reduced any further in double precision, which is an optimum too.
    converged = bool(out.success) or out.ier in (6, 7, 8)
    if not converged:
        messages.append(f"{stage}: not converged: {out.message}")
    if weak:
        messages.append(f"{stage}: not identified by these data: {', '.join(dict.fromkeys(weak))}")
    if bound:
        messages.append(f"{stage}: ended at a bound: {', '.join(bound)}")
    fitted = {n: float(params[n].value) * float(s) for n, s in zip(names, scale, strict=True)}
    return Fit(
        dict(values) | fitted,
        names,
        fun(params),
        j,
        converged,
        tuple(dict.fromkeys(weak)),
        tuple(bound),
        tuple(messages),
    )


def together(parts: list[Residual]) -> Residual:
    """One residual vector of several targets."""

    def residual(values: Values) -> Tensor:
        return torch.cat([part(values) for part in parts])

    return residual
