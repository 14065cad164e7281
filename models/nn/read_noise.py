"""Read noise of a product: one sample per device (Monte Carlo), or one per line with the analytical sigma.

First order in the noise: a conductance that is off by δG over a pulse of t adds V·t·δG·k to its line's charge, where
k = (G_app/G)² is what the select transistor in series leaves of it. The wire's own drop (some percent of sigma) is left out.
The sigma of δG is ``models.pcm.read_noise_sigma``; a pulse below 1 ns, the shortest that was measured, has that of 1 ns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aimcard.models.pcm import READ_NOISE_RANGE_S, normal_like, read_noise_sigma

#: Numbers drawn at a time, to bound the memory.
CHUNK = 1 << 24


def _measured(time_s: Tensor) -> Tensor:
    return torch.where(time_s > 0, time_s.clamp(min=READ_NOISE_RANGE_S[0]), time_s)


def _slope_and_floor(time_s: Tensor) -> tuple[Tensor, Tensor]:
    at = _measured(time_s)
    floor = read_noise_sigma(torch.zeros_like(at), at)
    return read_noise_sigma(torch.ones_like(at), at) - floor, floor


def charge_sigma(conductance_s: Tensor, time_s: Tensor, v_read_v: float, r_on_ohm: float = 0.0) -> Tensor:
    """Standard deviation of each line's charge [C], (..., batch, lines): V·√Σ (a·G + b)²·t²·k², as three products.

    conductance_s (..., lines, rows) [S]; time_s (..., batch, rows).
    """
    a, b = _slope_and_floor(time_s)
    k = 1 / (1 + conductance_s * r_on_ohm) ** 4
    # Charges are far below 1: in µS and ns, float32 squares do not vanish.
    g, at, bt = conductance_s * 1e6, a * time_s * 1e9, b * 1e6 * time_s * 1e9
    square = (at * at) @ (g * g * k).mT + (2 * at * bt) @ (g * k).mT + (bt * bt) @ k.mT
    return v_read_v * 1e-15 * square.clamp(min=0.0).sqrt()


def draw_per_line(conductance_s: Tensor, time_s: Tensor, v_read_v: float, r_on_ohm: float, generator: torch.Generator) -> Tensor:
    """Noise charge [C], (..., batch, lines), drawn once per line and vector."""
    sigma = charge_sigma(conductance_s, time_s, v_read_v, r_on_ohm)
    return sigma * normal_like(sigma, generator)


def draw_per_device(
    conductance_s: Tensor, time_s: Tensor, v_read_v: float, r_on_ohm: float, generator: torch.Generator
) -> Tensor:
    """Noise charge [C], (..., batch, lines), from a sample of every device in every product: the slow twin."""
    if conductance_s.ndim > 2:
        each = zip(conductance_s, time_s, strict=True)
        return torch.stack([draw_per_device(g, t, v_read_v, r_on_ohm, generator) for g, t in each])
    k = 1 / (1 + conductance_s * r_on_ohm) ** 2
    parts = []
    for times in time_s.split(max(1, CHUNK // conductance_s.numel())):
        sigma = read_noise_sigma(conductance_s[None], _measured(times)[:, None, :]) * k
        parts.append(v_read_v * (sigma * normal_like(sigma, generator) * times[:, None, :]).sum(-1))
    return torch.cat(parts)
