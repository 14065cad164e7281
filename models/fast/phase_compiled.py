"""Runs the compiled ``vector_errors``: its tables, made once for a phase and group of columns, and its sums over the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from aimcard.models.fast.compiled import LANES
from aimcard.models.fast.phase_bins import PhaseBins
from aimcard.models.fast.phase_errors import VectorErrors
from aimcard.models.fast.phase_rest import TERMS, Rest, share_tables
from aimcard.models.fast.phase_slots import ALONG, PhaseSlots
from aimcard.models.fast.reference import Reference
from aimcard.models.readout import SPEED, TAPS, StepResponse


def padded(batch: int) -> int:
    """``batch``, up to a whole number of lanes."""
    return -(-batch // LANES) * LANES


class PhaseKernel:
    """A phase's product beside the same slot by slot, in float32.

    ref: a mean line with the group's tables; digits (phases, codes) of the mode; k: the phase.
    """

    def __init__(self, ref: Reference, slots: PhaseSlots, bins: PhaseBins, digits: Tensor, k: int) -> None:
        from aimcard.models.fast.phase_kernel import Tables

        self.slots, self.bins = slots, bins
        of_digit = slots.member
        n = of_digit.flip(1).cumsum(1).flip(1)[:, 1:]
        functions = bins.functions
        rows = [
            n.T, slots.charges.whole.T, slots.tilt.T, (of_digit @ bins.f).T, (of_digit @ bins.const).T, (of_digit @ bins.gain).T,
            functions.mean, functions.by_time @ bins.tilt, share_tables(digits, k) / len(ref.g),
        ]  # fmt: skip
        self.sums = torch.cat(rows).float()
        self.sizes = [len(r) for r in rows]
        c, conv, width = ref.circuit, ref.conversion, ref.grid.width
        assert conv.rate is not None
        assert conv.start is not None
        blocks = [] if c.readout is None else [c.readout.clamp]
        self.wait = 0.0
        if c.mirror is not None and c.adc is not None:
            blocks.append(c.mirror.mirror)
            self.wait = min(float(c.adc.t_wait_s) / c.t_lsb_s, 0.5)
        settling = np.stack([_settling(b, c.t_lsb_s) for b in blocks])
        clamp = np.zeros((1, 4)) if conv.clamp is None else conv.clamp.pieces
        each = ((q[1:] + q[:-1]) / 2 / width for q in (ref.e_const, ref.e_gain))
        curves = (conv.rate.pieces, conv.start.pieces, clamp, settling)
        by_bin = (bins.f, bins.ramp, width, *each, ref.times[-1])
        self.tables = Tables(*(_array(t) for t in (*curves, slots.charges.share, *by_bin)))

    def __call__(self, ref: Reference, reach: float, hist: Tensor, batch: int, rest: Rest | None,
                 scale: float) -> VectorErrors:  # fmt: skip
        """Of rows of each code ``hist`` (codes, padded batch), float32; ref: the mean line; scale: answer per product's unit.
        by_line (12, batch), with what the rest adds."""
        from aimcard.models.fast import phase_kernel

        # What numba compiles has no type of its own.
        run = cast(Callable[..., None], phase_kernel.errors)
        wide, times = hist.shape[1], self.sizes[6]
        sums = phase_kernel.Sums(*(s.flatten().numpy() for s in (self.sums @ hist).split(self.sizes)))
        scales = np.array([1 - reach, 1.0, 1 + reach, 1.0], np.float32)
        numbers = self._numbers(ref)
        besides = scales * numbers.conductance_us / numbers.rows / np.float32(self.slots.cell) - np.float32(1)
        by_line, worth = torch.empty(12, wide), torch.empty(times, wide)
        share, base = torch.empty(wide), torch.empty(wide)
        made = (q.flatten().numpy() for q in (by_line, share, base, worth))
        run(sums, wide, scales, besides, numbers, self.tables, _rest(rest, scale), *made)
        return VectorErrors(by_line[:, :batch], share[:batch], base[:batch], worth[:, :batch].T)

    def _numbers(self, ref: Reference) -> Any:
        from aimcard.models.fast.phase_kernel import Numbers

        conv, slots = ref.conversion, self.slots
        assert conv.rate is not None
        rows, v0 = len(ref.g), ref.circuit.v_read_v
        clamp = conv.clamp
        lifted = 0.0 if clamp is None else float(clamp.pieces[0, 0]) - v0
        found = (
            rows, float(ref.g.sum()), ref.r_ohm * rows / 3, v0, 1 / conv.rate.step_ua, clamp is not None, ref.share, ref.line,
            ref.node, ref.idle_ua, ref.start_drop, ref.start_square, ref.end_drop, ref.end_square, ref.end_clamp, slots.rise,
            slots.fall, *slots.charges.push, *slots.charges.back, self.wait, slots.hold, self.bins.quiet, conv.guard, conv.offset,
            lifted, ALONG,
        )  # fmt: skip
        return Numbers(*(np.float32(q) for q in found))


def _rest(rest: Rest | None, scale: float) -> np.ndarray:
    """Coefficients (3, TERMS) in the product's unit."""
    found = np.zeros((3, TERMS), np.float32)
    if rest is not None:
        found[:, : rest.coefficients.shape[1]] = rest.coefficients.numpy() / scale
    return found


def _settling(block: StepResponse, t_lsb_s: float) -> np.ndarray:
    """A step response in µA and LSB, as the kernel takes it (3 + 5·TAPS,)."""
    half, on_half = float(block.half_a) * 1e6, float(block.on_half_a) * 1e6
    steps = [float(q[k]) / t_lsb_s for k in range(TAPS) for q in (block.step_s, block.step_idle_s, block.step_low_s)]
    begins = [float(q[k]) / t_lsb_s for k in range(TAPS) for q in (block.on_s, block.on_idle_s)]
    return np.array([SPEED / half, (1 - SPEED) / half, 1 / on_half, *steps, *begins])


def _array(values: Any) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(values, dtype=np.float32))
