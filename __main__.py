"""The command line: `aimcard calibrate`, `simulate`, `validate`, `show`, `export`."""

# No annotations import: cyclopts reads the real types. No torch, matplotlib or aimcard's own modules up here:
# `aimcard --help` takes a fraction of a second.
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from aimcard import __version__

if TYPE_CHECKING:
    from aimcard.calibrate.plan import Options

app = App(
    name="aimcard",
    version=__version__,
    help="Analog in-memory-computing tiles: from a transistor-level circuit to a model card to torch.",
    help_epilogue="Errors are one line on stderr and exit status 2. Where a CARD is asked for, the name of a "
    "shipped card (freepdk45_gated) does as well as a file.",
    # Ctrl-C is handled below: cyclopts would leave without a word.
    suppress_keyboard_interrupt=False,
)


def _help(text: str, **options: Any) -> Parameter:
    return Parameter(help=text, negative="", **options)


CardName = Annotated[str, _help("File or name of a model card.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What to simulate; None takes the default of `aimcard.calibrate.plan.Options`."""

    technology: Annotated[str | None, _help("Transistor technology (default: freepdk45).")] = None
    corner: Annotated[str | None, _help("Process corner: nom, ff or ss in freepdk45 (default: nom).")] = None
    topology: Annotated[
        str | None, _help("Column: gated (idle cells float) or tied (four-quadrant, always connected; default: gated).")
    ] = None
    temperature: Annotated[float | None, _help("Temperature in degrees Celsius (default: 27).")] = None
    w_select: Annotated[
        float | None, _help("Drawn width of the select transistors in µm (default: the range 0.3 to 0.5).")
    ] = None
    columns: Annotated[int | None, _help("How many held-out columns judge the card.")] = None
    jobs: Annotated[int | None, _help("ngspice processes at a time (default: all cores).")] = None
    seed: Annotated[int | None, _help("Seed of conductances and codes (default: 1).")] = None
    quick: Annotated[bool, _help("A small calibration, at most 3 minutes on 2 cores.")] = False
    full: Annotated[bool, _help("As many columns as a card for others needs; hours on 2 cores.")] = False

    def given(self) -> dict[str, Any]:
        """The options that were set, by their names on the command line."""
        return {key: value for key, value in vars(self).items() if value is not None and value is not False}


@app.command
def calibrate(
    *,
    simulation: Simulation = Simulation(),
    from_: Annotated[
        Path | None, _help("Read this reference set and simulate nothing.", name="--from")
    ] = None,
    out: Annotated[Path, _help("File of the card.")] = Path("card.h5"),
) -> None:
    """Simulate columns in ngspice, fit the fast model, judge it on held-out columns and write the model card.

    Also writes figures and, unless --from is given, the reference set that the simulations made, next to OUT.
    """
    from aimcard.models.errors import InputError

    out = _output("--out", out)
    if from_ is not None and (given := simulation.given()):
        flag = "--" + next(iter(given)).replace("_", "-")
        raise InputError(f"--from: nothing is simulated then, so expected no {flag}; leave one of them out")
    options = None if from_ is not None else _options(simulation)
    from aimcard.calibrate.main_job import beside, calibrate_to, simulate_to
    from aimcard.data.reference import ReferenceSet

    if options is None:
        assert from_ is not None
        reference = ReferenceSet.read(from_)
    else:
        reference = simulate_to(beside(out, ".reference.h5"), options, _say)
    print(calibrate_to(out, reference, _say)[1])


@app.command
def simulate(
    *,
    out: Annotated[Path, _help("File of the reference set.")],
    simulation: Simulation = Simulation(),
) -> None:
    """Simulate in ngspice and write the reference set; `aimcard calibrate --from` goes on from there."""
    target, options = _output("--out", out), _options(simulation)
    from aimcard.calibrate.main_job import simulate_to

    print(simulate_to(target, options, _say))


@app.command
def validate(
    card: CardName,
    *,
    against: Annotated[
        Path | None, _help("Reference set (default: the shipped one of the card's technology and corner).")
    ] = None,
    json: Annotated[Path | None, _help("Write the figures of merit to this file too.")] = None,
    figures: Annotated[
        Path | None, _help("Draw parity, residuals, overlays and tables into this folder.")
    ] = None,
) -> None:
    """Compare a card with the held-out columns of a reference set."""
    from aimcard.calibrate.main_job import compare, draw
    from aimcard.data.reference import ReferenceSet
    from aimcard.data.shipped import find_card, reference_for

    target = None if json is None else _output("--json", json)
    model = find_card(card)
    reference = reference_for(model) if against is None else ReferenceSet.read(against)
    result = compare(model, reference)
    if target is not None:
        result.write_json(target)
        _say(f"figures of merit: {target}")
    if figures is not None:
        draw(model, reference, result, figures, _say)
    print(result)


@app.command
def show(card: CardName) -> None:
    """Print a card: parameters with errors, tables, validity domain, decisions, validation."""
    from aimcard.data.shipped import find_card

    print(find_card(card))


@app.command
def export(
    card: CardName,
    *,
    to: Annotated[str, _help("Form: json.")],
    out: Annotated[Path | None, _help("File to write (default: standard output).")] = None,
) -> None:
    """Turn a card into the form of another program, and say what that form cannot carry."""
    from aimcard.data.shipped import find_card
    from aimcard.models.export import export as export_card

    target = None if out is None else _output("--out", out)
    exported = export_card(find_card(card), to)
    if target is None:
        print(exported.text, end="")
    else:
        _write_text(target, exported.text)
    for part in exported.left_out:
        _say(f"not in the {to}: {part}")


def _options(simulation: Simulation) -> "Options":
    from aimcard.calibrate.plan import Options
    from aimcard.models.checks import check_choice
    from aimcard.models.errors import InputError
    from aimcard.netlists.technology import get_technology

    given = simulation.given()
    quick, full = given.pop("quick", False), given.pop("full", False)
    if quick and full:
        raise InputError("--quick, --full: expected one of them; got both")
    technology = get_technology(given.get("technology", Options.technology))
    check_choice("corner", given.get("corner", Options.corner), technology.corners)
    names = {"temperature": "temperature_c", "w_select": "w_select_um"}
    effort = "quick" if quick else "full" if full else Options.effort
    return Options(effort=effort, **{names.get(key, key): value for key, value in given.items()})


def _output(option: str, path: Path) -> Path:
    """A path that can be written; said before the work starts, not after it."""
    from aimcard.models.errors import InputError

    if path.is_dir():
        raise InputError(f"{option}: expected a file to write; got the folder {path}")
    if not path.parent.is_dir():
        raise InputError(
            f"{option}: expected a file in an existing folder; got {path}; make the folder first"
        )
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{option}: expected a folder that can be written; got {path.parent}")
    return path


def _write_text(path: Path, text: str) -> None:
    from aimcard.models.h5 import write_bytes

    write_bytes(path, text.encode())
    _say(f"written: {path}")


def _say(text: str) -> None:
    print(f"aimcard: {' '.join(text.split())}", file=sys.stderr, flush=True)


def _set_warnings() -> None:
    """Warnings become one line each, once; those for programmers stay with `python -W`."""
    said: set[str] = set()

    def say(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            _say(f"warning: {message}")

    warnings.showwarning = say
    if not sys.warnoptions:
        warnings.simplefilter("default")
        for category in (DeprecationWarning, PendingDeprecationWarning, SyntaxWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 2 after an error, 130 after Ctrl-C."""
    from aimcard.models.errors import AimcardError

    tokens = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        _set_warnings()
        try:
            app(tokens, print_error=False, exit_on_error=False, result_action="return_value")
            sys.stdout.flush()
        except (AimcardError, CycloptsError) as error:
            _say(f"error: {error}")
            return 2
        except BrokenPipeError:
            # The reader of our output has seen enough (`aimcard show card.h5 | head`).
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            _say(f"error: {error.filename or 'file'}: {error.strerror or error}")
            return 2
        except KeyboardInterrupt:
            _say("interrupted; finished simulations are kept, the same command goes on from there")
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
