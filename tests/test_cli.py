"""The command line: what it prints, what it writes, and that every error is one line and exit status 2."""

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest

from aimcard.__main__ import main
from aimcard.calibrate.plan import Options
from aimcard.data import shipped_card, shipped_reference
from aimcard.data.reference import ReferenceSet
from aimcard.models.card import Card, Parameter
from aimcard.models.errors import AimcardError, InputError
from aimcard.models.export import export, exporters, register
from aimcard.models.export_json import to_json
from aimcard.models.tile import TileModel
from made_process import start

COMMANDS = ("calibrate", "simulate", "validate", "statistics", "noise", "show", "export")


@pytest.fixture
def folder(tmp_path, card_of, column_of, set_of, monkeypatch) -> Path:
    """A working folder with a card, reference sets with and without held-out columns, and damaged files."""
    monkeypatch.chdir(tmp_path)
    card_of().write("card.h5")
    held = [column_of("g", seed=1, error_a=1e-9), column_of("u", seed=2, distribution="uniform", clamp="ota")]
    set_of(*held).write("held.h5")
    set_of(*held, corner="ss").write("slow.h5")
    set_of(attrs.evolve(held[0], role="fit")).write("fit-only.h5")
    sound = Path("card.h5").read_bytes()
    Path("cut.h5").write_bytes(sound[: len(sound) // 2])
    Path("flipped.h5").write_bytes(sound[:-200] + bytes([sound[-200] ^ 1]) + sound[-199:])
    Path("text.h5").write_text("not a card")
    return tmp_path


@pytest.fixture
def refused(capsys):
    """Runs a command that must fail: status 2, nothing on stdout, one line on stderr, which is returned."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("aimcard: error: ")
        return err.removeprefix("aimcard: error: ").rstrip("\n")

    return run


def aimcard(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aimcard", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == importlib.metadata.version("aimcard")
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
    assert "--from" in capsys.readouterr().out


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from aimcard.__main__ import main; main(['--help']);"
        "print([m for m in ('torch', 'matplotlib', 'numpy', 'scipy', 'h5py', 'PySpice') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["shwo", "card.h5"], 'Unknown command "shwo". Did you mean "show"?'),
        (["show", "card.h5", "--jsn", "x"], "Unknown option: --jsn"),
        (["show"], "requires an argument"),
        (["show", "card.h5", "more"], "more"),
        (["calibrate", "--held-out-columns", "two"], 'unable to convert "two" into int'),
        (["show", "missing.h5"], "missing.h5: file: expected a model card, cannot read it: No such file"),
        (["show", "."], "expected a model card, cannot read it: Is a directory"),
        (["show", "text.h5"], "text.h5: file: expected a model card in HDF5, got a file that is not HDF5"),
        (["show", "cut.h5"], "cut.h5: file: expected a model card in HDF5, got a truncated file"),
        (["show", "flipped.h5"], "flipped.h5: "),
        (
            ["show", "held.h5"],
            "expected 'aimcard-resistive-card' (a model card), got 'aimcard-reference-set'",
        ),
        (["export", "missing.h5", "--to", "json"], "missing.h5: file: expected a model card"),
        (["export", "card.h5", "--to", "xml"], "--to: expected one of json, csv, spice, aihwkit; got 'xml'"),
        (
            ["export", "card.h5", "--to", "json", "--out", "no/card.json"],
            "--out: expected a file in an existing",
        ),
        (["validate", "card.h5", "--against", "card.h5"], "got 'aimcard-resistive-card'"),
        (["validate", "card.h5", "--against", "fit-only.h5"], "expected columns of role held_out, got none"),
        (["validate", "card.h5", "--against", "held.h5", "--json", "."], "--json: expected a file to write"),
        (["calibrate", "--from", "missing.h5"], "missing.h5: file: expected a reference set"),
        (["calibrate", "--from", "card.h5"], "expected 'aimcard-reference-set' (a reference set)"),
        (
            ["calibrate", "--from", "held.h5", "--corner", "ss"],
            "nothing is simulated then, so expected no --corner",
        ),
        (
            ["calibrate", "--from", "held.h5", "--out", "held.h5"],
            "expected another file than the reference set",
        ),
        (["calibrate", "--out", "no/card.h5"], "no/card.h5; make the folder first"),
        (
            ["calibrate", "--technology", "freepdk54"],
            "expected one of freepdk45, sky130; got 'freepdk54'; did you mean",
        ),
        (
            ["calibrate", "--corner", "non"],
            "corner: expected one of nom, ff, ss; got 'non' (did you mean 'nom'?)",
        ),
        (["calibrate", "--temperature", "200"], "from -40 to 125 °C; got 200"),
        (["calibrate", "--temperature", "nan"], "from -40 to 125 °C; got nan"),
        (["calibrate", "--vdd", "0.5"], "vdd: freepdk45 is simulated from 0.8 to 1.1 V (1 V is nominal); got 0.5"),
        (["calibrate", "--vdd", "nan"], "from 0.8 to 1.1 V (1 V is nominal); got nan"),
        (["simulate", "--out", "set.h5", "--vdd", "1.2"], "from 0.8 to 1.1 V (1 V is nominal); got 1.2"),
        (["calibrate", "--held-out-columns", "0"], "held-out columns: expected 1 or more; got 0"),
        (["calibrate", "--jobs", "-2"], "jobs: expected 1 or more; got -2"),
        (["calibrate", "--seed", "-1"], "seed: expected 0 or more; got -1"),
        (["calibrate", "--w-select", "0.01"], "expected 0.09 to 2 µm; got 0.01"),
        (["calibrate", "--quick", "--full"], "expected one of them; got both"),
        (["simulate"], "requires an argument"),
        (["simulate", "--out", "set.h5", "--corner", "tt"], "corner: expected one of nom, ff, ss; got 'tt'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(folder, refused, arguments, words):
    before = sorted(folder.iterdir())
    assert words in refused(*arguments)
    assert sorted(folder.iterdir()) == before


def test_calibration_needs_records_to_fit(folder, refused):
    refused("calibrate", "--from", "held.h5", "--out", "new.h5")
    assert not Path("new.h5").exists()


def test_no_reference_set_ships_for_this_card(folder, card_of, refused):
    changed = card_of()
    attrs.evolve(changed, meta=changed.meta | {"technology": "my28nm"}).write("mine.h5")
    assert "no reference set for my28nm, nom, 27.0, 1.0, gated, 8.0, conventional ships" in refused(
        "validate", "mine.h5"
    )


def test_without_ngspice_the_package_is_named(folder, refused, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    message = refused("calibrate", "--quick")
    assert "apt-get install ngspice" in message
    assert "--from" in message


def test_the_process_itself_fails_in_one_line(folder):
    done = aimcard("show", "cut.h5")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_one_line_and_130(folder):
    os.mkfifo("pipe.h5")
    process = start("-m", "aimcard", "show", "pipe.h5", stderr=subprocess.PIPE, text=True)
    writer = os.open("pipe.h5", os.O_WRONLY)  # returns once the command reads
    try:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        os.close(writer)
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert "interrupted" in err


def test_a_reader_that_stops_early_is_no_error(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "aimcard", "show", "card.h5"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_show_prints_the_card(folder, capsys):
    assert main(["show", "card.h5"]) == 0
    assert capsys.readouterr().out == f"{Card.read('card.h5')}\n"


def test_export_gives_json_and_says_what_is_left_out(folder, capsys):
    assert main(["export", "card.h5", "--to", "json"]) == 0
    out, err = capsys.readouterr()
    card = Card.read("card.h5")
    assert {p["name"]: p["value"] for p in json.loads(out)["parameters"]} == card.values()
    assert "aimcard: not in the json: the sha256 of each field" in err
    assert "infinite" not in err
    assert main(["export", "card.h5", "--to", "json", "--out", "card.json"]) == 0
    assert Path("card.json").read_text() == out
    unbounded = attrs.evolve(card, parameters=[Parameter("r_on_ohm", 556.0, 1.0, 0.0, unit="Ohm")])
    assert "infinite bounds, written as null: r_on_ohm" in export(unbounded, "json").left_out


def test_an_exporter_registers_once():
    assert "json" in exporters()
    with pytest.raises(InputError, match="already registered"):
        register("json", to_json)


def test_validate_prints_and_writes(folder, capsys):
    arguments = ["validate", "card.h5", "--against", "held.h5", "--json", "scores.json", "--figures", "drawn"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "ideal-gaussian" in out
    assert "Traceback" not in err
    figures = json.loads(Path("scores.json").read_text())
    scores = next(s for name, s in figures["data_sets"].items() if name.startswith("ideal-gaussian"))
    for predictor in ("model", "ideal", "ideal_affine"):
        assert {"r2", "one_minus_r2", "nrmse", "eps_mac", "worst"} <= set(scores["charge"][predictor])
    assert list(Path("drawn").iterdir())


def test_a_warning_is_one_line_once(folder, capsys):
    assert main(["validate", "card.h5", "--against", "slow.h5"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "corner" in line]
    assert len(lines) == 1
    assert lines[0].startswith("aimcard: warning: corner: the card is for nom, the reference set for ss")


def test_a_shipped_card_goes_by_its_name(folder, capsys):
    assert main(["show", "freepdk45_gated"]) == 0
    assert Card.read(shipped_card()).content_hash[:12] in capsys.readouterr().out
    # A file of that name goes first.
    shutil.copy("card.h5", "freepdk45_gated")
    assert main(["show", "freepdk45_gated"]) == 0
    assert Card.read("card.h5").content_hash[:12] in capsys.readouterr().out


def test_shipped_names_are_checked():
    with pytest.raises(InputError, match=r"shipped card: expected .*freepdk45_gated.*'freepdk54_gated'"):
        shipped_card("freepdk54_gated")
    with pytest.raises(InputError, match=r"shipped reference set: expected .*freepdk45_gated"):
        shipped_reference("mine")


ROWS = 24
GOOD_G, GOOD_X = np.full((2, ROWS), 5e-6), np.full((3, ROWS), 7)


@pytest.mark.parametrize(
    ("g", "x", "words"),
    [
        (GOOD_G, GOOD_X + 9, "codes: expected codes from 0 to 15; got 16"),
        (GOOD_G, GOOD_X - 8, "codes: expected codes from 0 to 15; got -1"),
        (GOOD_G, GOOD_X + 0.5, "codes: expected whole codes; got 7.5"),
        (-GOOD_G, GOOD_X, "conductance_s: expected conductances of at least 0 S; got -5e-06"),
        (GOOD_G * np.nan, GOOD_X, "conductance_s: expected finite conductances"),
        (GOOD_G, GOOD_X * np.inf, "codes: expected finite codes; got inf"),
        (GOOD_G, GOOD_X[:, :-1], "codes: expected 24 rows, as many as the conductances have; got 23"),
        (GOOD_G[0], GOOD_X, r"conductance_s: expected two dimensions \(lines, rows\)"),
        (GOOD_G.astype(str), GOOD_X, "conductance_s: expected an array of numbers"),
    ],
)
def test_a_tile_refuses_bad_input(card_of, g, x, words):
    with pytest.raises(InputError, match=words) as caught:
        TileModel(card_of()).respond(g, x)
    assert isinstance(caught.value, AimcardError)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_main_job_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["calibrate", "--quick", "--out", "card.h5"]) == 0
    out, err = capsys.readouterr()
    assert "at most" in err.splitlines()[0]
    card = Card.read("card.h5")
    assert card.fit.converged
    assert card.meta["corner"] == Options().corner
    made = ReferenceSet.read("card.reference.h5").meta
    assert (made["phase_rule"], made["hold_s"]) == (card.meta["phase_rule"], card.meta["hold_s"])
    charge = card.validation["data_sets"]["ideal-gaussian-1x"]["charge"]
    # Two vectors leave nothing of an affine fit to score: against the plain ideal product then.
    assert charge["model"]["one_minus_r2"] < 0.01 * charge["ideal"]["one_minus_r2"]
    assert "ideal-gaussian-1x" in out
    assert {path.suffix for path in Path("card_figures").iterdir()} >= {".png"}
    # The recorded set gives the same card, without a simulator.
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["calibrate", "--from", "card.reference.h5", "--out", "again.h5"]) == 0
    assert Path("again.h5").read_bytes() == Path("card.h5").read_bytes()
    assert ReferenceSet.read("card.reference.h5").select(role="held_out")
