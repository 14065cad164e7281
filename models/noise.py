"""Noise of one product in counts: how far a count scatters when the same product is read again and again.

A rate R(t) whose relative noise has the one-sided power density S_y(f) = w + c/f counts, over a window T, with the variance
∫ S_y(f)·R²·T²·sinc²(fT) df (a counter is a boxcar filter): ½·w·R²·T for white noise, and c·R²·T² times a slowly growing
logarithm for 1/f noise, which is one number per window.

A product of several PWM phases is Σ weight·count. White noise is new in every phase, so squares add with the weight's square;
so does truncation. 1/f noise is nearly the same in phases some 20 to 150 ns apart, so amplitudes add with the weight
(``models/flicker.py``). A clock edge moves what is counted on its one side to its other, each with its weight. Functions are
pure and differentiable; currents [A], times [s].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aimcard.models.checks import check_positive
from aimcard.models.counting import Counting
from aimcard.models.errors import CardError, InputError
from aimcard.models.flicker import flicker_kernel
from aimcard.models.lut import lookup, lookup_slope
from aimcard.models.pcm import common_read_noise, read_noise_scale, read_noise_sigma

if TYPE_CHECKING:
    from aimcard.models.card import Card
    from aimcard.models.read_gain import ReadGain

#: Circuit sources of noise in a card: tables noise_<source>_white [1/Hz] and noise_<source>_flicker over the line current.
#: Source-line drivers and a bias are a tied column's.
SOURCES = ("cells", "drivers", "bias", "regulator", "mirror", "oscillator")
#: Of a tied card these are kept as currents into the column's node [A²/Hz], over this power of the column's conductance:
#: the thermal noise of all that is connected, wires included, is 4kT·Y (Nyquist), and the regulator's voltage noise drives Y.
#: The drivers' power is that of equal cells.
COLUMN_POWERS = {"cells": 1, "drivers": 2, "bias": 0, "regulator": 2}
#: Table of the bias sink's own conductance over the line current: the regulator drives it beside the column.
SINK = "noise_sink_conductance"
#: Jitter of each clock edge that bounds a pulse [s]: an assumption, of the order of on-chip PLLs at 1 GHz.
CLOCK_JITTER_S = 1e-12
#: Lowest frequency that counts as noise and not as a slow change that a recalibration removes [Hz]: once a second.
LOWEST_HZ = 1.0


def boxcar_variance(frequency_hz: np.ndarray, density: np.ndarray, window_s: float) -> float:
    """Variance of ∫y dt over a window, for a one-sided density of y sampled at increasing frequencies (points,).

    Piecewise linear between the points, so sinc²'s zeros need a dense grid beyond 1/window; below the first and above the last
    point nothing counts. The slow twin of the closed forms below.
    """
    weight = np.asarray(density) * window_s**2 * np.sinc(np.asarray(frequency_hz) * window_s) ** 2
    return float(np.trapezoid(weight, frequency_hz))


def white_variance(rate_hz: Tensor, white_per_hz: Tensor, slot_s: Tensor | float) -> Tensor:
    """Variance of a count [counts²], (...,), by white noise of relative density w in each slot (..., slots): ½ Σ w R² Δt.

    A slot's weight goes with its rate. slot_s: a number, or (slots,).
    """
    return 0.5 * (slot_s * white_per_hz * rate_hz * rate_hz).sum(-1)


def flicker_variance(rate_hz: Tensor, flicker: Tensor, counting: Counting, lowest_hz: float = LOWEST_HZ) -> Tensor:
    """Variance of a weighted count by 1/f noise c/f, (...,), from slots (..., slots).

    It hardly changes within a phase, so the slots of one add up as amplitudes, and from phase to phase they go together as
    ``flicker_kernel`` says: almost wholly.
    """
    slots = counting.slot_weight * counting.slot_s * torch.sqrt(flicker) * rate_hz
    amplitude = counting.by_phase(slots)
    kernel = flicker_kernel(*counting.edges_s, check_positive("lowest_hz", lowest_hz))
    return torch.einsum("...k,kl,...l->...", amplitude, kernel, amplitude)


def clock_variance(rate_hz: Tensor, counting: Counting, jitter_s: float = CLOCK_JITTER_S) -> Tensor:
    """Variance of a weighted count by the jitter of the clock edges at the slots' boundaries, (...,), rate_hz (..., slots).

    Pulses start and end there, in all rows at once, and the counter's gate opens and closes with the phases. An edge that
    comes δt late costs δt·(w·R before it less w·R after it), nothing being counted before the first and after the last. Under
    "reset" a phase ends with the ring's hold, which is an edge of its own. Edges are independent.
    """
    counted = torch.nn.functional.pad(counting.slot_weight * rate_hz, (1, 1))
    square = (counted[..., 1:] - counted[..., :-1]).square().sum(-1)
    if counting.rule == "reset":
        for first, _ in counting.windows[1:]:
            square = square + 2 * counted[..., first] * counted[..., first + 1]
    return jitter_s**2 * square


def pcm_variance(
    conductance_s: Tensor, pulses: Sequence[tuple[Tensor, Tensor]], weights: Sequence[int], slope_per_c: Tensor, v_read_v: float,
    t_lsb_s: float, share: Tensor | float = 1.0,
) -> Tensor:  # fmt: skip
    """Variance of a weighted count by the PCMs' read noise, (vectors, lines).

    conductance_s (lines, rows); pulses: start and stop of each row in each phase, slots of the window, (vectors, rows) each;
    slope_per_c (vectors, lines, slots): counts per charge, dR/dI, in each slot. A conductance that is off by δG over a pulse
    costs V·δG·share·∫ dR/dI dt; share (lines, rows): what the circuit leaves of it (``models/read_gain.py``). In several pulses
    the white part of δG is new each time and the 1/f part goes on. Raises InputError for pulses outside the read noise's range.
    """
    until = torch.nn.functional.pad(torch.cumsum(slope_per_c * t_lsb_s, -1), (1, 0))

    def counts_at(slots: Tensor) -> Tensor:
        return torch.gather(until, -1, slots.to(torch.int64)[:, None, :].expand(-1, until.shape[1], -1))

    times = [tuple(t.to(conductance_s.dtype) * t_lsb_s for t in pulse) for pulse in pulses]
    gains = [w * (counts_at(stop) - counts_at(start)) for w, (start, stop) in zip(weights, pulses, strict=True)]
    square = torch.zeros_like(gains[0])
    for k, (gain, (start, stop)) in enumerate(zip(gains, times, strict=True)):
        sigma = read_noise_sigma(conductance_s[None], (stop - start)[:, None, :])
        square = square + (sigma * gain) ** 2
        for other, (begin, end) in zip(gains[:k], times[:k], strict=True):
            shared = common_read_noise(start, stop, begin, end)[:, None, :]
            square = square + 2 * gain * other * shared * read_noise_scale(conductance_s) ** 2
    return (v_read_v**2 * share**2 * square).sum(-1)


@dataclass(frozen=True)
class CountNoise:
    """Standard deviations of a count by source [counts], each (vectors, lines)."""

    count: Tensor
    sigma: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """All sources together, quantisation included."""
        return torch.sqrt(torch.stack([s.square() for s in self.sigma.values()]).sum(0))

    def __str__(self) -> str:
        rows = [("count", self.count), *self.sigma.items(), ("all", self.total)]
        lines = ["source                counts, rms over lines and vectors"]
        lines += [f"{name:<20}  {float(v.square().mean().sqrt()):.4g}" for name, v in rows]
        return "\n".join(lines)


@dataclass(frozen=True)
class Devices:
    """The PCMs of lines, (lines, cells) [S], and the pulses of each cell's row, as ``pcm_variance`` takes them; gain: what the
    circuit leaves of their noise. A tied column's cells are the plus and then the minus ones of all rows."""

    conductance_s: Tensor
    pulses: Sequence[tuple[Tensor, Tensor]]
    gain: ReadGain
    v_read_v: float


