"""How far products go in a tied tile: the charge by one or two of them, and counts by few time bins instead of all slots.

    python -m aimcard.validation.tied_products card.h5 [set.reference.h5]

The card's own slot-by-slot equations are the truth of the first two tables: it is the reduction that is judged. With a
reference set, counts of its held-out columns are a third: there ngspice's ring is the truth, and the slot-by-slot
equations, lags and all, stand beside the reductions.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aimcard.data.reference import ReferenceSet
from aimcard.data.shipped import find_card
from aimcard.models.card import Card
from aimcard.models.checks import check_choice
from aimcard.models.console import Arguments, run_module
from aimcard.models.errors import InputError
from aimcard.models.lut import lookup
from aimcard.models.pcm import G_MAX_S, G_MIN_S
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import ideal_charge
from aimcard.validation.scores import one_minus_r2, root_mean_square_error, sigma_mac
from aimcard.validation.typical import normal_codes, normal_pairs

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


def count_rate(tile: TiedTile) -> tuple[Tensor, Tensor]:
    """Count rate [Hz] over the line's current [A], bias included. InputError for a card without a read-out."""
    if not tile.has_readout:
        raise InputError("card: expected a tied card with a read-out; got one without the table 'adc'; calibrate again")
    return tile.tables["adc"]


def binned_counts(table: tuple[Tensor, Tensor], current_a: np.ndarray, t_lsb_s: float) -> dict[str, np.ndarray]:
    """Phases [counts] of slot currents (..., slots) by name of the reduction, (...,): of the charge alone, and in few bins."""

    def rate(i: np.ndarray) -> np.ndarray:
        return lookup(*table, torch.as_tensor(i)).numpy()

    slots = current_a.shape[-1]
    line = np.polynomial.Polynomial.fit(current_a.ravel(), rate(current_a).ravel(), 1)
    found = {"straight line through the rate, of the charge": line(current_a).sum(-1) * t_lsb_s}
    for bins in BINS:
        edges = np.round(slots * np.linspace(0, 1, bins + 1)).astype(int)
        parts = [rate(current_a[..., a:b].mean(-1)) * (b - a) * t_lsb_s for a, b in itertools.pairwise(edges)]
        found[f"rate of the mean current, {bins} bin{'s' * (bins > 1)}"] = sum(parts[1:], start=parts[0])
    return found


def products(card: Card, g_max_s: float = G_MAX_S, seed: int = 1) -> Products:
    """Score the reductions on normal weights up to ``g_max_s`` and normal signed inputs."""
    tile, rng = TiedTile(card), np.random.default_rng(seed)
    plus, minus = normal_pairs(rng, COLUMNS, ROWS, G_MIN_S, g_max_s)
    codes = normal_codes(rng, VECTORS, ROWS, tile.code_max, signed=True)
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

    table = count_rate(tile)
    truth = lookup(*table, torch.tensor(whole.current_a)).numpy().sum(-1) * tile.t_lsb_s
    reduced = binned_counts(table, whole.current_a, tile.t_lsb_s)
    count = {name: float(np.median(one_minus_r2(p, truth))) for name, p in reduced.items()}
    return Products(charge, count, float(np.median(whole.charge_c.std(0))), float(np.median(truth.std(0))))


@dataclass(frozen=True)
class CountErrors:
    """Of each reduction, by name: 1 − R² and rms error [counts], medians over the held-out columns of one distribution."""

    distribution: str
    columns: int
    vectors: int
    sigma_count: float
    errors: dict[str, tuple[float, float]]

    def __str__(self) -> str:
        what = f"{self.distribution}: {self.columns} columns, {self.vectors} vectors, sigma {self.sigma_count:.0f} counts"
        return "\n".join([what, *(f"  {n:44} {v:.2g}   {rms:.3g} counts rms" for n, (v, rms) in self.errors.items())])


def against_counts(card: Card, reference: ReferenceSet) -> list[CountErrors]:
    """The reductions of the card's line currents against the recorded ring's phases, of held-out columns, by distribution."""
    tile = TiedTile(card)
    table, start = count_rate(tile), float(tile.values["phase_start"])
    found: dict[str, list[tuple[np.ndarray, dict[str, np.ndarray]]]] = {}
    for r in reference.select(kind="column", role="held_out", clamp="ota"):
        a = r.attrs
        out = tile.respond(
            r["conductance_s"], r["codes"], conductance_minus_s=r["conductance_minus_s"], clamp="ota",
            wire_scale=float(a["wire_scale"]), w_select_um=float(a["w_select_um"]), position=float(a["position"]),
            read_out=str(a["read_out"]),
        )  # fmt: skip
        assert out.phase_count is not None
        assert out.bias_counts is not None
        reduced = {n: p + start for n, p in binned_counts(table, out.current_a, tile.t_lsb_s).items()}
        reduced["all slots, lags and start (the model)"] = out.phase_count + out.bias_counts.sum(-1)
        found.setdefault(str(a["distribution"]), []).append((r["phase_count"], reduced))
    out = []
    for distribution, columns in found.items():
        errors = {
            n: (
                float(np.median([one_minus_r2(p[n], truth) for truth, p in columns])),
                float(np.median([root_mean_square_error(p[n], truth) for truth, p in columns])),
            )
            for n in columns[0][1]
        }
        sigma = float(np.median([sigma_mac(truth) for truth, _ in columns]))
        out.append(CountErrors(distribution, len(columns), min(len(t) for t, _ in columns), sigma, errors))
    return out


def main(arguments: list[str]) -> None:
    """Print the reductions of a tied card, and beside a reference set's counts."""
    parser = Arguments(prog="python -m aimcard.validation.tied_products", description=main.__doc__)
    parser.add_argument("card", help="file or name of a tied card")
    parser.add_argument("reference", nargs="?", type=Path, help="reference set to stand beside")
    given = parser.parse_args(arguments)
    card = find_card(given.card)
    check_choice(f"{given.card}: topology", card.meta["topology"], ("tied",))
    reference = None if given.reference is None else ReferenceSet.read(given.reference)
    print(products(card))
    if reference is not None:
        print("count against ngspice's ring, 1-R2")
        print("\n".join(str(e) for e in against_counts(card, reference)))


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
