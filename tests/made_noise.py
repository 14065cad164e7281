"""Sigma of a layer's count, worked out from what its draws are made of."""

import torch

from aimcard.models.counting import Counting
from aimcard.models.flicker import flicker_kernel
from aimcard.models.nn.circuit_noise import phase_noise
from aimcard.models.noise import LOWEST_HZ, NoiseParameters


def count_sigma(p: NoiseParameters, current_a, t_lsb_s: float, slots: int, column_s=None) -> torch.Tensor:
    """Standard deviation of one phase's count, (...), by itself; arguments as ``phase_noise``'s."""
    found = phase_noise(p, current_a, t_lsb_s, slots, column_s=column_s)
    kernel = flicker_kernel(*Counting.once(slots, t_lsb_s).edges_s, LOWEST_HZ)
    return torch.sqrt(found.own + found.flicker.square().sum(0) * kernel[0, 0])
