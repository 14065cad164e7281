"""How near the exported aihwkit configuration comes to its tied card: the same weights and codes through both.

    python -m aimcard.validation.aihwkit_agreement freepdk45_tied

needs aihwkit (``pip install --no-deps aihwkit``). The card's truth is its slot-by-slot response; a resting column's charge is
subtracted, as its digital side does. What is left is taken apart by cards that lack one thing after the other.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from aimcard.data.shipped import find_card
from aimcard.models.card import Card
from aimcard.models.console import Arguments, run_module
from aimcard.models.errors import InputError
from aimcard.models.export_aihwkit import to_aihwkit
from aimcard.models.tied_tile import EDGE_TABLES, PULSE, WIDTH, TiedTile
from aimcard.validation.peers import installed
from aimcard.validation.typical import normal_codes

#: What is left out in turn, each step beside those before: what it is, parameters that become zero, and tables.
STEPS = (
    ("R_on's dependence on voltage, gate current", ("k_mid_per_v", "k_mid_per_v2", "k_drain_per_v2", "i_gate_a"), ()),
    ("these, delays, column's capacitance", (*PULSE, "c_column_f", WIDTH), EDGE_TABLES),
    ("these, both switches", ("r_down_ohm", "r_up_ohm"), ()),
)


@dataclass(frozen=True)
class Agreement:
    """One comparison. rms: of the difference, as a share of the card's σ over vectors and columns; scaled: the same
    after the best single gain ``gain``, which any layer's output scale takes; names: what is compared with what."""

    of: str
    against: str
    rms: float
    gain: float
    scaled: float

    def __str__(self) -> str:
        return f"{self.of:16} {self.against:62} {self.rms:.2e}   {self.gain:.4f}   {self.scaled:.2e}"


@dataclass(frozen=True)
class Case:
    """Weights (columns, rows) in −1 … 1 and signed codes (vectors, rows), the conductances [S] that the configuration maps
    them to, and what one unit of product is in coulombs."""

    weight: Tensor
    codes: np.ndarray
    plus_s: np.ndarray
    minus_s: np.ndarray
    unit_c: float


def case(card: Card, columns: int, vectors: int, seed: int) -> Case:
    """Normal weights and normal codes; ``columns`` even, as aihwkit wants it."""
    if columns < 2 or columns % 2:
        raise InputError(f"columns: expected an even number, as aihwkit's tile needs; got {columns}")
    rng = np.random.default_rng(seed)
    rows, code_max = int(card.meta["rows"]), int(card.meta["code_max"])
    w = rng.normal(size=(columns, rows))
    w = (w / np.abs(w).max()).astype(np.float32)
    codes = normal_codes(rng, vectors, rows, code_max, signed=True)
    # aihwkit takes each vector's largest input for the largest code.
    codes[:, 0] = code_max
    domain = card.domain["conductance_s"]
    span = domain.hi - domain.lo
    plus, minus = (np.clip(sign * w.astype(float), 0, None) * span + domain.lo for sign in (1, -1))
    unit = span * float(card.meta["v_read_v"]) * float(card.meta["t_lsb_s"]) * code_max
    return Case(torch.tensor(w), codes, plus, minus, unit)


def aihwkit_product(card: Card, given: Case, *, adc: bool) -> np.ndarray:
    """What a layer with the exported configuration makes of the case, (vectors, columns), with or without its ADC."""
    if not installed("aihwkit"):
        raise InputError("aihwkit: not installed; pip install --no-deps aihwkit")
    scope: dict[str, Any] = {"__name__": "exported"}
    linear = nn.Linear(given.weight.shape[1], given.weight.shape[0], bias=False)
    # aihwkit uses what torch deprecates.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(to_aihwkit(card).text, scope)
        config = scope["rpu_config"]()
        config.forward.adc_quantization = adc
        linear.weight.copy_(given.weight)
        layer = importlib.import_module("aihwkit.nn").AnalogLinear.from_digital(linear, config).eval()
        code_max = int(card.meta["code_max"])
        return layer(torch.tensor(given.codes / code_max, dtype=torch.float32)).double().numpy()


