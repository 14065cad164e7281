"""Noise of the circuit in a layer: what regulator, mirror, oscillator, cells and the clock add to every count.

``models.noise`` works it out slot by slot; here the ideal current of a few bins of the window stands for the slots, which
changes a sigma by a percent or so. A count's noise is drawn once per reading, the 1/f part of all readings of one line in a
product together: they follow one another within a fraction of a microsecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.flicker import flicker_kernel
from aimcard.models.lut import lookup
from aimcard.models.noise import CLOCK_JITTER_S, LOWEST_HZ, NoiseParameters, white_variance
from aimcard.models.pcm import normal_like

#: Bins of the window.
BINS = 8


def bin_currents(conductance_s: Tensor, codes: Tensor, v_read_v: float, slots: int) -> Tensor:
    """Ideal line current in every bin [A], (..., batch, lines, bins); conductance_s (..., lines, rows), codes (..., batch, rows).

    Codes and conductances may have a sign.
    """
    levels = torch.arange(BINS, dtype=codes.dtype, device=codes.device)
    on = (codes.abs()[..., None] * (BINS / slots) - levels).clamp(0.0, 1.0) * torch.sign(codes)[..., None]
    return v_read_v * torch.einsum("...brk,...lr->...blk", on, conductance_s.to(codes))


def column_conductance(plus_s: Tensor, minus_s: Tensor, r_on_ohm: float) -> Tensor:
    """Conductance of all cells of tied columns [S], (..., lines), of cells (..., lines, rows) behind select transistors."""
    cells = torch.cat([plus_s, minus_s], -1).double()
    return (cells / (1 + cells * r_on_ohm)).sum(-1)


@dataclass(frozen=True)
class PhaseNoise:
    """Noise of one phase's count: own, variance of what is new in every phase (...,); flicker, amplitude of each source's 1/f
    noise (sources, ...), whose covariance with that of another phase is the product of both times ``flicker_kernel``."""

    own: Tensor
    flicker: Tensor

    def part(self, k: int, parts: int) -> PhaseNoise:
        """Part ``k`` of so many equal ones of the batch, the dimension before the last."""
        own, flicker = (t.chunk(parts, -2)[k] for t in (self.own, self.flicker))
        return PhaseNoise(own, flicker)


def phase_noise(
    p: NoiseParameters, current_a: Tensor, t_lsb_s: float, slots: int, jitter_s: float = CLOCK_JITTER_S,
    column_s: Tensor | None = None, hold_s: float = 0.0,
) -> PhaseNoise:  # fmt: skip
    """Of line currents (..., bins) [A]; in double precision.

    column_s: conductance of tied columns at their read-out [S], (...) or what broadcasts to it. hold_s: how long the ring is held
    at the phase's end.
    """
    current, width = current_a.double().cpu(), slots / BINS
    y = None if column_s is None else column_s.double().cpu()[..., None]
    rate = lookup(*p.tables["adc"], current)
    counted_s = torch.full((BINS,), width * t_lsb_s, dtype=torch.float64)
    counted_s[-1] -= hold_s
    own, flicker = torch.zeros_like(rate[..., 0]), []
    for source in p.sources:
        white, slow = p.densities(source, current, y)
        own = own + white_variance(rate, white, counted_s)
        flicker.append((counted_s * torch.sqrt(slow) * rate).sum(-1))
    # The clock moves every slot's edge: a bin's fall is spread over its slots, and the counter's gate cuts at both ends.
    steps = rate[..., 1:] - rate[..., :-1]
    clock = steps.square().sum(-1) / width + rate[..., 0].square() + rate[..., -1].square()
    return PhaseNoise(own + jitter_s**2 * clock, torch.stack(flicker))


@torch.no_grad()
def draw_counts(
    phases: Sequence[PhaseNoise], edges_s: tuple[Tensor, Tensor], like: Tensor, generator: torch.Generator
) -> list[Tensor]:
    """Noise of the counts of phases that follow one another, (...) each, of ``like``'s type and device.

    edges_s: when they begin and end to count, (phases,) each. What is new in a phase is drawn for each; the 1/f noise of a source
    is drawn once for all of them, and differs by what it changes on the way.
    """
    mixed = torch.linalg.cholesky(flicker_kernel(*edges_s, LOWEST_HZ)).to(like)
    slow = phases[0].flicker.to(like)
    common = [normal_like(slow, generator) for _ in phases]
    out = []
    for row, phase in zip(mixed, phases, strict=True):
        drift = sum((mix * z for mix, z in zip(row, common, strict=True)), start=torch.zeros_like(slow))
        own = phase.own.sqrt().to(like)
        out.append(own * normal_like(own, generator) + (phase.flicker.to(like) * drift).sum(0))
    return out
