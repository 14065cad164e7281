"""Errors of the fitted parameters, from a bootstrap over columns, or over single cells for what only those tell.

ngspice has no noise: what a fit leaves is model error, alike from slot to slot, so the usual covariance (independent
residuals) would be far too small. Columns, though, were drawn independently: resampling them shows how much the
parameters depend on which columns were simulated. One Gauss–Newton step per resample, from the joint optimum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Errors:
    """Standard errors (names,) in the parameters' scaled units, and their correlations (names, names)."""

    stderr: np.ndarray
    correlation: np.ndarray
    resamples: int

    def take(self, keep: list[bool]) -> Errors:
        """The parameters where ``keep``, (names,), is true."""
        k = np.flatnonzero(keep)
        return Errors(self.stderr[k], self.correlation[np.ix_(k, k)], self.resamples)


def bootstrap(jacobian: np.ndarray, residual: np.ndarray, owner: np.ndarray, seed: int, resamples: int = 400) -> Errors:
    """Resample the columns with replacement; residuals with owner −1 (single cells) stay in every resample.

    jacobian (points, names), residual (points,), owner (points,). A resample re-weighs each column's normal
    equations, which were summed once.
    """
    rng = np.random.default_rng(seed)
    columns = np.unique(owner[owner >= 0])
    normal = {int(c): jacobian[owner == c].T @ jacobian[owner == c] for c in columns}
    gradient = {int(c): jacobian[owner == c].T @ residual[owner == c] for c in columns}
    fixed = owner < 0
    a0, b0 = jacobian[fixed].T @ jacobian[fixed], jacobian[fixed].T @ residual[fixed]
    steps = []
    for _ in range(resamples):
        draw = rng.choice(columns, len(columns))
        a = a0 + sum(normal[int(c)] for c in draw)
        b = b0 + sum(gradient[int(c)] for c in draw)
        steps.append(-np.linalg.lstsq(a, b, rcond=1e-14)[0])
    spread = np.array(steps)
    stderr = spread.std(0, ddof=1)
    safe = np.where(stderr > 0, stderr, 1.0)
    correlation = np.cov(spread.T) / np.outer(safe, safe) if spread.shape[1] > 1 else np.ones((1, 1))
    correlation = np.clip(0.5 * (correlation + correlation.T), -1, 1)
    np.fill_diagonal(correlation, 1.0)
    return Errors(stderr, correlation, resamples)
