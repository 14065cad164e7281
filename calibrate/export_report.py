"""How well a card's ngspice netlist agrees with the card: one random line in ngspice and by the model.

    python -m aimcard.calibrate.export_report freepdk45_tied --rows 24 --clamp ideal

Conductances are uniform in the card's domain up to --g-max, codes normal with a third of the largest as sigma, of either
sign where the card is tied. Lines of 512 rows take ngspice one to three minutes of CPU.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from dataclasses import dataclass

import numpy as np

from aimcard.data.shipped import find_card
from aimcard.models.card import Card
from aimcard.models.console import Arguments, run_module
from aimcard.models.errors import InputError, OutsideDomainWarning
from aimcard.models.export_spice import spice_deck
from aimcard.models.pcm import G_MAX_S
from aimcard.models.spice_form import LEAD_S
from aimcard.models.tied_tile import TiedTile
from aimcard.models.topology import tile_of
from aimcard.netlists.deck import Deck
from aimcard.netlists.ngspice import run
from aimcard.validation.typical import normal_codes


@dataclass(frozen=True)
class SpiceAgreement:
    """charge, of all that flowed either way; slot, worst, share of the largest; with a read-out the phase and its
    difference [counts], else None. seconds: from start to end of ngspice, nearly none if its result was kept."""

    rows: int
    clamp: str
    charge: float
    slot: float
    phase: float | None
    phase_off: float | None
    points: int
    seconds: float

    def __str__(self) -> str:
        text = f"{self.rows} rows, {self.clamp}: charge {self.charge * 1e6:+.1f} ppm, slot means, worst {self.slot:.1e}"
        if self.phase is not None:
            text += f", phase {self.phase_off:+.4f} of {self.phase:.2f} counts"
        return f"{text} ({self.points} points, {self.seconds:.0f} s)"


def spice_agreement(card: Card, *, rows: int, clamp: str, g_max_s: float, seed: int) -> SpiceAgreement:
    """One line in ngspice against the card's model. InputError for rows below 1; SimulationError as ngspice fails."""
    if rows < 1:
        raise InputError(f"rows: expected 1 or more; got {rows}")
    rng = np.random.default_rng(seed)
    tile = tile_of(card)
    tied = isinstance(tile, TiedTile)
    pair = rng.uniform(card.domain["conductance_s"].lo, g_max_s, (2, 1, rows))
    codes = normal_codes(rng, 1, rows, tile.code_max, signed=tied)
    other = pair[1] if tied else None
    # As many rows as one likes: a deck of few is a quick one, though no card was fitted there.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutsideDomainWarning)
        text = spice_deck(card, pair[0], codes, conductance_minus_s=other, clamp=clamp)
        if isinstance(tile, TiedTile):
            response = tile.respond(pair[0], codes, conductance_minus_s=pair[1], clamp=clamp, mode="conventional")
        else:
            response = tile.respond(pair[0], codes, clamp=clamp, mode="conventional")
    body = "\n".join(line for line in text.splitlines()[1:] if not line.startswith(".meas")) + "\n"
    begun = time.perf_counter()
    waves = run(Deck("export", body, (), expected_cpu_s=max(5.0, rows / 3)))
    seconds = time.perf_counter() - begun
    current, expected = waves.slot_means("i(vline)", LEAD_S + response.slot_edge_s), response.current_a[0, 0]
    off = (current - expected) / np.abs(expected).max()
    charge = float((current - expected).sum() / np.abs(expected).sum())
    phase = phase_off = None
    if response.phase_count is not None:
        bias = 0 if response.bias_counts is None else int(response.bias_counts.sum())
        phase = float(response.phase_count[0, 0])
        phase_off = float(waves["v(phase)"][-1]) - bias - phase
    return SpiceAgreement(rows, clamp, charge, float(np.abs(off).max()), phase, phase_off, len(waves.time_s), seconds)


def main(arguments: list[str]) -> None:
    """Print how far a line of the card's SPICE export is from the card in ngspice. Raises as `spice_agreement`."""
    parser = Arguments(modes=True, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--clamp", choices=("ideal", "ota"), default="ideal")
    parser.add_argument("--g-max", type=float, default=1e6 * G_MAX_S, help="largest conductance [uS] (%(default)g)")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.read(arguments)
    card = find_card(given.card)
    print(spice_agreement(card, rows=given.rows, clamp=given.clamp, g_max_s=given.g_max * 1e-6, seed=given.seed))


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
