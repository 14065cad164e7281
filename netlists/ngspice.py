"""The one way to ngspice: decks in, waveforms out, in parallel, each deck simulated once and then cached."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from aimcard.models.errors import InputError, SimulationError, SimulatorMissingError
from aimcard.netlists.cache import ResultCache, default_cache_dir
from aimcard.netlists.deck import ACCURATE, TIGHT, Deck, deck_hash, make_deck
from aimcard.netlists.process import Job, simulate
from aimcard.netlists.progress import BatchProgress
from aimcard.netlists.scratch import scratch_folder
from aimcard.netlists.waveforms import Waveforms

__all__ = [
    "ACCURATE",
    "TIGHT",
    "Deck",
    "Waveforms",
    "deck_hash",
    "default_cache_dir",
    "make_deck",
    "run",
    "run_many",
    "simulator_version",
]


def run(deck: Deck, cache: Path | str | None = None, timeout_s: float | None = None) -> Waveforms:
    """One deck, started from this process and without progress; as `run_many` otherwise.

    `cache` is the folder that `run_many` calls `cache_dir`.
    """
    return run_many([deck], jobs=1, cache_dir=cache, progress=False, timeout_s=timeout_s)[0]


def run_many(
    decks: Sequence[Deck],
    jobs: int | None = None,
    cache_dir: Path | str | None = None,
    label: str = "decks",
    progress: bool = True,
    timeout_s: float | None = None,
) -> list[Waveforms]:
    """Waveforms of each deck, in the decks' order.

    jobs: ngspice processes at a time (None: all cores that this process may use); the longest start first.
    cache_dir: where results are kept (None: `default_cache_dir()`). A result is stored as soon as its deck
    ends, so a run that was killed goes on where it stopped. Equal decks are simulated once.
    progress: whether to tell on stderr what runs and how long it still takes.
    timeout_s: time limit of a deck; by default twenty times what the deck expects, at least 120 s.

    Raises `SimulationError` for the first deck that fails, hangs, does not converge or ends early: no further
    deck is started, those under way finish and are stored, the failed deck is kept in `<cache>/failed/`.
    Raises `SimulatorMissingError` without ngspice, `InputError` for a bad argument or a missing include.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs: expected 1 or more; got {jobs}")
    simulator, ngspice = simulator_version(), _ngspice()
    cache = ResultCache(cache_dir)
    memo: dict[Path, str] = {}
    hashes = [deck_hash(deck, simulator, memo) for deck in decks]
    results: dict[str, Waveforms] = {}
    waiting: dict[str, Deck] = {}
    for deck, key in zip(decks, hashes, strict=True):
        if key not in results and key not in waiting:
            stored = cache.load(key)
            if stored is None:
                waiting[key] = deck
            else:
                results[key] = stored
    todo = sorted(waiting.items(), key=lambda item: -item[1].expected_cpu_s)
    jobs = max(1, min(jobs or joblib.cpu_count(), len(todo)))
    with (
        scratch_folder() as folder,
        BatchProgress(
            label,
            [deck.name for _, deck in todo],
            [deck.expected_cpu_s for _, deck in todo],
            jobs,
            cached=len(results),
            show=progress,
        ) as batch,
    ):
        work = [
            Job(
                deck=deck,
                deck_hash=key,
                simulator=simulator,
                ngspice=ngspice,
                folder=folder,
                failed=cache.folder / "failed",
                timeout_s=max(120.0, 20 * deck.expected_cpu_s) if timeout_s is None else timeout_s,
                watch_parent=jobs > 1,
            )
            for key, deck in todo
        ]
        results |= _finish(work, cache, jobs, batch)
    return [results[key] for key in hashes]


def _finish(work: list[Job], cache: ResultCache, jobs: int, batch: BatchProgress) -> dict[str, Waveforms]:
    """Results by deck hash; the first failure stops further starts and is raised once the rest has ended."""
    results: dict[str, Waveforms] = {}
    failures: list[str] = []

    def starts() -> Iterator[Any]:
        for number, job in enumerate(work):
            if failures:
                return
            batch.start(number)
            yield joblib.delayed(_simulate_and_store)(number, job, cache)

    # One deck a task, none queued ahead: a deck that counts as started runs, and a failure stops the rest.
    settings: dict[str, Any] = {"batch_size": 1, "pre_dispatch": "n_jobs", "max_nbytes": None}
    parallel = joblib.Parallel(
        n_jobs=jobs,
        backend="sequential" if jobs == 1 else "loky",
        return_as="generator_unordered",
        **settings,
    )
    finished: Any = parallel(starts())
    try:
        for number, elapsed_s, outcome in finished:
            batch.finish(number, elapsed_s)
            if isinstance(outcome, Waveforms):
                results[outcome.deck_hash] = outcome
            else:
                failures.append(outcome)
    except TerminatedWorkerError:
        running = ", ".join(batch.running())
        raise SimulationError(
            f"a worker process was killed (out of memory?) while these decks ran: {running}; "
            "finished decks are cached: run again with fewer jobs"
        ) from None
    finally:
        finished.close()
    if failures:
        more = f" ({len(failures) - 1} more failed too)" if len(failures) > 1 else ""
        raise SimulationError(failures[0] + more)
    return results


def _simulate_and_store(number: int, job: Job, cache: ResultCache) -> tuple[int, float, Waveforms | str]:
    """Runs in a worker, which stores the result itself: it is kept even if the asking process is gone.

    A failure comes back as its message, since an exception would make joblib kill the other decks.
    """
    begun = time.monotonic()
    try:
        outcome: Waveforms | str = simulate(job)
    except SimulationError as error:
        outcome = str(error)
    else:
        cache.store(outcome)
    return number, time.monotonic() - begun, outcome


def simulator_version() -> str:
    """The simulator's name and version, such as "ngspice-39". Raises `SimulatorMissingError`."""
    return _version_of(_ngspice())


def _ngspice() -> str:
    path = shutil.which("ngspice")
    if path is None:
        raise SimulatorMissingError(
            "ngspice is not on PATH: install the Debian package 'ngspice' (apt-get install ngspice), "
            "or work from a recorded reference set with --from reference.h5"
        )
    return path


@functools.cache
def _version_of(path: str) -> str:
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SimulatorMissingError(f"{path}: expected ngspice; it does not run ({error})") from None
    match = re.search(r"ngspice-\w[\w.+-]*", done.stdout)
    if match is None:
        raise SimulatorMissingError(f"{path}: expected ngspice; --version gave no version")
    return match[0]
