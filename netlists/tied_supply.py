"""What a tied tile takes from its supplies: a row's switches from V_DD and the rails, and a column from the rails.

Charges and currents are those that a supply delivers: the low rail's are negative, it takes current back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aimcard.netlists.column import LEAD_S, Pulses, word_nodes
from aimcard.netlists.driver import LEAD_S as PULSE_LEAD_S
from aimcard.netlists.tied_driver import RAILS
from aimcard.netlists.waveforms import Waveforms


@dataclass(frozen=True)
class SourceSupply:
    """Supplies of a row's two source lines over one pulse of ``code`` LSB, in ``window_s``.

    charge_c, rest_a: from V_DD, and its current before the pulse. rail_c: from each rail, (rails,), without what the cells
    carry during the pulse: their current, once the lines have settled, times the pulse's nominal length.
    """

    code: int
    window_s: float
    charge_c: float
    rest_a: float
    rail_c: np.ndarray


def source_supply(waves: Waveforms, code: int, t_lsb_s: float) -> SourceSupply:
    """The supplies in the waveforms of ``tied_driver_deck``."""
    before, stop = 0.8 * PULSE_LEAD_S, float(waves.time_s[-1])
    window = stop - before
    end = PULSE_LEAD_S + code * t_lsb_s
    # The last third of the pulse, one slot at most: the lines have settled.
    held = [end - min(code, 3) * t_lsb_s / 3, end]

    def mean(source: str, span: list[float]) -> float:
        return -float(waves.slot_means(f"i(v{source})", span)[0])

    rails = []
    for rail in RAILS:
        rest = mean(rail, [0.0, before])
        carried = mean(rail, held) - rest
        rails.append((mean(rail, [before, stop]) - rest) * window - carried * code * t_lsb_s)
    return SourceSupply(code, window, mean("dd", [before, stop]) * window, mean("dd", [0.0, before]), np.array(rails))


def rail_charges(waves: Waveforms, codes: np.ndarray, pulses: Pulses) -> np.ndarray:
    """Charge that each rail delivers to one column's cells over the window [C], (rails,).

    From a deck of ``tied_column_deck`` with ``save_supply``. A line counts for the rail that its driver connects it to: the
    common mode's before and after its pulse.
    """
    found, magnitudes = np.zeros(len(RAILS)), np.abs(codes)
    tags = [node.removeprefix("w") for node in word_nodes(magnitudes, pulses)]
    for tag, pattern in dict(zip(tags, pulses.patterns(magnitudes), strict=True)).items():
        switched = [LEAD_S + pulses.delay_s + slot * pulses.t_lsb_s for pulse in pattern for slot in pulse]
        edges = np.array([LEAD_S, *switched, pulses.stop_s])
        for line, active in (("d", 0), ("u", 2)):
            # Between the common mode and the active rail in turns.
            charge = -waves.slot_means(f"i(v{line}{tag})", edges) * np.diff(edges)
            found[1] += charge[::2].sum()
            found[active] += charge[1::2].sum()
    return found
