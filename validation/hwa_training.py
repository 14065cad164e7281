"""Hardware-aware training, two ways: Gaussian noise in the forward pass, or the wires' drop itself.

One small network on Fashion-MNIST is trained digitally, then trained on three ways for the same number of steps: digitally,
with Gaussian noise of weights and outputs (the usual baseline), and through IR-drop at twice the nominal wire. All are judged
on tiles at 1, 2, 3 and 10 times the wire resistance of the card, with and without an affine correction of the columns. Every
seed is a network of its own; means over seeds are shown with their standard errors.

    sudo apt-get install dataset-fashion-mnist
    python -m aimcard.validation.hwa_training --out folder
"""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.progress import track
from torch import Tensor, nn

from aimcard.data.shipped import find_card
from aimcard.models.console import Arguments, output_folder, run_module, write_json
from aimcard.models.errors import InputError
from aimcard.models.nn import (
    Hardware,
    NonIdealities,
    calibrate_affine,
    clear_affine,
    convert_to_analog,
    convert_to_digital,
    set_non_idealities,
    train_mode,
)
from aimcard.validation.style import BLUE, GREEN, ORANGE, save

DATA = Path("/usr/share/datasets/fashion-mnist")
WIRES = (1.0, 2.0, 3.0, 10.0)
#: What acts when accuracy is measured: the circuit of the columns, input and counter rounding.
JUDGED = NonIdealities(adc_clip=False)
WAYS: dict[str, dict[str, Any]] = {
    "digital": {},
    "gaussian": {"noise": (0.03, 0.03)},
    "ir-drop": {"ir_drop": True, "wire_scale": 2.0},
}


