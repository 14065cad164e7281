"""Tied columns by products of bytes: a quarter of a float32 product for each function of ``tied_modes``.

A byte's rounding is 1 % of a current that enters a term of a few percent of the answer. Whole codes are bytes themselves: with
lines of two bytes the linear part, which must be exact to 1e-4, is two such products more, and no float32 one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimcard.models.fast.bytes import byte_product
from aimcard.models.fast.tied_modes import BLOCK, Modes

#: Products that are bent together: they stay in the processor's cache. Of many answers more, in fewer and larger steps, but not
#: more than so many times the answers.
PRODUCTS, MOST, ANSWERS = 1 << 17, 1 << 19, 2
#: Most that edges may add to a pulse for ``answers``, in windows: it spreads them over the codes as the slope of Gaussian codes.
#: 1 − R² goes with their square and is 5e-7 at 0.0135 of 127 LSB on 70 rows. Shipped cards have 0.004 LSB and less: little enough
#: in conventional PWM, too much for the short phases of other modes.
LONGER = 0.005 / 127


def _step(batch: int, lines: int, functions: int) -> int:
    """Vectors of a block, all blocks of about one size."""
    products = max(PRODUCTS, min(MOST, ANSWERS * batch * lines))
    most = max(BLOCK, products // (functions * lines))
    return math.ceil(batch / math.ceil(batch / most))


@dataclass(frozen=True)
class SmallWeights:
    """Currents per row as bytes (tiles, lines, rows) of ``scale`` (tiles, lines), and what that leaves, in a 254th of it;
    coefficients (tiles, terms, lines); gain (tiles, lines): answer per current and LSB; profiles (tiles, 3, rows) and factors
    (tiles, 4, lines): the columns behind the rows of ``TiedWeights.wide``; delta_lsb (tiles,) as there."""

    bytes_: Tensor
    fine: Tensor
    scale: Tensor
    coefficients: Tensor
    gain: Tensor
    profiles: Tensor
    factors: Tensor
    delta_lsb: Tensor

    @classmethod
    def of(
        cls, odd: Tensor, coefficients: Tensor, gain: Tensor, rows_of: Tensor, behind: Tensor, delta_lsb: Tensor
    ) -> SmallWeights:
        """From odd (..., lines, rows), coefficients (terms, ..., 1, lines), gain (..., lines), rows_of (..., rows, 3), behind
        (..., lines, 4) and delta_lsb (..., 1, 1)."""
        from aimcard.models.fast.tied_whole import two_bytes

        lines, rows = odd.shape[-2:]
        flat = odd.reshape(-1, rows).contiguous()
        small, fine = torch.empty(flat.shape, dtype=torch.int8), torch.empty(flat.shape, dtype=torch.int8)
        scale = torch.empty(len(flat))
        two_bytes(flat.numpy(), small.numpy(), fine.numpy(), scale.numpy())
        by_tile = coefficients.reshape(len(coefficients), -1, lines).transpose(0, 1).contiguous()
        return cls(
            small.view(-1, lines, rows), fine.view(-1, lines, rows), scale.view(-1, lines), by_tile,
            gain.reshape(-1, lines).contiguous(), rows_of.mT.reshape(-1, 3, rows).contiguous(),
            behind.mT.reshape(-1, 4, lines).contiguous(), delta_lsb.reshape(-1).contiguous(),
        )  # fmt: skip

    def answers(self, x: Tensor, modes: Modes, idle: float) -> Tensor | None:
        """All of the answer but the even part's own product, (tiles, batch, lines), of codes (tiles, batch, rows); None where
        they are not whole bytes, or edges add too much."""
        from aimcard.models.fast.tied_kernel import bend_bytes
        from aimcard.models.fast.tied_whole import code_bytes, whole, whole_linear

        deltas = self.delta_lsb.tolist()
        digits = torch.empty(x.shape, dtype=torch.int8)
        if max(map(abs, deltas)) > LONGER * modes.code_max or not whole(x.numpy(), digits.numpy()):
            return None
        lines, rows = self.bytes_.shape[1:]
        out, functions = x.new_empty(*x.shape[:2], lines), modes.count + 1
        step = _step(x.shape[1], lines, functions)
        f, u = torch.empty(functions * step * rows, dtype=torch.int8), torch.empty(functions * step * lines, dtype=torch.int32)
        weights, codes, answers = modes.weights.astype(np.float32), x.numpy(), out.numpy()
        for t, delta in enumerate(deltas):
            small, scale = self.bytes_[t].T, self.scale[t].numpy()
            per_byte = scale * self.gain[t].numpy() * np.float32(1 + delta * modes.of_sign)
            # All vectors at once, for products of few rows take a third longer; in the answer's own memory.
            fine = byte_product(digits[t], self.fine[t].T, out[t].view(torch.int32)).numpy()
            coefficients, profiles, factors = (a[t].numpy() for a in (self.coefficients, self.profiles, self.factors))
            for a in range(0, x.shape[1], step):
                part, to = codes[t, a : a + step], answers[t, a : a + step]
                batch = len(part)
                found, seen = f[: functions * batch * rows].view(-1, rows), u[: functions * batch * lines].view(-1, lines)
                sums = np.empty((3, batch), np.float32)
                code_bytes(part, *modes.numbers, weights, modes.units, profiles, found.numpy().reshape(-1, batch, rows), sums)
                seen = byte_product(found, small, seen).numpy().reshape(-1, batch, lines)
                whole_linear(seen[-1], fine[a : a + step], per_byte, factors, sums, np.float32(idle), to)
                bend_bytes(seen[:-1], modes.units, scale, coefficients, weights, sums[2], factors[2], to)
        return out

    def add_bend(self, out: Tensor, x: Tensor, modes: Modes) -> None:
        """As ``tied_modes.add_bend``, and what the functions leave; out, x (tiles, batch, ·)."""
        from aimcard.models.fast.tied_kernel import bend_bytes, feature_bytes

        lines, rows = self.bytes_.shape[1:]
        step = _step(x.shape[1], lines, modes.count)
        weights, left = modes.weights.astype(np.float32), torch.empty(step)
        f = torch.empty(modes.count * step * rows, dtype=torch.int8)
        u = torch.empty(modes.count * step * lines, dtype=torch.int32)
        for t, (goal, codes) in enumerate(zip(out, x, strict=True)):
            small = self.bytes_[t].T
            for a in range(0, len(codes), step):
                part, to = codes[a : a + step], goal[a : a + step]
                count = modes.count * len(part)
                found, seen = f[: count * rows].view(-1, len(part), rows), u[: count * lines].view(count, lines)
                feature_bytes(
                    part.numpy(), *modes.numbers, weights, modes.units, self.profiles[t, 2].numpy(), found.numpy(), left.numpy()
                )  # fmt: skip
                seen = byte_product(found.flatten(0, 1), small, seen)
                bend_bytes(
                    seen.view(-1, len(part), lines).numpy(), modes.units, self.scale[t].numpy(), self.coefficients[t].numpy(),
                    weights, left.numpy(), self.factors[t, 2].numpy(), to.numpy(),
                )  # fmt: skip
