"""Commands on finished cards: `aimcard show`, `export`, `validate`, `modes`, `energy`, `noise`, `interpolate`, `trim`."""

# No annotations import: cyclopts reads the real types. Imports that take time are inside the commands.
from pathlib import Path
from typing import Annotated

from aimcard.models.console import (
    CardName,
    ModeFile,
    load_modes,
    option_help,
    output_file,
    output_folder,
    say,
    write_json,
    write_text,
)


def validate(
    card: CardName,
    /,
    *,
    against: Annotated[
        Path | None, option_help("Reference set (default: the shipped one of the card's technology, topology, corner and mode).")
    ] = None,
    json: Annotated[Path | None, option_help("Write the figures of merit to this file too.")] = None,
    figures: Annotated[
        Path | None, option_help("Draw parity, residuals, overlays and tables into this folder.")
    ] = None,
    mode_file: ModeFile = None,
) -> None:
    """Compare a card with the held-out columns of a reference set."""
    load_modes(mode_file)
    from aimcard.data.reference import ReferenceSet
    from aimcard.data.shipped import find_card, reference_for
    from aimcard.validation.jobs import compare, draw

    target = None if json is None else output_file("--json", json)
    if figures is not None:
        output_folder("--figures", figures)
    model = find_card(card)
    reference = reference_for(model) if against is None else ReferenceSet.read(against)
    result = compare(model, reference)
    if target is not None:
        result.write_json(target)
        say(f"figures of merit: {target}")
    if figures is not None:
        draw(model, reference, result, figures, say)
    print(result)


def modes(
    *cards: Annotated[str, option_help("Files or names of model cards of either topology (default: list the modes only).")],
    against: Annotated[
        tuple[Path, ...],
        option_help("More recorded sets, from `python -m aimcard.calibrate.mode_sets` (default: those that ship)."),
    ] = (),
    mode: Annotated[tuple[str, ...], option_help("Only these modes (default: all).")] = (),
    vectors: Annotated[int, option_help("Input vectors that judge the counts; as many calibrate.")] = 48,
    one_sign: Annotated[
        bool, option_help("Inputs of one sign, which a gated pair reads in one sign phase (default: of either sign, in two).")
    ] = False,
    json: Annotated[Path | None, option_help("Write the table to this file too.")] = None,
    figure: Annotated[Path | None, option_help("Draw ε_MAC against TOPS/W into this PNG file.")] = None,
    mode_file: ModeFile = None,
) -> None:
    """List the PWM modes; with cards, one table of mode by topology: R2, ε_MAC, card against ngspice, energy, TOPS/W."""
    load_modes(mode_file)
    files = {name: None if path is None else output_file(name, path) for name, path in (("--json", json), ("--figure", figure))}
    from aimcard.models.errors import InputError
    from aimcard.models.modes import get_mode
    from aimcard.validation.modes import list_modes

    for name in mode:
        get_mode(name)
    if not cards:
        needing = {**files, "--against": against or None}
        for option in (name for name, given in needing.items() if given is not None):
            raise InputError(f"{option}: expected a card with it; without one the modes are only listed")
        print(list_modes(mode))
        return
    from aimcard.data.reference import ReferenceSet
    from aimcard.data.shipped import find_card
    from aimcard.validation.mode_figure import mode_figure
    from aimcard.validation.mode_table import mode_table
    from aimcard.validation.style import save

    sets = [ReferenceSet.read(path) for path in against]
    table = mode_table([find_card(name) for name in cards], sets, mode, vectors, signed=not one_sign)
    if files["--json"] is not None:
        write_text(files["--json"], table.json_text())
    if files["--figure"] is not None:
        say(f"figure: {save(mode_figure(table), files['--figure'])}")
    print(table)


def energy(
    card: CardName,
    /,
    *,
    tile_columns: Annotated[int, option_help("Columns of the tile (pairs of lines).")] = 512,
    mode: Annotated[tuple[str, ...], option_help("PWM modes to compare (default: all).")] = (),
    against: Annotated[Path | None, option_help("Reference set whose recorded supplies the card is compared with.")] = None,
    json: Annotated[Path | None, option_help("Write the figures to this file too.")] = None,
    mode_file: ModeFile = None,
) -> None:
    """Energy of one matrix-vector product by part, and TOPS/W with what it counts."""
    load_modes(mode_file)
    from aimcard.data.reference import ReferenceSet
    from aimcard.data.shipped import find_card
    from aimcard.models.checks import check_positive
    from aimcard.models.modes import mode_names
    from aimcard.validation.energy import energy_study, energy_table, supply_errors

    target = None if json is None else output_file("--json", json)
    check_positive("--tile-columns", tile_columns)
    model = find_card(card)
    studies = [energy_study(model, name, columns=tile_columns) for name in mode or mode_names()]
    print(energy_table(studies))
    errors = [] if against is None else supply_errors(model, ReferenceSet.read(against))
    for part in dict.fromkeys(part for _, part, *_ in errors):
        found = [(median, worst) for _, name, median, worst in errors if name == part]
        print(f"{part}: {len(found)} recorded columns, median error {sorted(m for m, _ in found)[len(found) // 2]:.2%}, "
              f"worst {max(w for _, w in found):.2%}")  # fmt: skip
    if target is not None:
        keys = ("record", "part", "median_error", "worst_error")
        rows = [dict(zip(keys, row, strict=True)) for row in errors]
        write_json(target, {"studies": [study.to_json() for study in studies], "supplies": rows})


