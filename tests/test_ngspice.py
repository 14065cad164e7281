"""The ngspice adapter against circuits with known solutions, and against everything that can go wrong."""

from __future__ import annotations

import math
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aimcard.models.errors import InputError, SimulationError, SimulatorMissingError
from aimcard.netlists.cache import ResultCache, default_cache_dir
from aimcard.netlists.deck import Deck
from aimcard.netlists.ngspice import run, run_many, simulator_version
from aimcard.netlists.progress import BatchProgress

# PWL steps of 1 ps: the input is a step for a time constant of 1 ns, and still a straight line for ngspice.
RC = """\
Vin a 0 PWL(0 0 1n 0 1.001n {v})
R1 a b 1k
C1 b 0 1p
.options reltol=1e-5 chgtol=1e-17 abstol=1e-14
.save v(b) i(Vin)
.tran 1n 10n
.end
"""


def rc(v: float = 1.0, expected_cpu_s: float = 1.0) -> Deck:
    return Deck(f"rc {v:g} V", RC.format(v=v), expected_cpu_s=expected_cpu_s)


@pytest.fixture
def ngspice_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many decks went to ngspice: the real one, behind a script on PATH that counts its calls."""
    real, log = shutil.which("ngspice"), tmp_path / "calls"
    folder = tmp_path / "counting"
    folder.mkdir()
    script = folder / "ngspice"
    script.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {real} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda: sum(line.startswith("-b ") for line in log.read_text().splitlines()) if log.exists() else 0


def kept_deck(message: str) -> Path:
    return Path(message.split("the deck is kept at ")[1].split(" (")[0].split(";")[0])


def test_rc_charges_along_the_exponential(tmp_path: Path) -> None:
    waves = run(rc(), cache=tmp_path)
    since = waves.time_s - 1.0005e-9
    expected = np.where(since > 0.5e-12, -np.expm1(-since / 1e-9), 0.0)
    assert waves.names == ("v(b)", "i(vin)")
    assert np.max(np.abs(waves["v(b)"] - expected)[waves.time_s > 1.001e-9]) < 1e-3
    # The charge that left the source is C times the voltage reached; i(vin) flows into its + node.
    edges = [0.0, 10e-9]
    charge = -waves.slot_means("i(Vin)", edges)[0] * 10e-9
    assert charge == pytest.approx(1e-12 * waves["v(b)"][-1], rel=2e-4)
    # ngspice's steps are some 100 ps here, and a chord lies below the exponential by less than 0.5 % of it.
    crossing = waves.crossings("v(b)", 1 - math.exp(-1.0))
    assert crossing == pytest.approx([2.0005e-9], abs=5e-12)


def test_low_pass_is_3_db_down_at_its_corner(tmp_path: Path) -> None:
    corner_hz = 1 / (2 * math.pi * 1e3 * 1e-12)
    text = (
        f"V1 a 0 AC 1\nR1 a b 1k\nC1 b 0 1p\n.save v(b)\n.ac lin 3 {corner_hz / 10} {corner_hz * 1.9}\n.end\n"
    )
    waves = run(Deck("low pass", text), cache=tmp_path)
    assert waves.scale_name == "frequency"
    assert waves.scale[1] == pytest.approx(corner_hz)
    np.testing.assert_allclose(waves["v(b)"], 1 / (1 + 1j * waves.scale / corner_hz), rtol=1e-9)
    again = run(Deck("low pass", text), cache=tmp_path)
    assert np.array_equal(again["v(b)"], waves["v(b)"])
    assert np.iscomplexobj(again["v(b)"])


def test_dc_sweep_and_operating_point(tmp_path: Path) -> None:
    divider = "V1 a 0 1\nR1 a b 3k\nR2 b 0 1k\n.save v(b)\n{analysis}\n.end\n"
    sweep, point = run_many(
        [
            Deck("sweep", divider.format(analysis=".dc V1 0 2 0.5")),
            Deck("point", divider.format(analysis=".op")),
        ],
        jobs=1,
        cache_dir=tmp_path,
        progress=False,
    )
    np.testing.assert_allclose(sweep.scale, [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(sweep["v(b)"], sweep.scale / 4)
    assert point["v(b)"] == pytest.approx([0.25])
    with pytest.raises(InputError, match=r"expected a \.tran result"):
        _ = sweep.time_s


def test_second_run_takes_the_cache(tmp_path: Path, ngspice_runs: Callable[[], int]) -> None:
    decks = [rc(1.0), rc(2.0), rc(1.0)]
    first = run_many(decks, jobs=1, cache_dir=tmp_path, progress=False)
    assert ngspice_runs() == 2  # equal decks are simulated once
    second = run_many(decks, jobs=1, cache_dir=tmp_path, progress=False)
    assert ngspice_runs() == 2
    for fresh, stored in zip(first, second, strict=True):
        assert np.array_equal(fresh.values, stored.values)
        assert (fresh.names, fresh.scale_name, fresh.deck_hash) == (
            stored.names,
            stored.scale_name,
            stored.deck_hash,
        )


def damage_cut(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_byte(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def damage_swap(path: Path, other: Path) -> None:
    shutil.copy(other, path)


@pytest.mark.parametrize("damage", [damage_cut, damage_byte, damage_empty, damage_swap])
def test_damaged_entry_is_run_again_and_replaced(
    tmp_path: Path, ngspice_runs: Callable[[], int], damage: Callable[[Path, Path], None]
) -> None:
    good, other = run(rc(1.0), cache=tmp_path), run(rc(2.0), cache=tmp_path)
    cache = ResultCache(tmp_path)
    damage(cache.path(good.deck_hash), cache.path(other.deck_hash))
    assert cache.load(good.deck_hash) is None
    again = run(rc(1.0), cache=tmp_path)
    assert ngspice_runs() == 3
    assert np.array_equal(again.values, good.values)
    run(rc(1.0), cache=tmp_path)
    assert ngspice_runs() == 3


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIMCARD_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "own"
    monkeypatch.delenv("AIMCARD_CACHE")
    assert default_cache_dir() == tmp_path / "xdg" / "aimcard"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "aimcard"


def test_cache_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="set AIMCARD_CACHE"):
        run(rc(), cache=tmp_path / "file")


FAILING = {
    "missing model": ("V1 a 0 1\nD1 a 0 nomodel\n.op\n.end\n", "could not find a valid modelname"),
    "syntax": ("V1 a 0 1\nR1 a 0 abc\n.op\n.end\n", r"unknown parameter \(abc\)"),
    "missing subcircuit": ("V1 a 0 1\nX1 a 0 nosub\n.op\n.end\n", "unknown subckt"),
    "singular matrix": ("V1 a 0 1\nV2 a 0 2\n.tran 1n 10n\n.end\n", "singular matrix.*Timestep too small"),
    "no convergence": (
        "V1 a 0 1\nB1 c 0 I= time>3n ? (v(c)>0 ? 1 : -1) : v(c)\nC2 c 0 1f\nR2 c 0 1k\n.tran 1n 10n\n.end\n",
        'Timestep too small; time = 3e-09.*trouble with node "c"',
    ),
    "early end": (
        "V1 a 0 1\nR1 a 0 1k\n.tran 1n 10n\n.option autostop\n.meas tran t1 when v(a)=0.3\n.end\n",
        "stopped at 0 s of 1e-08 s",
    ),
    "unsaved node": ("V1 a 0 1\nR1 a 0 1k\n.save v(a) v(nope)\n.op\n.end\n", r"did not record v\(nope\)"),
}


@pytest.mark.parametrize("kind", FAILING)
def test_failure_names_the_kept_deck_and_quotes_ngspice(tmp_path: Path, kind: str) -> None:
    text, words = FAILING[kind]
    with pytest.raises(SimulationError, match=words) as caught:
        run(Deck(f"{kind} / deck", text), cache=tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert "ngspice said: " in message
    deck = kept_deck(message)
    assert deck.read_text().endswith(text)
    assert deck.is_relative_to(tmp_path / "failed")
    assert (deck.parent / "ngspice.log").stat().st_size > 0
    assert not list((tmp_path / "results").iterdir())


def test_kept_deck_fails_by_hand_in_the_same_way(tmp_path: Path) -> None:
    with pytest.raises(SimulationError) as caught:
        run(Deck("by hand", FAILING["syntax"][0]), cache=tmp_path)
    deck = kept_deck(str(caught.value))
    done = subprocess.run(
        ["ngspice", "-b", deck.name],
        cwd=deck.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "unknown parameter (abc)" in done.stderr


def test_parallel_results_come_in_order_and_survive_a_failure(
    tmp_path: Path, ngspice_runs: Callable[[], int]
) -> None:
    rng = np.random.default_rng(7)
    levels = np.round(np.linspace(0.1, 1.2, 8), 3)
    decks = [rc(float(v), expected_cpu_s=float(s)) for v, s in zip(levels, rng.uniform(1, 9, 8), strict=True)]
    bad = Deck("broken", FAILING["syntax"][0], expected_cpu_s=0.5)  # the shortest starts last
    with pytest.raises(SimulationError, match="deck 'broken'"):
        run_many([*decks[:4], bad, *decks[4:]], jobs=2, cache_dir=tmp_path, progress=False)
    assert ngspice_runs() == 9
    results = run_many(decks, jobs=2, cache_dir=tmp_path, progress=False)
    assert ngspice_runs() == 9
    np.testing.assert_allclose([w["v(b)"][-1] for w in results], levels * -math.expm1(-8.9995), rtol=1e-3)


def test_first_failure_stops_further_starts(tmp_path: Path, ngspice_runs: Callable[[], int]) -> None:
    bad = Deck("broken", FAILING["syntax"][0], expected_cpu_s=100.0)
    with pytest.raises(SimulationError, match="deck 'broken'"):
        run_many([rc(0.1 * n) for n in range(1, 6)] + [bad], jobs=1, cache_dir=tmp_path, progress=False)
    assert ngspice_runs() == 1


def test_result_of_another_deck_is_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A simulator that answers with an earlier circuit, as ngspice's library form can after an error.
    (tmp_path / "earlier.cir").write_text(f"* aimcard rc {'0' * 64}\n{rc(1.0).text}")
    script = tmp_path / "ngspice"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = -b ] || exec {shutil.which("ngspice")} "$@"\n'
        f"exec {shutil.which('ngspice')} -b -r out.raw {tmp_path / 'earlier.cir'}\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(SimulationError, match="another deck's title"):
        run(rc(2.0), cache=tmp_path / "cache")


@pytest.mark.parametrize("progress", [True, False])
def test_plain_progress_off_a_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], progress: bool
) -> None:
    run_many([rc(1.0), rc(2.0)], jobs=1, cache_dir=tmp_path, label="columns", progress=progress)
    said = capfd.readouterr()
    assert said.err == ("columns: 2 decks to simulate, about 2 s on 1 core\n" if progress else "")
    run_many([rc(1.0), rc(2.0)], jobs=1, cache_dir=tmp_path, label="columns", progress=progress)
    assert capfd.readouterr().err == ""  # nothing to wait for
    assert said.out == ""


def test_time_left_follows_the_measured_pace() -> None:
    batch = BatchProgress(
        "columns", ["a", "b", "c", "d"], [10.0, 10.0, 10.0, 10.0], jobs=2, cached=0, show=False
    )
    assert batch.left_s() == pytest.approx(20.0)
    batch.start(0)
    batch.start(1)
    batch.finish(0, 30.0)  # three times slower than expected: b is under way, c and d wait
    assert batch.running() == ["b"]
    assert batch.left_s() == pytest.approx(45.0, abs=0.5)
    for number in (1, 2):
        batch.finish(number, 30.0)
    assert batch.left_s() == pytest.approx(30.0, abs=0.5)  # the last deck has one core


def test_missing_ngspice_names_the_package_and_the_way_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SimulatorMissingError, match=r"Debian package 'ngspice'.*--from"):
        run(rc(), cache=tmp_path)


def test_simulator_version_is_ngspice_and_a_number() -> None:
    kind, _, number = simulator_version().partition("-")
    assert kind == "ngspice"
    assert int(number.split(".")[0]) >= 39
