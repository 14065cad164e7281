"""A calibration's fits on the screen: which one runs, and how many are left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def steps(progress: bool, total: int) -> Iterator[Callable[[str], None]]:
    """``with steps(True, 6) as step: step("cells"); ...`` on stderr; a plain line each where that is no terminal."""
    console = Console(stderr=True)
    if not progress or not console.is_terminal:
        yield (lambda text: print(f"fit: {text}", file=sys.stderr, flush=True)) if progress else (lambda text: None)
        return
    bar = Progress(
        TextColumn("fit: {task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    )
    with bar:
        task = bar.add_task("starting", total=total)
        begun = False

        def step(text: str) -> None:
            nonlocal begun
            bar.update(task, description=text, advance=1 if begun else 0)
            begun = True

        yield step
