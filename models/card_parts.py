"""What a model card is made of: parameters, tables, validity intervals, decisions, provenance."""

import math
import re
from collections.abc import Iterable, Mapping

import attrs
import numpy as np

from aimcard.models.errors import CardError

NAME = re.compile(r"[A-Za-z0-9_+\-][A-Za-z0-9_.+\-]*")


def check_name(kind: str, name: object) -> None:
    """Names become paths in the file and columns on a screen."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise CardError(f"{kind}: expected a name of letters, digits and any of _ . + -; got {name!r}")


def _check_finite(where: str, value: float) -> None:
    if not math.isfinite(value):
        raise CardError(f"{where}: expected a finite number, got {value}")


def _axis(values: object) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


_ARRAY = attrs.cmp_using(eq=np.array_equal)


@attrs.frozen
class Parameter:
    """One fitted number: value, its error and bounds in `unit`.

    `stderr` is None where no error is known (a fixed parameter); `min` and `max` are infinite where there is
    no bound; `at_bound` says that the fit ended at one, `identified` that the data determine it.
    """

    name: str
    value: float = attrs.field(converter=float)
    stderr: float | None = attrs.field(default=None, converter=attrs.converters.optional(float))
    min: float = attrs.field(default=-math.inf, converter=float)
    max: float = attrs.field(default=math.inf, converter=float)
    unit: str = "1"
    group: str = ""
    description: str = ""
    at_bound: bool = attrs.field(default=False, converter=bool)
    identified: bool = attrs.field(default=True, converter=bool)

    def __attrs_post_init__(self) -> None:
        check_name("parameters", self.name)
        where = f"parameters/{self.name}"
        _check_finite(where, self.value)
        if self.stderr is not None and not (math.isfinite(self.stderr) and self.stderr >= 0):
            raise CardError(f"{where}@stderr: expected a finite number of at least 0 or None, got {self.stderr}")
        if math.isnan(self.min) or math.isnan(self.max) or not self.min <= self.max:
            raise CardError(f"{where}: expected min <= max, got {self.min} and {self.max}")
        slack = 1e-9 * abs(self.value)
        if not self.min - slack <= self.value <= self.max + slack:
            raise CardError(f"{where}: expected a value from {self.min:g} to {self.max:g}, got {self.value:g}")


@attrs.frozen
class Table:
    """A look-up table y(x): x strictly increasing, both float64 of shape (n,), n at least 2."""

    name: str
    x: np.ndarray = attrs.field(converter=_axis, eq=_ARRAY)
    y: np.ndarray = attrs.field(converter=_axis, eq=_ARRAY)
    x_unit: str
    y_unit: str
    x_name: str
    y_name: str
    description: str = ""

    def __attrs_post_init__(self) -> None:
        check_name("tables", self.name)
        where = f"tables/{self.name}"
        if self.x.ndim != 1 or self.x.shape != self.y.shape or self.x.size < 2:
            raise CardError(f"{where}: expected x and y of one shape (n,), n >= 2; got {self.x.shape} and {self.y.shape}")
        for axis, values in (("x", self.x), ("y", self.y)):
            if not np.isfinite(values).all():
                raise CardError(f"{where}/{axis}: expected finite numbers, got {values[~np.isfinite(values)][0]}")
        if not (np.diff(self.x) > 0).all():
            index = int(np.argmin(np.diff(self.x) > 0)) + 1
            raise CardError(f"{where}/x: expected strictly increasing values, got {self.x[index]} at [{index}]")


@attrs.frozen
class Interval:
    """Where a card holds, in one dimension: from lo to hi, both included."""

    lo: float = attrs.field(converter=float)
    hi: float = attrs.field(converter=float)
    unit: str = "1"

    def __attrs_post_init__(self) -> None:
        if not (math.isfinite(self.lo) and math.isfinite(self.hi) and self.lo <= self.hi):
            raise CardError(f"domain: expected finite lo <= hi, got {self.lo} and {self.hi}")


def _scores(candidates: Mapping[str, float]) -> dict[str, float]:
    return {name: float(score) for name, score in candidates.items()}


@attrs.frozen
class Decision:
    """Which variant of an equation won, each candidate's score in `measure`, and by how much it won."""

    name: str
    winner: str
    candidates: dict[str, float] = attrs.field(converter=_scores)
    measure: str
    margin: float = attrs.field(converter=float)

    def __attrs_post_init__(self) -> None:
        check_name("decisions", self.name)
        where = f"decisions/{self.name}"
        if self.winner not in self.candidates:
            raise CardError(f"{where}@winner: expected one of {', '.join(self.candidates)}; got {self.winner!r}")
        for name, score in (*self.candidates.items(), ("margin", self.margin)):
            _check_finite(f"{where}: {name}", score)


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _constants(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


@attrs.frozen
class Spread:
    """Numbers that differ from chip to chip: mean (n,) and covariance (n, n) of a joint normal distribution.

    `samples` is how many simulated specimens they come from, `constants` what the equations that use them need besides.
    """

    name: str
    names: tuple[str, ...] = attrs.field(converter=_texts)
    units: tuple[str, ...] = attrs.field(converter=_texts)
    mean: np.ndarray = attrs.field(converter=_axis, eq=_ARRAY)
    covariance: np.ndarray = attrs.field(converter=_axis, eq=_ARRAY)
    samples: int
    constants: dict[str, float] = attrs.field(factory=dict, converter=_constants)
    description: str = ""

    def __attrs_post_init__(self) -> None:
        check_name("spreads", self.name)
        where, n = f"spreads/{self.name}", len(self.names)
        for name in self.names:
            check_name(where, name)
        if not n or len(set(self.names)) != n or len(self.units) != n:
            raise CardError(f"{where}: expected names, each once, and as many units; got {n} and {len(self.units)}")
        if self.mean.shape != (n,) or self.covariance.shape != (n, n):
            shapes = f"{self.mean.shape} and {self.covariance.shape}"
            raise CardError(f"{where}: expected a mean of shape {(n,)} and a covariance of {(n, n)}; got {shapes}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise CardError(f"{where}: expected finite mean and covariance, got NaN or inf")
        # In units of the standard deviations, or volts beside ratios would decide what counts as rounding.
        scale = np.sqrt(np.clip(np.diag(self.covariance), 0, None))
        unit = np.where(scale > 0, scale, 1.0)
        matrix = self.covariance / np.outer(unit, unit)
        if not np.allclose(matrix, matrix.T, atol=1e-9) or np.linalg.eigvalsh(matrix).min() < -1e-9 * n:
            raise CardError(f"{where}/covariance: expected a symmetric matrix without negative eigenvalues")
        if self.samples < 0:
            raise CardError(f"{where}@samples: expected 0 or more, got {self.samples}")
        for name, value in self.constants.items():
            check_name(where, name)
            _check_finite(f"{where}@{name}", value)

    @property
    def sigma(self) -> np.ndarray:
        """Standard deviations, shape (n,)."""
        return np.sqrt(np.diag(self.covariance))


@attrs.frozen
class FitSummary:
    """How many parameters stand against how many independent decks and columns, and what the fit said."""

    n_parameters: int
    n_decks: int
    n_columns: int
    converged: bool
    messages: tuple[str, ...] = attrs.field(default=(), converter=_texts)


@attrs.frozen
class Provenance:
    """What the card was made from. No date: the same inputs make the same card."""

    simulator: str
    software_version: str
    reference_hashes: dict[str, str] = attrs.field(converter=dict)
    deck_set_hash: str = ""
