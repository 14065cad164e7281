"""What the read-out does, in figures.

Run ``python -m aimcard.netlists.readout_report [corner] [temperature_c] [technology] [mirror ratio]`` to print them.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

from aimcard.models.console import Arguments, number, run_module
from aimcard.netlists.ngspice import run_many
from aimcard.netlists.oscillator import COUNTS_PER_PERIOD
from aimcard.netlists.oscillator_decks import OscillatorRate, oscillator_rate, oscillator_rate_deck
from aimcard.netlists.readout import FULL_SCALE_A, ReadoutDesign, default_readout
from aimcard.netlists.readout_decks import (
    conductance_steps,
    loop_gain,
    loop_gain_deck,
    readout_static,
    readout_static_deck,
    readout_step_deck,
    readout_steps,
)
from aimcard.netlists.technology import Technology, get_technology

COLUMN_A = np.array([0.0, 5e-6, 20e-6, 60e-6, 150e-6, 300e-6, 600e-6])
LEVELS_S = np.array([0.0, 0.5, 1.0, 1.5, 1.4, 0.5, 0.45, 0.1, 0.0]) * 1e-3
#: How long each level lasts, and a conventional window [LSB].
HOLD_LSB, WINDOW_LSB = 8, 127
#: A line's mean current in the window, with the spread of a real line's charge.
LINE_A, LINE_SPREAD = 60e-6, 0.08
#: The regulator's current at full scale, bleed included [A].
FULL_REGULATOR_A = FULL_SCALE_A + 20e-6


def oscillator_currents(mirror_ratio: int, points: int = 24) -> np.ndarray:
    """Regulator currents [A] that put 0.5 to 60 µA, or what full scale takes, into the oscillator: between linear and log."""
    most = max(60e-6, FULL_REGULATOR_A / mirror_ratio)
    log = np.geomspace(0.5e-6, most, points)
    linear = np.linspace(0.5e-6, most, points)
    return mirror_ratio * np.sqrt(log * linear)


def quantisation(rates: list[OscillatorRate], bleed_a: float, window_s: float) -> tuple[float, float, float]:
    """Counts of a typical line in the conventional window, their σ, and 1/√12 count in % of σ."""
    current = np.array([r.current_a for r in rates])
    rate = np.array([r.rate_hz for r in rates])
    at = LINE_A + bleed_a
    counts = window_s * float(np.interp(at, current, rate))
    slope = float(np.interp(at, current, np.gradient(rate, current)))
    sigma = window_s * slope * LINE_SPREAD * LINE_A
    return counts, sigma, 100 / math.sqrt(12) / sigma


def report(
    technology: Technology,
    design: ReadoutDesign,
    corner: str = "nom",
    temperature_c: float = 27.0,
    cache_dir: Path | None = None,
    jobs: int | None = None,
) -> str:
    """Simulate regulator, mirror and ring at one corner and temperature; about a minute of CPU time."""
    at: dict[str, object] = {"corner": corner, "temperature_c": temperature_c}
    hold_s, window_s = HOLD_LSB * design.t_lsb_s, WINDOW_LSB * design.t_lsb_s
    time_s, conductance_s = conductance_steps(LEVELS_S, hold_s)
    ring_a = oscillator_currents(design.mirror_ratio)
    waves = run_many(
        [
            readout_static_deck(technology, design, corner=corner, temperature_c=temperature_c),
            readout_step_deck(
                technology, design, time_s, conductance_s, corner=corner, temperature_c=temperature_c
            ),
            *(
                loop_gain_deck(technology, design, i, corner=corner, temperature_c=temperature_c)
                for i in COLUMN_A
            ),
            *(
                oscillator_rate_deck(technology, design, i, corner=corner, temperature_c=temperature_c)
                for i in ring_a
            ),
        ],
        jobs=jobs,
        cache_dir=cache_dir,
        label="read-out",
    )
    static = readout_static(waves[0])
    lines = [f"{technology.name}, {at['corner']}, {at['temperature_c']:g} °C", ""]
    lines.append("column [µA]   V_clamp [mV]   R_out [Ω]   mirror [µA]   mirror x N / regulator - 1 [%]")
    gain_error = static.mirror_a * design.mirror_ratio / static.regulator_a - 1
    for k in range(0, static.current_a.size, 5):
        lines.append(
            f"{static.current_a[k] * 1e6:11.0f} {static.clamp_v[k] * 1e3:14.2f} {static.r_out_ohm[k]:11.1f} "
            f"{static.mirror_a[k] * 1e6:13.3f} {gain_error[k] * 100:15.2f}"
        )
    lines += ["", "column [µA]   loop gain   crossover [GHz]   phase margin [°]   gain margin [dB]"]
    for i, w in zip(COLUMN_A, waves[2:], strict=False):
        loop = loop_gain(w, float(i))
        lines.append(
            f"{i * 1e6:11.0f} {abs(loop.gain[0]):11.1f} {loop.crossover_hz / 1e9:17.2f} "
            f"{loop.phase_margin_deg:18.1f} {loop.gain_margin_db:18.1f}"
        )
    lines += [
        "",
        "step [mS]       extreme [mV]   final [mV]   to 1 mV [ns]   charge against instant step [fC]",
    ]
    for s in readout_steps(waves[1], LEVELS_S, hold_s):
        lines.append(
            f"{s.from_s * 1e3:4.2f} to {s.to_s * 1e3:4.2f} {s.extreme_v * 1e3:15.1f} {s.final_v * 1e3:12.2f} "
            f"{s.settle_s * 1e9:14.2f} {s.charge_c * 1e15:12.2f}"
        )
    rates = [
        oscillator_rate(w, float(i), technology.vdd_v)
        for i, w in zip(ring_a, waves[2 + COLUMN_A.size :], strict=True)
    ]
    lines += [
        "",
        "regulator [µA]   mirror [µA]   ring [GHz]   MHz/µA   unevenness [counts]   ring supply [µA]",
    ]
    for r in rates:
        lines.append(
            f"{r.current_a * 1e6:14.2f} {r.mirror_a * 1e6:13.3f} {r.frequency_hz / 1e9:12.4f} "
            f"{r.frequency_hz / r.mirror_a / 1e12:8.1f} {r.unevenness:21.3f} {r.supply_a * 1e6:18.1f}"
        )
    bleed = float(static.regulator_a[0])
    counts, sigma, loss = quantisation(rates, bleed, window_s)
    full = np.interp(FULL_SCALE_A + bleed, ring_a, [r.frequency_hz for r in rates])
    lines += [
        "",
        f"ring at {FULL_SCALE_A * 1e6:g} µA of column current: {full / 1e9:.2f} GHz, {COUNTS_PER_PERIOD} counts a period; "
        f"a counter follows {design.counter_max_hz / 1e9:g} GHz",
        f"line of {LINE_A * 1e6:g} µA mean, {LINE_SPREAD:.0%} spread, {window_s * 1e9:g} ns: "
        f"{counts:.0f} counts, sigma {sigma:.0f}; quantisation {loss:.2f} % of sigma",
        f"supply: OTA and references {static.bias_a[0] * 1e6:.0f} µA, bleed {bleed * 1e6:.2f} µA",
    ]
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Print the figures; all is checked before anything is simulated."""
    parser = Arguments(prog="python -m aimcard.netlists.readout_report", description=main.__doc__)
    parser.add_argument("corner", nargs="?", default="nom")
    parser.add_argument("temperature", nargs="?", default=27.0, type=number, help="degrees Celsius (27)")
    parser.add_argument("technology", nargs="?", default="freepdk45")
    parser.add_argument("mirror_ratio", nargs="?", type=number, help="line current over the mirror's (default: the technology's)")
    given = parser.parse_args(arguments)
    technology = get_technology(given.technology)
    technology.check_bench(given.corner, given.temperature)
    design = default_readout(technology, given.mirror_ratio)
    print(report(technology, design, given.corner, given.temperature))


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
