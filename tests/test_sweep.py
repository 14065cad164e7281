"""Sweeps: what is kept, what is refused, what is drawn; a supply other than the nominal one in ngspice."""

import json
from pathlib import Path

import attrs
import numpy as np
import pytest

from aimcard.__main__ import main
from aimcard.calibrate.columns import Column, fit_columns, thinned
from aimcard.calibrate.plan import Options
from aimcard.calibrate.simulate import simulate_columns
from aimcard.calibrate.sweep import Cell, cells
from aimcard.models.card_set import CardSet
from aimcard.models.errors import InputError
from aimcard.netlists.column import Pulses
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.corner_survey import corner_figures
from aimcard.netlists.driver import DriverDesign, driver_deck
from aimcard.netlists.readout import default_readout
from aimcard.netlists.technology import get_technology
from aimcard.validation.sweep_figures import parameters
from aimcard.validation.sweep_report import nominal_of, write_report

TECHNOLOGY = get_technology("freepdk45")


def card_in(card_of, celsius: float, corner: str = "nom", vdd_v: float = 1.0):
    base = card_of()
    parameters = [attrs.evolve(p, stderr=0.01 * abs(p.value)) for p in base.parameters]
    meta = base.meta | {"corner": corner, "temperature_c": celsius, "vdd_v": vdd_v}
    return attrs.evolve(base, parameters=parameters, meta=meta)


# --- supply ----------------------------------------------------------------------------------------------------


def test_every_supply_of_a_deck_is_the_one_asked_for():
    low = Options(vdd_v=0.95).pdk
    assert low.vdd_v == 0.95
    text = driver_deck(low, DriverDesign(), 2).text
    assert "Vdd vdd 0 0.95" in text
    pulse = next(line for line in text.splitlines() if line.startswith("Vin"))
    assert " 0.95 " in pulse
    assert " 1 " not in pulse
    assert Options().pdk.vdd_v == TECHNOLOGY.vdd_v


@pytest.mark.parametrize("vdd_v", [0.79, 1.11, float("nan"), -1])
def test_a_supply_outside_the_range_is_refused(vdd_v):
    with pytest.raises(InputError, match=r"vdd: freepdk45 is simulated from 0\.8 to 1\.1 V .* got") as caught:
        Options(vdd_v=vdd_v)
    assert "\n" not in str(caught.value)


def test_a_lower_supply_reads_less_and_counts_less(tmp_path):
    g, codes = np.full((1, 8), 20e-6), np.full((1, 8), 4)
    found = {}
    for vdd in (1.0, 0.95):
        technology = TECHNOLOGY.at_supply(vdd)
        bench = ColumnBench(technology, "nom", 27.0, default_readout(technology))
        column = Column("low", "held_out", "uniform", "ota", g, codes, 0.3, 0.5)
        (found[vdd],) = simulate_columns([column], bench, {0.5: Pulses(code_max=8, guard=4)}, 1, tmp_path, False)
    full, low = found[1.0], found[0.95]
    # Less gate drive: a higher R_on in series with 50 kohm, some 50 ohm more.
    ratio = low["current_a"][0, 0, 2] / full["current_a"][0, 0, 2]
    assert 0.99 < ratio < 0.9999
    assert low["phase_count"][0, 0] != full["phase_count"][0, 0]
    assert abs(low["phase_count"][0, 0] / full["phase_count"][0, 0] - 1) < 0.2


def test_cells_and_ring_follow_temperature_and_supply(tmp_path):
    design = default_readout(TECHNOLOGY)
    usual, hot = (corner_figures(TECHNOLOGY, design, "nom", t, 1, tmp_path) for t in (27.0, 85.0))
    low = corner_figures(TECHNOLOGY.at_supply(0.8), design, "nom", 27.0, 1, tmp_path)
    # Less mobility when hot, less gate drive at a low supply; leakage is over a barrier, and at V_gate = 0.
    assert hot.r_on_ohm > 1.3 * usual.r_on_ohm
    assert low.r_on_ohm > 1.05 * usual.r_on_ohm
    assert hot.leak_a > 3 * usual.leak_a
    assert low.leak_a == pytest.approx(usual.leak_a, rel=1e-3)
    assert all(min(f.margin_deg) > 55 for f in (usual, hot, low))
    assert usual.ring_hz[1] > hot.ring_hz[1]