@dataclass(frozen=True)
class NoiseParameters:
    """What a card knows of noise. tables: (line current [A], value) by name; sources: those in the card; tied: its topology."""

    tables: dict[str, tuple[Tensor, Tensor]]
    sources: tuple[str, ...]
    tied: bool = False

    @classmethod
    def of(cls, card: Card) -> NoiseParameters:
        """The card's noise; CardError if it has none."""
        known = {t.name: (torch.tensor(t.x), torch.tensor(t.y)) for t in card.tables}
        sources = tuple(s for s in SOURCES if f"noise_{s}_white" in known and f"noise_{s}_flicker" in known)
        if not sources:
            raise CardError(
                f"{card.source}: tables/noise_{SOURCES[0]}_white: missing (noise); run: aimcard statistics {card.source} "
                "--out new.h5"
            )
        kept = {n: t for n, t in known.items() if n in ("adc", "clamp") or n.startswith("noise_")}
        return cls(kept, sources, card.meta["topology"] == "tied")

    def densities(self, source: str, current_a: Tensor, column_s: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Relative rate noise of a source at line currents of any shape: white [1/Hz] and flicker coefficient.

        column_s: conductance of a tied column at its read-out [S], which broadcasts. Of a noise current at the column's node
        the regulator takes 1/(1 + R_out·Y), and the rate follows with the slope of its table. InputError if it is missing.
        """
        white, flicker = (
            lookup(*self.tables[f"noise_{source}_{kind}"], current_a).clamp(min=0.0) for kind in ("white", "flicker")
        )
        if not (self.tied and source in COLUMN_POWERS):
            return white, flicker
        if column_s is None:
            raise InputError("column_s: noise of a tied column goes with its conductance; got none; give EffectiveColumn.y_s")
        adc, through = self.tables["adc"], column_s
        if source == "regulator":
            through = column_s + lookup(*self.tables[SINK], current_a)
        r_out = -lookup_slope(*self.tables["clamp"], current_a)
        per_a = lookup_slope(*adc, current_a) / lookup(*adc, current_a) / (1 + r_out * column_s)
        gain = through ** COLUMN_POWERS[source] * per_a**2
        return white * gain, flicker * gain


def count_noise(
    p: NoiseParameters, current_a: Tensor, counting: Counting, *, jitter_s: float = CLOCK_JITTER_S, lowest_hz: float = LOWEST_HZ,
    column_s: Tensor | None = None, devices: Devices | None = None,
) -> CountNoise:  # fmt: skip
    """Every source's share of the weighted counts of lines with slot currents (vectors, lines, slots).

    ``current_a`` is `Response.current_a` of a tile with read-out. devices: for the PCMs' read noise. Of tied columns column_s
    (lines,) is the conductance at the read-out [S], and the count is less that of the resting column, of which the noise is not
    in here.
    """
    rate = lookup(*p.tables["adc"], current_a)
    weighted = counting.slot_weight * rate
    sigma: dict[str, Tensor] = {}
    y = None if column_s is None else column_s[:, None]
    for source in p.sources:
        white, flicker = p.densities(source, current_a, y)
        square = white_variance(weighted, white, counting.slot_s) + flicker_variance(rate, flicker, counting, lowest_hz)
        sigma[source] = torch.sqrt(square)
    sigma["clock"] = torch.sqrt(clock_variance(rate, counting, jitter_s))
    if devices is not None:
        gain = devices.gain
        slope = lookup_slope(*p.tables["adc"], current_a) * gain.line
        sigma["pcm read noise"] = torch.sqrt(
            pcm_variance(
                devices.conductance_s, devices.pulses, counting.weights, slope, devices.v_read_v, counting.t_lsb_s, gain.device
            )
        )
    sigma["quantisation"] = torch.full_like(rate[..., 0], counting.quantisation)
    counted = weighted - counting.slot_weight * rate[..., -1:] if p.tied else weighted
    return CountNoise((counted * counting.slot_s).sum(-1), sigma)
