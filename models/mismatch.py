"""One chip out of a population: what transistor mismatch does to each line's read-out and to each cell.

A card's spreads hold mean and covariance. ``readout``: how a line's clamp voltage, mirror current and count rate depart from
the nominal tables (models/departure.py). ``cell``: the select transistor's threshold, whose standard deviation goes with
1/√(W·L) (Pelgrom, IEEE JSSC 24, 1433, 1989), and what a threshold does to R_on and leakage.
Draws are named streams: line 3 of chip 7 is the same whatever else is drawn, and in whatever order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from aimcard.models.adc import AdcParameters
from aimcard.models.card_parts import Spread
from aimcard.models.cell import CellParameters
from aimcard.models.departure import Departure
from aimcard.models.errors import CardError, InputError
from aimcard.models.readout import ReadoutParameters

if TYPE_CHECKING:
    from aimcard.models.card import Card

#: Terms of each table's departure (models/departure.py).
TERMS = {"clamp": 3, "mirror": 4, "rate": 5}
#: The read-out's random numbers and their units: coefficient k of each table's departure, and counts gained at the start.
READOUT_NAMES = {"clamp_0_v": "V", "clamp_1_v": "V", "clamp_2_v": "V"}
READOUT_NAMES |= {f"{table}_{k}": "1" for table in ("mirror", "rate") for k in range(TERMS[table])}
READOUT_NAMES["count_offset"] = "1"
READOUT_CONSTANTS = ("i_idle_a", "i_ref_a")
CELL_NAMES = {"threshold_v": "V"}
#: ln R_on rises by on·δ + on2·δ², ln leakage by leak·δ + leak2·δ², with the threshold's shift δ [V]; w_ref_um: the drawn width
#: at which the spread's sigma holds.
CELL_CONSTANTS = ("w_ref_um", "on_per_v", "on_per_v2", "leak_per_v", "leak_per_v2")


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The random stream with this name: equal seed and names give equal numbers, in any order of asking."""
    text = "/".join(str(part) for part in (seed, *names))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


@dataclass(frozen=True)
class Mismatch:
    """The population that a card describes."""

    readout: Spread
    cell: Spread

    #: What the spreads must hold, by topology.
    readout_names: ClassVar[Mapping[str, str]] = READOUT_NAMES
    readout_constants: ClassVar[tuple[str, ...]] = READOUT_CONSTANTS
    cell_constants: ClassVar[tuple[str, ...]] = CELL_CONSTANTS

    def __post_init__(self) -> None:
        for spread, names, constants in (
            (self.readout, self.readout_names, self.readout_constants),
            (self.cell, CELL_NAMES, self.cell_constants),
        ):
            if spread.names != tuple(names) or spread.units != tuple(names.values()):
                raise CardError(
                    f"spreads/{spread.name}: expected {', '.join(f'{n} [{u}]' for n, u in names.items())}; "
                    f"got {', '.join(spread.names)}; the card is of another version: run aimcard statistics again"
                )
            missing = [name for name in constants if name not in spread.constants]
            if missing:
                raise CardError(f"spreads/{spread.name}@{missing[0]}: missing (an attribute)")

    @classmethod
    def of(cls, card: Card) -> Self:
        """The card's mismatch; CardError if it has none."""
        known = {spread.name: spread for spread in card.spreads}
        for name in ("readout", "cell"):
            if name not in known:
                how = f"run: aimcard statistics {card.source} --out new.h5"
                raise CardError(f"{card.source}: spreads/{name}: missing (mismatch); {how}")
        return cls(known["readout"], known["cell"])


def draw_readout(m: Mismatch, seed: int, lines: int) -> dict[str, Tensor]:
    """The read-out's numbers of each line, by the names of READOUT_NAMES, each (lines,)."""
    factor = covariance_root(m.readout.covariance)
    normal = np.stack([stream(seed, "readout", k).standard_normal(len(factor)) for k in range(lines)])
    drawn = m.readout.mean + normal @ factor.T
    return {name: torch.from_numpy(drawn[:, k].copy()) for k, name in enumerate(m.readout.names)}


