"""Decks: PySpice circuits with a technology's models, the hash of what determines a result, bad netlists."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from PySpice.Spice.Netlist import Circuit

from aimcard.models.errors import InputError
from aimcard.netlists.deck import ACCURATE, Deck, deck_hash, make_deck
from aimcard.netlists.ngspice import run


def rc(v: float) -> Deck:
    return Deck("rc", f"V1 a 0 {v}\nR1 a b 1k\nC1 b 0 1p\n.tran 1n 10n\n.end\n")


class Diodes:
    """A technology that is one diode model: what `make_deck` needs, and nothing else."""

    name = "diodes"

    def __init__(self, folder: Path, is_a: float = 1e-14) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Inner.spi").write_text(f".model dm d is={is_a:g} n=1\n")
        (folder / "top.spi").write_text('* the models are one level down\n.include "Inner.spi"\n')

    def model_lines(self, corner: str, netlist: str) -> str:
        return f'.include "{self.folder / "top.spi"}"'


def diode_deck(technology: Diodes, temperature_c: float = 27.0) -> Deck:
    circuit = Circuit("a diode that carries 1 uA")
    circuit.CurrentSource("bias", circuit.gnd, "A", 1e-6)
    circuit.Diode(1, "A", circuit.gnd, model="dm")
    return make_deck(circuit, "diode", technology, "nom", temperature_c, ".op", ("v(A)",))


@pytest.mark.parametrize("temperature_c", [-40.0, 27.0, 125.0])
def test_pyspice_circuit_with_models_and_temperature(tmp_path: Path, temperature_c: float) -> None:
    deck = diode_deck(Diodes(tmp_path / "With Space" / "Upper"), temperature_c)
    assert ACCURATE in deck.text
    assert ".title" not in deck.text
    voltage = run(deck, cache=tmp_path)["v(a)"][0]
    # Shockley's law with SPICE's saturation current over temperature (XTI = 3, EG = 1.11 eV, TNOM = 27 °C).
    k_over_q = 8.617333e-5
    t, t_nominal = temperature_c + 273.15, 300.15
    saturation = 1e-14 * (t / t_nominal) ** 3 * math.exp((t / t_nominal - 1) * 1.11 / (k_over_q * t))
    assert voltage == pytest.approx(k_over_q * t * math.log(1e-6 / saturation + 1), abs=2e-4)


def test_hash_follows_the_content_of_includes_and_not_their_place(tmp_path: Path) -> None:
    here, there = diode_deck(Diodes(tmp_path / "here")), diode_deck(Diodes(tmp_path / "there"))
    assert here.text != there.text
    assert deck_hash(here, "ngspice-39") == deck_hash(there, "ngspice-39")
    before = run(here, cache=tmp_path)["v(a)"][0]
    Diodes(tmp_path / "here", is_a=1e-15)  # changes the file that is included by the included file
    assert deck_hash(here, "ngspice-39") != deck_hash(there, "ngspice-39")
    assert run(here, cache=tmp_path)["v(a)"][0] - before == pytest.approx(0.02586 * math.log(10), rel=1e-3)


def test_hash_follows_text_and_simulator_and_not_the_name() -> None:
    assert deck_hash(rc(1.0), "ngspice-39") != deck_hash(rc(1.5), "ngspice-39")
    assert deck_hash(rc(1.0), "ngspice-39") != deck_hash(rc(1.0), "ngspice-46")
    assert deck_hash(rc(1.0), "ngspice-39") == deck_hash(Deck("other", rc(1.0).text), "ngspice-39")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("R1 a 0 1k\n.op\n", "'.end' as the last line"),
        (".title x\nR1 a 0 1k\n.op\n.end\n", r"'\.title' is not taken"),
        ("R1 a 0 1k\n.control\nrun\n.endc\n.op\n.end\n", r"'\.control' is not taken"),
        ("R1 a 0 1k\n.end\n", "expected one analysis"),
        ("R1 a 0 1k\n.op\n.dc V1 0 1 1\n.end\n", "expected one analysis"),
        ("R1 a 0 1k\n.tran 1n {stop}\n.end\n", "expected '.tran step stop'"),
        ('R1 a 0 1k\n.include "/models.spi"\n.op\n.end\n', "/models.spi"),
    ],
)
def test_bad_deck_text(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Deck("bad", text)


@pytest.mark.parametrize(
    ("stop", "seconds"),
    [("10n", 1e-8), ("1.5us", 1.5e-6), ("2e-9", 2e-9), ("1meg", 1e6), ("3m", 3e-3), ("1", 1.0)],
)
def test_stop_time_reads_spice_numbers(stop: str, seconds: float) -> None:
    deck = Deck("stop", f"R1 a 0 1k\n.tran 1n\n+ {stop} uic\n.end\n")
    assert deck.stop_time_s() == pytest.approx(seconds)


def test_missing_include_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gone.spi"
    deck = Deck("include", f"R1 a 0 1k\n.include {path}\n.op\n.end\n", includes=(path,))
    with pytest.raises(InputError, match=r"gone\.spi: expected a file"):
        run(deck, cache=tmp_path)
