"""The best scale and offset of each line, for the ideal product and for the card alike."""

import numpy as np

from aimcard.validation.predictors import comparison
from aimcard.validation.scores import affine, affine_fit, one_minus_r2


def test_affine_fit_is_least_squares_and_exact_where_the_truth_is_affine():
    rng = np.random.default_rng(2)
    ideal = rng.normal(5, 1, (9, 2, 4))
    slope, offset = affine_fit(ideal, affine(ideal, np.array([2.0, -3.0]), np.array([7.0, 1.0])))
    np.testing.assert_allclose(slope, [2, -3])
    np.testing.assert_allclose(offset, [7, 1])
    truth = ideal**2
    slope, offset = affine_fit(ideal, truth)
    for line in range(2):
        expected = np.polyfit(ideal[:, line].ravel(), truth[:, line].ravel(), 1)
        np.testing.assert_allclose([slope[line], offset[line]], expected)


def test_ideal_affine_scores_zero_where_only_gain_and_offset_are_wrong():
    rng = np.random.default_rng(3)
    ideal = rng.normal(size=(6, 2, 5))
    truth = 0.9 * ideal + 0.2
    c = comparison(truth, truth, ideal)
    assert one_minus_r2(c.predicted["ideal"], truth).min() > 1e-3
    np.testing.assert_allclose(one_minus_r2(c.predicted["ideal_affine"], truth), 0, atol=1e-25)
    exact = c.pair()
    np.testing.assert_allclose(one_minus_r2(exact.predicted["ideal_affine"], exact.truth), 0, atol=1e-25)


def test_a_card_is_corrected_as_the_ideal_product_is():
    """A card that errs by gain and offset alone scores zero after it; noise that no line explains stays, whoever errs by it."""
    rng = np.random.default_rng(4)
    truth, noise = rng.normal(5, 1, (400, 2)), rng.normal(0, 0.1, (400, 2))
    c = comparison(truth, 1.1 * truth - 3, 2 * truth + noise)
    assert one_minus_r2(c.predicted["model"], truth).min() > 1
    np.testing.assert_allclose(one_minus_r2(c.predicted["model_affine"], truth), 0, atol=1e-25)
    swapped = comparison(truth, 2 * truth + noise, truth)
    np.testing.assert_array_equal(swapped.predicted["model_affine"], c.predicted["ideal_affine"])
    np.testing.assert_allclose(one_minus_r2(c.predicted["ideal_affine"], truth), 0.05**2, rtol=0.2)


def test_affine_correction_of_a_charge_needs_more_vectors_than_numbers():
    truth = np.array([[1.0], [2.0]])
    for name in ("model_affine", "ideal_affine"):
        assert np.isnan(comparison(truth, truth, truth**2).predicted[name]).all()
    assert np.isfinite(
        comparison(truth[[0, 1, 1]], truth[[0, 1, 1]], truth[[0, 1, 1]]).predicted["ideal_affine"]
    ).all()