@dataclass(frozen=True)
class Images:
    """x (images, 784) from 0 to 1, y (images,)."""

    x: Tensor
    y: Tensor

    def batches(self, size: int, seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches, shuffled with a seed."""
        order = torch.arange(len(self.x))
        if seed is not None:
            order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(seed))
        for part in order.split(size):
            yield self.x[part], self.y[part]


def read_images(folder: Path, kind: str, count: int) -> Images:
    """The first ``count`` images of kind "train" or "t10k". Raises InputError if the data set is not there."""
    paths = [folder / f"{kind}-{what}-ubyte.gz" for what in ("images-idx3", "labels-idx1")]
    for path in paths:
        if not path.exists():
            raise InputError(f"--data: {path} is missing; install Debian's dataset-fashion-mnist, or name its folder")
    pixels = np.frombuffer(gzip.decompress(paths[0].read_bytes()), np.uint8, offset=16).reshape(-1, 784)[:count]
    labels = np.frombuffer(gzip.decompress(paths[1].read_bytes()), np.uint8, offset=8)[:count]
    return Images(torch.tensor(pixels / 255.0, dtype=torch.float32), torch.tensor(labels.astype(np.int64)))


def make_network(seed: int) -> nn.Sequential:
    """784 pixels, 256 hidden units, 10 classes."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


def train(model: nn.Module, images: Images, epochs: int, rate: float, seed: int, text: str) -> float:
    """Adam with a falling rate; returns the seconds of processor time of a step."""
    steps = epochs * -(-len(images.x) // 128)
    optimiser = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    batches = (b for epoch in range(epochs) for b in images.batches(128, seed + epoch))
    start = time.process_time()
    for x, y in track(batches, text, total=steps, transient=True):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
        schedule.step()
    return (time.process_time() - start) / steps


@torch.no_grad()
def accuracy(model: nn.Module, images: Images) -> float:
    """Share of the images that are classified rightly."""
    hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in images.batches(500))
    return hits / len(images.x)


Score = tuple[float, float]


def mean_and_error(values: list[float]) -> Score:
    """Mean and its standard error; nan for one value."""
    v = np.asarray(values)
    return float(v.mean()), float(v.std(ddof=1) / np.sqrt(len(v))) if len(v) > 1 else float("nan")


@dataclass
class Study:
    """Accuracies by way of training, a list over seeds: digital; and by wire scale, without and with affine correction."""

    settings: dict[str, Any]
    digital: dict[str, list[float]] = field(default_factory=dict)
    plain: dict[str, list[list[float]]] = field(default_factory=dict)
    affine: dict[str, list[list[float]]] = field(default_factory=dict)
    step_s: dict[str, list[float]] = field(default_factory=dict)

    def lost(self, way: str, wire: int, affine: bool) -> Score:
        """Accuracy at the first wire scale less that at the ``wire``-th, seed by seed: mean and standard error."""
        runs = (self.affine if affine else self.plain)[way]
        return mean_and_error([run[0] - run[wire] for run in runs])

    def __str__(self) -> str:
        heads = [f"{w:g}x" for w in WIRES] + [f"{w:g}x, affine" for w in WIRES]
        lines = [f"{'trained with':<14}{'digital':>15}" + "".join(f"{h:>15}" for h in heads) + f"{'CPU a step':>12}"]
        for way in self.digital:
            columns = [self.digital[way], *zip(*self.plain[way], strict=True), *zip(*self.affine[way], strict=True)]
            cells = "".join(f"{_text(mean_and_error(list(c))):>15}" for c in columns)
            lines.append(f"{way:<14}{cells}{1e3 * np.mean(self.step_s[way]):>9.1f} ms")
        lines.append("points lost from 1x, affine or not, seed by seed:")
        for way in self.digital:
            lost = [_text(self.lost(way, k, affine)) for affine in (False, True) for k in range(1, len(WIRES))]
            lines.append(f"{way:<14}{'':>15}{'':>15}{lost[0]:>15}{lost[1]:>15}{lost[2]:>15}{'':>15}" + "".join(
                f"{v:>15}" for v in lost[3:]
            ))  # fmt: skip
        return "\n".join(lines)


def _text(score: Score) -> str:
    mean, error = score
    return f"{100 * mean:.2f} ± {100 * error:.2f} %"


def study(
    card: str, folder: Path, *, images: int = 20000, judged: int = 2000, epochs: int = 3, more: int = 2,
    seeds: tuple[int, ...] = (0, 1, 2), clip_sigma: float | None = None,
) -> Study:  # fmt: skip
    """Train and judge, a network a seed; all draws follow its seed."""
    train_set, test_set = read_images(folder, "train", images), read_images(folder, "t10k", judged)
    hardware = Hardware(find_card(card))
    settings = {"card": card, "images": images, "judged": judged, "epochs": epochs, "more": more, "seeds": seeds, "wire": WIRES}
    out = Study(settings | {"clip_sigma": clip_sigma})
    for seed in seeds:
        start = make_network(seed)
        train(start, train_set, epochs, 2e-3, seed, f"seed {seed}: digital start")
        for way, options in WAYS.items():
            model = convert_to_analog(start, hardware, non_idealities=NonIdealities.none(seed=seed))
            # Clipped weights use more of the conductances' range, hence draw more current: the wires then matter more.
            train_mode(model, switches=NonIdealities.none(weight_clip_sigma=clip_sigma), **options)
            step_s = train(model, train_set, more, 1e-3, seed + 100, f"seed {seed}: trained with {way}")
            out.step_s.setdefault(way, []).append(step_s)
            judge(out, way, model.eval(), test_set, train_set.x[:500], replace(JUDGED, seed=seed, weight_clip_sigma=clip_sigma))
    return out


def judge(out: Study, way: str, model: nn.Module, images: Images, calibration: Tensor, switches: NonIdealities) -> None:
    """Add one trained network's accuracies, digitally and on tiles of every wire scale."""
    out.digital.setdefault(way, []).append(accuracy(convert_to_digital(model), images))
    plain, affine = [], []
    for wire in track(WIRES, f"judging {way}", transient=True):
        clear_affine(model)
        set_non_idealities(model, replace(switches, wire_scale=wire))
        plain.append(accuracy(model, images))
        calibrate_affine(model, [calibration])
        affine.append(accuracy(model, images))
    out.plain.setdefault(way, []).append(plain)
    out.affine.setdefault(way, []).append(affine)


def draw(result: Study, path: Path) -> None:
    """Accuracy against wire scale, a line for each way of training, with standard errors over seeds."""
    figure = Figure(figsize=(8, 3.2), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, values, title in zip(axes, (result.plain, result.affine), ("uncorrected", "affine correction"), strict=True):
        for (way, runs), marker, colour in zip(values.items(), "os^", (BLUE, ORANGE, GREEN), strict=True):
            mean, error = np.transpose([mean_and_error(list(c)) for c in zip(*runs, strict=True)])
            bars = None if np.isnan(error).any() else 100 * error
            ax.errorbar(WIRES, 100 * mean, bars, fmt=f"{marker}-", color=colour, capsize=2, label=f"trained with {way}")
        ax.set(title=title, xlabel="wire resistance / nominal", xticks=WIRES)
    axes[0].set_ylabel("Fashion-MNIST accuracy [%]")
    axes[0].legend()
    figure.tight_layout()
    save(figure, path)


def main(arguments: list[str]) -> None:
    """Study, table, document and figure."""
    parser = Arguments(description="Hardware-aware training with Gaussian noise and through IR-drop")
    parser.add_argument("--card", default="freepdk45_gated")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=Path("hwa_training"))
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--judged", type=int, default=2000)
    parser.add_argument("--clip-sigma", type=float, default=None, help="clip weights beyond so many rms of their column")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a network each")
    given = parser.parse_args(arguments)
    output_folder("--out", given.out)
    sizes = {"images": given.images, "judged": given.judged}
    result = study(given.card, given.data, **sizes, seeds=tuple(given.seeds), clip_sigma=given.clip_sigma)
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "hwa_training.json", asdict(result))
    draw(result, given.out / "hwa_training.png")
    print(result)


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
