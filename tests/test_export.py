"""Exports: the csv read back, the netlist run in ngspice against the card, and whole files or none."""

import contextlib
import csv
import errno
import io
import json
import math
import re
import subprocess
from pathlib import Path

import attrs
import numpy as np
import pytest

from aimcard.__main__ import main
from aimcard.data import shipped_card
from aimcard.data.shipped import find_card
from aimcard.models.card import Card, Interval
from aimcard.models.checks import check_choice
from aimcard.models.errors import InputError
from aimcard.models.export import export, exporters
from aimcard.models.export_spice import LEAD_S, spice_deck, spice_library
from aimcard.models.lut import lookup
from aimcard.models.spice_readout import TABLE_ERROR, fine_points
from aimcard.models.tile import Response, TileModel
from aimcard.netlists.deck import Deck
from aimcard.netlists.ngspice import run
from aimcard.netlists.waveforms import Waveforms


@pytest.fixture(scope="module")
def card() -> Card:
    return Card.read(shipped_card())


def rows_of(card: Card) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(export(card, "csv").text)))


@pytest.mark.parametrize("name", ["freepdk45_gated", "freepdk45_tied", "sky130_tied"])
def test_csv_gives_every_number_back_exactly(name):
    card = find_card(name)
    rows = rows_of(card)
    assert {row["name"]: row["value"] for row in rows if row["section"] == "meta"} == {
        "content_hash": card.content_hash, **{key: str(value) for key, value in card.meta.items()}
    }  # fmt: skip
    parameters = [row for row in rows if row["section"] == "parameter"]
    assert {row["name"]: float(row["value"]) for row in parameters} == card.values()
    for row, p in zip(parameters, card.parameters, strict=True):
        assert row["stderr"] == ("" if p.stderr is None else repr(p.stderr))
        assert (float(row["min"]), float(row["max"]), row["unit"], row["group"]) == (p.min, p.max, p.unit, p.group)
    for table in card.tables:
        points = [row for row in rows if (row["section"], row["name"]) == ("table", table.name)]
        assert [float(row["x"]) for row in points] == table.x.tolist()
        assert [float(row["value"]) for row in points] == table.y.tolist()
        assert {(row["x_unit"], row["unit"]) for row in points} == {(table.x_unit, table.y_unit)}
    bounds = [row for row in rows if row["section"] == "domain"]
    domain = {row["name"]: Interval(float(row["min"]), float(row["max"]), row["unit"]) for row in bounds}
    assert domain == card.domain


def test_csv_has_what_differs_from_chip_to_chip(card):
    assert card.spreads
    for spread in card.spreads:
        rows = [row for row in rows_of(card) if (row["section"], row["group"]) == ("spread", spread.name)]
        assert [row["name"] for row in rows] == list(spread.names)
        assert [float(row["value"]) for row in rows] == spread.mean.tolist()
        assert [float(row["sigma"]) for row in rows] == np.sqrt(np.diag(spread.covariance)).tolist()


@pytest.mark.parametrize("name", ["freepdk45_gated", "freepdk45_tied"])
def test_json_is_the_whole_card(name):
    """Read back, it has every number of the file, and names what JSON cannot hold."""
    card = find_card(name)
    document = json.loads(export(card, "json").text)
    assert document["content_hash"] == card.content_hash
    assert document["meta"] == card.meta
    assert {p["name"]: p["value"] for p in document["parameters"]} == card.values()
    assert {t["name"]: (t["x"], t["y"]) for t in document["tables"]} == {
        t.name: (t.x.tolist(), t.y.tolist()) for t in card.tables
    }  # fmt: skip
    assert set(document["domain"]) == set(card.domain)
    assert document["validation"] == json.loads(json.dumps(card.validation))


def test_csv_leaves_an_absent_bound_empty(card, card_of):
    first = attrs.evolve(card.parameters[0], min=-math.inf, description='a, "quoted" text', at_bound=True, identified=False)
    row = next(row for row in rows_of(attrs.evolve(card_of(), parameters=[first])) if row["section"] == "parameter")
    assert (row["min"], row["description"], row["flags"]) == ("", 'a, "quoted" text', "at_bound not_identified")


