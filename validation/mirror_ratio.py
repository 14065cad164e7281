"""What another mirror ratio would do to a mode's counts: an estimate from a card, no circuit of that ratio is simulated.

``python -m aimcard.validation.mirror_ratio CARD --times 2 --mode split``: the mirror gives that many times the current at every
line current, the oscillator's rate is its own at that current. Left out: what fewer diodes change in the ratio's error, in the
regulator's headroom and in its steps (``python -m aimcard.netlists.readout_report`` simulates those).
"""

from __future__ import annotations

import sys

import attrs
import numpy as np

from aimcard.data.shipped import find_card
from aimcard.models.adc import PHASE_RULES
from aimcard.models.card import Card
from aimcard.models.card_text import rows_of_text
from aimcard.models.checks import check_positive
from aimcard.models.console import Arguments, run_module
from aimcard.models.errors import InputError
from aimcard.models.modes import Mode, get_mode
from aimcard.models.tied_tile import TiedTile
from aimcard.models.topology import tile_of
from aimcard.validation.mode_counts import count_error, drawn_inputs, sign_phases


def with_mirror(card: Card, times: float) -> Card:
    """The card with ``times`` the mirror's current. Its count table ends where the rate is no longer known.

    Raises InputError if ``times`` is not above 0, or takes even the idle line's current off the table.
    """
    check_positive("times", times)
    mirror, adc = card.table("mirror"), card.table("adc")
    mirrored = np.interp(adc.x, mirror.x, mirror.y)
    known = (times * mirrored >= mirrored[0]) & (times * mirrored <= mirrored[-1])
    if known.sum() < 4 or not known[np.abs(adc.x).argmin()]:
        raise InputError(f"times: expected a factor that keeps the line's current within the oscillator's table; got {times:g}")
    rate = np.interp(times * mirrored[known], mirrored, adc.y)
    changed = {"adc": attrs.evolve(adc, x=adc.x[known], y=rate), "mirror": attrs.evolve(mirror, y=times * mirror.y)}
    return attrs.evolve(card, tables=tuple(changed.get(t.name, t) for t in card.tables))


def peak(card: Card, mode: Mode) -> float:
    """Largest line current [A] of the tile that ``count_error`` draws."""
    tile, x = tile_of(card), drawn_inputs(card, 4, 8)
    if isinstance(tile, TiedTile):
        return float(tile.respond(x.plus_s, x.codes, conductance_minus_s=x.minus_s, clamp="ota", mode=mode).current_a.max())
    out = tile.respond(np.concatenate([x.plus_s, x.minus_s]), np.concatenate(sign_phases(x.codes)), clamp="ota", mode=mode)
    return float(out.current_a.max())


def ratio_table(card: Card, times: float, mode: Mode) -> str:
    """Both cards' counts in the mode, under each rule of the ring: one line a card, rule and sign of the inputs."""
    rows: list[tuple[str, ...]] = [
        ("mirror current", "inputs", "ring", "σ_MAC [counts]", "truncation, % of σ", "even fractions", "ε_MAC %", "+ code curve")
    ]
    for label, one in (("as fitted", card), (f"times {times:g}", with_mirror(card, times))):
        for inputs, signed in (("signed", True), ("one sign", False)):
            for rule in PHASE_RULES if len(mode.phases) > 1 else PHASE_RULES[:1]:
                c = count_error(one, mode, rule, signed=signed)
                rows.append((label, inputs, rule, f"{c.sigma:.3g}", f"{c.truncation:.2f}", f"{c.expected:.2f}",
                             f"{c.plain.eps:.2f}", f"{c.curve.eps:.2f}"))  # fmt: skip
    return "\n".join(rows_of_text(rows))


def _main(arguments: list[str]) -> None:
    parser = Arguments(prog="python -m aimcard.validation.mirror_ratio", description=__doc__)
    parser.add_argument("card", help="file or name of a model card with a read-out")
    parser.add_argument("--times", type=float, default=2.0, help="mirror current over that of the card's own ratio")
    parser.add_argument("--mode", default="split", help="PWM mode (default: split)")
    given = parser.read(arguments)
    card = find_card(given.card)
    tile = tile_of(card)
    if not tile.has_readout:
        raise InputError(f"{card.source}: expected a card with a read-out; got one without counts; calibrate with it")
    mode = get_mode(given.mode, tile.code_max)
    most, end = peak(card, mode), with_mirror(card, given.times).table("adc").x[-1]
    print(ratio_table(card, given.times, mode))
    print(f"lines draw up to {1e6 * most:.3g} uA in {mode.name}; the rate is known up to {1e6 * end:.3g} uA")


if __name__ == "__main__":
    sys.exit(run_module(_main, sys.argv[1:]))
