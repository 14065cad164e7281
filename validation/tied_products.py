"""How far products go in a tied tile: the charge by one or two of them, and counts by few time bins instead of all slots.

    python -m aimcard.validation.tied_products card.h5

The card's own slot-by-slot equations are the truth here: it is the reduction that is judged. For counts, the oscillator is
that of the shipped gated card behind the regulator's bias: mirror and ring see bias + line current.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimcard.data import shipped_card
from aimcard.models.card import Card
from aimcard.models.lut import lookup
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import ideal_charge
from aimcard.validation.scores import one_minus_r2

#: Bias of the tied regulator (netlists/tied_readout.py) and bleed of the gated one [A]: the table counts from the latter.
BIAS_A = 200e-6
BINS = (1, 2, 3, 4, 8, 16)
ROWS, COLUMNS, VECTORS = 512, 4, 8


@dataclass(frozen=True)
class Products:
    """1 − R² of each predictor, median over lines, by name; ``sigma_c``, ``sigma_count``: σ of what they predict."""

    charge: dict[str, float]
    count: dict[str, float]
    sigma_c: float
    sigma_count: float

    def __str__(self) -> str:
        lines = [f"charge, 1-R2, sigma {self.sigma_c * 1e15:.0f} fC", *(f"  {n:44} {v:.2g}" for n, v in self.charge.items())]
        lines += [f"count, 1-R2, sigma {self.sigma_count:.0f} counts"]
        rms = self.sigma_count
        return "\n".join(
            lines + [f"  {n:44} {v:.2g}   {np.sqrt(v) * rms:.3g} counts rms" for n, v in self.count.items()]
        )


def count_rate(oscillator: Card) -> tuple[Tensor, Tensor]:
    """Count rate [Hz] over the tied line's current [A], from a gated card's table and its bleed."""
    (table,) = (t for t in oscillator.tables if t.name == "adc")
    return torch.tensor(table.x) + float(oscillator.meta["bleed_a"]) - BIAS_A, torch.tensor(table.y)


def products(card: Card, oscillator: Card, g_max_s: float = 25e-6, seed: int = 1) -> Products:
    """Score the reductions on normal weights up to ``g_max_s`` and normal signed inputs."""
    tile, rng = TiedTile(card), np.random.default_rng(seed)
    w = np.clip(rng.normal(0, 1 / 3, (COLUMNS, ROWS)), -1, 1)
    plus, minus = (0.1e-6 + np.maximum(s * w, 0) * (g_max_s - 0.1e-6) for s in (1, -1))
    codes = np.clip(np.round(rng.normal(0, tile.code_max / 3, (VECTORS, ROWS))), -tile.code_max, tile.code_max).astype(int)
    whole = tile.respond(plus, codes, conductance_minus_s=minus)
    with torch.no_grad():
        c = tile.effective(torch.tensor(plus), torch.tensor(minus))
    rest = c.rest_a.numpy() * tile.slots * tile.t_lsb_s
    one = tile.t_lsb_s * codes @ c.weight_a.numpy().T + rest
    two = one + tile.t_lsb_s * np.abs(codes) @ c.even_a.numpy().T
    still = tile.respond(plus, codes, conductance_minus_s=minus, bend=False).charge_c
    ideal = ideal_charge(plus - minus, codes, tile.v_read_v, tile.t_lsb_s)
    predicted = {
        "ideal product": ideal, "one product, effective weights": one, "two products, even part added": two,
        "two products and the edges' terms": still,
    }  # fmt: skip
    charge = {name: float(np.median(one_minus_r2(p, whole.charge_c))) for name, p in predicted.items()}

    table = count_rate(oscillator)
    rate = lambda i: lookup(*table, torch.tensor(i)).numpy()  # noqa: E731
    current, t = whole.current_a, tile.t_lsb_s
    truth = rate(current).sum(-1) * t
    linear = np.polynomial.Polynomial.fit(current.ravel(), rate(current).ravel(), 1)
    count = {"straight line through the rate, of the charge": float(np.median(one_minus_r2(linear(current).sum(-1) * t, truth)))}
    for bins in BINS:
        edges = np.round(tile.slots * np.linspace(0, 1, bins + 1)).astype(int)
        binned = sum(rate(current[..., a:b].mean(-1)) * (b - a) * t for a, b in itertools.pairwise(edges))
        count[f"rate of the mean current, {bins} bin{'s' * (bins > 1)}"] = float(np.median(one_minus_r2(binned, truth)))
    return Products(charge, count, float(np.median(whole.charge_c.std(0))), float(np.median(truth.std(0))))


if __name__ == "__main__":
    given = sys.argv[1:]
    if len(given) != 1:
        sys.exit("usage: python -m aimcard.validation.tied_products CARD")
    print(products(Card.read(given[0]), Card.read(shipped_card("freepdk45_gated"))))
