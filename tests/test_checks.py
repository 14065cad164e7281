"""Argument checks: good arguments pass as numbers, wrong ones are refused in one voice."""

import math

import numpy as np
import pytest
import torch

from aimcard.models.checks import check_choice, check_codes, check_conductances, check_positive
from aimcard.models.errors import InputError


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda: check_codes([[0, 128]], 2, 127),
            "codes: expected codes from 0 to 127; got 128 at [0, 1]; clip",
        ),
        (
            lambda: check_codes([[0, -1], [-1, 3]], 2, 127),
            "codes: expected codes from 0 to 127; got -1 at [0, 1] and 1",
        ),
        (lambda: check_codes([[0, 0.5]], 2, 127), "codes: expected whole codes; got 0.5 at [0, 1]"),
        (lambda: check_codes([[0, math.nan]], 2, 127), "codes: expected finite codes; got nan"),
        (
            lambda: check_codes([[0, 1, 2]], 2, 127),
            "codes: expected 2 rows, as many as the conductances have; got 3",
        ),
        (
            lambda: check_codes([0, 1], 2, 127),
            "codes: expected two dimensions (vectors, rows), not empty; got shape (2,)",
        ),
        (
            lambda: check_codes([[0, 1], [2]], 2, 127),
            "codes: expected an array of numbers; got rows of unequal",
        ),
        (lambda: check_codes([["a", "b"]], 2, 127), "codes: expected an array of numbers; got <U1"),
        (
            lambda: check_conductances([[1e-6, -1e-9]]),
            "conductance_s: expected conductances of at least 0 S; got -1e-09",
        ),
        (
            lambda: check_conductances([[1e-6, math.inf]]),
            "conductance_s: expected finite conductances in siemens; got inf",
        ),
        (
            lambda: check_conductances(np.zeros((2, 0))),
            "conductance_s: expected two dimensions (lines, rows), not empty",
        ),
        (
            lambda: check_choice("mode", "splt", ["conventional", "split"]),
            "mode: expected one of conventional, split; got ",
        ),
        (
            lambda: check_choice("mode", "splt", ["split", "bit"]),
            "mode: expected one of split, bit; got 'splt' (did you m",
        ),
        (lambda: check_positive("t_lsb_s", 0), "t_lsb_s: expected a finite number above 0; got 0"),
        (
            lambda: check_positive("r_ohm", -1, zero=True),
            "r_ohm: expected a finite number of at least 0; got -1",
        ),
    ],
)
def test_arguments_are_refused_in_one_voice(call, expected):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_good_arguments_pass():
    codes = check_codes(torch.tensor([[0.0, 127.0]]), 2, 127)
    assert codes.dtype == np.int64
    assert codes.tolist() == [[0, 127]]
    assert check_conductances([[0, 1e-6]]).dtype == np.float64
    assert check_choice("mode", "split", ("split",)) == "split"
    assert check_positive("r_ohm", np.float32(0), zero=True) == 0.0
