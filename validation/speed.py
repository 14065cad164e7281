"""How fast and how exact a card's product is: ``python -m aimcard.validation.speed`` prints the table.

Times are CPU times of one thread, of our product and torch's own in turns, and their ratio is that of the medians. Errors
are against the slow twin, line by line, before rounding. Weights: ``normal`` are the positive halves of normal weights,
scaled per line to g_max 25 µS (one line of a pair); ``uniform`` 0.1 to 5 µS. Both keep the lines within the card's domain.
"""

from __future__ import annotations

import copy
import ctypes
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from aimcard.data.shipped import find_card
from aimcard.models.console import Arguments, output_folder, run_module
from aimcard.models.fast import Effects, FastTile
from aimcard.models.fast.exact import solve
from aimcard.models.pcm import G_MAX_S, G_MIN_S
from aimcard.models.tile import TileModel

WEIGHTS = ("normal", "uniform")
INPUTS = ("gaussian", "uniform", "sparse")
READS = {"charge": Effects(regulator=False), "phase": Effects()}


def draw(weights: str, inputs: str, lines: int, rows: int, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Conductances (lines, rows) [S] and codes (batch, rows), float64."""
    rng = np.random.default_rng(seed)
    if weights == "normal":
        w = rng.normal(size=(lines, rows))
        g = G_MIN_S + (G_MAX_S - G_MIN_S) * np.clip(w / np.abs(w).max(1, keepdims=True), 0, None)
    else:
        g = rng.uniform(G_MIN_S, 5e-6, (lines, rows))
    if inputs == "gaussian":
        x = np.clip(rng.normal(0, 42, (batch, rows)).round(), 0, 127)
    else:
        x = rng.integers(0, 128, (batch, rows)).astype(float)
        if inputs == "sparse":
            x *= rng.random((batch, rows)) < 0.1
    return torch.tensor(g), torch.tensor(x)


def in_turns(first: Callable[[], object], others: Mapping[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """CPU seconds of ``first`` (key "") and of the others, medians over ``turns`` alternations."""
    calls = {"": first, **others}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for k in range(turns + 1):
        for name, call in calls.items():
            start = time.thread_time()
            call()
            if k:
                times[name].append(time.thread_time() - start)
    return {name: median(t) for name, t in times.items()}


def peak_bytes(call: Callable[[], object]) -> int:
    """Rise of the process's resident memory above what it held before, during one call; Linux only, else -1."""
    status, refs = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def read(key: str) -> int:
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))

    if not os.access(refs, os.W_OK):
        return -1
    # Memory that the allocator keeps for itself would hide the next use of it.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    refs.write_text("5")
    before = read("VmRSS")
    call()
    return read("VmHWM") - before


@dataclass(frozen=True)
class Row:
    """One line of the table: ratios to torch's product, and peak memory in outputs beyond torch's, without and with derivatives.

    Memory is the rise of the process's resident memory during one call above what it held before, ours less torch's for the same
    shapes; with derivatives, forward and backward pass to weights and codes.
    """

    read: str
    batch: int
    plain: bool
    torch_us: float
    ratio: float
    backward: float
    memory: float
    training: float


