"""What all commands of the command line share: help texts of options, where output goes, what is said on the way."""

# No annotations import: cyclopts reads the real types. No torch up here: `aimcard --help` takes a fraction of a second.
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter


def option_help(text: str, **options: Any) -> Parameter:
    """An option's help text; a switch has no ``--no-`` form."""
    return Parameter(help=text, negative="", **options)


CardName = Annotated[str, option_help("File or name of a model card.")]


def output_file(option: str, path: Path) -> Path:
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


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, and say so."""
    from aimcard.models.h5 import write_bytes

    write_bytes(path, text.encode())
    say(f"written: {path}")


def run_module(main: Callable[[list[str]], None], arguments: list[str]) -> int:
    """Exit status of ``python -m`` on one of our modules: errors are one line on standard error and status 2."""
    from aimcard.models.errors import AimcardError

    try:
        main(arguments)
    except AimcardError as error:
        say(f"error: {error}")
        return 2
    return 0


def say(text: str) -> None:
    """One line on standard error."""
    print(f"aimcard: {' '.join(text.split())}", file=sys.stderr, flush=True)