def noise(
    card: CardName,
    /,
    *,
    mode: Annotated[str | None, option_help("PWM mode (default: the card's own).")] = None,
    phase_rule: Annotated[
        str | None, option_help("What a phase boundary does to the ring's fraction: reset or carry (default: the card's own).")
    ] = None,
    rows: Annotated[int | None, option_help("Rows of the line (default: the card's).")] = None,
    jitter: Annotated[float, option_help("Jitter of each clock edge in ps.")] = 1.0,
    lowest: Annotated[float, option_help("Slowest noise that counts, in Hz: how often the tile is calibrated again.")] = 1.0,
    mode_file: ModeFile = None,
) -> None:
    """Print the standard deviation of a typical line's weighted count by source, in a PWM mode, from a card with noise."""
    load_modes(mode_file)
    from aimcard.data.shipped import find_card
    from aimcard.validation.noise_table import noise_table

    how = {"mode": mode, "phase_rule": phase_rule, "jitter_s": jitter * 1e-12, "lowest_hz": lowest}
    print(noise_table(find_card(card), rows=rows, **how))


def interpolate(
    cards: Annotated[Path, option_help("Folder of a sweep's cards.")],
    *,
    temperature: Annotated[float, option_help("Temperature in degrees Celsius, within those of the cards.")],
    corner: Annotated[str | None, option_help("Corner (needed if the cards have several).")] = None,
    vdd: Annotated[float | None, option_help("Supply voltage in V (needed if the cards have several).")] = None,
    out: Annotated[Path | None, option_help("File of the card between the cards.")] = None,
    held_out: Annotated[
        bool, option_help("Leave the card at this temperature out, and judge the one in between beside it.")
    ] = False,
    laws: Annotated[bool, option_help("With --held-out: compare the laws of interpolation too.")] = False,
    json: Annotated[Path | None, option_help("With --held-out: write the comparison to this file too.")] = None,
    mode_file: ModeFile = None,
) -> None:
    """Make a card between the temperatures of a sweep's cards, of one corner; or judge such a card."""
    load_modes(mode_file)
    from aimcard.models.errors import InputError

    files = {name: None if path is None else output_file(name, path) for name, path in (("--out", out), ("--json", json))}
    if not held_out and (laws or json is not None):
        raise InputError(f"{'--laws' if laws else '--json'}: expected --held-out with it; add that")
    from aimcard.validation.jobs import between, judge_between

    where = (cards, temperature, corner, vdd, files["--out"])
    print(judge_between(*where, files["--json"], laws, say) if held_out else between(*where, say))


def trim(
    card: CardName,
    /,
    *,
    nominal: Annotated[
        str | None, option_help("Card that the digital side knows (default: the shipped one of CARD's technology, topology).")
    ] = None,
    against: Annotated[Path | None, option_help("Reference set of CARD: its simulated columns are trimmed too.")] = None,
    full_scale: Annotated[float | None, option_help("Line current in uA to which the ADCs are compared.")] = None,
    second: Annotated[float | None, option_help("Second trim current in uA (default: half of full scale).")] = None,
    json: Annotated[Path | None, option_help("Write the figures to this file too.")] = None,
    figure: Annotated[Path | None, option_help("Draw the error over the current into this PNG file.")] = None,
    mode_file: ModeFile = None,
) -> None:
    """What a card's ADC is off by if read as a nominal one, before and after a two-point digital trim."""
    load_modes(mode_file)
    files = {name: None if path is None else output_file(name, path) for name, path in (("--json", json), ("--figure", figure))}
    from aimcard.validation.jobs import trim_to

    full_scale_a, second_a = (None if v is None else v * 1e-6 for v in (full_scale, second))
    print(trim_to(card, nominal, against, full_scale_a, second_a, files["--json"], files["--figure"], say))


def show(card: CardName, /, *, mode_file: ModeFile = None) -> None:
    """Print a card: parameters with errors, tables, validity domain, decisions, validation."""
    load_modes(mode_file)
    from aimcard.data.shipped import find_card

    print(find_card(card))


def export(
    card: CardName,
    /,
    *,
    to: Annotated[str, option_help("Form: json, csv, spice or aihwkit.")],
    out: Annotated[Path | None, option_help("File to write (default: standard output).")] = None,
    mode_file: ModeFile = None,
) -> None:
    """Turn a card into the form of another program, and say what that form cannot carry."""
    load_modes(mode_file)
    from aimcard.data.shipped import find_card
    from aimcard.models.export import export as export_card

    target = None if out is None else output_file("--out", out)
    exported = export_card(find_card(card), to)
    if target is None:
        print(exported.text, end="")
    else:
        write_text(target, exported.text)
    for part in exported.left_out:
        say(f"not in the {to}: {part}")
