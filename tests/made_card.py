"""A model card with one part of every kind, and what reading a file of it says when it is refused."""

import math
from pathlib import Path

import numpy as np
import pytest

from aimcard.models.card import DOMAIN_UNITS, REQUIRED_META, Card, Decision, FitSummary, Interval, Parameter, Provenance, Table
from aimcard.models.errors import AimcardError, CardError


def make_card(**changes) -> Card:
    numbers = {str: "gated", float: 0.3, int: 8}
    meta = {key: numbers[kind] for key, kind in REQUIRED_META.items()}
    meta |= {"technology": "freepdk45", "corner": "nom", "mode": "conventional", "rows": 512, "note": "Ω per cell"}
    bounds = {name: Interval(0.0, 10.0, unit) for name, unit in DOMAIN_UNITS.items()}
    bounds |= {"temperature_c": Interval(27, 27, "degC"), "conductance_s": Interval(1e-7, 25e-6, "S")}
    fields = {
        "meta": meta,
        "parameters": [
            Parameter("r_on_ohm", 556.0, 2.5, 0.0, 5e3, "ohm", "cell", "on-resistance of the select transistor"),
            Parameter("q_edge_c", 0.31e-15, 1e-17, 0.0, math.inf, "C", "pulse", "charge per pulse"),
            Parameter("lag_s", 1e-9, None, 1e-9, 1e-8, "s", "readout", at_bound=True, identified=False),
        ],
        "domain": bounds,
        "fit": FitSummary(3, 40, 12, True, ["12 columns", "bootstrap of 50"]),
        "provenance": Provenance("ngspice-39", "0.1.0", {"columns": "ab" * 32}, "cd" * 32),
        "tables": [Table("count_rate", [0.0, 1e-6, 5e-6], [0.0, 7e7, 4e8], "A", "Hz", "current", "rate")],
        "decisions": [Decision("weight", "rational", {"quadratic": 2e-5, "rational": 1e-6}, "1-R2", 1.9e-5)],
        "validation": {"gaussian": {"charge": {"model": {"one_minus_r2": np.float64(2e-6), "worst": 1}}}},
        "correlation_names": ["r_on_ohm", "q_edge_c"],
        "correlation": [[1.0, -0.97], [-0.97, 1.0]],
    }
    return Card(**(fields | changes))


def refusal(path: Path, error: type[AimcardError] = CardError) -> str:
    with pytest.raises(error) as caught:
        Card.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 250
    return message.removeprefix(f"{path}: ")
