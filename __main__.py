"""The command line: names of the commands, errors as one line, exit status."""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError

from aimcard import __version__
from aimcard.calibrate import commands as making
from aimcard.models.console import run_module, say
from aimcard.validation import commands as judging

app = App(
    name="aimcard",
    version=__version__,
    help="Analog in-memory-computing tiles: from a transistor-level circuit to a model card to torch.",
    help_epilogue="Errors are one line on stderr and exit status 2. Where a CARD is asked for, the name of a "
    "shipped card (freepdk45_gated) does as well as a file.",
    # Ctrl-C is handled below: cyclopts would leave without a word.
    suppress_keyboard_interrupt=False,
)
for _command in (
    making.calibrate, making.simulate, making.sweep, making.statistics,
    judging.validate, judging.modes, judging.energy, judging.noise, judging.interpolate, judging.trim,
    judging.show, judging.export,
):  # fmt: skip
    app.command(_command)


def _set_warnings() -> None:
    """Warnings become one line each, once; those for programmers stay with `python -W`."""
    said: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            say(f"warning: {message}")

    warnings.showwarning = show
    if not sys.warnoptions:
        warnings.simplefilter("default")
        for category in (DeprecationWarning, PendingDeprecationWarning, SyntaxWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 2 after an error, 130 after Ctrl-C."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        _set_warnings()
        return run_module(_run, tokens)


def _run(tokens: list[str]) -> None:
    from aimcard.models.errors import InputError

    try:
        app(tokens, print_error=False, exit_on_error=False, result_action="return_value")
    except CycloptsError as error:
        raise InputError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