def simulate(card: Card, conductance_s: np.ndarray, codes: np.ndarray, **situation) -> tuple[Waveforms, Response]:
    """A line in ngspice and by the card."""
    text = spice_deck(card, conductance_s, codes, **situation)
    body = "\n".join(line for line in text.splitlines()[1:] if not line.startswith(".meas")) + "\n"
    waves = run(Deck("export", body, (), expected_cpu_s=len(codes) / 8))
    return waves, TileModel(card).respond(conductance_s[None], codes[None], **situation)


def line(rows: int, g_max_s: float, code_max: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.1e-6, g_max_s, rows), rng.integers(0, code_max + 1, rows)


def slot_means(waves: Waveforms, signal: str, response: Response) -> np.ndarray:
    return waves.slot_means(signal, LEAD_S + response.slot_edge_s)


@pytest.mark.parametrize(
    ("wire_scale", "w_select_um", "position"), [(1.0, 0.5, 0.5), (10.0, 0.3, 0.0), (0.0, 0.5, 1.0)]
)
@pytest.mark.filterwarnings("ignore::aimcard.models.errors.OutsideDomainWarning")
def test_the_column_runs_in_ngspice_and_agrees(card, wire_scale, w_select_um, position):
    g, x = line(8, 25e-6, 12, seed=3)
    waves, response = simulate(
        card, g, x, clamp="ideal", wire_scale=wire_scale, w_select_um=w_select_um, position=position
    )
    current = slot_means(waves, "i(vline)", response)
    # The slots' own size decides, not the large first one: an edge in the wrong slot is 1e-2 of it.
    assert np.abs(current - response.current_a[0, 0]).max() < 1e-4 * response.current_a.max()
    assert current.sum() * 1e-9 == pytest.approx(response.charge_c[0, 0], rel=5e-5)


@pytest.mark.parametrize("form", ["quadratic", "cubic"])
def test_each_form_of_the_apparent_weight_is_exported(card, form):
    g, x = line(4, 25e-6, 3, seed=1)
    other = attrs.evolve(card, meta=card.meta | {"apparent_weight": form})
    waves, response = simulate(other, g, x, clamp="ideal")
    rational = TileModel(card).respond(g[None], x[None], clamp="ideal")
    charge = slot_means(waves, "i(vline)", response).sum() * 1e-9
    assert charge == pytest.approx(response.charge_c[0, 0], rel=2e-5)
    if form == "quadratic":
        assert abs(charge / rational.charge_c[0, 0] - 1) > 5e-5


def check_readout(waves: Waveforms, response: Response) -> None:
    assert response.mirror_a is not None
    assert response.phase_count is not None
    current, mirror = slot_means(waves, "i(vline)", response), slot_means(waves, "i(vmir)", response)
    assert np.abs(current - response.current_a[0, 0]).max() < 2e-3 * response.current_a.max()
    assert np.abs(mirror - response.mirror_a[0, 0]).max() < 5e-3 * response.mirror_a.max()
    assert current.sum() == pytest.approx(response.current_a.sum(), rel=2e-4)
    assert mirror.sum() == pytest.approx(response.mirror_a.sum(), rel=2e-4)
    assert waves["v(phase)"][-1] == pytest.approx(response.phase_count[0, 0], abs=0.05)


@pytest.mark.filterwarnings("ignore::aimcard.models.errors.OutsideDomainWarning")
def test_the_readout_runs_in_ngspice_and_agrees(card):
    check_readout(*simulate(card, *line(8, 25e-6, 20, seed=2)))


@pytest.mark.slow
@pytest.mark.parametrize("clamp", ["ideal", "ota"])
def test_a_whole_column_agrees(card, clamp):
    rng = np.random.default_rng(5)
    g = rng.uniform(0.1e-6, 5e-6, 512)
    x = np.clip(np.abs(rng.normal(0, 42, 512)).round(), 0, 127).astype(int)
    waves, response = simulate(card, g, x, clamp=clamp)
    if clamp == "ota":
        check_readout(waves, response)
    else:
        assert slot_means(waves, "i(vline)", response).sum() * 1e-9 == pytest.approx(response.charge_c[0, 0], rel=2e-5)