def card_product(tile: TiedTile, given: Case, *, counts_per_c: float | None = None, **situation: Any) -> np.ndarray:
    """The card's charge less a resting column's, in units of the product (vectors, columns), every other column read at its
    other end. counts_per_c: take the card's signed counts instead, so many a coulomb."""
    out = np.empty((len(given.codes), len(given.weight)))
    for first, end in ((0, "south"), (1, "north")):
        codes = np.concatenate([np.zeros_like(given.codes[:1]), given.codes])
        response = tile.respond(
            given.plus_s[first::2], codes, conductance_minus_s=given.minus_s[first::2], read_out=end, **situation
        )
        if counts_per_c is None:
            out[:, first::2] = (response.charge_c[1:] - response.charge_c[:1]) / given.unit_c
        else:
            assert response.count is not None
            out[:, first::2] = (response.count[1:] - response.count[:1]) / counts_per_c / given.unit_c
    return out


def compare(of: str, against: str, a: np.ndarray, b: np.ndarray) -> Agreement:
    """``a`` against ``b``, (vectors, columns) each."""
    gain = float((a * b).sum() / (a * a).sum())
    sigma = float(b.std())
    rms, scaled = (float(np.sqrt(np.mean((k * a - b) ** 2))) / sigma for k in (1.0, gain))
    return Agreement(of, against, rms, gain, scaled)


def without(card: Card, names: tuple[str, ...]) -> TiedTile:
    """The tile of a card whose parameters and tables ``names`` are zero."""
    parameters = [attrs.evolve(p, value=0.0) if p.name in names else p for p in card.parameters]
    tables = [attrs.evolve(t, y=0 * t.y) if t.name in names else t for t in card.tables]
    return TiedTile(attrs.evolve(card, parameters=parameters, tables=tables))


def agreement(card: Card, *, columns: int = 4, vectors: int = 8, seed: int = 1) -> list[Agreement]:
    """The comparisons of the docs' table. InputError for a gated card, an odd number of columns, or without aihwkit."""
    if card.meta["topology"] != "tied":
        raise InputError(f"card: expected a tied one, whose column is aihwkit's; got topology {card.meta['topology']!r}")
    tile, given = TiedTile(card), case(card, columns, vectors, seed)
    out = aihwkit_product(card, given, adc=False)
    charge = card_product(tile, given)
    digital = given.codes @ given.weight.double().numpy().T / int(card.meta["code_max"])
    rows = [
        compare("digital product", "card, charge, ideal clamp", digital, charge),
        compare("configuration", "card, charge, ideal clamp", out, charge),
    ]
    gone: tuple[str, ...] = ()
    for what, names, tables in STEPS:
        gone += (*names, *tables)
        rows.append(compare("configuration", f"card without: {what}", out, card_product(without(card, gone), given)))
    rows += [
        compare("configuration", f"card, charge, column {where} the drivers", out, card_product(tile, given, position=u))
        for where, u in (("next to", 0.0), ("farthest from", 1.0))
    ]
    if tile.has_readout:
        rows.append(compare("configuration", "card, charge with its read-out", out, card_product(tile, given, clamp="ota")))
        x, rate = tile.tables["adc"]
        slope = float(np.interp(100e-6, x, rate) - np.interp(-100e-6, x, rate)) / 200e-6
        counts = card_product(tile, given, clamp="ota", counts_per_c=slope)
        rows.append(compare("with its ADC", "card, counts", aihwkit_product(card, given, adc=True), counts))
    return rows


def main(arguments: list[str]) -> None:
    """Print how far the exported tile of aihwkit is from the card. Raises as `agreement`."""
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card")
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--vectors", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    print(f"{'':16} {'against':62} rms        gain     rms, scaled")
    for row in agreement(find_card(given.card), columns=given.columns, vectors=given.vectors, seed=given.seed):
        print(row)


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
