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


def column_conductance(plus_s: Tensor, minus_s: Tensor, r_on_ohm: float, r_column_ohm: float) -> Tensor:
    """Conductance of tied columns at their read-out [S], (..., lines), of cells (..., lines, rows): select transistors in series,
    and the conductance taken as spread evenly along a wire of ``r_column_ohm`` in all: Y·tanh(k)/k, k² = r·Y."""
    cells = torch.cat([plus_s, minus_s], -1).double()
    y = (cells / (1 + cells * r_on_ohm)).sum(-1)
    k = torch.sqrt((r_column_ohm * y).clamp(min=1e-12))
    return y * torch.tanh(k) / k


def count_sigma(
    p: NoiseParameters, current_a: Tensor, t_lsb_s: float, slots: int, jitter_s: float = CLOCK_JITTER_S,
    column_s: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Standard deviation of a count, (...), of line currents (..., bins) [A]; in double precision.

    column_s: conductance of tied columns [S], (...) or what broadcasts to it.
    """
    current, width = current_a.double().cpu(), slots / BINS
    y = None if column_s is None else column_s.double().cpu()[..., None]
    rate = lookup(*p.tables["adc"], current)
    square = torch.zeros_like(rate[..., 0])
    for source in p.sources:
        white, flicker = p.densities(source, current, y)
        square = square + white_variance(rate, white, width * t_lsb_s) + flicker_variance(rate, flicker, width * t_lsb_s)
    # The clock moves every slot's edge: the first carries the whole jump, and a bin's fall is spread over its slots.
    steps = rate[..., 1:] - rate[..., :-1]
    clock = steps.square().sum(-1) / width
    if p.tied:
        # The counter opens with the first edge and closes on what the resting column counts.
        clock = clock + rate[..., 0].square() + rate[..., -1].square()
    else:
        clock = clock + (rate[..., 0] - lookup(*p.tables["adc"], current.new_zeros(()))).square()
    return torch.sqrt(square + jitter_s**2 * clock)


@torch.no_grad()
def draw_counts(
    p: NoiseParameters, current_a: Tensor, t_lsb_s: float, slots: int, like: Tensor, generator: torch.Generator,
    column_s: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Noise of counts, (...), drawn once per reading, of ``like``'s type and device; arguments as ``count_sigma``'s."""
    sigma = count_sigma(p, current_a, t_lsb_s, slots, column_s=column_s).to(like)
    return sigma * normal_like(sigma, generator)
