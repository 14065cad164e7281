"""The main job from options to files: reference set, card with its figures of merit, drawings."""

from collections.abc import Callable
from pathlib import Path

import attrs

from aimcard.calibrate.plan import Options, estimate
from aimcard.data.reference import ReferenceSet
from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.netlists.ngspice import simulator_version
from aimcard.validation.jobs import compare, draw
from aimcard.validation.report import ValidationResult

Say = Callable[[str], None]


def beside(path: Path, suffix: str) -> Path:
    """`card.h5` and `.reference.h5` make `card.reference.h5` in the same folder."""
    return path.with_name(path.stem + suffix)


def simulate_to(path: Path, options: Options, say: Say) -> ReferenceSet:
    """Simulate what `options` asks for, write the reference set to `path` and return it.

    Raises SimulatorMissingError, SimulationError or ReferenceSetError; `say` gets a line on what comes, and
    one on what was written.
    """
    from aimcard.calibrate.simulate import simulate

    simulator_version()  # without ngspice, its error comes before any promise of a duration
    say(estimate(options))
    # Rounded as the file is, so that calibrating from the file gives the same card.
    reference = simulate(options, progress=True).rounded()
    reference.write(path, compact=True)
    say(f"reference set: {path}")
    return reference


def calibrate_to(path: Path, reference: ReferenceSet, say: Say) -> tuple[Card, ValidationResult]:
    """Fit, judge on held-out columns, write the card to `path` and its figures to `<stem>_figures/`.

    Raises FitError, ReferenceSetError or CardError; the card is written before anything is drawn.
    """
    if path.resolve() == Path(reference.source).resolve():
        raise InputError(f"--out: expected another file than the reference set; got {path}")
    from aimcard.calibrate.pipeline import calibrate

    card = calibrate(reference, progress=True)
    result = compare(card, reference)
    card = attrs.evolve(card, validation=result.for_card())
    card.write(path)
    say(f"card: {path}")
    draw(card, reference, result, beside(path, "_figures"), say)
    return card, result


def sweep_to(folder: Path, base: Options, corners: str, temperatures: str, vdds: str | None, say: Say) -> str:
    """Cards of every combination of "nom,ff", "0,85" and supplies, and their report; its tables as text."""
    from aimcard.calibrate.sweep import cells, numbers, sweep, texts
    from aimcard.validation.sweep_report import write_report

    supplies = [] if vdds is None else numbers("--vdds", vdds)
    todo = cells(base, texts("--corners", corners), numbers("--temperatures", temperatures), supplies, folder)
    return write_report(sweep(todo, say), folder, say)
