"""What all commands of the command line share: help texts of options, where output goes, what is said on the way."""

# No annotations import: cyclopts reads the real types. No torch up here: `aimcard --help` takes a fraction of a second.
import argparse
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

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


class Arguments(argparse.ArgumentParser):
    """Arguments of ``python -m`` on one of our modules: what it refuses is an InputError, for ``run_module`` to print."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # argparse takes -40 for a number, but -40,27 for an option.
        self._negative_number_matcher = re.compile(r"-\d[-+\d.,e]*$")

    def error(self, message: str) -> NoReturn:
        from aimcard.models.errors import InputError

        raise InputError(f"{message}; --help says what is expected")


def number(text: str) -> float:
    """A finite number on the command line; the error is for ``Arguments``."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number; got {text!r}")
    return value


def numbers(text: str) -> list[float]:
    """Finite numbers with commas between."""
    return [number(part) for part in text.split(",")]


def run_module(main: Callable[[list[str]], object], arguments: list[str]) -> int:
    """Exit status of a command: 0; 2 after an error, which is one line on standard error; 130 after Ctrl-C.

    For ``aimcard`` and for ``python -m`` on one of our modules alike.
    """
    from aimcard.models.errors import AimcardError

    try:
        main(arguments)
        sys.stdout.flush()
    except AimcardError as error:
        say(f"error: {error}")
        return 2
    except BrokenPipeError:
        # The reader of our output has seen enough (`aimcard show card.h5 | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        say(f"error: {error.filename or 'file'}: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        say("interrupted; finished simulations are kept, the same command goes on from there")
        return 130
    return 0


def say(text: str) -> None:
    """One line on standard error."""
    print(f"aimcard: {' '.join(text.split())}", file=sys.stderr, flush=True)
