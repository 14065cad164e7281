"""What all commands of the command line share: help texts of options, where output goes, what is said on the way."""

# No annotations import: cyclopts reads the real types. No torch up here: `aimcard --help` takes a fraction of a second.
import argparse
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import Parameter


def option_help(text: str, **options: Any) -> Parameter:
    """An option's help text; a switch has no ``--no-`` form."""
    return Parameter(help=text, negative="", **options)


CardName = Annotated[str, option_help("File or name of a model card.")]
ModeFile = Annotated[Path | None, option_help("Python file that registers PWM modes of your own, run first (docs/modes.md).")]


def load_modes(path: Path | None) -> None:
    """Run the file of ``--mode-file``, which calls ``register_mode``; None does nothing.

    InputError, with the line, for whatever goes wrong in it, and if it registers nothing.
    """
    if path is None:
        return
    import runpy
    import traceback

    from aimcard.models.errors import InputError
    from aimcard.models.modes import mode_names

    if not path.is_file():
        raise InputError(f"--mode-file: expected a Python file that calls register_mode; there is no file {path}")
    before = mode_names()
    try:
        runpy.run_path(str(path))
    except InputError as error:
        raise InputError(f"--mode-file: {path}: {error}") from error
    except (Exception, SystemExit) as error:
        own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = own[-1] if own else getattr(error, "lineno", None)
        where = "" if line is None else f", line {line}"
        raise InputError(f"--mode-file: {path}{where}: {type(error).__name__}: {error}") from error
    if mode_names() == before:
        raise InputError(f"--mode-file: expected a Python file that calls register_mode; {path} registers no mode")


def output_file(option: str, path: Path) -> Path:
    """A path that can be written; said before the work starts, not after it."""
    from aimcard.models.errors import InputError

    if path.is_dir():
        raise InputError(f"{option}: expected a file to write; got the folder {path}")
    if not path.parent.is_dir():
        raise InputError(
            f"{option}: expected a file in an existing folder; got {path}; make the folder first"
        )
    _check_writable(option, path.parent)
    return path


def output_folder(option: str, path: Path) -> Path:
    """A folder that can be written, or made in one that can; it is not made here."""
    from aimcard.models.errors import InputError

    if path.exists() and not path.is_dir():
        raise InputError(f"{option}: expected a folder; got the file {path}")
    existing = path
    while not existing.exists():
        existing = existing.parent
    _check_writable(option, existing)
    return path


def _check_writable(option: str, folder: Path) -> None:
    from aimcard.models.errors import InputError

    try:
        # Permissions alone do not tell: root may write anywhere but in /proc or on a read-only disk.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{option}: expected a folder that can be written; got {folder} ({error.strerror})") from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, and say so."""
    from aimcard.models.h5 import write_bytes

    write_bytes(path, text.encode())
    say(f"written: {path}")


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document likewise; ValueError if a number in it is not finite."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


class Arguments(argparse.ArgumentParser):
    """Arguments of ``python -m`` on one of our modules: what it refuses is an InputError, for ``run_module`` to print."""

    def __init__(self, *, modes: bool = False, **options: Any) -> None:
        """modes: with ``--mode-file``, which is loaded as the arguments are read."""
        super().__init__(**options)
        self.modes = modes
        if modes:
            self.add_argument("--mode-file", type=Path, help="Python file that registers PWM modes of your own")
        # argparse takes -40 for a number, but -40,27 for an option.
        self._negative_number_matcher = re.compile(r"-\d[-+\d.,e]*$")

    def read(self, arguments: list[str]) -> argparse.Namespace:
        """The arguments; InputError for bad ones."""
        given = self.parse_args(arguments)
        if self.modes:
            load_modes(given.mode_file)
        return given

    def error(self, message: str) -> NoReturn:
        """What argparse would print before it ends the program, as InputError."""
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
