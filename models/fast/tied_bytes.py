"""What bends of tied columns by products of bytes: a quarter of a float32 product for each function of ``tied_modes``.

A byte's rounding is 1 % of a current that enters a term of a few percent of the answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimcard.models.fast.bytes import byte_product
from aimcard.models.fast.tied_modes import BLOCK, Modes

#: Products that are bent together: they stay in the processor's cache.
PRODUCTS = 1 << 17


@dataclass(frozen=True)
class SmallWeights:
    """Currents per row as bytes (tiles, lines, rows) of ``scale`` (tiles, lines); coefficients (tiles, terms, lines); profile
    (tiles, rows) and factor (tiles, lines) of what the functions leave."""

    bytes_: Tensor
    scale: Tensor
    coefficients: Tensor
    profile: Tensor
    factor: Tensor

    @classmethod
    def of(cls, odd: Tensor, coefficients: Tensor, profile: Tensor, factor: Tensor) -> SmallWeights:
        """From odd (..., lines, rows), coefficients (terms, ..., 1, lines), profile (..., rows) and factor (..., lines)."""
        from aimcard.models.fast.tied_kernel import line_bytes

        lines, rows = odd.shape[-2:]
        flat = odd.reshape(-1, rows).contiguous()
        small, scale = torch.empty(flat.shape, dtype=torch.int8), torch.empty(len(flat))
        line_bytes(flat.numpy(), small.numpy(), scale.numpy())
        by_tile = coefficients.reshape(len(coefficients), -1, lines).transpose(0, 1).contiguous()
        return cls(
            small.view(-1, lines, rows), scale.view(-1, lines), by_tile, profile.reshape(-1, rows).contiguous(),
            factor.reshape(-1, lines).contiguous(),
        )  # fmt: skip

    def add_bend(self, out: Tensor, x: Tensor, modes: Modes) -> None:
        """As ``tied_modes.add_bend``, and what the functions leave; out, x (tiles, batch, ·)."""
        from aimcard.models.fast.tied_kernel import bend_bytes, feature_bytes

        lines, rows = self.bytes_.shape[1:]
        step = max(BLOCK, PRODUCTS // (modes.count * lines))
        weights, left = modes.weights.astype(np.float32), torch.empty(step)
        # Blocks of one size.
        size = step = math.ceil(x.shape[1] / math.ceil(x.shape[1] / step))
        f = torch.empty(modes.count * size * rows, dtype=torch.int8)
        u = torch.empty(modes.count * size * lines, dtype=torch.int32)
        for t, (goal, codes) in enumerate(zip(out, x, strict=True)):
            small = self.bytes_[t].T
            for a in range(0, len(codes), step):
                part, to = codes[a : a + step], goal[a : a + step]
                count = modes.count * len(part)
                found, seen = f[: count * rows].view(-1, len(part), rows), u[: count * lines].view(count, lines)
                feature_bytes(
                    part.numpy(), *modes.numbers, weights, modes.units, self.profile[t].numpy(), found.numpy(), left.numpy()
                )  # fmt: skip
                seen = byte_product(found.flatten(0, 1), small, seen)
                bend_bytes(
                    seen.view(-1, len(part), lines).numpy(), modes.units, self.scale[t].numpy(), self.coefficients[t].numpy(),
                    weights, left.numpy(), self.factor[t].numpy(), to.numpy(),
                )  # fmt: skip
