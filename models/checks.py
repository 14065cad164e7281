"""Argument checks in one voice: the argument, what was expected, what came, the likely fix."""

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np

from aimcard.models.errors import InputError


def did_you_mean(name: object, choices: Iterable[str]) -> str:
    """' (did you mean ...?)' for the nearest choice, or nothing."""
    close = difflib.get_close_matches(str(name), list(choices), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """`value` if it is one of `choices`; else InputError."""
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        expected = f"one of {', '.join(known)}" if len(known) > 1 else f"{known[0]} (no other choice yet)"
        raise InputError(f"{name}: expected {expected}; got {value!r}{did_you_mean(value, known)}")
    return value


def check_conductances(conductance_s: Any, name: str = "conductance_s") -> np.ndarray:
    """Conductances [S] as float64 (lines, rows), finite and at least 0; else InputError."""
    array = _numbers(name, conductance_s)
    _check_two_dimensions(name, array, "(lines, rows)")
    array = array.astype(np.float64)
    _refuse(name, array, ~np.isfinite(array), "finite conductances in siemens")
    _refuse(name, array, array < 0, "conductances of at least 0 S", "map a signed weight to a pair G+, G- first")
    return array


def check_of_chip(conductance_s: Any, shape: tuple[int, int]) -> None:
    """InputError unless the conductances have the lines and rows that a chip was drawn for."""
    if np.shape(conductance_s) != shape:
        raise InputError(
            f"conductance_s: this chip was drawn for shape {shape} (lines, rows); got {np.shape(conductance_s)}; draw one for it"
        )


def check_codes(codes: Any, rows: int, code_max: int, name: str = "codes") -> np.ndarray:
    """Pulse lengths in LSB as int64 (vectors, rows), whole, from 0 to code_max; else InputError.

    `rows` is the number of rows of the conductances.
    """
    array = _numbers(name, codes)
    _check_two_dimensions(name, array, "(vectors, rows)")
    if array.shape[1] != rows:
        raise InputError(f"{name}: expected {rows} rows, as many as the conductances have; got {array.shape[1]}")
    _refuse(name, array, ~np.isfinite(array), "finite codes")
    _refuse(name, array, array != np.floor(array), "whole codes", "round them first")
    wrong = (array < 0) | (array > code_max)
    _refuse(name, array, wrong, f"codes from 0 to {code_max}", "clip or rescale the inputs")
    return array.astype(np.int64)


def check_signed_codes(codes: Any, rows: int, code_max: int, name: str = "codes") -> np.ndarray:
    """Pulse lengths in LSB with a sign as int64 (vectors, rows), whole, from −code_max to code_max; else InputError."""
    array = _numbers(name, codes)
    _refuse_negative_range(name, array, code_max)
    check_codes(np.abs(array), rows, code_max, name)
    return array.astype(np.int64)


def check_positive(name: str, value: Any, *, zero: bool = False) -> float:
    """`value` as a float, finite and above 0 (or at least 0); else InputError."""
    array = _numbers(name, value)
    if array.ndim == 0 and np.isfinite(array) and (array > 0 or (zero and array == 0)):
        return float(array)
    raise InputError(f"{name}: expected a finite number {'of at least' if zero else 'above'} 0; got {value!r}")


def _refuse_negative_range(name: str, array: np.ndarray, code_max: int) -> None:
    # Before magnitudes are taken, so that the message shows the code as it came.
    if array.ndim == 2 and array.size:
        beyond = np.abs(array) > code_max
        _refuse(name, array, beyond, f"codes from {-code_max} to {code_max}", "clip or rescale the inputs")


def _numbers(name: str, value: Any) -> np.ndarray:
    # A tensor that requires a gradient refuses numpy.
    plain = value.detach().cpu() if hasattr(value, "detach") else value
    try:
        array = np.asarray(plain)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name}: expected an array of numbers; got rows of unequal length") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name}: expected an array of numbers; got {array.dtype}")
    return array


def _check_two_dimensions(name: str, array: np.ndarray, meaning: str) -> None:
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"{name}: expected two dimensions {meaning}, not empty; got shape {array.shape}")


def _refuse(name: str, array: np.ndarray, wrong: np.ndarray, expected: str, fix: str = "") -> None:
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        count = int(wrong.sum())
        many = f" and {count - 1} more" if count > 1 else ""
        advice = f"; {fix}" if fix else ""
        raise InputError(f"{name}: expected {expected}; got {array[row, column]} at [{row}, {column}]{many}{advice}")
