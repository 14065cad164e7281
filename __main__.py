"""The command line: `aimcard calibrate`, `simulate`, `validate`, `statistics`, `noise`, `show`, `export`."""

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

    technology: Annotated[str | None, _help("Transistor technology: freepdk45 or sky130 (default: freepdk45).")] = None
    corner: Annotated[str | None, _help("Process corner: nom, ff or ss; sky130 has fs and sf too (default: nom).")] = None
    topology: Annotated[
        str | None, _help("Column: gated (idle cells float) or tied (four-quadrant, always connected; default: gated).")
    ] = None
    temperature: Annotated[float | None, _help("Temperature in degrees Celsius (default: 27).")] = None
    vdd: Annotated[float | None, _help("Supply voltage in V (default: the technology's own).")] = None
    w_select: Annotated[
        float | None, _help("Drawn width of the select transistors in µm (default: 0.3 to 0.5, sky130 1.0).")
    ] = None
    lsb_ns: Annotated[
        float | None, _help("LSB of the pulses in ns (default: what the read-out follows, 1 in freepdk45, 4 in sky130).")
    ] = None
    mode: Annotated[
        str | None, _help("PWM mode: conventional, split, bitwise, ...; `aimcard modes` lists them (default: conventional).")
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
def statistics(
    card: CardName,
    *,
    out: Annotated[Path, _help("File of the new card.")],
    chips: Annotated[int, _help("Read-outs with drawn thresholds that mean and covariance come from.")] = 60,
    columns: Annotated[int, _help("Other chips, simulated with a whole line each, that judge them (0: none).")] = 0,
    a_vt: Annotated[
        float | None, _help("Pelgrom constant of one transistor's threshold in mV·µm (default: the technology's).")
    ] = None,
    seed: Annotated[int, _help("Number of the first chip.")] = 1,
    jobs: Annotated[int | None, _help("ngspice processes at a time (default: all cores).")] = None,
    json: Annotated[Path | None, _help("Write the judgement to this file too.")] = None,
    figure: Annotated[Path | None, _help("Draw the judgement into this PNG file.")] = None,
) -> None:
    """Add mismatch and circuit noise, simulated in ngspice, to an existing card and write the new one."""
    from aimcard.models.errors import InputError

    target = _output("--out", out)
    results = {option: _output(option, path) for option, path in (("--json", json), ("--figure", figure)) if path is not None}
    if results and not columns:
        raise InputError(f"{next(iter(results))}: expected --columns 8 or more, chips to judge with; got {columns}")
    from aimcard.calibrate.statistics import Population, add_statistics
    from aimcard.data.shipped import find_card
    from aimcard.validation.noise_table import noise_table
    from aimcard.validation.population import population_figure
    from aimcard.validation.style import save

    options = Population(chips, columns, None if a_vt is None else a_vt * 1e-3, seed, jobs=jobs)
    made, result = add_statistics(find_card(card), options, say=_say)
    made.write(target)
    _say(f"card: {target}")
    print(noise_table(made))
    if result is not None:
        if "--json" in results:
            result.write_json(results["--json"])
        if "--figure" in results:
            save(population_figure(result), results["--figure"])
        print(result)


@app.command
def noise(
    card: CardName,
    *,
    rows: Annotated[int | None, _help("Rows of the line (default: the card's).")] = None,
    jitter: Annotated[float, _help("Jitter of each clock edge in ps.")] = 1.0,
    lowest: Annotated[float, _help("Slowest noise that counts, in Hz: how often the tile is calibrated again.")] = 1.0,
) -> None:
    """Print the standard deviation of a typical line's count by source, from a card with noise."""
    from aimcard.data.shipped import find_card
    from aimcard.validation.noise_table import noise_table

    print(noise_table(find_card(card), rows=rows, jitter_s=jitter * 1e-12, lowest_hz=lowest))


@app.command
def sweep(
    *,
    corners: Annotated[str, _help("Corners with commas between: nom,ff,ss.")],
    temperatures: Annotated[str, _help("Temperatures in degrees Celsius: 0,27,85 (below zero: --temperatures=-40,27).")],
    vdds: Annotated[str | None, _help("Supply voltages in V (default: the technology's own).")] = None,
    simulation: Simulation = Simulation(),
    out: Annotated[Path, _help("Folder of the cards; finished ones with the same inputs are kept.")],
) -> None:
    """Calibrate a card for every corner, temperature and supply (by default smaller than --quick), and draw them."""
    from aimcard.models.errors import InputError

    if single := {"corner", "temperature", "vdd"} & set(simulation.given()):
        raise InputError(f"--{min(single)}: a sweep takes several; expected --{min(single)}s")
    base = _options(simulation, effort="sweep")
    from aimcard.calibrate.corner_job import sweep_to

    print(sweep_to(out, base, corners, temperatures, vdds, _say))


@app.command
def interpolate(
    cards: Annotated[Path, _help("Folder of a sweep's cards.")],
    *,
    temperature: Annotated[float, _help("Temperature in degrees Celsius, within those of the cards.")],
    corner: Annotated[str | None, _help("Corner (needed if the cards have several).")] = None,
    vdd: Annotated[float | None, _help("Supply voltage in V (needed if the cards have several).")] = None,
    out: Annotated[Path | None, _help("File of the card between the cards.")] = None,
    held_out: Annotated[bool, _help("Leave the card at this temperature out, and judge the one in between beside it.")] = False,
    laws: Annotated[bool, _help("With --held-out: compare the laws of interpolation too.")] = False,
    json: Annotated[Path | None, _help("With --held-out: write the comparison to this file too.")] = None,
) -> None:
    """Make a card between the temperatures of a sweep's cards, of one corner; or judge such a card."""
    from aimcard.models.errors import InputError

    files = {name: None if path is None else _output(name, path) for name, path in (("--out", out), ("--json", json))}
    if not held_out and (laws or json is not None):
        raise InputError(f"{'--laws' if laws else '--json'}: expected --held-out with it; add that")
    from aimcard.calibrate.corner_job import between, judge_between

    where = (cards, temperature, corner, vdd, files["--out"])
    print(judge_between(*where, files["--json"], laws, _say) if held_out else between(*where, _say))


@app.command
def trim(
    card: CardName,
    *,
    nominal: Annotated[str, _help("Card that the digital side knows.")] = "freepdk45_gated",
    against: Annotated[Path | None, _help("Reference set of CARD: its simulated columns are trimmed too.")] = None,
    full_scale: Annotated[float | None, _help("Line current in uA to which the ADCs are compared.")] = None,
    second: Annotated[float | None, _help("Second trim current in uA (default: half of full scale).")] = None,
    json: Annotated[Path | None, _help("Write the figures to this file too.")] = None,
    figure: Annotated[Path | None, _help("Draw the error over the current into this PNG file.")] = None,
) -> None:
    """What a card's ADC is off by if read as a nominal one, before and after a two-point digital trim."""
    files = {name: None if path is None else _output(name, path) for name, path in (("--json", json), ("--figure", figure))}
    from aimcard.calibrate.corner_job import trim_to

    limits_a = (v if v is None else v * 1e-6 for v in (full_scale, second))
    print(trim_to(card, nominal, against, *limits_a, files["--json"], files["--figure"], _say))


@app.command
def modes(
    card: Annotated[str | None, _help("File or name of a model card (default: list the modes only).")] = None,
    *,
    against: Annotated[
        tuple[Path, ...], _help("Reference sets in the modes, from `python -m aimcard.calibrate.mode_sets`.")
    ] = (),
    mode: Annotated[tuple[str, ...], _help("Only these modes (default: all).")] = (),
    vectors: Annotated[int, _help("Input vectors for the counts' error.")] = 48,
) -> None:
    """List the PWM modes; with a card, compare predicted and simulated lines, and the counts with the ideal product."""
    from aimcard.validation.modes import compare_modes, list_modes

    if card is None:
        print(list_modes())
        return
    from aimcard.data.reference import ReferenceSet
    from aimcard.data.shipped import find_card

    print(compare_modes(find_card(card), [ReferenceSet.read(path) for path in against], mode, vectors))


@app.command
def show(card: CardName) -> None:
    """Print a card: parameters with errors, tables, validity domain, decisions, validation."""
    from aimcard.data.shipped import find_card

    print(find_card(card))


@app.command
def energy(
    card: CardName,
    *,
    columns: Annotated[int, _help("Columns of the tile (pairs of lines).")] = 512,
    mode: Annotated[tuple[str, ...], _help("PWM modes to compare (default: all).")] = (),
    against: Annotated[Path | None, _help("Reference set whose recorded supplies the card is compared with.")] = None,
    json: Annotated[Path | None, _help("Write the figures to this file too.")] = None,
) -> None:
    """Energy of one matrix-vector product by part, and TOPS/W with what it counts."""
    from json import dumps

    from aimcard.data.reference import ReferenceSet
    from aimcard.data.shipped import find_card
    from aimcard.models.checks import check_positive
    from aimcard.models.modes import mode_names
    from aimcard.validation.energy import energy_study, energy_table, supply_errors

    target = None if json is None else _output("--json", json)
    check_positive("--columns", columns)
    model = find_card(card)
    studies = [energy_study(model, name, columns=columns) for name in mode or mode_names()]
    print(energy_table(studies))
    errors = [] if against is None else supply_errors(model, ReferenceSet.read(against))
    for part in dict.fromkeys(part for _, part, *_ in errors):
        found = [(median, worst) for _, name, median, worst in errors if name == part]
        print(f"{part}: {len(found)} recorded columns, median error {sorted(m for m, _ in found)[len(found) // 2]:.2%}, "
              f"worst {max(w for _, w in found):.2%}")  # fmt: skip
    if target is not None:
        keys = ("record", "part", "median_error", "worst_error")
        rows = [dict(zip(keys, row, strict=True)) for row in errors]
        _write_text(target, dumps({"studies": [study.to_json() for study in studies], "supplies": rows}, indent=2) + "\n")


@app.command
def export(
    card: CardName,
    *,
    to: Annotated[str, _help("Form: json, csv, spice or aihwkit.")],
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


def _options(simulation: Simulation, effort: str | None = None) -> "Options":
    """``effort`` is taken where neither --quick nor --full is given."""
    from aimcard.calibrate.plan import Options
    from aimcard.models.checks import check_choice
    from aimcard.models.errors import InputError
    from aimcard.netlists.technology import get_technology

    given = simulation.given()
    quick, full = given.pop("quick", False), given.pop("full", False)
    if quick and full:
        raise InputError("--quick, --full: expected one of them; got both")
    technology = get_technology(given.get("technology", Options.technology))
    check_choice("corner", technology.corner(given.get("corner", Options.corner)), technology.corners)
    names = {"temperature": "temperature_c", "vdd": "vdd_v", "w_select": "w_select_um"}
    effort = "quick" if quick else "full" if full else effort or Options.effort
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
