"""Up to which line current a counter follows the ring, and what is said where that is less than full scale."""

from __future__ import annotations

import math
import warnings

import numpy as np

from aimcard.data.reference import Record
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.oscillator import COUNTS_PER_PERIOD
from aimcard.netlists.readout import FULL_SCALE_A, MIRROR_RATIOS

#: Largest line current of a usual tile [A]; above a tied line's bias as far as its regulator lets it go below.
LARGEST_A = {"gated": FULL_SCALE_A, "tied": 170e-6}


def counter_reach_a(current_a: np.ndarray, count_rate_hz: np.ndarray, counter_max_hz: float) -> float:
    """Line current [A] at which the ring runs at ``counter_max_hz``; inf if it never does.

    current_a (points,), increasing; count_rate_hz (points,) there, all counted edges together.
    """
    too_fast = np.flatnonzero(count_rate_hz > COUNTS_PER_PERIOD * counter_max_hz)
    if not too_fast.size:
        return math.inf
    k = int(too_fast[0])
    if k == 0:
        return float(current_a[0])
    return float(np.interp(COUNTS_PER_PERIOD * counter_max_hz, count_rate_hz[k - 1 : k + 1], current_a[k - 1 : k + 1]))


def counter_meta(ring: Record, bench: ColumnBench, topology: str) -> dict[str, float]:
    """``counter_reach_a`` for a set's meta data, with a warning, where the ring is too fast at full scale; else nothing.

    ring: a record of kind ``oscillator``. The warning names the least mirror ratio that its own rates promise to do.
    """
    limit_hz, ratio, full_a = bench.readout.counter_max_hz, bench.readout.mirror_ratio, LARGEST_A[topology]
    current_a, rate_hz = ring["current_a"], ring["count_rate_hz"]
    reach_a = counter_reach_a(current_a, rate_hz, limit_hz)
    if reach_a >= full_a:
        return {}
    at_full_hz = float(np.interp(full_a, current_a, rate_hz)) / COUNTS_PER_PERIOD
    # The mirror's current at the limit, reached at full scale.
    reach_mirror_a, full_mirror_a = np.interp([reach_a, full_a], current_a, ring["mirror_a"])
    enough = math.ceil(ratio * full_mirror_a / reach_mirror_a)
    advice = f"--mirror-ratio {enough} or more" if enough <= MIRROR_RATIOS[1] else "a larger --mirror-ratio"
    warnings.warn(
        f"mirror_ratio {ratio}: at a line of {1e6 * full_a:g} uA the ring runs at {at_full_hz / 1e9:.2f} GHz, more than the "
        f"{limit_hz / 1e9:g} GHz that a counter of {bench.technology.name} follows: counts hold up to {1e6 * reach_a:.3g} uA, "
        f"where the card's domain ends; keep lines below that, or take {advice}",
        stacklevel=2,
    )
    return {"counter_reach_a": reach_a}
