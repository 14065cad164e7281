"""What each non-ideality does to one layer, added one at a time; and read noise by device against its formula.

python -m aimcard.validation.layer_report
python -m aimcard.validation.layer_report --mode split
"""

from __future__ import annotations

import sys
import time

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import kstest
from torch import nn

from aimcard.data.shipped import find_card
from aimcard.models.console import Arguments, run_module
from aimcard.models.nn import Hardware, Mapping, NonIdealities, calibrate_affine, convert_to_analog
from aimcard.models.nn.pairs import write
from aimcard.models.nn.read_noise import charge_sigma, draw_per_device, draw_per_line
from aimcard.models.nn.streams import stream
from aimcard.validation.layer_modes import STEPS, mode_errors

CASES: dict[str, NonIdealities] = {
    "none": NonIdealities.none(),
    "input rounding": NonIdealities.none(input_rounding=True),
    "counter rounding": NonIdealities.none(adc_rounding=True),
    "IR-drop": NonIdealities.none(ir_drop=True),
    "IR-drop, 3x wire": NonIdealities.none(ir_drop=True, wire_scale=3.0),
    "apparent weight": NonIdealities.none(apparent_weight=True),
    "leakage": NonIdealities.none(leakage=True),
    "pulse edges": NonIdealities.none(pulse=True),
    "regulator": NonIdealities.none(regulator=True),
    "ADC curve": NonIdealities.none(adc=True),
    "programming": NonIdealities.none(programming=True),
    "drift, a day": NonIdealities.none(drift=True),
    "drift, a day, not compensated": NonIdealities.none(drift=True, drift_compensation=False),
    "read noise by device": NonIdealities.none(read_noise="device"),
    "read noise by formula": NonIdealities.none(read_noise="analytical"),
    "all of the circuit": NonIdealities(),
}


@torch.no_grad()
def switch_errors(hardware: Hardware, rows: int = 512, outputs: int = 256, batch: int = 64) -> dict[str, tuple[float, float]]:
    """Rms error over rms of the digital product, without and with affine correction, by switch. Normal weights and inputs."""
    torch.manual_seed(0)
    layer = nn.Linear(rows, outputs, bias=False)
    nn.init.normal_(layer.weight)
    x, calibration = torch.randn(batch, rows), torch.randn(4 * batch, rows)
    truth = layer(x)
    out = {}
    for name, switches in track(CASES.items(), "switches", transient=True):
        analog = convert_to_analog(layer, hardware, non_idealities=switches)
        errors = [float((analog(x) - truth).norm() / truth.norm())]
        calibrate_affine(analog, [calibration])
        errors.append(float((analog(x) - truth).norm() / truth.norm()))
        out[name] = (errors[0], errors[1])
    return out


@torch.no_grad()
def read_noise(hardware: Hardware, rows: int = 512, outputs: int = 256, batch: int = 32) -> dict[str, float]:
    """Seconds of processor time of both ways, ratio of their standard deviations, and p-values against the formula's normal."""
    weight = torch.randn(outputs, rows, generator=stream(1))
    lines = write(weight, Mapping(), NonIdealities.none(), stream(2)).lines
    codes = (torch.randn(batch, rows, generator=stream(3)) * 42).clamp(0, 127).round()
    times, v = codes * hardware.model.t_lsb_s, hardware.model.v_read_v
    sigma = charge_sigma(lines, times, v)
    out: dict[str, float] = {}
    for name, draw in (("device", draw_per_device), ("formula", draw_per_line)):
        draw(lines, [(0 * times[:1], times[:1])], v, 0.0, stream(4))
        start = time.process_time()
        z = (draw(lines, [(0 * times, times)], v, 0.0, stream(5, name))[0] / sigma).flatten()
        out[f"{name}_s"] = time.process_time() - start
        out[f"{name}_std"] = float(z.std())
        out[f"{name}_p"] = float(kstest(z.numpy(), "norm").pvalue)
    return out


def print_modes(console: Console, cards: list[str], modes: list[str]) -> None:
    """Errors of a layer by topology and mode."""
    table = Table("card", "mode", "ring", *(head for step in STEPS for head in (f"{step} [%]", "after affine [%]")))
    for name in cards:
        for k, (mode, rule, errors) in enumerate(mode_errors(Hardware(find_card(name)), modes)):
            cells = (f"{100 * e:.3g}" for pair in errors.values() for e in pair)
            table.add_row("" if k else name, mode, rule, *cells)
    console.print(table)


def main(arguments: list[str]) -> None:
    """Print both tables, or with ``--mode`` that of the modes."""
    parser = Arguments(modes=True, prog="python -m aimcard.validation.layer_report", description=__doc__)
    parser.add_argument("card", nargs="*", help="cards (default: freepdk45_gated; with --mode freepdk45_tied too)")
    parser.add_argument("--mode", nargs="+", metavar="MODE", help="PWM modes to set beside the conventional one")
    asked = parser.read(arguments)
    console = Console()
    if asked.mode:
        print_modes(console, asked.card or ["freepdk45_gated", "freepdk45_tied"], asked.mode)
        return
    for name in asked.card or ["freepdk45_gated"]:
        print_switches(console, Hardware(find_card(name)))


def print_switches(console: Console, hardware: Hardware) -> None:
    """Errors of a layer by switch, and the two ways to read noise."""
    table = Table("one layer, 512 x 256", "error / rms [%]", "after affine [%]")
    for name, (plain, affine) in switch_errors(hardware).items():
        table.add_row(name, f"{100 * plain:.3g}", f"{100 * affine:.3g}")
    console.print(table)
    n = read_noise(hardware)
    console.print(
        f"read noise, 512 x 512, 32 vectors: by device {n['device_s']:.3f} s of CPU, by formula {n['formula_s']:.4f} s, "
        f"{n['device_s'] / n['formula_s']:.0f} times faster; standard deviation over the formula's {n['device_std']:.4f} and "
        f"{n['formula_std']:.4f}, Kolmogorov-Smirnov p {n['device_p']:.2f} and {n['formula_p']:.2f}"
    )


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
