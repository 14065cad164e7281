"""Interpolation in temperature between a few calibrated temperatures: the laws, and their weights on each of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aimcard.models.checks import check_choice
from aimcard.models.errors import InputError

ZERO_K = -273.15
#: linear, quadratic: of the value in °C. log: of its logarithm in °C. power: of the logarithm in the logarithm of the
#: absolute temperature, the law of mobility. arrhenius: of the logarithm in 1/K, that of a current over a barrier.
LAWS = (
    "linear", "quadratic", "log", "log-quadratic", "power", "power-quadratic", "arrhenius", "arrhenius-quadratic",
)  # fmt: skip
#: Laws of the value itself; all others are of its logarithm.
PLAIN = ("linear", "quadratic")


def _coordinate(law: str, celsius: np.ndarray) -> np.ndarray:
    if law.startswith("arrhenius"):
        return -1.0 / (celsius - ZERO_K)
    return np.log(celsius - ZERO_K) if law.startswith("power") else celsius


def check_between(temperature_c: float, nodes_c: Sequence[float], what: str = "temperature") -> float:
    """``temperature_c`` if it lies within the nodes' range, both ends included; else InputError, which names the range."""
    lo, hi = min(nodes_c), max(nodes_c)
    if not lo <= temperature_c <= hi:
        known = f"{lo:g} to {hi:g} degC" if hi > lo else f"{lo:g} degC alone"
        raise InputError(
            f"{what}: expected a temperature within the set's cards, {known}; got {temperature_c:g}; "
            "calibrate a card there: nothing is extrapolated"
        )
    return float(temperature_c)


def node_weights(law: str, nodes_c: Sequence[float], temperature_c: float) -> np.ndarray:
    """Weights (nodes,) of the law on rising ``nodes_c``; their sum is one, and at a node its own is one.

    Linear laws take the two neighbours. Quadratic ones add the node next to them that is nearer: the parabola through
    three points (Lagrange); with two nodes they are linear. Raises InputError outside the nodes.
    """
    check_choice("law", law, LAWS)
    t = check_between(temperature_c, nodes_c)
    x, t = _coordinate(law, np.asarray(nodes_c, dtype=float)), float(_coordinate(law, np.array(t)))
    if len(x) > 1 and not (np.diff(x) > 0).all():
        raise InputError(f"temperatures: expected rising nodes, each once; got {', '.join(f'{v:g}' for v in nodes_c)}")
    weights = np.zeros(len(x))
    if len(x) == 1:
        weights[0] = 1.0
        return weights
    k = int(np.clip(np.searchsorted(x, t, side="right") - 1, 0, len(x) - 2))
    used = [k, k + 1]
    if law.endswith("quadratic") and len(x) > 2:
        beside = [j for j in (k - 1, k + 2) if 0 <= j < len(x)]
        used = sorted([*used, min(beside, key=lambda j: abs(x[j] - t))])
    for j in used:
        others = [x[i] for i in used if i != j]
        weights[j] = np.prod([(t - other) / (x[j] - other) for other in others])
    return weights


def interpolate(law: str, nodes_c: Sequence[float], values: np.ndarray, temperature_c: float) -> np.ndarray:
    """Value at ``temperature_c`` of ``values`` (nodes, ...), in their unit, shape (...).

    A logarithmic law needs values of one sign; where they change it (or are zero), the same law without the logarithm
    is taken, for a current through zero has no exponent.
    """
    y = np.asarray(values, dtype=float)
    w = node_weights(law, nodes_c, temperature_c)
    if law not in PLAIN:
        one_sign = np.all(y > 0, axis=0) | np.all(y < 0, axis=0)
        safe = np.where(one_sign, y, 1.0)
        logs = np.sign(safe[0]) * np.exp(np.tensordot(w, np.log(np.abs(safe)), axes=1))
        plain = node_weights("quadratic" if law.endswith("quadratic") else "linear", nodes_c, temperature_c)
        return np.where(one_sign, logs, np.tensordot(plain, y, axes=1))
    return np.tensordot(w, y, axes=1)


def interpolated_error(
    law: str, nodes_c: Sequence[float], values: Sequence[float], errors: Sequence[float], temperature_c: float
) -> float:
    """Standard error of the interpolated value, from those of the nodes, taken as wholly correlated: an upper bound.

    Cards of a sweep are fitted to the same columns, so their errors are much alike. What the law itself is wrong by is
    not in it.
    """
    y, s = np.asarray(values, dtype=float), np.asarray(errors, dtype=float)
    w = np.abs(node_weights(law, nodes_c, temperature_c))
    if law not in PLAIN and (np.all(y > 0) or np.all(y < 0)):
        return float(abs(interpolate(law, nodes_c, y, temperature_c)) * np.sum(w * s / np.abs(y)))
    return float(np.sum(w * s))
