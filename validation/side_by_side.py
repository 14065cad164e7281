"""Our products and other simulators' in turns, in one process: what each costs over torch's own product."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from aimcard.models.fast import FastTile
from aimcard.models.tile import TileModel
from aimcard.validation.peers import peers
from aimcard.validation.speed import READS, draw


@dataclass(frozen=True)
class Compared:
    """One simulator: ratio to torch's product of the same batch, what of the circuit it has, and vectors timed at a time."""

    name: str
    circuit: str
    ratio: float
    vectors: int


def compare(model: TileModel, batch: int = 128, lines: int = 512, rows: int = 512, turns: int = 3) -> list[Compared]:
    """CPU times, medians over ``turns``, torch's before each.

    A simulator that takes a few vectors at a time is timed on so many and scaled to the batch: its whole batch takes minutes,
    and its cost goes with the number of vectors.
    """
    g64, x64 = draw("normal", "gaussian", lines, rows, batch)
    g, x, weight = g64.float(), x64.float(), (g64 * 1e6).float()
    found: list[tuple[str, str, int, Callable[[], object]]] = []
    for read, effects in READS.items():
        tile = FastTile(model, effects)

        def ours(tile: FastTile = tile, read: str = read) -> Tensor:
            with torch.no_grad():
                return tile.charge(g, x) if read == "charge" else tile.phase(g, x)

        circuit = "gated ladder, cells, leakage, pulses" + (", regulator, mirror, oscillator" if read == "phase" else "")
        found.append((f"aimcard, {read}", circuit, batch, ours))
    for other in peers(0.1 * torch.randn(lines, rows, generator=torch.Generator().manual_seed(1)))[0]:
        part = (x / 127)[: other.chunk or batch]
        found.append((f"{other.name} {other.version}", other.circuit, len(part), lambda other=other, part=part: other.run(part)))
    rows_of = []
    for name, circuit, vectors, call in found:
        call()
        ratios = []
        for _ in range(turns):
            start = time.process_time()
            for _ in range(5):
                torch.mm(x, weight.T)
            middle = time.process_time()
            call()
            ratios.append((time.process_time() - middle) * (batch / vectors) / ((middle - start) / 5))
        rows_of.append(Compared(name, circuit, median(ratios), vectors))
    return rows_of