def covariance_root(covariance: np.ndarray) -> np.ndarray:
    """A with A·Aᵀ = covariance, (n, n); unlike Cholesky's, it takes a covariance without full rank."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.clip(values, 0.0, None))


def threshold_sigma(m: Mismatch, w_select_um: float) -> float:
    """Standard deviation of a select transistor's threshold at a drawn width [V]."""
    return math.sqrt(float(m.cell.covariance[0, 0]) * m.cell.constants["w_ref_um"] / w_select_um)


def draw_thresholds(m: Mismatch, seed: int, lines: int, rows: int, w_select_um: float) -> Tensor:
    """Threshold shifts of the select transistors [V], (lines, rows)."""
    sigma = threshold_sigma(m, w_select_um)
    return torch.from_numpy(sigma * np.stack([stream(seed, "cells", k).standard_normal(rows) for k in range(lines)]))


def on_factor(cell: Spread, threshold_v: Tensor) -> Tensor:
    """R_on over its nominal value for threshold shifts [V], same shape."""
    c = cell.constants
    return torch.exp(threshold_v * (c["on_per_v"] + c["on_per_v2"] * threshold_v))


def leak_factor(cell: Spread, threshold_v: Tensor) -> Tensor:
    """Leakage over its nominal value, same shape: nearly lognormal, so its mean lies above one."""
    c = cell.constants
    return torch.exp(threshold_v * (c["leak_per_v"] + c["leak_per_v2"] * threshold_v))


@dataclass(frozen=True)
class Chip:
    """One chip's lines. readout: numbers by name, each (lines,); on_factor, leak_factor: (lines, rows)."""

    seed: int
    readout: dict[str, Tensor]
    on_factor: Tensor
    leak_factor: Tensor
    i_idle_a: float
    i_ref_a: float

    @property
    def shape(self) -> tuple[int, int]:
        """Lines and rows that the chip was drawn for."""
        lines, rows = self.on_factor.shape
        return lines, rows

    def departure(self, table: str) -> Departure:
        """Departure of the table clamp, mirror or rate, for currents (..., lines, slots)."""
        names = [n for n in READOUT_NAMES if n.split("_")[0] == table]
        return Departure(tuple(self.readout[n][:, None] for n in names), self.i_idle_a, self.i_ref_a)

    def cell(self, p: CellParameters) -> CellParameters:
        """The cells of this chip, for conductances (..., lines, rows)."""
        return replace(p, r_on_ohm=p.r_on_ohm * self.on_factor, leak_factor=self.leak_factor)

    def line_readout(self, p: ReadoutParameters) -> ReadoutParameters:
        """The regulators and mirrors of this chip."""
        return replace(p, clamp_departure=self.departure("clamp"), mirror_departure=self.departure("mirror"))

    def adc(self, p: AdcParameters) -> AdcParameters:
        """The converters of this chip."""
        start = p.phase_start + self.readout["count_offset"]
        return replace(p, phase_start=start, rate_departure=self.departure("rate"))


def check_size(seed: int, lines: int, rows: int) -> None:
    """Raises InputError for a negative seed, or less than one line or row."""
    for name, value, least in (("seed", seed, 0), ("lines", lines, 1), ("rows", rows, 1)):
        if value < least:
            raise InputError(f"{name}: expected {least} or more; got {value}")


def draw_chip(m: Mismatch, seed: int, lines: int, rows: int, w_select_um: float) -> Chip:
    """The chip of this seed. Raises InputError for a negative seed, or less than one line or row."""
    check_size(seed, lines, rows)
    threshold = draw_thresholds(m, seed, lines, rows, w_select_um)
    c = m.readout.constants
    return Chip(
        seed,
        draw_readout(m, seed, lines),
        on_factor(m.cell, threshold),
        leak_factor(m.cell, threshold),
        c["i_idle_a"],
        c["i_ref_a"],
    )
