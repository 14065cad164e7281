"""Commands that simulate and calibrate: `aimcard calibrate`, `simulate`, `sweep`, `statistics`."""

# No annotations import: cyclopts reads the real types. Imports that take time are inside the commands.
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from aimcard.models.console import CardName, ModeFile, load_modes, option_help, output_file, say

if TYPE_CHECKING:
    from aimcard.calibrate.plan import Options


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Design:
    """What a sweep simulates at every corner, temperature and supply; None takes the default of `calibrate.plan.Options`."""

    technology: Annotated[str | None, option_help("Transistor technology: freepdk45 or sky130 (default: freepdk45).")] = None
    topology: Annotated[
        str | None, option_help("Column: gated (idle cells float) or tied (four-quadrant, always connected; default: gated).")
    ] = None
    w_select: Annotated[
        float | None, option_help("Drawn width of the select transistors in µm (default: 0.3 to 0.5, sky130 1.0).")
    ] = None
    lsb_ns: Annotated[
        float | None, option_help("LSB of the pulses in ns (default: what the read-out follows, 1 in freepdk45, 4 in sky130).")
    ] = None
    mirror_ratio: Annotated[
        float | None,
        option_help("Line current over the oscillator's, a whole number; less counts more (default: 8, sky130 6)."),
    ] = None
    mode: Annotated[
        str | None, option_help("PWM mode: conventional, split, ...; `aimcard modes` lists them (default: conventional).")
    ] = None
    held_out_columns: Annotated[int | None, option_help("How many held-out columns judge the card.")] = None
    jobs: Annotated[int | None, option_help("ngspice processes at a time (default: all cores).")] = None
    seed: Annotated[int | None, option_help("Seed of conductances and codes (default: 1).")] = None
    quick: Annotated[bool, option_help("A small calibration, at most 3 minutes on 2 cores.")] = False
    full: Annotated[bool, option_help("As many columns as a card for others needs; half an hour and more on 2 cores.")] = False

    def given(self) -> dict[str, Any]:
        """The options that were set, by their names on the command line."""
        return {key: value for key, value in vars(self).items() if value is not None and value is not False}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Simulation(Design):
    """What to simulate, at one corner, temperature and supply."""

    corner: Annotated[str | None, option_help("Process corner: nom, ff or ss; sky130 has fs and sf too (default: nom).")] = None
    temperature: Annotated[float | None, option_help("Temperature in degrees Celsius (default: 27).")] = None
    vdd: Annotated[float | None, option_help("Supply voltage in V (default: the technology's own).")] = None


def calibrate(
    *,
    simulation: Simulation = Simulation(),
    from_: Annotated[
        Path | None, option_help("Read this reference set and simulate nothing.", name="--from")
    ] = None,
    out: Annotated[Path, option_help("File of the card.")] = Path("card.h5"),
    mode_file: ModeFile = None,
) -> None:
    """Simulate columns in ngspice, fit the fast model, judge it on held-out columns and write the model card.

    Also writes figures and, unless --from is given, the reference set that the simulations made, next to OUT.
    """
    load_modes(mode_file)
    from aimcard.models.errors import InputError

    out = output_file("--out", out)
    if from_ is not None and (given := simulation.given()):
        flag = "--" + next(iter(given)).replace("_", "-")
        raise InputError(f"--from: nothing is simulated then, so expected no {flag}; leave one of them out")
    options = None if from_ is not None else simulation_options(simulation)
    from aimcard.calibrate.main_job import beside, calibrate_to, simulate_to
    from aimcard.data.reference import ReferenceSet

    if options is None:
        assert from_ is not None
        reference = ReferenceSet.read(from_)
    else:
        reference = simulate_to(beside(out, ".reference.h5"), options, say)
    print(calibrate_to(out, reference, say)[1])


def simulate(
    *,
    out: Annotated[Path, option_help("File of the reference set.")],
    simulation: Simulation = Simulation(),
    held_out_only: Annotated[
        bool, option_help("Only columns that judge a card, none to fit; with another --seed they are new to it.")
    ] = False,
    mode_file: ModeFile = None,
) -> None:
    """Simulate in ngspice and write the reference set; `aimcard calibrate --from` goes on from there."""
    load_modes(mode_file)
    target, options = output_file("--out", out), simulation_options(simulation)
    from dataclasses import replace

    from aimcard.calibrate.main_job import simulate_to

    options = replace(options, held_out_only=held_out_only)

    print(simulate_to(target, options, say))


def sweep(
    *,
    corners: Annotated[str, option_help("Corners with commas between: nom,ff,ss.")],
    temperatures: Annotated[str, option_help("Temperatures in degrees Celsius: 0,27,85 (below zero: --temperatures=-40,27).")],
    vdds: Annotated[str | None, option_help("Supply voltages in V (default: the technology's own).")] = None,
    design: Design = Design(),
    out: Annotated[Path, option_help("Folder of the cards; finished ones with the same inputs are kept.")],
    mode_file: ModeFile = None,
) -> None:
    """Calibrate a card for every corner, temperature and supply (by default smaller than --quick), and draw them."""
    load_modes(mode_file)
    base = simulation_options(design, effort="sweep")
    from aimcard.calibrate.main_job import sweep_to

    print(sweep_to(out, base, corners, temperatures, vdds, say))


def statistics(
    card: CardName,
    /,
    *,
    out: Annotated[Path, option_help("File of the new card.")],
    chips: Annotated[int, option_help("Read-outs with drawn thresholds that mean and covariance come from.")] = 60,
    held_out_chips: Annotated[int, option_help("Other chips, simulated with a whole line each, that judge them (0: none).")] = 0,
    vectors: Annotated[int, option_help("Input vectors of each of these lines: 3, or fewer to have more chips.")] = 3,
    a_vt: Annotated[
        float | None, option_help("Pelgrom constant of one transistor's threshold in mV·µm (default: the technology's).")
    ] = None,
    seed: Annotated[int, option_help("Number of the first chip.")] = 1,
    jobs: Annotated[int | None, option_help("ngspice processes at a time (default: all cores).")] = None,
    json: Annotated[Path | None, option_help("Write the judgement to this file too.")] = None,
    figure: Annotated[Path | None, option_help("Draw the judgement into this PNG file.")] = None,
    mode_file: ModeFile = None,
) -> None:
    """Add mismatch and circuit noise, simulated in ngspice, to an existing card and write the new one."""
    load_modes(mode_file)
    from aimcard.models.errors import InputError

    target = output_file("--out", out)
    results = {option: output_file(option, path) for option, path in (("--json", json), ("--figure", figure)) if path is not None}
    if results and not held_out_chips:
        raise InputError(f"{next(iter(results))}: expected --held-out-chips 8 or more, to judge with; got {held_out_chips}")
    from aimcard.calibrate.statistics import Population, add_statistics
    from aimcard.data.shipped import find_card
    from aimcard.validation.noise_table import noise_table
    from aimcard.validation.population import population_figure
    from aimcard.validation.style import save

    options = Population(chips, held_out_chips, None if a_vt is None else a_vt * 1e-3, seed, vectors=vectors, jobs=jobs)
    made, result = add_statistics(find_card(card), options, say=say)
    made.write(target)
    say(f"card: {target}")
    print(noise_table(made))
    if result is not None:
        if "--json" in results:
            result.write_json(results["--json"])
        if "--figure" in results:
            save(population_figure(result), results["--figure"])
        print(result)


def simulation_options(simulation: Design, effort: str | None = None) -> "Options":
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
