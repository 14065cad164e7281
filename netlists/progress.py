"""How far a batch of decks is: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

_PLAIN_EVERY_S = 30.0


class BatchProgress:
    """Tells what runs and how long it still takes, from expected times and those measured so far.

    names, expected_s: of the decks to run, in the order in which they start. Use as a context manager;
    `start` and `finish` may be called from different threads.
    """

    def __init__(
        self,
        label: str,
        names: Sequence[str],
        expected_s: Sequence[float],
        jobs: int,
        cached: int,
        show: bool,
    ) -> None:
        self.label, self.names, self.expected_s = label, list(names), list(expected_s)
        self.jobs, self.cached, self.show = jobs, cached, show and bool(names)
        self._started: dict[int, float] = {}
        self._measured: dict[int, float] = {}
        self._said = 0.0
        self._bar: Progress | None = None

    def __enter__(self) -> BatchProgress:
        if not self.show:
            return self
        console = Console(stderr=True)
        known = f" ({self.cached} more are cached)" if self.cached else ""
        cores = f"{self.jobs} core{'s' if self.jobs > 1 else ''}"
        print(
            f"{self.label}: {len(self.names)} decks to simulate{known}, "
            f"about {spell(self.left_s())} on {cores}",
            file=sys.stderr,
            flush=True,
        )
        self._said = time.monotonic()
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(24),
                MofNCompleteColumn(),
                _Now(self),
                console=console,
            )
            self._bar.add_task(self.label, total=len(self.names))
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, number: int) -> None:
        """Deck `number` was handed out."""
        self._started[number] = time.monotonic()

    def finish(self, number: int, elapsed_s: float) -> None:
        """Deck `number` ended after `elapsed_s`."""
        self._measured[number] = elapsed_s
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])
        elif self.show and time.monotonic() - self._said > _PLAIN_EVERY_S:
            self._said = time.monotonic()
            done = f"{len(self._measured)} of {len(self.names)} decks done"
            print(f"{self.label}: {done}, about {spell(self.left_s())} left", file=sys.stderr, flush=True)

    def running(self) -> list[str]:
        """Names of the decks under way."""
        return [self.names[number] for number in sorted(self._started.keys() - self._measured.keys())]

    def left_s(self) -> float:
        """Estimated wall time left [s]: the work left over all jobs, at least the longest deck left."""
        pace = 1.0
        if self._measured:
            pace = sum(self._measured.values()) / sum(self.expected_s[number] for number in self._measured)
        now = time.monotonic()
        left = []
        for number, expected in enumerate(self.expected_s):
            if number not in self._measured:
                gone = now - self._started[number] if number in self._started else 0.0
                left.append(max(expected * pace - gone, 0.0))
        return max(sum(left) / self.jobs, max(left, default=0.0))


class _Now(ProgressColumn):
    """Time left and the decks under way."""

    def __init__(self, batch: BatchProgress) -> None:
        super().__init__()
        self._batch = batch

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(f"done in {spell(task.elapsed or 0.0)}")
        running = self._batch.running()
        more = f" +{len(running) - 2}" if len(running) > 2 else ""
        return Text(
            f"about {spell(self._batch.left_s())} left · {', '.join(running[:2])}{more}", overflow="ellipsis"
        )


def spell(seconds: float) -> str:
    """A duration for people: '8 s', '4 min', '2.5 h'."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
