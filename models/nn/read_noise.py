"""Read noise of a product: one sample per device (Monte Carlo), or one per line with the analytical sigma.

First order in the noise: a conductance that is off by δG over a pulse of t adds V·t·δG·k to its line's charge, where
k = (G_app/G)² is what the select transistor in series leaves of it; what lines and regulator leave is a factor of the whole
(``models/read_gain.py``). The sigma of δG is ``models.pcm.read_noise_sigma``; a pulse below 1 ns, the shortest that was
measured, has that of 1 ns. In the phases of a PWM mode a device's white noise is new each time and its 1/f noise goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aimcard.models.pcm import READ_NOISE_RANGE_S, common_read_noise, normal_like, read_noise_scale, read_noise_sigma
from aimcard.models.read_gain import device_share

#: When each row's pulse starts and how long it is [s], (..., batch, rows) each.
Pulse = tuple[Tensor, Tensor]

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
    k = device_share(conductance_s, r_on_ohm) ** 2
    # Charges are far below 1: in µS and ns, float32 squares do not vanish.
    g, at, bt = conductance_s * 1e6, a * time_s * 1e9, b * 1e6 * time_s * 1e9
    square = (at * at) @ (g * g * k).mT + (2 * at * bt) @ (g * k).mT + (bt * bt) @ k.mT
    return v_read_v * 1e-15 * square.clamp(min=0.0).sqrt()


def _common(pulses: Sequence[Pulse], k: int, j: int) -> Tensor:
    """``common_read_noise`` of every row's pulses in two phases, (..., batch, rows)."""
    (start, time), (other, width) = pulses[k], pulses[j]
    return common_read_noise(start, start + time, other, other + width).to(time)


def _mixing(pulses: Sequence[Pulse], share: Callable[[int, int], Tensor]) -> Tensor:
    """Cholesky factors (..., phases, phases) of correlations ``share(k, j)``, k > j."""
    n = len(pulses)
    rows = [[share(k, j) for j in range(k)] for k in range(n)]
    shape, like = (rows[1][0].shape if n > 1 else torch.Size()), pulses[0][1]
    r = torch.eye(n, dtype=like.dtype, device=like.device).expand(*shape, n, n).clone()
    for k, row in enumerate(rows):
        for j, value in enumerate(row):
            r[..., k, j] = r[..., j, k] = value
    return torch.linalg.cholesky(r)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / torch.where(below > 0, below, torch.ones_like(below)), torch.zeros_like(above))


def draw_per_line(
    conductance_s: Tensor, pulses: Sequence[Pulse], v_read_v: float, r_on_ohm: float, generator: torch.Generator
) -> list[Tensor]:
    """Noise charge [C] of each phase, (..., batch, lines), drawn once per line and vector, with its covariances."""
    sigma = [charge_sigma(conductance_s, time, v_read_v, r_on_ohm) for _, time in pulses]
    g = read_noise_scale(conductance_s) * 1e6
    square = (g * device_share(conductance_s, r_on_ohm)).square().mT

    def correlation(k: int, j: int) -> Tensor:
        common = (_common(pulses, k, j) * pulses[k][1] * pulses[j][1] * 1e18) @ square
        return _ratio(v_read_v**2 * common, sigma[k] * 1e15 * (sigma[j] * 1e15))

    drawn = torch.stack([normal_like(s, generator) for s in sigma], -1)
    mixed = (_mixing(pulses, correlation) @ drawn[..., None])[..., 0]
    return [s * z for s, z in zip(sigma, mixed.unbind(-1), strict=True)]


def draw_per_device(
    conductance_s: Tensor, pulses: Sequence[Pulse], v_read_v: float, r_on_ohm: float, generator: torch.Generator
) -> list[Tensor]:
    """The same from a sample of every device in every phase of every product: the slow twin."""
    if conductance_s.ndim > 2:
        each = [
            draw_per_device(g, [(start[i], time[i]) for start, time in pulses], v_read_v, r_on_ohm, generator)
            for i, g in enumerate(conductance_s)
        ]
        return [torch.stack(parts) for parts in zip(*each, strict=True)]
    share = device_share(conductance_s, r_on_ohm)
    size = max(1, CHUNK // (conductance_s.numel() * len(pulses)))
    parts: list[list[Tensor]] = [[] for _ in pulses]
    for part in zip(*(list(zip(start.split(size), time.split(size), strict=True)) for start, time in pulses), strict=True):
        # A correlation goes with the pulses alone: a and b of sigma fall alike.
        slope = [_slope_and_floor(time)[0] for _, time in part]
        mixing = _mixing(part, lambda k, j, part=part, slope=slope: _ratio(_common(part, k, j), slope[k] * slope[j]))
        sigma = [read_noise_sigma(conductance_s[None], _measured(time)[:, None, :]) * share for _, time in part]
        drawn = [normal_like(s, generator) for s in sigma]
        for k, (_, time) in enumerate(part):
            z = sum(mixing[..., None, :, k, j] * drawn[j] for j in range(k + 1)) if k else drawn[0]
            parts[k].append(v_read_v * (sigma[k] * z * time[:, None, :]).sum(-1))
    return [torch.cat(p) for p in parts]
