"""Measures of how well one column is predicted.

Quantities have shape (vectors, lines) (charge, phase, count) or (vectors, lines, slots) (currents); every
measure is taken line by line and has shape (lines,). Nothing is pooled over columns or input distributions: a
spread between them would enter σ and flatter any predictor. Deviations are taken about the mean over
*vectors*, of a current at the same instant: with the variance over time the mean waveform alone would already
score 1 − R² = 5e-3. Slots that are not to be scored are cut off before (`later_slots`).
"""

from __future__ import annotations

import numpy as np

# A spread below this share of the quantity's size is rounding of inputs that do not vary.
NO_SPREAD = 1e-9


def _axes(values: np.ndarray) -> tuple[int, ...]:
    return (0, *range(2, values.ndim))


def later_slots(values: np.ndarray) -> np.ndarray:
    """All slots but the first, which holds the turn-on: (vectors, lines, slots − 1). A charge stays."""
    return values[..., 1:] if values.ndim == 3 else values


def first_slot(values: np.ndarray) -> np.ndarray:
    """The first slot alone, (vectors, lines, 1)."""
    return values[..., :1]


def pair_difference(values: np.ndarray) -> np.ndarray:
    """Line 0 minus line 1 (G+ minus G−) as one line, (vectors, 1) or (vectors, 1, slots)."""
    return values[:, :1] - values[:, 1:2]


def root_mean_square_error(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """√(mean (ŷ − y)²) over vectors and slots, no offset removed; unit of y, (lines,)."""
    return np.sqrt(np.mean((predicted - truth) ** 2, axis=_axes(truth)))


def sigma_mac(truth: np.ndarray) -> np.ndarray:
    """σ_MAC = √(mean (y − ȳ)²), ȳ the mean over vectors at the same line and slot; unit of y, (lines,).

    NaN where the vectors do not differ (one vector, or equal inputs): nothing can be normalised by that.
    """
    sigma = np.sqrt(np.mean((truth - truth.mean(axis=0)) ** 2, axis=_axes(truth)))
    size = np.sqrt(np.mean(truth**2, axis=_axes(truth)))
    return np.where(sigma > NO_SPREAD * size, sigma, np.nan)


def one_minus_r2(predicted: np.ndarray, truth: np.ndarray, sigma: np.ndarray | None = None) -> np.ndarray:
    """1 − R² = SSE/SST, (lines,). SST about the mean over vectors, of a current at each instant and summed.

    `sigma` (lines,) replaces σ_MAC of `truth`, when `truth` is a part of a larger set of vectors.
    """
    return normalised_error(predicted, truth, sigma) ** 2


def normalised_error(predicted: np.ndarray, truth: np.ndarray, sigma: np.ndarray | None = None) -> np.ndarray:
    """RMSE/σ_MAC, (lines,); its square is 1 − R²."""
    return root_mean_square_error(predicted, truth) / (sigma_mac(truth) if sigma is None else sigma)


def worst_case(predicted: np.ndarray, truth: np.ndarray, sigma: np.ndarray | None = None) -> np.ndarray:
    """max |ŷ − y|/σ_MAC over vectors and slots, (lines,)."""
    return np.abs(predicted - truth).max(axis=_axes(truth)) / (sigma_mac(truth) if sigma is None else sigma)


def full_scale(ideal: np.ndarray) -> np.ndarray:
    """max |ideal MAC| over vectors and slots, (lines,); NaN if it is zero."""
    scale = np.abs(ideal).max(axis=_axes(ideal))
    return np.where(scale > 0, scale, np.nan)


def eps_mac(predicted: np.ndarray, truth: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """ε_MAC = RMSE in % of the full scale max |ideal MAC|, (lines,)."""
    return 100 * root_mean_square_error(predicted, truth) / scale


def ppm_of_mean(error: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """An error (lines,) in ppm of the line's mean |y|."""
    mean = np.mean(np.abs(truth), axis=_axes(truth))
    return 1e6 * error / np.where(mean > 0, mean, np.nan)


def mean_error(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean of ŷ − y over vectors and slots, with its sign; unit of y, (lines,)."""
    return np.mean(predicted - truth, axis=_axes(truth))


def affine_fit(ideal: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset, each (lines,), of the least-squares line y ≈ slope·ideal + offset of every line.

    Over the vectors; of a current over all its slots together, as one gain and one offset in hardware would
    be. An ideal that does not vary gets slope 0 and the mean as its offset.
    """
    axes = _axes(truth)
    centre = np.mean(ideal, axis=axes, keepdims=True)
    mean = np.mean(truth, axis=axes, keepdims=True)
    spread = np.mean((ideal - centre) ** 2, axis=axes)
    varies = spread > (NO_SPREAD * np.abs(ideal).max(axis=axes)) ** 2
    covariance = np.mean((ideal - centre) * (truth - mean), axis=axes)
    slope = np.where(varies, covariance / np.where(varies, spread, 1.0), 0.0)
    return slope, mean.reshape(-1) - slope * centre.reshape(-1)


def affine(ideal: np.ndarray, slope: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """slope·ideal + offset, line by line."""
    shape = (1, -1) + (1,) * (ideal.ndim - 2)
    return slope.reshape(shape) * ideal + offset.reshape(shape)


def equal_counts(predicted_phase: np.ndarray, truth_count: np.ndarray) -> np.ndarray:
    """How many counts are equal after truncation, (lines,); of truth_count.shape[0] a line."""
    return (np.floor(predicted_phase).astype(np.int64) == truth_count).sum(axis=0)


def measures(
    predicted: np.ndarray,
    truth: np.ndarray,
    ideal: np.ndarray,
    *,
    sigma: np.ndarray | None = None,
    sigma_gaussian: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """All measures of one quantity of one record, each (lines,).

    r2, one_minus_r2, nrmse (RMSE/σ_MAC), eps_mac (% of max |ideal|), worst (max |error|/σ_MAC), rmse and
    sigma (unit of the quantity), rmse_ppm and mean_error_ppm (of the mean of |truth|); with `sigma_gaussian`
    also one_minus_r2_gaussian, nrmse_gaussian and worst_gaussian: the same errors over σ of the column's
    Gaussian record, for inputs that hardly vary. NaN where σ is not defined.
    """
    sigma = sigma_mac(truth) if sigma is None else sigma
    ratio = normalised_error(predicted, truth, sigma)
    rmse = root_mean_square_error(predicted, truth)
    found = {
        "r2": 1 - ratio**2,
        "one_minus_r2": ratio**2,
        "nrmse": ratio,
        "eps_mac": eps_mac(predicted, truth, full_scale(ideal)),
        "worst": worst_case(predicted, truth, sigma),
        "rmse": rmse,
        "sigma": sigma,
        "rmse_ppm": ppm_of_mean(rmse, truth),
        "mean_error_ppm": ppm_of_mean(mean_error(predicted, truth), truth),
    }
    if sigma_gaussian is not None:
        ratio = normalised_error(predicted, truth, sigma_gaussian)
        found["one_minus_r2_gaussian"] = ratio**2
        found["nrmse_gaussian"] = ratio
        found["worst_gaussian"] = worst_case(predicted, truth, sigma_gaussian)
    return found