def test_the_example_in_the_export_runs_as_its_first_lines_say(card, tmp_path):
    text = export(card, "spice").text
    (tmp_path / "card.lib").write_text(text)
    command = re.search(r"^\*   (sed .*)$", text, re.MULTILINE)
    assert command is not None
    done = subprocess.run(
        ["bash", "-c", command[1]], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Error" not in done.stdout + done.stderr
    numbers = {name: float(v) for name, v in re.findall(r"^(charge|counts)\s*=\s*(\S+)", done.stdout, re.MULTILINE)}
    rows = re.findall(r"^\*> Xrow\d+ .* on(\d+) .* g=(\S+)u ", text, re.MULTILINE)
    x, g = np.array([[int(code) for code, _ in rows]]), np.array([[1e-6 * float(g) for _, g in rows]])
    response = TileModel(card).respond(g, x)
    assert response.phase_count is not None
    assert numbers["charge"] == pytest.approx(response.charge_c[0, 0], rel=3e-4)
    assert numbers["counts"] == pytest.approx(response.phase_count[0, 0], abs=0.05)


def test_table_points_follow_the_smooth_table(card):
    model = TileModel(card)
    for name in ("clamp", "mirror", "adc"):
        x, y = model.tables[name]
        at, value = fine_points(x, y)
        fine = x.new_tensor(np.linspace(float(x[0]), float(x[-1]), 20001))
        off = np.abs(np.interp(fine.numpy(), at, value) - lookup(x, y, fine).numpy()).max()
        assert off < TABLE_ERROR * float(y.abs().max())
        assert set(x.tolist()) <= set(at.tolist())


def test_netlist_carries_every_parameter(card):
    text = spice_library(card)
    for p in card.parameters:
        if p.group != "energy" and p.name not in ("t_rise_s", "k_rise", "t_fall_s", "k_fall"):
            value = re.search(rf"^\.param aim_{p.name}=(\S+) ; ", text, re.MULTILINE)
            assert value is not None, p.name
            assert float(value[1]) == pytest.approx(p.value, rel=1e-11)


def test_cards_without_a_readout_are_exported_too(card_of):
    card = card_of(readout=False)
    for name in exporters():
        assert export(card, name).left_out
    assert "aim_readout" not in spice_library(card)
    assert "adc_quantization = False" in export(card, "aihwkit").text
    assert any("the card has none" in part for part in export(card, "spice").left_out)
    with pytest.raises(InputError, match="without a read-out"):
        spice_deck(card, np.full(4, 1e-6), np.zeros(4))
    g, x = line(4, 10e-6, 15, seed=1)
    waves, response = simulate(card, g, x, clamp="ideal")
    assert slot_means(waves, "i(vline)", response).sum() * 1e-9 == pytest.approx(response.charge_c[0, 0], rel=1e-3)


@pytest.mark.parametrize(
    ("meta", "to", "message"),
    [
        ({"topology": "diagonal"}, "spice", "topology: expected one of gated, tied"),
        ({"v_read_v": 0.3}, "aihwkit", "expected a card with a read voltage of 0.2 V"),
    ],
)
def test_what_a_target_cannot_be_is_said(card, meta, to, message):
    with pytest.raises(InputError, match=message):
        export(attrs.evolve(card, meta=card.meta | meta), to)


def test_an_unknown_form_lists_the_choices():
    with pytest.raises(InputError, match="json, csv, spice, aihwkit; got 'cvs' \\(did you mean 'csv'"):
        check_choice("--to", "cvs", exporters())


def test_the_pages_example_of_a_deck_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "exports.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "spice_deck" in block)
    exec(compile(code, "exports.md", "exec"), {})
    deck = (tmp_path / "column.cir").read_text()
    assert len(re.findall(r"^Xrow\d+ .* scale=2$", deck, re.MULTILINE)) == 64


def test_the_command_line_shows_the_choices(capsys):
    with contextlib.suppress(SystemExit):
        main(["export", "--help"])
    assert f"{', '.join(exporters()[:-1])} or {exporters()[-1]}" in " ".join(capsys.readouterr().out.split())


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    old = tmp_path / "card.csv"
    old.write_text("old")
    assert main(["export", "freepdk45_gated", "--to", "nothing", "--out", "card.csv"]) == 2

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert main(["export", "freepdk45_gated", "--to", "csv", "--out", "card.csv"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert (list(tmp_path.iterdir()), old.read_text()) == ([old], "old")
    assert main(["export", "freepdk45_gated", "--to", "csv", "--out", "card.csv"]) == 0
    assert old.read_text() == export(Card.read(shipped_card()), "csv").text
    assert "not in the csv: validation figures" in capsys.readouterr().err
