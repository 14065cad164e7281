"""`--mode-file`: a user's PWM mode, and cards and sets saved in it, on the command line; and what `aimcard modes` refuses."""

from pathlib import Path

import attrs
import numpy as np
import pytest

from aimcard import __main__ as command
from aimcard.data.reference import ReferenceSet
from aimcard.models import modes
from aimcard.models.card import Card
from aimcard.models.console import load_modes, output_file, output_folder
from aimcard.models.errors import InputError
from aimcard.models.modes import get_mode
from aimcard.models.tile import TileModel

HALVES = """
from aimcard.models.modes import Phase, register_mode

def halves(top):
    return (
        Phase(2, max(top // 2, 1), lambda codes, rows: (0 * (codes + rows), codes // 2 + 0 * rows)),
        Phase(1, 1, lambda codes, rows: (0 * (codes + rows), codes % 2 + 0 * rows)),
    )

register_mode("halves", halves, "half the code, then its last bit")
"""


@pytest.fixture
def registry(monkeypatch):
    """A registry of ours alone, as a new process has, however often it is called."""
    ours = dict(modes._BUILDS)

    def fresh() -> None:
        monkeypatch.setattr(modes, "_BUILDS", dict(ours))

    fresh()
    return fresh


@pytest.fixture
def folder(tmp_path, monkeypatch, registry, card_of, column_of, set_of) -> Path:
    """halves.py, and a card and a set in its mode."""
    monkeypatch.chdir(tmp_path)
    Path("halves.py").write_text(HALVES)
    load_modes(Path("halves.py"))
    card = card_of()
    card = attrs.evolve(card, meta=card.meta | {"mode": "halves"})
    card.write("card.h5")
    tile, record = TileModel(card), column_of("g", seed=1)
    response = tile.respond(record["conductance_s"], record["codes"], w_select_um=0.5)
    slots = get_mode("halves", tile.code_max).window_slots(int(card.meta["guard_slots"]))
    arrays = dict(record.arrays) | {
        "current_a": response.current_a * 1.001, "slot_edge_s": tile.t_lsb_s * np.arange(slots + 1)
    }  # fmt: skip
    set_of(attrs.evolve(record, arrays=arrays), mode="halves").write("held.h5")
    registry()
    return tmp_path


def refused(capsys, *arguments: str) -> str:
    capsys.readouterr()
    assert command.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_a_set_in_a_users_mode_is_validated_with_its_file_only(folder, registry, capsys):
    validate = ("validate", "card.h5", "--against", "held.h5")
    assert "mode: expected one of conventional" in refused(capsys, *validate)
    assert command.main([*validate, "--mode-file", "halves.py"]) == 0
    assert "ideal-gaussian" in capsys.readouterr().out
    assert "halves" in {str(Card.read("card.h5").meta["mode"]), str(ReferenceSet.read("held.h5").meta["mode"])}


@pytest.mark.parametrize("arguments", [["modes", "--mode", "halves"], ["export", "card.h5", "--to", "json"], ["show", "card.h5"]])
def test_a_users_mode_reaches_every_kind_of_command(folder, capsys, arguments):
    assert command.main([*arguments, "--mode-file", "halves.py"]) == 0
    assert "halves" in capsys.readouterr().out


def test_every_command_takes_a_mode_file(folder, capsys):
    for name in (n for n in command.app if not n.startswith("-")):
        assert command.main([name, "--help"]) == 0
        assert "--mode-file" in capsys.readouterr().out, name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "registers no mode"),
        ("a = 1\nb = c\n", "line 2: NameError"),
        ("def f(:", "SyntaxError"),
        ("import aimcard.models.modes as m\nm.register_mode('split', m.digits((1,)))", "'split' is already registered"),
        ("import aimcard.models.modes as m\nm.register_mode('flat', lambda top: (3,))", "phase 0: expected a Phase; got 3"),
        ("import sys\nsys.exit(0)", "line 2: SystemExit"),
    ],
)
def test_a_file_that_does_not_do_is_one_line(tmp_path, registry, capsys, text, words):
    (tmp_path / "mine.py").write_text(text)
    assert words in refused(capsys, "modes", "--mode-file", str(tmp_path / "mine.py"))
    assert "there is no file nowhere.py" in refused(capsys, "modes", "--mode-file", "nowhere.py")


def test_modes_without_a_card_list_what_is_asked_or_say_why_not(tmp_path, capsys):
    assert "mode: expected one of conventional" in refused(capsys, "modes", "--mode", "nope")
    out = str(tmp_path / "q.json")
    assert "--json: expected a card with it" in refused(capsys, "modes", "--json", out)
    assert "--figure: expected a card with it" in refused(capsys, "modes", "--figure", out)
    assert "--against: expected a card with it" in refused(capsys, "modes", "--against", out)
    assert command.main(["modes", "--mode", "split"]) == 0
    listed = capsys.readouterr().out
    assert "split" in listed
    assert "bitwise" not in listed


def test_a_place_that_takes_no_file_is_refused_before_any_work(tmp_path, capsys):
    # Root passes every check of permissions, and yet no file can be made in /proc.
    line = refused(capsys, "statistics", "freepdk45_gated", "--chips", "100000", "--out", "/proc/x.h5")
    assert "--out: expected a folder that can be written; got /proc" in line
    with pytest.raises(InputError, match="folder that can be written; got /proc"):
        output_folder("--figures", Path("/proc/a/b"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder; got the file"):
        output_folder("--figures", tmp_path / "file")
    assert output_file("--out", tmp_path / "new.h5") == tmp_path / "new.h5"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
