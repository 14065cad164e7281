"""One chip out of a population of tied tiles: what transistor mismatch does to each column's read-out and to each cell.

Beside the clamp's voltage, the mirror and the count rate, a tied read-out's bias differs: its sink is a mirror of small current,
and what it takes more flows through regulator, mirror and oscillator alike. So every table is looked up at the line's current
plus that shift, and the departures (models/departure.py) are those at equal regulator current. ``clamp_0_v`` is the OTA's offset
at no line current, which a column answers to with its conductance: the offset current.
Idle cells conduct, so a cell has no leakage of its own, and a pair has two transistors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from aimcard.models.departure import Departure
from aimcard.models.mismatch import (
    READOUT_CONSTANTS,
    READOUT_NAMES,
    Mismatch,
    check_size,
    draw_readout,
    on_factor,
    stream,
    threshold_sigma,
)
from aimcard.models.tied_readout import TiedReadout

#: The read-out's random numbers and their units: the bias' shift, then those of a gated read-out.
TIED_READOUT_NAMES = {"bias_a": "A"} | READOUT_NAMES
#: i_idle_a: the regulator's nominal current at no line current; least_a: lowest line current that was simulated.
TIED_READOUT_CONSTANTS = (*READOUT_CONSTANTS, "least_a")
#: ln R_on rises by on·δ + on2·δ², as in ``models.mismatch``.
TIED_CELL_CONSTANTS = ("w_ref_um", "on_per_v", "on_per_v2")


@dataclass(frozen=True)
class TiedMismatch(Mismatch):
    """The population that a tied card describes."""

    readout_names: ClassVar = TIED_READOUT_NAMES
    readout_constants: ClassVar = TIED_READOUT_CONSTANTS
    cell_constants: ClassVar = TIED_CELL_CONSTANTS


@dataclass(frozen=True)
class TiedChip:
    """One chip's columns. readout: numbers by name, each (lines,); on_factor: R_on of the plus and the minus cells over the
    nominal one, (2, lines, rows); constants: the spread's, for the departures."""

    seed: int
    readout: dict[str, Tensor]
    on_factor: Tensor
    constants: dict[str, float]

    @property
    def shape(self) -> tuple[int, int]:
        """Lines and rows that the chip was drawn for."""
        _, lines, rows = self.on_factor.shape
        return lines, rows

    @property
    def shift_a(self) -> Tensor:
        """What each column's bias is above the nominal one [A], (lines, 1)."""
        return self.readout["bias_a"][:, None]

    def departure(self, table: str) -> Departure:
        """Departure of the table clamp, mirror or rate, for currents (..., lines, slots) with the bias' shift in them."""
        names = [n for n in TIED_READOUT_NAMES if n.split("_")[0] == table]
        c = self.constants
        return Departure(tuple(self.readout[n][:, None] for n in names), c["i_idle_a"], c["i_ref_a"], c["least_a"])

    def cells(self, g_plus_s: Tensor, g_minus_s: Tensor, r_on_ohm: float) -> tuple[Tensor, Tensor]:
        """Conductances (lines, rows) [S] that with a transistor of ``r_on_ohm`` act as these with their own."""
        plus, minus = (r_on_ohm * (self.on_factor - 1)).to(g_plus_s)
        return g_plus_s / (1 + g_plus_s * plus), g_minus_s / (1 + g_minus_s * minus)

    def readouts(self, r: TiedReadout) -> TiedReadout:
        """The read-outs of this chip's columns."""
        tables = replace(r.readout, clamp_departure=self.departure("clamp"), mirror_departure=self.departure("mirror"))
        start = r.adc.phase_start + self.readout["count_offset"]
        adc = replace(r.adc, phase_start=start, rate_departure=self.departure("rate"))
        return replace(r, readout=tables, adc=adc, shift_a=self.shift_a)


def draw_tied_thresholds(m: Mismatch, seed: int, lines: int, rows: int, w_select_um: float) -> Tensor:
    """Threshold shifts of the plus and the minus cells' transistors [V], (2, lines, rows)."""
    pairs = np.stack([stream(seed, "pairs", k).standard_normal((rows, 2)) for k in range(lines)])
    return torch.from_numpy(threshold_sigma(m, w_select_um) * np.moveaxis(pairs, -1, 0))


def draw_tied_chip(m: TiedMismatch, seed: int, lines: int, rows: int, w_select_um: float) -> TiedChip:
    """The chip of this seed. Raises InputError for a negative seed, or less than one line or row."""
    check_size(seed, lines, rows)
    threshold = draw_tied_thresholds(m, seed, lines, rows, w_select_um)
    return TiedChip(seed, draw_readout(m, seed, lines), on_factor(m.cell, threshold), dict(m.readout.constants))
