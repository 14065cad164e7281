"""A sweep: one card for every corner, temperature and supply, in a folder from which a killed sweep goes on."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import attrs

import aimcard
from aimcard.calibrate.plan import Options, plan
from aimcard.models.card import Card
from aimcard.models.card_set import CardSet
from aimcard.models.errors import CardError, InputError
from aimcard.models.h5 import write_bytes

Say = Callable[[str], None]
#: One form of the cell's equation in all cards of a set: others would leave parameters that mean different things.
APPARENT_WEIGHT = "rational"
#: Currents that share the read-out's responses into parts: with a few columns their fits end anywhere (0.3 uA in one
#: corner, 20 uA in another), and what they divide then means something else in every card.
FIXED = ("clamp_half_a", "mirror_half_a")


@dataclass(frozen=True)
class Cell:
    """One card of a sweep: its options, and the files ``<stem>.card.h5``, ``<stem>.reference.h5``, ``<stem>.inputs.json``."""

    options: Options
    folder: Path

    @property
    def stem(self) -> str:
        """Begin of the files' names: corner, temperature and supply."""
        o = self.options
        return f"{o.corner}_{o.temperature_c:g}C_{o.pdk.vdd_v:g}V"

    def file(self, suffix: str) -> Path:
        """The cell's file with this ending, such as ``card.h5``."""
        return self.folder / f"{self.stem}.{suffix}"

    def inputs(self) -> dict[str, Any]:
        """All that decides the card's content: what is simulated, by what, and which aimcard fits it."""
        from aimcard.netlists.ngspice import simulator_version

        o = self.options
        drawn = hashlib.sha256()
        for c in plan(o):
            facts = (c.name, c.role, c.clamp, c.w_select_um, c.position, c.wire_scale)
            drawn.update(repr(facts).encode() + c.conductance_s.tobytes() + c.codes.tobytes())
        return {
            **{f.name: str(getattr(o, f.name)) for f in fields(o) if f.name != "jobs"}, "columns": drawn.hexdigest(),
            "apparent_weight": APPARENT_WEIGHT, "fixed": list(FIXED),
            "models": hashlib.sha256(o.pdk.library(o.corner).read_bytes()).hexdigest(),
            "simulator": simulator_version(), "software_version": aimcard.__version__,
        }  # fmt: skip

    def finished(self) -> Card | None:
        """The card of an earlier run with the same inputs; None if there is none, or it was made from others."""
        try:
            same = json.loads(self.file("inputs.json").read_text()) == self.inputs()
            return Card.read(self.file("card.h5")) if same else None
        except (OSError, ValueError, CardError):
            return None


def texts(option: str, value: str) -> list[str]:
    """The parts of "nom,ff,ss"; InputError if there is none."""
    found = [part.strip() for part in value.split(",") if part.strip()]
    if not found:
        raise InputError(f"{option}: expected one or more values with commas between; got {value!r}")
    return found


def numbers(option: str, value: str) -> list[float]:
    """The numbers of "0,27,85"; InputError for what is none."""
    try:
        return [float(part) for part in texts(option, value)]
    except ValueError:
        raise InputError(f"{option}: expected numbers with commas between; got {value!r}") from None


def cells(
    base: Options, corners: Sequence[str], temperatures_c: Sequence[float], vdds_v: Sequence[float], folder: str | Path
) -> list[Cell]:
    """Every combination, each checked before anything runs; ``vdds_v`` empty takes the technology's own supply.

    Raises InputError or TechnologyError for a corner, temperature or supply that the technology does not have, or
    if a value is given twice; InputError if ``folder`` is a file.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise InputError(f"--out: expected a folder for the cards of the sweep; got the file {path}")
    if not path.parent.is_dir():
        raise InputError(f"--out: expected a folder inside an existing one; got {path}; make {path.parent} first")
    for name, values in (("corners", corners), ("temperatures", temperatures_c), ("vdds", vdds_v)):
        if len(set(values)) != len(values):
            raise InputError(f"--{name}: expected each value once; got {', '.join(map(str, values))}")
    supplies: Sequence[float | None] = vdds_v or (None,)
    return [
        Cell(replace(base, corner=c, temperature_c=float(t), vdd_v=v), path)
        for v, c, t in itertools.product(supplies, corners, temperatures_c)
    ]


def sweep(todo: Sequence[Cell], say: Say) -> CardSet:
    """Simulate, fit and judge every cell that is not finished yet, and return the set of all cards.

    A cell's inputs are written last: whatever a killed sweep left is kept only if it is whole. Raises as
    `simulate` and `calibrate`; finished cells stay.
    """
    cards = []
    for k, cell in enumerate(todo, 1):
        cell.folder.mkdir(exist_ok=True)
        card = cell.finished()
        kept = " (kept)" if card is not None else ""
        say(f"card {k} of {len(todo)}: {cell.stem}{kept}")
        cards.append(card if card is not None else _run(cell))
    return CardSet(cards, source=str(todo[0].folder))


def _run(cell: Cell) -> Card:
    from aimcard.calibrate.pipeline import calibrate
    from aimcard.calibrate.simulate import simulate
    from aimcard.validation.report import validate

    cell.file("inputs.json").unlink(missing_ok=True)
    # Rounded as the file is, so that calibrating from the file gives the same card.
    reference = simulate(cell.options).rounded()
    reference.write(cell.file("reference.h5"), compact=True)
    card = calibrate(reference, apparent_weight=APPARENT_WEIGHT, fixed=FIXED)
    card = attrs.evolve(card, validation=validate(card, reference).for_card(), source=str(cell.file("card.h5")))
    card.write(cell.file("card.h5"))
    write_bytes(cell.file("inputs.json"), (json.dumps(cell.inputs(), indent=2) + "\n").encode())
    return card
