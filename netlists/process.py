"""One `ngspice -b` process for one deck: private folder, one thread, time limit, verdict on the result.

The library form of ngspice is not used: after an error it can return the previous circuit's result.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aimcard.models.errors import SimulationError
from aimcard.netlists.deck import Deck
from aimcard.netlists.rawfile import read_raw
from aimcard.netlists.waveforms import Waveforms

_TELLING = re.compile(
    r"error|fatal|can't|cannot|could not|unknown|undefined|unimplemented|not found|no such|singular|too small"
    r"|trouble|convergence|too many|not enough|illegal|invalid|aborted|interrupted",
    re.IGNORECASE,
)
# Lines that ngspice adds to any failure, and the progress of its attempts at an operating point.
_NOISE = re.compile(
    r"circuit not parsed|no resource usage|simulation interrupted due|simulation\(s\) aborted"
    r"|no circuits? loaded|aren't any circuits|compatibility mode",
    re.IGNORECASE,
)
_ATTEMPT = re.compile(r"(?:Trying gmin|Supplies reduced to)[^%A-Z]*%?\s*")


@dataclass(frozen=True)
class Job:
    """A deck on its way to ngspice.

    folder: where its private folder is made; failed: where a failed deck is kept.
    watch_parent: end ngspice when this process's parent is gone (set for worker processes).
    """

    deck: Deck
    deck_hash: str
    simulator: str
    ngspice: str
    folder: Path
    failed: Path
    timeout_s: float
    watch_parent: bool


def simulate(job: Job) -> Waveforms:
    """Run one deck; `SimulationError` names the kept deck file and quotes ngspice."""
    folder = job.folder / job.deck_hash[:16]
    folder.mkdir()
    try:
        _write_inputs(job, folder)
        try:
            status = _run_ngspice(job, folder)
            return _verdict(job, folder, status)
        except SimulationError as error:
            kept = _keep(job, folder)
            message = f"deck '{job.deck.name}': {error}; the deck is kept at {kept / 'deck.cir'}"
            raise SimulationError(message) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def safe_name(name: str) -> str:
    """A deck's name as one word for titles and folders."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:60] or "deck"


def _write_inputs(job: Job, folder: Path) -> None:
    title = f"* aimcard {safe_name(job.deck.name)} {job.deck_hash}"
    (folder / "deck.cir").write_text(f"{title}\n{job.deck.text}", encoding="utf-8")
    # ngspice reads this file before the user's own, whose settings must not change a result.
    (folder / ".spiceinit").write_text("set num_threads=1\n", encoding="utf-8")


def _run_ngspice(job: Job, folder: Path) -> int:
    """Exit status of ngspice. Its process never outlives this one, whichever way this one ends."""
    command = [job.ngspice, "-b", "-r", "out.raw", "deck.cir"]
    if setpriv := shutil.which("setpriv"):
        command = [setpriv, "--pdeathsig", "KILL", *command]
    environment = {**os.environ, "LC_ALL": "C", "OMP_NUM_THREADS": "1"}
    parent = os.getppid()
    deadline = time.monotonic() + job.timeout_s
    with (folder / "ngspice.log").open("wb") as log:
        # An own session: Ctrl-C in the terminal reaches Python, which then ends ngspice and what it started.
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while True:
                try:
                    return process.wait(timeout=min(0.25, max(deadline - time.monotonic(), 0.0)))
                except subprocess.TimeoutExpired:
                    if time.monotonic() >= deadline:
                        raise SimulationError(f"ngspice did not end within {job.timeout_s:.0f} s") from None
                    if job.watch_parent and os.getppid() != parent:
                        # The run that wanted this deck was killed; nobody is left to take a result.
                        _kill(process)
                        shutil.rmtree(job.folder, ignore_errors=True)
                        os._exit(1)
        finally:
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _verdict(job: Job, folder: Path, status: int) -> Waveforms:
    """The waveforms, or `SimulationError` unless they are this deck's, whole, finite and complete."""
    log = _read_log(folder / "ngspice.log")
    if status < 0:
        hint = " (out of memory?)" if -status == signal.SIGKILL else ""
        raise SimulationError(f"ngspice was killed by signal {-status}{hint}: {quote(log)}")
    if status != 0:
        raise SimulationError(f"ngspice failed (exit status {status}): {quote(log)}")
    try:
        raw = read_raw(folder / "out.raw")
    except SimulationError as error:
        raise SimulationError(f"{str(error).replace(f'{folder}{os.sep}', '')}: {quote(log)}") from None
    if raw.title.split()[-1:] != [job.deck_hash]:
        raise SimulationError(f"the raw file carries another deck's title: '{raw.title}'")
    waves = Waveforms.from_raw(raw, job.deck_hash, job.simulator)
    if missing := [name for name in job.deck.saved() if not _recorded(name, waves)]:
        names = ", ".join(missing)
        raise SimulationError(f"ngspice did not record {names} (no such node or source?): {quote(log)}")
    if not (np.all(np.isfinite(waves.values)) and np.all(np.isfinite(waves.scale))):
        raise SimulationError(f"the result holds NaN or infinity: {quote(log)}")
    stop = job.deck.stop_time_s()
    if stop is not None:
        if waves.scale_name != "time" or np.any(np.diff(waves.scale) < 0):
            raise SimulationError("the result is not a series of increasing times")
        if waves.scale[-1] < stop * (1 - 1e-9) or waves.scale.size < 2:
            raise SimulationError(f"ngspice stopped at {waves.scale[-1]:.6g} s of {stop:.6g} s: {quote(log)}")
    return waves


def _recorded(saved: str, waves: Waveforms) -> bool:
    """Whether a `.save` name is in the result; ngspice drops unknown names without an error."""
    if saved in ("all", "allv", "alli"):
        return True
    if match := re.fullmatch(r"v\(([^(),]+),([^(),]+)\)", saved):
        return all(f"v({node})" in waves or node == "0" for node in match.groups())
    if saved.endswith("#branch"):
        return f"i({saved.removesuffix('#branch')})" in waves
    return any(name in waves for name in (saved, f"v({saved})", f"i({saved})"))


def _read_log(path: Path, limit: int = 200_000) -> str:
    """What ngspice said; the middle of a very long log is left out."""
    size = path.stat().st_size
    with path.open("rb") as file:
        text = file.read(limit)
        if size > 2 * limit:
            file.seek(size - limit)
        return (text + file.read()).decode("utf-8", "replace")


def quote(log: str, most: int = 6) -> str:
    """ngspice's decisive lines on one line, separated by ' | '; the last lines if none stands out."""
    picked: list[str] = []
    lines = [_ATTEMPT.sub("", line.rstrip()) for line in log.splitlines()]
    for number, line in enumerate(lines):
        follows = line.startswith(" ") and number > 0 and bool(_TELLING.search(lines[number - 1]))
        told = " ".join(line.split())
        if told and (_TELLING.search(line) or follows) and not _NOISE.search(line) and told not in picked:
            picked.append(told)
    if len(picked) > most:
        picked = [*picked[: most // 2], "...", *picked[-(most - most // 2) :]]
    picked = picked or [line.strip() for line in lines if line.strip()][-3:]
    return "ngspice said: " + (" | ".join(picked) if picked else "nothing")


def _keep(job: Job, folder: Path) -> Path:
    """Move a failed deck with its log out of the private folder; replaces what an earlier failure left."""
    kept = job.failed / f"{safe_name(job.deck.name)}-{job.deck_hash[:8]}"
    (folder / "out.raw").unlink(missing_ok=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(kept, ignore_errors=True)
    shutil.move(str(folder), kept)
    return kept
