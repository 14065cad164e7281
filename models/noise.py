"""Noise of one product in counts: how far a count scatters when the same product is read again and again.

A rate R(t) whose relative noise has the one-sided power density S_y(f) = w + c/f counts, over a window T, with the variance
∫ S_y(f)·R²·T²·sinc²(fT) df (a counter is a boxcar filter): ½·w·R²·T for white noise, and c·R²·T² times a slowly growing
logarithm for 1/f noise, which is one number per window. Functions are pure and differentiable; currents [A], times [s].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aimcard.models.checks import check_positive
from aimcard.models.errors import CardError, InputError
from aimcard.models.lut import lookup, lookup_slope
from aimcard.models.pcm import read_noise_sigma

if TYPE_CHECKING:
    from aimcard.models.card import Card

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


def flicker_factor(window_s: float, lowest_hz: float = LOWEST_HZ) -> float:
    """∫ sinc²(fT)/f df from ``lowest_hz`` up: 3/2 − γ − ln(2π f T), for f·T far below 1 (error of order (f·T)²)."""
    x = math.pi * check_positive("lowest_hz", lowest_hz) * check_positive("window_s", window_s)
    return 1.5 - float(np.euler_gamma) - math.log(2 * x)


def white_variance(rate_hz: Tensor, white_per_hz: Tensor, slot_s: float) -> Tensor:
    """Variance of a count [counts²], (...,), by white noise of relative density w in each slot (..., slots): ½ Σ w R² Δt."""
    return 0.5 * slot_s * (white_per_hz * rate_hz * rate_hz).sum(-1)


def flicker_variance(rate_hz: Tensor, flicker: Tensor, slot_s: float, lowest_hz: float = LOWEST_HZ) -> Tensor:
    """Variance of a count by 1/f noise c/f, (...,): it hardly changes within a window, so the slots add up as amplitudes."""
    window = slot_s * rate_hz.shape[-1]
    return (slot_s * (torch.sqrt(flicker) * rate_hz).sum(-1)) ** 2 * flicker_factor(window, lowest_hz)


def clock_variance(
    rate_hz: Tensor, idle_hz: Tensor | float, jitter_s: float = CLOCK_JITTER_S, *, gate: bool = False
) -> Tensor:
    """Variance of a count by the jitter of the clock edges that start and end the pulses, (...,).

    An edge at which the rate steps by ΔR and that comes δt late costs δt·ΔR counts. All rows share the edge at each slot's
    boundary; edges are independent. rate_hz (..., slots); idle_hz: the rate before the first slot. gate: the counter opens
    with the first edge and closes with one after the last slot, so that what counts at rest is cut there too.
    """
    first = rate_hz[..., :1] if gate else rate_hz[..., :1] - idle_hz
    steps = torch.cat([first, rate_hz[..., 1:] - rate_hz[..., :-1], *([rate_hz[..., -1:]] if gate else [])], dim=-1)
    return jitter_s**2 * (steps * steps).sum(-1)


def pcm_variance(conductance_s: Tensor, codes: Tensor, slope_per_c: Tensor, v_read_v: float, t_lsb_s: float) -> Tensor:
    """Variance of a count by the PCMs' read noise, (vectors, lines).

    conductance_s (lines, rows), codes (vectors, rows) of either sign, slope_per_c (vectors, lines, slots): counts per charge,
    dR/dI, in each slot. A conductance that is off by δG over its pulse costs V·δG·∫ dR/dI dt. The select transistor's share of
    the voltage and the wire's drop (some percent of σ) are left out. Raises InputError for pulses outside the read noise's
    range.
    """
    pulses, until = codes.abs(), torch.nn.functional.pad(torch.cumsum(slope_per_c * t_lsb_s, -1), (1, 0))
    index = pulses.to(torch.int64)[:, None, :].expand(-1, until.shape[1], -1)
    gain = torch.gather(until, -1, index)
    sigma = read_noise_sigma(conductance_s[None], (pulses.to(conductance_s.dtype) * t_lsb_s)[:, None, :])
    return ((v_read_v * sigma * gain) ** 2).sum(-1)


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
    p: NoiseParameters, conductance_s: Tensor, codes: Tensor, current_a: Tensor, *, v_read_v: float, t_lsb_s: float,
    jitter_s: float = CLOCK_JITTER_S, lowest_hz: float = LOWEST_HZ, pcm: bool = True, column_s: Tensor | None = None,
) -> CountNoise:  # fmt: skip
    """Every source's share for lines (lines, rows) under codes (vectors, rows) with slot currents (vectors, lines, slots).

    ``current_a`` is `Response.current_a` of a tile with read-out. pcm False leaves the PCM's read noise out. Of tied columns
    column_s (lines,) is the conductance at the read-out [S], conductance_s has the plus cells of all rows and then the minus
    ones, codes every row's twice, and the count is less that of the resting column, of which the noise is not in here.
    """
    rate = lookup(*p.tables["adc"], current_a)
    sigma: dict[str, Tensor] = {}
    y = None if column_s is None else column_s[:, None]
    for source in p.sources:
        white, flicker = p.densities(source, current_a, y)
        square = white_variance(rate, white, t_lsb_s) + flicker_variance(rate, flicker, t_lsb_s, lowest_hz)
        sigma[source] = torch.sqrt(square)
    sigma["clock"] = torch.sqrt(clock_variance(rate, rate[..., -1:], jitter_s, gate=p.tied))
    if pcm:
        slope = lookup_slope(*p.tables["adc"], current_a)
        sigma["pcm read noise"] = torch.sqrt(pcm_variance(conductance_s, codes, slope, v_read_v, t_lsb_s))
    sigma["quantisation"] = torch.full_like(rate[..., 0], 1 / math.sqrt(12))
    counted = rate - rate[..., -1:] if p.tied else rate
    return CountNoise((counted * t_lsb_s).sum(-1), sigma)
