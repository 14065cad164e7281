"""Noise of the circuit in a layer: what regulator, mirror, oscillator, cells and the clock add to every count.

``models.noise`` works it out slot by slot; here the ideal current of a few bins of the window stands for the slots, which
changes a sigma by a percent or so. A count's noise is drawn once per reading.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aimcard.models.lut import lookup
from aimcard.models.noise import CLOCK_JITTER_S, NoiseParameters, flicker_variance, white_variance
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


def count_sigma(p: NoiseParameters, current_a: Tensor, t_lsb_s: float, slots: int, jitter_s: float = CLOCK_JITTER_S) -> Tensor:
    """Standard deviation of a count, (...), of line currents (..., bins) [A]; in double precision."""
    current, width = current_a.double().cpu(), slots / BINS
    rate = lookup(*p.tables["adc"], current)
    square = torch.zeros_like(rate[..., 0])
    for source in p.sources:
        white, flicker = p.densities(source, current)
        square = square + white_variance(rate, white, width * t_lsb_s) + flicker_variance(rate, flicker, width * t_lsb_s)
    # The clock moves every slot's edge: the first carries the whole jump, and a bin's fall is spread over its slots.
    idle = lookup(*p.tables["adc"], current.new_zeros(()))
    steps = rate[..., 1:] - rate[..., :-1]
    clock = (rate[..., 0] - idle).square() + steps.square().sum(-1) / width
    return torch.sqrt(square + jitter_s**2 * clock)


@torch.no_grad()
def draw_counts(
    p: NoiseParameters, conductance_s: Tensor, codes: Tensor, v_read_v: float, t_lsb_s: float, slots: int,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Noise of counts, (..., batch, lines), drawn once per reading; arguments as ``bin_currents``'."""
    sigma = count_sigma(p, bin_currents(conductance_s, codes, v_read_v, slots), t_lsb_s, slots).to(codes)
    return sigma * normal_like(sigma, generator)