# --- columns ---------------------------------------------------------------------------------------------------


def test_thinned_columns_keep_their_codes_within_range():
    column = fit_columns("ideal", 4, 1, (0.3, 0.5))[3]
    thin = thinned(column, 256, 1, 3)
    assert thin.conductance_s.shape == (1, 256)
    assert set(np.unique(thin.codes % 3)) == {0}
    assert thin.codes.max() <= 127
    assert ((thin.codes == 0) == (column.codes[:, :256] == 0)).all()
    np.testing.assert_array_equal(thinned(column, 512, 2, 1).codes, column.codes)


# --- folder ----------------------------------------------------------------------------------------------------


def test_only_a_whole_card_of_the_same_inputs_is_kept(card_of, tmp_path):
    (cell,) = cells(Options(effort="sweep"), ["ff"], [85.0], [0.95], tmp_path)
    assert cell.stem == "ff_85C_0.95V"
    assert cell.finished() is None
    card = card_in(card_of, 85.0, "ff", 0.95)
    card.write(cell.file("card.h5"))
    # Killed before the inputs were written: not finished.
    assert cell.finished() is None
    cell.file("inputs.json").write_text(json.dumps(cell.inputs()))
    assert cell.finished() == card
    assert Cell(Options(effort="quick", corner="ff", temperature_c=85.0, vdd_v=0.95), tmp_path).finished() is None
    data = cell.file("card.h5").read_bytes()
    cell.file("card.h5").write_bytes(data[: len(data) // 2])
    assert cell.finished() is None


def test_cells_are_every_combination(tmp_path):
    found = cells(Options(), ["nom", "ff"], [0.0, 85.0], [], tmp_path / "new")
    assert [c.stem for c in found] == ["nom_0C_1V", "nom_85C_1V", "ff_0C_1V", "ff_85C_1V"]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--corners", "nom,qq", "--temperatures", "0"], "corner: freepdk45 has nom, ff, ss; got 'qq'"),
        (["--corners", "nom", "--temperatures", "0,200"], "hold from -40 to 125 °C; got 200"),
        (["--corners", "nom", "--temperatures", "0,x"], "--temperatures: expected numbers with commas between; got '0,x'"),
        (["--corners", ",", "--temperatures", "0"], "--corners: expected one or more values"),
        (["--corners", "nom", "--temperatures", "0,0"], "--temperatures: expected each value once"),
        (["--corners", "nom", "--temperatures", "0", "--vdds", "1,0.5"], "vdd: freepdk45 is simulated from 0.8 to 1.1 V"),
        (["--corners", "nom", "--temperatures", "0", "--vdd", "1"], "Unknown option: --vdd. Did you mean --vdds?"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments, "--out", "folder"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err
    assert not Path("folder").exists()


def test_a_sweep_into_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["sweep", "--corners", "nom", "--temperatures", "0", "--out", str(tmp_path / "file")]) == 2
    assert "expected a folder for the cards of the sweep; got the file" in capsys.readouterr().err


# --- report and interpolation on the command line --------------------------------------------------------------


@pytest.fixture
def folder(card_of, column_of, set_of, tmp_path) -> Path:
    """A sweep's folder of made-up cards with reference sets beside them."""
    for corner in ("nom", "ss"):
        for t in (0.0, 27.0, 85.0):
            stem = f"{corner}_{t:g}C_1V"
            card_in(card_of, t, corner).write(tmp_path / f"{stem}.card.h5")
            records = [column_of("g", seed=1), column_of("o", seed=1, clamp="ota")]
            set_of(*records, corner=corner, temperature_c=t).write(tmp_path / f"{stem}.reference.h5")
    return tmp_path


def test_a_figure_has_a_panel_a_parameter(folder):
    cards = CardSet.read(folder)
    fig = parameters(cards, "cell")
    assert [ax.get_title().split()[0] for ax in fig.axes if ax.get_title()] == [
        p.name for p in cards.cards[0].parameters if p.group == "cell"
    ]
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["nom", "ss"]
    with pytest.raises(InputError, match=r"group: expected one of cell, leakage, .*; got 'cells'"):
        parameters(cards, "cells")


@pytest.mark.slow
def test_the_report_has_every_card_and_parameter(folder):
    cards = CardSet.read(folder)
    assert nominal_of(cards).meta["temperature_c"] == 27.0
    said: list[str] = []
    text = write_report(cards, folder, said.append)
    document = json.loads((folder / "sweep.json").read_text())
    assert len(document["cards"]) == 6
    first = document["cards"][0]["parameters"]
    assert set(first) == set(cards.cards[0].values())
    assert all(name in text for name in first)
    # All cards are alike, and so are their ADCs.
    assert all(t["before_max_count"] < 1e-9 for t in document["adc_trim"]["trims"])
    assert {p.name for p in folder.glob("*.png")} >= {"parameters_cell.png", "parameters_leakage.png", "adc_trim.png"}


def test_interpolate_on_the_command_line(folder, capsys):
    out, js = str(folder / "between.h5"), folder / "between.json"
    where = ["interpolate", str(folder), "--corner", "ss"]
    assert main([*where, "--temperature", "50", "--out", out]) == 0
    assert "temperature_c" in capsys.readouterr().out
    assert main([*where, "--temperature", "27", "--held-out", "--laws", "--json", str(js)]) == 0
    printed = capsys.readouterr().out
    assert "interpolated between cards at 0, 85 degC" in printed
    assert json.loads(js.read_text())["laws"]["linear"]["phase_rms_count"] < 1e-6
    for arguments, words in (
        ([*where, "--temperature", "86"], "0 to 85 degC; got 86"),
        (["interpolate", str(folder), "--temperature", "50"], "corner: expected one of nom, ss"),
        ([*where, "--temperature", "50", "--held-out"], "expected one of the cards' 0, 27, 85 degC to leave out; got 50"),
        ([*where, "--temperature", "0", "--held-out"], "27 to 85 degC; got 0"),
        ([*where, "--temperature", "50", "--laws"], "--laws: expected --held-out with it"),
    ):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert words in err


def test_trim_on_the_command_line(folder, capsys):
    card = str(folder / "ss_85C_1V.card.h5")
    other = ["--against", str(folder / "ss_85C_1V.reference.h5"), "--json", str(folder / "t.json")]
    nominal = ["--nominal", str(folder / "nom_27C_1V.card.h5"), "--figure", str(folder / "t.png"), "--full-scale", "90"]
    assert main(["trim", card, *other, *nominal]) == 0
    assert "trim: gain and offset" in capsys.readouterr().out
    assert json.loads((folder / "t.json").read_text())["full_scale_a"] == pytest.approx(90e-6)


@pytest.mark.slow
def test_a_sweep_of_two_temperatures_and_again(tmp_path, capsys):
    """Leakage rises by decades, the switch's resistance with temperature; the second call simulates and fits nothing."""
    arguments = ["sweep", "--corners", "ff", "--temperatures", "27,85", "--out", str(tmp_path / "set")]
    assert main(arguments) == 0
    capsys.readouterr()
    cards = CardSet.read(tmp_path / "set")
    cold, hot = cards.cards
    assert hot.value("i_leak_a") > 2 * cold.value("i_leak_a")
    assert hot.value("r_on_ohm") > cold.value("r_on_ohm")
    assert main(arguments) == 0
    assert capsys.readouterr().err.count("(kept)") == 2
    assert CardSet.read(tmp_path / "set").cards == cards.cards
