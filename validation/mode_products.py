"""How exact and how fast the products of every PWM mode are: ``python -m aimcard.validation.mode_products`` prints the table.

Against the slow twin, before truncation, with normal weights: charges into an ideal clamp and counts behind the card's
regulator, in the worst and the middle one of a few lines. Times are CPU times of one thread, in turns with torch's own product.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

from aimcard.data import shipped_card
from aimcard.models.card_text import rows_of_text
from aimcard.models.console import Arguments, run_module
from aimcard.models.fast import Effects, FastTile, TiedProduct
from aimcard.models.fast.phases import digit_table
from aimcard.models.modes import get_mode, mode_names
from aimcard.models.pcm import G_MAX_S, G_MIN_S
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel
from aimcard.validation.scores import one_minus_r2
from aimcard.validation.speed import in_turns
from aimcard.validation.typical import normal_codes, normal_pairs

INPUTS = ("gaussian", "uniform", "sparse")
READS = {"charge": Effects(regulator=False), "counts": Effects()}
#: Lines, of least to most conductance, and vectors on which errors are taken.
LINES, VECTORS = 9, 16


def draw_codes(rng: np.random.Generator, inputs: str, batch: int, rows: int, code_max: int, *, signed: bool) -> Tensor:
    """Codes (batch, rows): normal ones (without a sign half of them zero), evenly spread ones, and a tenth of those."""
    if inputs == "gaussian":
        return torch.tensor(normal_codes(rng, batch, rows, code_max, signed=signed).astype(float))
    x = rng.integers(-code_max if signed else 0, code_max + 1, (batch, rows)).astype(float)
    return torch.tensor(x * (rng.random((batch, rows)) < (0.1 if inputs == "sparse" else 1.0)))


def _answer(product: FastTile | TiedProduct, read: str, g: tuple[Tensor, ...], x: Tensor) -> Tensor:
    run = product.charge if read == "charge" else product.phase
    return run(*g, x) if isinstance(product, FastTile) else run(*g, x, idle=False)  # type: ignore[call-arg]


@torch.no_grad()
def products(
    model: TileModel | TiedTile, mode: str, batch: int, turns: int, size: int = 512
) -> dict[str, tuple[dict[str, tuple[float, float]], float]]:
    """By read-out: median and worst 1 − R² of the lines by inputs, and the product's time over torch.mm's."""
    rng = np.random.default_rng(0)
    tied = isinstance(model, TiedTile)
    pair = tuple(torch.tensor(g) for g in normal_pairs(rng, size, size, G_MIN_S, G_MAX_S))
    g = pair if tied else (torch.cat(pair)[:: len(pair)],)
    order = sum(g[1:], start=g[0]).sum(1).argsort()
    some = order[torch.linspace(0, size - 1, LINES).round().long()]
    found = {}
    for read, effects in READS.items():
        kind = TiedProduct if tied else FastTile
        fast = kind(model, effects=effects, mode=mode)  # type: ignore[arg-type]
        twin = kind(model, accuracy="exact", effects=effects, mode=mode, dtype=torch.float64)  # type: ignore[arg-type]
        low, errors = tuple(a.float() for a in g), {}
        for inputs in INPUTS:
            x = draw_codes(rng, inputs, VECTORS, size, model.code_max, signed=tied)
            truth = _answer(twin, read, tuple(a[some] for a in g), x)
            each = one_minus_r2(_answer(fast, read, low, x.float()).double()[:, some].numpy(), truth.numpy())
            errors[inputs] = float(np.median(each)), float(np.max(each))
        x = draw_codes(rng, "gaussian", batch, size, model.code_max, signed=tied).float()
        weight = low[0] * 1e6
        times = in_turns(
            lambda x=x, w=weight: torch.mm(x, w.T), {"ours": lambda f=fast, r=read, w=low, x=x: _answer(f, r, w, x)}, turns
        )
        found[read] = errors, times["ours"] / times[""]
    return found


def main(arguments: list[str]) -> None:
    """Print the table."""
    parser = Arguments(modes=True, prog="python -m aimcard.validation.mode_products", description=__doc__)
    parser.add_argument("modes", nargs="*", help="PWM modes; default: all that are products")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--turns", type=int, default=15)
    chosen = parser.read(arguments)
    torch.set_num_threads(1)
    modes = chosen.modes or [name for name in mode_names() if digit_table(get_mode(name)) is not None]
    rows: list[tuple[str, ...]] = [("1 - R2, median / worst line", "mode", *INPUTS, f"batch {chosen.batch} / torch.mm")]
    for name, kind in (("freepdk45_gated", TileModel), ("freepdk45_tied", TiedTile)):
        model = kind.read(shipped_card(name))
        for mode in modes:
            for read, (errors, ratio) in products(model, mode, chosen.batch, chosen.turns).items():
                cells = (f"{median:.1e} / {worst:.1e}" for median, worst in errors.values())
                rows.append((f"{name}, {read}", mode, *cells, f"{ratio:.1f}"))
    print("\n".join(rows_of_text(rows)))


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
