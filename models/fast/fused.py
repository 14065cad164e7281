"""``meanfield.prepare`` in five kernels (Triton), for float32 inputs on a GPU; says once where Triton is not installed.

The same steps as in plain torch, which launches more than a thousand small operations for them. With TRITON_INTERPRET=1 in the
environment, Triton's own switch, the kernels run on a CPU, slowly, as its interpreter does.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from typing import Any

import torch
from torch import Tensor

from aimcard.models.fast.compiled import SlowerPathWarning
from aimcard.models.fast.fused_numbers import ByBin, Numbers, Sizes, Solved, Squares, Sums
from aimcard.models.fast.meanfield import EXTRA, Prepared
from aimcard.models.fast.reference import Reference

_said: list[str] = []


def interpreted() -> bool:
    """Whether Triton's kernels run on the CPU, in its interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def available(device: torch.device, kind: torch.dtype) -> bool:
    """Whether inputs of this type on this device get the fused kernels; warns once if only Triton is missing.

    AIMCARD_PLAIN=1 in the environment switches them off.
    """
    fits = kind == torch.float32 and (device.type == "cuda" or (device.type == "cpu" and interpreted()))
    if not fits or os.environ.get("AIMCARD_PLAIN", "0") not in ("", "0"):
        return False
    if importlib.util.find_spec("triton") is not None:
        return True
    if not _said:
        _said.append("triton")
        warnings.warn(
            "triton is not installed: on a GPU the fast path runs in plain torch, in a thousand small steps; "
            "pip install 'aimcard[cuda]'", SlowerPathWarning, stacklevel=2,
        )  # fmt: skip
    return False


class Fused:
    """The fused preparation of one reference column; ``half``: z in bfloat16."""

    def __init__(self, ref: Reference, squares: int, device: torch.device, *, half: bool) -> None:
        from aimcard.models.fast import fused_bins, fused_ladder, fused_rows, fused_sums

        self.sums, self.ladder, self.weights, self.rows = fused_sums, fused_ladder, fused_bins, fused_rows
        self.numbers, self.z_type = Numbers.of(ref, squares, device), torch.bfloat16 if half else torch.float32
        self.groups, self.bins, self.segments = len(ref.scales), len(ref.grid.width), len(ref.lengths)
        effects, conversion = ref.circuit.effects, ref.conversion
        self.pulses = effects.pulse
        #: What the circuit has: leakage, pulses, a regulator, a curve of the rate.
        self.modes = effects.leakage, effects.pulse, conversion.clamp is not None, conversion.rate is not None

    def __call__(self, x: Tensor, rates: bool = False) -> Prepared:
        """``meanfield.prepare`` of codes (batch, rows) in float32."""
        n, x = self.numbers, x.detach().contiguous()
        (batch, rows), groups, bins, segments = x.shape, self.groups, self.bins, self.segments
        sizes, padded = Sizes(batch, rows, bins, groups, len(n.cases.scale)), 1 << (bins - 1).bit_length()
        cases, squares = sizes.cases, n.squares

        def empty(*shape: int, like: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=like, device=x.device)

        sums = Sums(empty(5, segments, batch, bins), empty(2, segments, batch))
        step = self.sums.VECTORS
        launch(
            self.sums.sum_rows, (programs(batch, step), segments), x, sums, n.rows, n.segments, n.window, sizes, segments, padded,
            step, self.sums.ROWS,
        )  # fmt: skip
        solved = Solved(
            empty(2, cases, batch, bins), empty(5, 2, segments, cases, batch, bins), empty(3, 2, groups, batch, bins),
            empty(5, 2, segments, groups, batch, bins),
        )  # fmt: skip
        step = self.ladder.LANES
        for first, beyond in ((0, groups), (groups, cases)):
            if beyond > first:
                launch(
                    self.ladder.solve, (programs(batch * bins, step), beyond - first, 2), sums, solved, n.segments, n.window,
                    n.cases, n.wire, n.pulse, n.curves, sizes, first, segments, step, n.curves.shape[1], first == 0, *self.modes,
                    num_warps=self.ladder.WARPS,
                )  # fmt: skip
        by_bin = ByBin(
            empty(3, segments, groups, batch, bins), empty(2, segments, batch, bins), empty(squares, batch), empty(groups, batch)
        )
        found = Squares(*(empty(groups, squares, batch) for _ in range(3)))
        y, z = empty(groups, batch, rows + EXTRA), empty(squares, batch, rows, like=self.z_type)
        step = max(1, self.weights.NUMBERS // padded)
        launch(
            self.weights.weigh_bins, (programs(batch, step), groups), sums, solved, by_bin, y, found, n.segments, n.window,
            n.cases, n.wire, n.pulse, sizes, n.multiples, EXTRA, segments, padded, step, squares, self.pulses, n.multiples > 0,
        )  # fmt: skip
        some, step = batch if rates else 0, self.rows.VECTORS
        y_rate, z_rate = empty(groups, some, rows), empty(some, rows)
        launch(
            self.rows.weigh_rows, (programs(batch, step), segments, groups), x, by_bin, y, z, y_rate, z_rate, n.rows, n.segments,
            n.window, sizes, n.wire.ideal, EXTRA, segments, squares, rates, step, self.rows.ROWS,
        )  # fmt: skip
        return Prepared(y, z, *found, y_rate if rates else None, z_rate if rates else None)


def programs(numbers: int, step: int) -> int:
    """How many programs of ``step`` numbers each it takes."""
    return -(-numbers // step)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: int) -> None:
    """Start a kernel on the device of its first argument."""
    first = arguments[0][0] if isinstance(arguments[0], tuple) else arguments[0]
    with torch.cuda.device_of(first):
        kernel[grid](*arguments, **options)
