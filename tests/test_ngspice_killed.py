"""A run that is killed half-way: no ngspice stays behind, finished decks stay, leftovers are removed."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aimcard.models.errors import SimulationError
from aimcard.netlists.cache import ResultCache
from aimcard.netlists.deck import Deck, deck_hash
from aimcard.netlists.ngspice import run, simulator_version
from aimcard.netlists.scratch import scratch_folder
from made_process import start

QUICK = "V1 a 0 1\nR1 a b 1k\nC1 b 0 1p\n.tran 1n 10n\n.end\n"
ENDLESS = "I1 0 a SIN(0 1m 1g)\nR1 a 0 1k\n.save v(a)\n.tran 1p 1 0 1p\n.end\n"


def ngspice_processes_in(folder: Path) -> list[int]:
    """Live ngspice processes whose environment names `folder` as the cache."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                mine = f"AIMCARD_CACHE={folder}\0".encode() in (entry / "environ").read_bytes()
                if mine and (entry / "comm").read_text().strip() == "ngspice":
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_killed_run_leaves_no_ngspice_and_keeps_what_was_done(tmp_path: Path, jobs: int, name: str) -> None:
    script = f"""
        from aimcard.netlists.ngspice import Deck, run_many
        decks = [Deck("quick", {QUICK!r}, expected_cpu_s=90.0)]
        decks += [Deck("endless", {ENDLESS!r}.replace("1m", f"{{n}}m"), expected_cpu_s=10.0) for n in (1, 2)]
        run_many(decks, jobs={jobs}, progress=False)
    """
    environment = {**os.environ, "AIMCARD_CACHE": str(tmp_path)}
    process = start("-c", textwrap.dedent(script), env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(
            lambda: (
                len(ngspice_processes_in(tmp_path)) == jobs and any((tmp_path / "results").glob("*.waves"))
            )
        )
        process.send_signal(getattr(signal, name))
        process.wait(timeout=30)
        wait_for(lambda: not ngspice_processes_in(tmp_path))
    finally:
        process.kill()
        process.wait()
    assert process.returncode != 0
    assert ResultCache(tmp_path).load(deck_hash(Deck("quick", QUICK), simulator_version())) is not None


def test_what_a_killed_run_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, young = tmp_path / "aimcard-left", tmp_path / "aimcard-young"
    for folder in (left, young):
        folder.mkdir()
        (folder / "lock").touch()
    hour_ago = time.time() - 3600
    os.utime(left / "lock", (hour_ago, hour_ago))
    with scratch_folder() as running:
        os.utime(running / "lock", (hour_ago, hour_ago))
        assert not left.exists()
        assert young.exists()
        with scratch_folder():
            assert running.exists()
    assert not running.exists()


def wait_for(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_hanging_deck_is_killed_at_its_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIMCARD_CACHE", str(tmp_path))
    begun = time.monotonic()
    with pytest.raises(SimulationError, match="did not end within 1 s"):
        run(Deck("endless", ENDLESS), timeout_s=1.0)
    assert time.monotonic() - begun < 10
    assert not ngspice_processes_in(tmp_path)
