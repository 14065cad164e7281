"""One fit and its errors, on data of known truth: the optimiser, its reports, the bootstrap."""

import numpy as np
import pytest
import torch

from aimcard.calibrate.bootstrap import bootstrap
from aimcard.calibrate.fit import jacobian, minimise, tensors
from aimcard.calibrate.parameters import SPECS
from aimcard.models.errors import FitError


def decay(names=("r_on_ohm", "k_source_per_v")):
    """y = a·exp(−k·x) at a = 560, k = 1.1 under two parameters' names."""
    x = torch.linspace(0, 2, 15, dtype=torch.float64)
    y = 560.0 * torch.exp(-1.1 * x)
    return lambda v: v[names[0]] * torch.exp(-v[names[1]] * x) - y


START = {name: spec.start for name, spec in SPECS.items()}


def test_known_parameters_come_back():
    fit = minimise("decay", ("r_on_ohm", "k_source_per_v"), START, decay())
    assert fit.values["r_on_ohm"] == pytest.approx(560, rel=1e-8)
    assert fit.values["k_source_per_v"] == pytest.approx(1.1, rel=1e-8)
    assert fit.converged
    assert fit.messages == ()
    assert fit.rms < 1e-6
    assert fit.values["dw_um"] == START["dw_um"]


def test_the_jacobian_is_that_of_the_scaled_parameters():
    names = ("r_on_ohm", "k_source_per_v")
    found = jacobian(names, START, decay())
    for k, name in enumerate(names):
        h = 1e-5
        up, down = (decay()(tensors(START | {name: START[name] + s * h * SPECS[name].scale})) for s in (1, -1))
        np.testing.assert_allclose((up - down) / (2 * h), found[:, k], rtol=1e-5, atol=1e-6)


def test_a_bound_is_reported():
    # The optimum k = -3.5 lies below the parameter's lower bound of -2.
    x = torch.linspace(0, 1, 9, dtype=torch.float64)
    fit = minimise("bound", ("k_source_per_v",), START, lambda v: (v["k_source_per_v"] + 3.5) * (1 + x))
    assert fit.values["k_source_per_v"] == pytest.approx(SPECS["k_source_per_v"].lo, abs=1e-3)
    assert fit.at_bound == ("k_source_per_v",)
    assert any("ended at a bound: k_source_per_v" in m for m in fit.messages)


def test_what_the_data_cannot_tell_is_reported():
    x = torch.linspace(0, 1, 9, dtype=torch.float64)
    fit = minimise(
        "sum", ("k_source_per_v", "k_drain_per_v"), START, lambda v: (v["k_source_per_v"] + v["k_drain_per_v"] - 3) * x
    )
    assert set(fit.unidentified) == {"k_source_per_v", "k_drain_per_v"}
    alone = minimise("none", ("k_source_per_v", "r_on_ohm"), START, lambda v: (v["k_source_per_v"] - 1) * x)
    assert alone.unidentified == ("r_on_ohm",)
    assert "not identified by these data: r_on_ohm" in alone.messages[0]


def test_what_no_fit_can_use():
    with pytest.raises(FitError, match="fit of bad: the residuals are not finite"):
        minimise("bad", ("r_on_ohm",), START, lambda v: v["r_on_ohm"] * torch.tensor([1.0, np.nan], dtype=torch.float64))
    with pytest.raises(FitError, match="expected at least 2 data points for 2 parameters; got 1"):
        minimise("few", ("r_on_ohm", "k_drain_per_v"), START, lambda v: (v["r_on_ohm"] * v["k_drain_per_v"])[None])


def straight_lines(columns: int, seed: int = 0, noise: float = 0.1):
    """Columns of 20 points of y = a + b·x, each with one error common to its points."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (columns, 20))
    j = np.stack([np.ones_like(x), x], -1).reshape(-1, 2)
    r = np.repeat(noise * rng.normal(size=columns), 20)
    # The optimum: a fit leaves residuals without a component along the Jacobian.
    return j, r - j @ np.linalg.lstsq(j, r, rcond=None)[0], np.repeat(np.arange(columns), 20)


def test_errors_shrink_with_the_columns():
    few, many = (np.mean([bootstrap(*straight_lines(n, s), seed=s).stderr[0] for s in range(6)]) for n in (12, 192))
    # 1/sqrt(columns): a factor of 4; both are estimates from random columns.
    assert 3.0 < few / many < 5.3
    # The mean of 192 columns with an error of 0.1 each.
    assert many == pytest.approx(0.1 / np.sqrt(192), rel=0.2)


def test_no_residual_no_error():
    j, r, owner = straight_lines(10)
    errors = bootstrap(j, 0 * r, owner, seed=1)
    assert np.all(errors.stderr < 1e-14)
    np.testing.assert_array_equal(np.diag(errors.correlation), 1)


def test_the_bootstrap_repeats_and_single_cells_hold():
    j, r, owner = straight_lines(10)
    a, b = (bootstrap(j, r, owner, seed=3) for _ in range(2))
    np.testing.assert_array_equal(a.correlation, b.correlation)
    assert np.abs(a.correlation).max() <= 1
    heavy = np.concatenate([j, 100 * np.eye(2)]), np.append(r, [0, 0]), np.append(owner, [-1, -1])
    assert (bootstrap(*heavy, seed=3).stderr < 0.1 * a.stderr).all()
