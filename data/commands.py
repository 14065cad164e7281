"""Commands that read a card: `aimcard show`, `export`."""

# No annotations import: cyclopts reads the real types. Imports that take time are inside the commands.
from pathlib import Path
from typing import Annotated

from aimcard.models.console import CardName, option_help, output_file, say, write_text


def show(card: CardName) -> None:
    """Print a card: parameters with errors, tables, validity domain, decisions, validation."""
    from aimcard.data.shipped import find_card

    print(find_card(card))


def export(
    card: CardName,
    *,
    to: Annotated[str, option_help("Form: json, csv, spice or aihwkit.")],
    out: Annotated[Path | None, option_help("File to write (default: standard output).")] = None,
) -> None:
    """Turn a card into the form of another program, and say what that form cannot carry."""
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