def measure(model: TileModel, read: str, batch: int, lines: int = 512, rows: int = 512, turns: int = 15, plain: bool = False,
            accuracy: str | float = "fast") -> Row:  # fmt: skip
    """Time one read-out at one size, float32, one thread."""
    g64, x64 = draw("normal", "gaussian", lines, rows, batch)
    x64 = x64.clamp(max=model.code_max)
    g, x, weight = g64.float(), x64.float(), (g64 * 1e6).float()
    tile = FastTile(model, READS[read], accuracy=accuracy, plain=plain)

    def run(conductance_s: Tensor, codes: Tensor) -> Tensor:
        return tile.charge(conductance_s, codes) if read == "charge" else tile.phase(conductance_s, codes)

    def digital() -> Tensor:
        return torch.mm(x, weight.T)

    def analog() -> Tensor:
        with torch.no_grad():
            return run(g, x)

    analog()
    times = in_turns(digital, {"ours": analog}, turns)
    gx, xx = g.clone().requires_grad_(True), x.clone().requires_grad_(True)
    grad = torch.ones(batch, lines)
    forward_s, backward_s = [], []
    for k in range(max(turns // 3, 3) + 1):
        start = time.thread_time()
        out = run(gx, xx)
        middle = time.thread_time()
        torch.autograd.grad(out, (gx, xx), grad)
        if k:
            forward_s.append(middle - start)
            backward_s.append(time.thread_time() - middle)
    # A tile that has its weights ready, but has not seen a batch of this size.
    tile = FastTile(model, READS[read], accuracy=accuracy, plain=plain)
    with torch.no_grad():
        run(g, x[:8])
    extra = (peak_bytes(analog) - peak_bytes(digital)) / (4 * batch * lines)
    w = weight.clone().requires_grad_(True)

    def train() -> object:
        return torch.autograd.grad(run(gx, xx), (gx, xx), grad)

    # The products' own code is compiled at the first call of a shape, and stays.
    train()
    trained = peak_bytes(train) - peak_bytes(lambda: torch.autograd.grad(xx @ w.T, (w, xx), grad))
    return Row(
        read, batch, plain, times[""] * 1e6, times["ours"] / times[""], median(backward_s) / median(forward_s), extra,
        trained / (4 * batch * lines),
    )  # fmt: skip


@dataclass(frozen=True)
class Errors:
    """1 − R² of the fast product against the slow twin: median and worst over the lines compared."""

    weights: str
    inputs: str
    read: str
    middle: float
    worst: float


def judge(model: TileModel, weights: str, inputs: str, read: str, *, lines: int = 512, rows: int = 512, compared: int = 12,
          vectors: int = 16, wire_scale: float = 1.0, accuracy: str | float = "fast") -> Errors:  # fmt: skip
    """Compare ``compared`` of the lines on ``vectors`` vectors; the tile is prepared for all of them, in float32."""
    g, x = draw(weights, inputs, lines, rows, vectors)
    tile = FastTile(model, READS[read], accuracy=accuracy, wire_scale=wire_scale)
    with torch.no_grad():
        fast = (tile.charge if read == "charge" else tile.phase)(g.float(), x.float()).double()
        # From the least to the largest total conductance.
        some = g.sum(1).argsort()[torch.linspace(0, lines - 1, compared).round().long()]
        twin = solve(tile.circuit, g[some], x, counts=read == "phase")
    error, spread = fast[:, some] - twin, twin - twin.mean(0)
    ratio = error.square().sum(0) / spread.square().sum(0)
    return Errors(weights, inputs, read, float(ratio.median()), float(ratio.max()))


def judge_gradients(model: TileModel, inputs: str, read: str, *, rows: int = 512, lines: int = 64, compared: int = 3,
                    vectors: int = 4) -> tuple[float, float]:  # fmt: skip
    """Relative error, in norm, of the gradients to weights and codes against the slow twin's, float32.

    Answers of ``compared`` lines of a tile are weighted at random; the other lines only share its mean.
    """
    g, x = draw("normal", inputs, lines, rows, vectors)
    by = torch.randn(vectors, compared, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def gradients(conductance_s: Tensor, codes: Tensor, accuracy: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        tile = FastTile(model, READS[read], accuracy=accuracy, dtype=dtype)
        ends = conductance_s.to(dtype).requires_grad_(True), codes.to(dtype).requires_grad_(True)
        out = (tile.charge if read == "charge" else tile.phase)(*ends)[:, :compared]
        return torch.autograd.grad((out * by.to(dtype)).sum(), ends)

    found, truth = gradients(g, x, "fast", torch.float32), gradients(g[:compared].clone(), x.clone(), "exact", torch.float64)
    apart = ((a[: len(b)].double() - b).norm() / b.norm() for a, b in zip(found, truth, strict=True))
    to_weights, to_codes = (float(q) for q in apart)
    return to_weights, to_codes


def with_steps(model: TileModel, steps: int) -> TileModel:
    """The same tile with pulses of at most ``steps`` LSB and a window as much shorter."""
    other = copy.copy(model)
    other.code_max, other.slots = steps, model.slots - model.code_max + steps
    return other


def scaling(model: TileModel, figure: Path | None, turns: int = 7) -> list[tuple[str, int, float, float]]:
    """CPU time of charges against batch, rows, lines and time steps: (axis, size, torch µs, ours µs), and a figure of them."""
    found = []
    for axis, sizes in (("batch", (1, 16, 128, 512)), ("rows", (64, 128, 256, 512)), ("lines", (32, 128, 512, 1024))):
        for size in sizes:
            row = measure(model, "charge", **({"batch": 128} | {axis: size}), turns=turns)  # type: ignore[arg-type]
            found.append((axis, size, row.torch_us, row.torch_us * row.ratio))
    for steps in (7, 15, 63, 127):
        row = measure(with_steps(model, steps), "charge", 128, turns=turns)
        found.append(("time steps", steps, row.torch_us, row.torch_us * row.ratio))
    if figure is not None:
        from matplotlib.figure import Figure

        from aimcard.validation.style import save

        fig = Figure(figsize=(11, 3), dpi=150)
        names = list(dict.fromkeys(axis for axis, *_ in found))
        for ax, name in zip(fig.subplots(1, len(names)), names, strict=True):
            size, torch_us, ours = zip(*((s, t, o) for a, s, t, o in found if a == name), strict=True)
            ax.loglog(size, torch_us, "o-", label="torch")
            ax.loglog(size, ours, "s-", label="card")
            ax.set_xticks(size, [str(s) for s in size])
            ax.minorticks_off()
            ax.set_ylim(20, 2e4)
            ax.set_xlabel(name)
            ax.set_ylabel("CPU time (µs)")
        fig.axes[0].legend()
        fig.tight_layout()
        figure.parent.mkdir(parents=True, exist_ok=True)
        save(fig, figure)
    return found


def main(arguments: list[str]) -> None:
    """Print the tables."""
    parser = Arguments(prog="python -m aimcard.validation.speed", description=__doc__)
    parser.add_argument("--card", default="freepdk45_gated", help="file or name of a card")
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--turns", type=int, default=15, help="alternations of ours and torch's")
    parser.add_argument("--no-errors", action="store_true", help="leave out the comparison with the slow twin (minutes)")
    parser.add_argument("--peers", action="store_true", help="other simulators that are installed, beside ours (minutes)")
    parser.add_argument("--plain", action="store_true", help="time plain torch, without numba, too")
    parser.add_argument("--wire-scale", type=float, default=1.0, help="of the comparison with the slow twin")
    parser.add_argument("--compared", type=int, default=12, help="lines that are compared with it, from least to largest total")
    parser.add_argument("--scaling", type=Path, default=None, metavar="FIGURE", help="also sizes; writes this figure")
    chosen = parser.parse_args(arguments)
    if chosen.scaling is not None:
        output_folder("--scaling", chosen.scaling.parent)
    torch.set_num_threads(1)
    model = TileModel(find_card(chosen.card))
    print("512 x 512, float32, one thread, gated, one sign phase, one bit line; times over torch.mm's of the same shape")
    print("| read-out | batch | torch.mm, µs | forward | backward / forward | memory beyond torch's, outputs | in training |")
    print("|---|---|---|---|---|---|---|")
    for plain in (False, True) if chosen.plain else (False,):
        for read in READS:
            for batch in chosen.batch:
                r = measure(model, read, batch, turns=chosen.turns, plain=plain)
                name = f"{read}, plain torch" if plain else read
                times = f"{r.torch_us:.0f} | {r.ratio:.2f} | {r.backward:.2f}"
                print(f"| {name} | {batch} | {times} | {r.memory:.1f} | {r.training:.1f} |", flush=True)
    if chosen.peers:
        from aimcard.validation.side_by_side import compare  # it needs this module

        print("\n| simulator, batch 128 | of the circuit | times torch.mm's | vectors timed |\n|---|---|---|---|")
        for c in compare(model):
            print(f"| {c.name} | {c.circuit} | {c.ratio:.3g} | {c.vectors} |", flush=True)
    if not chosen.no_errors:
        print(f"\n1 - R² against the slow twin, wire {chosen.wire_scale:g}x")
        print("| weights | inputs | read-out | median line | worst line |\n|---|---|---|---|---|")
        for weights in WEIGHTS:
            for inputs in INPUTS:
                for read in READS:
                    e = judge(model, weights, inputs, read, wire_scale=chosen.wire_scale, compared=chosen.compared)
                    print(f"| {weights} | {inputs} | {read} | {e.middle:.1e} | {e.worst:.1e} |", flush=True)
        print("\nGradients beside the slow twin's, relative error in norm")
        print("| inputs | read-out | to weights | to codes |\n|---|---|---|---|")
        for inputs in INPUTS:
            for read in READS:
                to_weights, to_codes = judge_gradients(model, inputs, read)
                print(f"| {inputs} | {read} | {to_weights:.1e} | {to_codes:.1e} |", flush=True)
    if chosen.scaling is not None:
        print("\n| axis | size | torch.mm, µs | card, µs |\n|---|---|---|---|")
        for axis, size, torch_us, ours in scaling(model, chosen.scaling):
            print(f"| {axis} | {size} | {torch_us:.0f} | {ours:.0f} |")


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
