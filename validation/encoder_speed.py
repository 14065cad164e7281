"""How much slower a whole encoder runs on tiles: ``python -m aimcard.validation.encoder_speed`` prints the table.

A BERT-like ``nn.TransformerEncoder`` with random weights, all of its linear layers and both products of its attention on
tiles, beside the digital one (torch's own fused inference path): CPU times of one thread in turns, float32, no gradients, the
static weights written already. The matrices of the attention's products are written anew in every pass.
"""

from __future__ import annotations

import cProfile
import io
import pstats
import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from aimcard.data.shipped import find_card
from aimcard.models.card import Card
from aimcard.models.console import Arguments, run_module
from aimcard.models.nn import Hardware, NonIdealities, convert_to_analog
from aimcard.validation.speed import in_turns

#: What acts, by name: the columns' circuit as a charge, and the same with the converter.
CHARGE = NonIdealities(regulator=False, adc=False, adc_rounding=False, adc_clip=False)
READS = {"charge": CHARGE, "counts": replace(CHARGE, regulator=True, adc=True), "whole counts": NonIdealities()}
AIMS = {"tied": 3, "gated": 8}


def make_encoder(width: int, layers: int, heads: int, seed: int = 0) -> nn.TransformerEncoder:
    """BERT's block, GELU and four times the width in between, in evaluation."""
    torch.manual_seed(seed)
    block = nn.TransformerEncoderLayer(width, heads, 4 * width, activation="gelu", batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(block, layers).eval()


def analog_share(width: int, length: int) -> float:
    """Share of the encoder's multiply-accumulates in linear layers and attention products, both analog: all but the softmax's
    scaling, LayerNorm's and the additions', counted as one a number."""
    per_token = 12 * width * width + 2 * length * width
    beside = length + 2 * 4 * width + 4 * width
    return per_token / (per_token + beside)


@dataclass(frozen=True)
class EncoderRow:
    """Times of one forward pass, ratio to the digital one, and the rms error over the rms of the digital output."""

    topology: str
    read: str
    batch: int
    length: int
    digital_s: float
    ratio: float
    error: float


@torch.no_grad()
def measure(hardware: Hardware, read: str, encoder: nn.Module, x: Tensor, turns: int = 5) -> EncoderRow:
    """Time the encoder on x (batch, length, width); ``read`` is a key of READS."""
    analog = convert_to_analog(encoder, hardware, non_idealities=READS[read])
    out, truth = analog(x), encoder(x)

    def ours() -> Any:
        with torch.no_grad():
            return analog(x)

    times = in_turns(lambda: encoder(x), {"ours": ours}, turns)
    error = float((out - truth).square().mean().sqrt() / (truth - truth.mean()).square().mean().sqrt())
    topology, ratio = str(hardware.model.card.meta["topology"]), times["ours"] / times[""]
    return EncoderRow(topology, read, x.shape[0], x.shape[1], times[""], ratio, error)


def figures(card: Card) -> str:
    """The card's own distance from ngspice, Gaussian inputs: 1 − R² of the charge, and of the phase if it has one."""
    sets, parts = card.validation.get("data_sets", {}), []
    for name, quantity in (("ideal-gaussian-1x", "charge"), ("ota-gaussian-1x", "phase")):
        score = sets.get(name, {}).get(quantity, {}).get("model")
        if score:
            parts.append(f"{quantity} {score['one_minus_r2']:.1e}")
    return ", ".join(parts) or "none in this card"


def profile(hardware: Hardware, read: str, encoder: nn.Module, x: Tensor) -> str:
    """Where a pass spends its time, by function."""
    analog = convert_to_analog(encoder, hardware, non_idealities=READS[read])
    with torch.no_grad():
        analog(x)
        watch = cProfile.Profile()
        watch.runcall(analog, x)

    text = io.StringIO()
    pstats.Stats(watch, stream=text).sort_stats("tottime").print_stats(25)
    return text.getvalue()


def main(arguments: list[str]) -> None:
    """Print the table."""
    parser = Arguments(prog="python -m aimcard.validation.encoder_speed", description=__doc__)
    parser.add_argument("--cards", nargs="+", default=["freepdk45_tied", "freepdk45_gated"], help="names or files")
    parser.add_argument("--width", type=int, default=512, help="hidden size; heads are 64 wide")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="sentences")
    parser.add_argument("--length", type=int, default=128, help="tokens of each")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--reads", nargs="+", choices=list(READS), default=list(READS))
    parser.add_argument("--profile", action="store_true", help="print where the time goes, too")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    encoder = make_encoder(chosen.width, chosen.layers, chosen.width // 64)
    cards = [find_card(name) for name in chosen.cards]
    share = analog_share(chosen.width, chosen.length)
    print(f"{chosen.layers} layers, hidden {chosen.width}, {chosen.length} tokens, {100 * share:.1f} % of all MACs analog")
    print("| card | read-out | sentences | digital, ms | analog / digital | aim | error / rms [%] |")
    print("|---|---|---|---|---|---|---|")
    for hardware in map(Hardware, cards):
        for read in chosen.reads:
            for batch in chosen.batch:
                x = torch.randn(batch, chosen.length, chosen.width, generator=torch.Generator().manual_seed(1))
                r = measure(hardware, read, encoder, x, chosen.turns)
                times = f"{1e3 * r.digital_s:.0f} | {r.ratio:.2f} | {AIMS[r.topology]}"
                print(f"| {r.topology} | {read} | {batch} | {times} | {100 * r.error:.2g} |", flush=True)
                if chosen.profile:
                    print(profile(hardware, read, encoder, x))
    for card in cards:
        print(f"{card.meta['topology']} card against ngspice, held-out lines, 1 - R²: {figures(card)}")


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
