"""What studies ask of a tile: pairs of normal weights and normal inputs, as the held-out Gaussian columns are drawn."""

from __future__ import annotations

import numpy as np

#: Spread of the weights and of the inputs, a share of the largest: clipped at three sigma.
SIGMA_SHARE = 1 / 3


def normal_pairs(rng: np.random.Generator, pairs: int, rows: int, lo_s: float, hi_s: float) -> tuple[np.ndarray, np.ndarray]:
    """G+ and G− [S], (pairs, rows) each, of weights clipped at three sigma; a weight of zero is ``lo_s`` on both sides."""
    weight = np.clip(rng.normal(0, 1, (pairs, rows)) * SIGMA_SHARE, -1, 1)
    plus, minus = (lo_s + np.maximum(side * weight, 0) * (hi_s - lo_s) for side in (1, -1))
    return plus, minus


def normal_codes(rng: np.random.Generator, vectors: int, rows: int, code_max: int, *, signed: bool) -> np.ndarray:
    """Codes (vectors, rows), whole numbers; without a sign, negative inputs are zero (one sign phase)."""
    codes = np.round(rng.normal(0, SIGMA_SHARE * code_max, (vectors, rows)))
    return np.clip(codes, -code_max if signed else 0, code_max).astype(np.int64)
