"""Two-point trim of an ADC: digital gain and offset from its readings of two known currents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.models.lut import lookup


@dataclass(frozen=True)
class Trim:
    """trimmed = gain · count + offset; gain without unit, offset in counts."""

    gain: float
    offset_count: float

    def __call__(self, count: np.ndarray | float) -> np.ndarray:
        """Trimmed counts, any shape."""
        return self.gain * np.asarray(count, dtype=float) + self.offset_count


def two_point_trim(read_count: tuple[float, float], true_count: tuple[float, float]) -> Trim:
    """The trim that maps what was read at two currents to what should have been. InputError if both readings are equal."""
    (r0, r1), (t0, t1) = read_count, true_count
    if r0 == r1:
        raise InputError(f"trim: expected two different readings; got {r0:g} twice; choose currents further apart")
    gain = (t1 - t0) / (r1 - r0)
    return Trim(gain, t0 - gain * r0)


def window_counts(card: Card, current_a: np.ndarray) -> np.ndarray:
    """Counts of a whole window at constant line currents [A], any shape, not truncated. CardError without the table."""
    table = card.table("adc")
    rate = lookup(torch.tensor(table.x), torch.tensor(table.y), torch.tensor(np.asarray(current_a, dtype=float)))
    slots = int(card.meta["code_max"]) + int(card.meta["guard_slots"])
    return rate.numpy() * slots * float(card.meta["t_lsb_s"])
