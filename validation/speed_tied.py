"""How fast and how exact a tied card's product is: ``python -m aimcard.validation.speed_tied`` prints the tables.

As ``validation/speed.py``, for pairs of conductances and signed codes: CPU times of one thread in turns with torch's own
product; errors before rounding against the slot-by-slot equations, and against the recorded ngspice lines.
"""

from __future__ import annotations

import sys
import time
from statistics import median

import numpy as np
import torch
from torch import Tensor

from aimcard.data.shipped import find_card, reference_for
from aimcard.models.card_text import rows_of_text
from aimcard.models.console import Arguments, run_module
from aimcard.models.fast import Effects, TiedProduct
from aimcard.models.pcm import G_MAX_S, G_MIN_S
from aimcard.models.tied_tile import TiedTile
from aimcard.validation.scores import one_minus_r2
from aimcard.validation.speed import in_turns, peak_bytes
from aimcard.validation.typical import normal_codes, normal_pairs

INPUTS = ("gaussian", "uniform", "sparse")


def draw(inputs: str, lines: int, rows: int, batch: int, code_max: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (lines, rows) [S] of normal weights up to 25 µS and signed codes (batch, rows), float64."""
    rng = np.random.default_rng(seed)
    plus, minus = (torch.tensor(g) for g in normal_pairs(rng, lines, rows, G_MIN_S, G_MAX_S))
    if inputs == "gaussian":
        x = normal_codes(rng, batch, rows, code_max, signed=True).astype(float)
    else:
        x = rng.integers(-code_max, code_max + 1, (batch, rows)).astype(float)
        x *= rng.random((batch, rows)) < (0.1 if inputs == "sparse" else 1.0)
    return plus, minus, torch.tensor(x)


#: What is timed: a charge with an ideal clamp, or counts behind the regulator; and the accuracy.
READS = {
    "charge, fast": ("charge", "fast"), "charge, two": ("charge", "two"), "counts, fast": ("phase", "fast"),
    "counts, 1e-6": ("phase", 1e-6),
}  # fmt: skip


def product_of(tile: TiedTile, read: str, accuracy: str | float, dtype: torch.dtype = torch.float32) -> TiedProduct:
    """The product of a read-out: charges into an ideal clamp, counts behind the card's regulator."""
    return TiedProduct(tile, accuracy, dtype=dtype, effects=Effects(regulator=read == "phase"))


def timed(
    tile: TiedTile, batch: int, read: str = "charge", accuracy: str | float = "fast", size: int = 512, turns: int = 25
) -> tuple[float, float, float]:
    """Forward over torch.mm's time, backward over forward, and peak memory beyond torch's in outputs; float32."""
    plus, minus, x = (a.float() for a in draw("gaussian", size, size, batch, tile.code_max))
    weight, product = (plus - minus) * 1e6, product_of(tile, read, accuracy)
    run = product.phase if read == "phase" else product.charge

    def digital() -> Tensor:
        return torch.mm(x, weight.T)

    def analog() -> Tensor:
        with torch.no_grad():
            return run(plus, minus, x)

    analog()
    times = in_turns(digital, {"ours": analog}, turns)
    memory = (peak_bytes(analog) - peak_bytes(digital)) / (4 * batch * size)
    # Gradients of the inputs: what a network's earlier layers need, the weights being written already.
    at, forward_s, backward_s = x.clone().requires_grad_(True), [], []
    for _ in range(7):
        start = time.thread_time()
        out = run(plus, minus, at)
        middle = time.thread_time()
        torch.autograd.grad(out.sum(), at)
        forward_s.append(middle - start)
        backward_s.append(time.thread_time() - middle)
    return times["ours"] / times[""], median(backward_s) / median(forward_s), memory


def against_ngspice(tile: TiedTile, accuracy: str = "fast") -> list[tuple[str, float]]:
    """1 − R² of the product's charges on every held-out record of the card's shipped reference set, median over lines."""
    found = []
    for r in reference_for(tile.card).select(kind="column", role="held_out", clamp="ideal"):
        product = TiedProduct(
            tile, accuracy, float(r.attrs["wire_scale"]), torch.float64, float(r.attrs["w_select_um"]), float(r.attrs["position"])
        )
        plus, minus = (torch.tensor(r[n].copy()) for n in ("conductance_s", "conductance_minus_s"))
        x = torch.tensor(r["codes"].astype(float))
        if r.attrs.get("read_out") == "north":
            plus, minus, x = plus.flip(-1), minus.flip(-1), x.flip(-1)
        with torch.no_grad():
            charge = product.charge(plus, minus, x).numpy()
        truth = r["current_a"].sum(-1) * tile.t_lsb_s
        found.append((r.name, float(np.median(one_minus_r2(charge, truth)))))
    return found


def main(arguments: list[str]) -> None:
    """Print the tables."""
    parser = Arguments(prog="python -m aimcard.validation.speed_tied", description=__doc__)
    parser.add_argument("--card", default="freepdk45_tied", help="file or name of a card")
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 1024])
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tile = TiedTile(find_card(chosen.card))
    head = "tied, 512 x 512, float32, one thread"
    rows: list[tuple[str, ...]] = [(head, "batch", "forward / torch.mm", "backward / forward", "memory, outputs")]
    for name, (read, accuracy) in READS.items():
        for batch in chosen.batch:
            ratio, back, memory = timed(tile, batch, read, accuracy)
            rows.append((name, str(batch), f"{ratio:.2f}", f"{back:.2f}", f"{memory:.1f}"))
    print("\n".join(rows_of_text(rows)))
    rows = [("1 - R2 against the slow twin, worst of 8 lines, 48 vectors", *INPUTS)]
    for name, (read, accuracy) in READS.items():
        product = product_of(tile, read, accuracy)
        errors = (
            product.error(*draw(inputs, 64, 512, 48, tile.code_max), lines=8, vectors=48, counts=read == "phase")
            for inputs in INPUTS
        )
        rows.append((name, *(f"{e:.1e}" for e in errors)))
    print("\n".join(rows_of_text(rows)))
    rows = [("1 - R2 against ngspice, held-out lines", "fast", "two")]
    rows += [
        (name, f"{fast:.1e}", f"{two:.1e}")
        for (name, fast), (_, two) in zip(against_ngspice(tile), against_ngspice(tile, "two"), strict=True)
    ]
    print("\n".join(rows_of_text(rows)))


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
