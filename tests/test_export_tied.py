"""The tied card's netlist run in ngspice against ``TiedTile.respond``, and what its library and deck say."""

import re
import subprocess

import attrs
import numpy as np
import pytest

from aimcard.calibrate import export_report as report
from aimcard.data.shipped import find_card
from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.models.export import export, exporters
from aimcard.models.export_spice import spice_deck, spice_library
from aimcard.models.source_line import SOURCE
from aimcard.models.spice_form import LEAD_S
from aimcard.models.tied_readout import READOUT
from aimcard.models.tied_tile import CELL, PULSE, WIDTH, WIRE, TiedTile
from aimcard.models.tile import Response
from aimcard.netlists.deck import Deck
from aimcard.netlists.ngspice import run
from aimcard.netlists.waveforms import Waveforms

pytestmark = pytest.mark.filterwarnings("ignore::aimcard.models.errors.OutsideDomainWarning")


@pytest.fixture(scope="module")
def card() -> Card:
    return find_card("freepdk45_tied")


def column(rows: int, code_max: int, seed: int, g_max_s: float = 25e-6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plus and minus conductances and signed codes of a column, (rows,) each."""
    rng = np.random.default_rng(seed)
    return *rng.uniform(0.1e-6, g_max_s, (2, rows)), rng.integers(-code_max, code_max + 1, rows)


def simulate(
    card: Card, plus: np.ndarray, minus: np.ndarray, codes: np.ndarray, *, clamp: str = "ota", **situation
) -> tuple[Waveforms, Response]:
    """A column in ngspice and by the card."""
    situation["clamp"] = clamp
    text = spice_deck(card, plus, codes, conductance_minus_s=minus, **situation)
    body = "\n".join(line for line in text.splitlines()[1:] if not line.startswith(".meas")) + "\n"
    waves = run(Deck("export", body, (), expected_cpu_s=max(5.0, len(codes) / 4)))
    response = TiedTile(card).respond(plus[None], codes[None], conductance_minus_s=minus[None], **situation)
    return waves, response


def slot_means(waves: Waveforms, signal: str, response: Response) -> np.ndarray:
    return waves.slot_means(signal, LEAD_S + response.slot_edge_s)


def check_column(waves: Waveforms, response: Response) -> None:
    current, expected = slot_means(waves, "i(vline)", response), response.current_a[0, 0]
    assert np.abs(current - expected).max() < 1e-4 * np.abs(expected).max()
    # Against what flowed: the charge of a signed column may be next to nothing.
    assert abs(current.sum() - expected.sum()) < 5e-5 * np.abs(expected).sum()


def check_readout(waves: Waveforms, response: Response) -> None:
    assert response.mirror_a is not None
    assert response.phase_count is not None
    assert response.count is not None
    current, mirror = slot_means(waves, "i(vline)", response), slot_means(waves, "i(vmir)", response)
    assert np.abs(current - response.current_a[0, 0]).max() < 2e-3 * np.abs(response.current_a).max()
    assert np.abs(current.sum() - response.current_a.sum()) < 2e-4 * np.abs(response.current_a).sum()
    assert np.abs(mirror - response.mirror_a[0, 0]).max() < 1e-3 * response.mirror_a.max()
    assert mirror.sum() == pytest.approx(response.mirror_a.sum(), rel=1e-5)
    assert response.bias_counts is not None
    bias = response.bias_counts.sum()
    assert waves["v(phase)"][-1] - bias == pytest.approx(response.phase_count[0, 0], abs=0.05)
    assert 0 <= waves["v(rest)"][-1] - bias < 1
    assert waves["v(count)"][-1] == pytest.approx(np.floor(waves["v(phase)"][-1]) - bias, abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "situation"),
    [
        (12, {}),
        (24, {"wire_scale": 10.0, "w_select_um": 0.3, "position": 0.0}),
        (8, {"wire_scale": 0.0, "position": 1.0, "offset_v": 0.3e-3}),
        (16, {"wire_scale": 5.0, "read_out": "north"}),
    ],
)
def test_the_column_runs_in_ngspice_and_agrees(card, rows, situation):
    check_column(*simulate(card, *column(rows, 14, seed=rows), clamp="ideal", **situation))


@pytest.mark.parametrize("situation", [{}, {"w_select_um": 0.3, "wire_scale": 10.0, "offset_v": -0.4e-3, "read_out": "north"}])
def test_the_readout_runs_in_ngspice_and_agrees(card, situation):
    check_readout(*simulate(card, *column(10, 20, seed=2), **situation))


def test_large_steps_of_both_signs_agree(card):
    """Few heavy rows of one sign move the regulator far from its bias, where its speed goes with the current."""
    codes = np.repeat([3, 6, 9, 16], 4)
    plus, minus = np.full(16, 25e-6), np.full(16, 0.1e-6)
    down, up = (simulate(card, plus, minus, sign * codes) for sign in (1, -1))
    check_readout(*down)
    check_readout(*up)
    assert down[0]["v(count)"][-1] > 50
    assert up[0]["v(count)"][-1] < -50


def test_sky130s_card_agrees(card):
    sky = find_card("sky130_tied")
    check_column(*simulate(sky, *column(8, 6, seed=4), clamp="ideal"))
    check_readout(*simulate(sky, *column(8, 6, seed=4)))


def test_a_column_at_rest_counts_nothing(card):
    plus, minus, _ = column(6, 1, seed=7)
    waves, response = simulate(card, plus, minus, np.zeros(6, dtype=int))
    assert waves["v(count)"][-1] == 0
    assert response.count is not None
    assert response.count[0, 0] == 0
    # The gates' tunnelling and the regulator's offset are there, as in the card, which is linear in the offset.
    assert slot_means(waves, "i(vline)", response) == pytest.approx(response.current_a[0, 0], rel=3e-4)


def test_swapped_codes_are_swapped_pairs(card):
    """Law: a negated vector is the same column with plus and minus cells exchanged."""
    plus, minus, codes = column(6, 5, seed=8)
    one, _ = simulate(card, plus, minus, -codes, clamp="ideal")
    other, response = simulate(card, minus, plus, codes, clamp="ideal")
    a, b = slot_means(one, "i(vline)", response), slot_means(other, "i(vline)", response)
    assert a == pytest.approx(b, abs=1e-7 * np.abs(b).max())


def test_source_lines_follow_the_netlists_own_parameters(card):
    """The loss of switches and row wire is computed in ngspice, so that an edited .param is another driver."""
    plus, minus, codes = column(6, 5, seed=9)
    ideal = {"r_row_ohm": 0.0, "r_down_ohm": 0.0, "r_up_ohm": 40.0}
    edited = attrs.evolve(card, parameters=[attrs.evolve(p, value=ideal.get(p.name, p.value)) for p in card.parameters])
    check_column(*simulate(edited, plus, minus, codes, clamp="ideal"))
    a, b = (TiedTile(c).respond(plus[None], codes[None], conductance_minus_s=minus[None]) for c in (card, edited))
    assert abs(a.charge_c[0, 0] / b.charge_c[0, 0] - 1) > 1e-2


def test_netlist_carries_every_parameter_that_the_equations_read(card):
    text = spice_library(card)
    for name in (*CELL, *WIRE, WIDTH, *PULSE, *SOURCE, *READOUT):
        found = re.search(rf"^\.param aim_{name}=(\S+) ; (.*)$", text, re.MULTILINE)
        assert found is not None, name
        p = card.parameter(name)
        assert float(found[1]) == pytest.approx(p.value, rel=1e-11)
        assert found[2].startswith(p.description)
        # And it is used, not only written.
        assert len(re.findall(rf"\baim_{name}\b", text)) > 1, name


def test_the_example_in_the_export_runs_as_its_first_lines_say(card, tmp_path):
    text = export(card, "spice").text
    (tmp_path / "card.lib").write_text(text)
    command = re.search(r"^\*   (sed .*)$", text, re.MULTILINE)
    assert command is not None
    done = subprocess.run(["bash", "-c", command[1]], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Error" not in done.stdout + done.stderr
    found = re.findall(r"^(charge|ring|rest|counts)\s*=\s*(\S+)", done.stdout, re.MULTILINE)
    numbers = {name: float(value) for name, value in found}
    rows = re.findall(r"^\*> Xrow\d+ .* plus_([np]\d+) .* gp=(\S+)u gm=(\S+)u ", text, re.MULTILINE)
    codes = np.array([[int(code.replace("n", "-").replace("p", "")) for code, *_ in rows]])
    g = 1e-6 * np.array([[float(plus), float(minus)] for _, plus, minus in rows]).T
    response = TiedTile(card).respond(g[:1], codes, conductance_minus_s=g[1:], clamp="ota")
    assert response.count is not None
    assert response.phase_count is not None
    assert response.bias_counts is not None
    assert numbers["charge"] == pytest.approx(response.charge_c[0, 0], rel=1e-3)
    assert numbers["ring"] - response.bias_counts.sum() == pytest.approx(response.phase_count[0, 0], abs=0.05)
    assert numbers["counts"] == response.count[0, 0]


def without_readout(card: Card) -> Card:
    kept = (*CELL, *WIRE, WIDTH, *PULSE, *SOURCE)
    return attrs.evolve(
        card, parameters=[p for p in card.parameters if p.name in kept],
        tables=[t for t in card.tables if t.name.startswith("edge")], correlation_names=[], correlation=np.zeros((0, 0)),
    )  # fmt: skip


def test_tied_cards_without_a_readout_are_exported_too(card):
    bare = without_readout(card)
    for name in exporters():
        assert export(bare, name).left_out
    assert "aim_readout" not in spice_library(bare)
    assert any("the card has none" in part for part in export(bare, "spice").left_out)
    plus, minus, codes = column(4, 5, seed=1)
    with pytest.raises(InputError, match="without a read-out"):
        spice_deck(bare, plus, codes, conductance_minus_s=minus)
    check_column(*simulate(bare, plus, minus, codes, clamp="ideal"))


def test_what_a_deck_cannot_be_is_said(card):
    plus, minus, codes = column(4, 5, seed=1)
    with pytest.raises(InputError, match=r"conductance_minus_s: expected .* pairs; got none"):
        spice_deck(card, plus, codes)
    with pytest.raises(InputError, match=r"conductance_minus_s: expected shape \(4,\)"):
        spice_deck(card, plus, codes, conductance_minus_s=minus[:3])
    with pytest.raises(InputError, match="one line a deck"):
        spice_deck(card, np.stack([plus, plus]), codes, conductance_minus_s=np.stack([minus, minus]))
    with pytest.raises(InputError, match="read_out"):
        spice_deck(card, plus, codes, conductance_minus_s=minus, read_out="east")
    gated = find_card("freepdk45_gated")
    for extra in ({"conductance_minus_s": minus}, {"read_out": "north"}, {"offset_v": 1e-3}):
        with pytest.raises(InputError, match=f"{next(iter(extra))}: only a tied card's deck takes it"):
            spice_deck(gated, plus, abs(codes), **extra)


def test_a_card_of_another_mode_says_that_pulses_are_conventional(card):
    split = attrs.evolve(card, meta=card.meta | {"mode": "split"})
    assert any("the PWM mode split" in part for part in export(split, "spice").left_out)
    plus, minus, codes = column(4, 5, seed=1)
    assert (
        spice_deck(split, plus, codes, conductance_minus_s=minus).splitlines()[-5:]
        == (spice_deck(card, plus, codes, conductance_minus_s=minus).splitlines()[-5:])
    )


@pytest.mark.parametrize("name", ["freepdk45_gated", "freepdk45_tied"])
def test_the_reports_command_prints_how_well_it_agrees(name, capsys):
    report.main([name, "--rows", "4", "--clamp", "ota"])
    found = re.search(r"charge ([-+.\d]+) ppm, slot means, worst (\S+), phase (\S+) of", capsys.readouterr().out)
    assert found is not None
    charge, slot, phase = (float(number) for number in found.groups())
    assert abs(charge) < 500
    assert slot < 2e-3
    assert abs(phase) < 0.05
    with pytest.raises(InputError, match="rows: expected 1 or more"):
        report.main([name, "--rows", "0"])
