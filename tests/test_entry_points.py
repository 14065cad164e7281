"""`python -m` on every module that can be run: what cannot be done is one line and exit status 2, never a traceback."""

import dataclasses
import importlib
from pathlib import Path

import pytest

import aimcard
from aimcard.__main__ import main
from aimcard.data import shipped_reference
from aimcard.models.console import run_module
from aimcard.netlists import technology
from aimcard.netlists.freepdk45 import FREEPDK45

ROOT = Path(aimcard.__file__).parent
GUARDED = tuple(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("calibrate", "data", "models", "netlists", "validation")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.read_text().count('\nif __name__ == "__main__":\n    sys.exit(')
)


def refused(capsys, work, arguments) -> str:
    capsys.readouterr()
    assert work(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def module(capsys, name: str, arguments: str) -> str:
    found = importlib.import_module(f"aimcard.{name}")
    entry = found.main if hasattr(found, "main") else found._main
    return refused(capsys, lambda given: run_module(entry, given), arguments.split())


def test_every_module_with_a_guard_goes_through_one_helper():
    own = [p for p in ROOT.glob("[cdmnv]*/**/*.py") if '\nif __name__ == "__main__":' in p.read_text()]
    # The text of models/export_aihwkit.py is another program's.
    assert {p.stem for p in own} - {name.rpartition(".")[2] for name in GUARDED} == {"export_aihwkit"}
    assert len(GUARDED) > 10
    for name in GUARDED:
        assert "sys.exit(run_module(" in (ROOT / (name.replace(".", "/") + ".py")).read_text()


@pytest.mark.parametrize("name", GUARDED)
def test_an_unknown_option_is_one_line(capsys, name):
    assert module(capsys, name, "card --nonsense").startswith("aimcard: error: ")


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("netlists.corner_survey", "zz 27 1", "corner: freepdk45 has nom"),
        ("netlists.corner_survey", "nom 300 1", "hold from"),
        ("netlists.corner_survey", "nom 27,x 1", "expected a number; got 'x'"),
        ("netlists.corner_survey", "nom 27 nan", "expected a number; got 'nan'"),
        ("netlists.corner_survey", "nom -40,-300 1", "got -300"),
        ("netlists.corner_survey", "nom 27 9", "vdd: freepdk45 is simulated from"),
        ("netlists.source_report", "zz 27", "corner: freepdk45 has nom"),
        ("netlists.source_report", "nom 300", "hold from"),
        ("netlists.readout_report", "nom abc", "expected a number; got 'abc'"),
        ("netlists.readout_report", "nom 27 tsmc", "technology: expected one of freepdk45"),
        ("netlists.readout_report", "nom 27 sky130 more", "more"),
        ("validation.tied_products", "no_such_card", "no_such_card"),
        ("validation.tied_products", "freepdk45_gated", "topology"),
        ("validation.speed", "--card no_such_card", "no_such_card"),
        ("calibrate.export_report", "no_such_card", "no_such_card"),
        ("validation.mode_products", "splt", "did you mean 'split'"),
    ],
)
def test_bad_input_is_one_line(capsys, name, arguments, words):
    assert words in module(capsys, name, arguments)


def test_without_the_models_package_it_is_named(capsys, monkeypatch):
    without = dataclasses.replace(FREEPDK45, package="c4m-pdk-nowhere")
    monkeypatch.setitem(technology._TECHNOLOGIES, "freepdk45", without)
    assert "Python package c4m-pdk-nowhere, which is not installed" in module(capsys, "netlists.corner_survey", "nom 27 1")


def test_a_card_goes_by_its_name(capsys, monkeypatch):
    products = importlib.import_module("aimcard.validation.tied_products")
    monkeypatch.setattr(products, "VECTORS", 2)
    monkeypatch.setattr(products, "ROWS", 32)
    assert run_module(products.main, ["freepdk45_tied"]) == 0
    assert "charge" in capsys.readouterr().out


@pytest.mark.parametrize("topology", ["gated", "tied"])
def test_a_set_without_records_to_fit_is_one_line(capsys, tmp_path, topology):
    given = ["calibrate", "--from", str(shipped_reference(f"freepdk45_{topology}_split")), "--out", str(tmp_path / "card.h5")]
    line = refused(capsys, main, given)
    assert "edge with role fit" in line
    assert "aimcard simulate" in line
