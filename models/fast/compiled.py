"""Runs the compiled preparation where numba is installed; says once where it is not."""

from __future__ import annotations

import importlib.util
import itertools
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from aimcard.models.cell import gate_current, leakage_current
from aimcard.models.fast.meanfield import EXTRA, TINY, Prepared, idle_answer, parts
from aimcard.models.fast.reference import Reference

#: Numbers in a vector of the compiled steps.
LANES = 16
_said: set[str] = set()


class SlowerPathWarning(UserWarning):
    """A slower way gives the same answer, because something optional is not there."""


def available() -> bool:
    """Whether numba is there and not switched off by AIMCARD_PLAIN=1 in the environment; warns once if it is not there."""
    if os.environ.get("AIMCARD_PLAIN", "0") not in ("", "0"):
        return False
    if importlib.util.find_spec("numba") is not None:
        return True
    if "numba" not in _said:
        _said.add("numba")
        warnings.warn(
            "numba is not installed: the fast path runs in plain torch, some six times slower; pip install 'aimcard[fast]'",
            SlowerPathWarning, stacklevel=3,
        )  # fmt: skip
    return False


class Kernel:
    """The compiled preparation of one reference column, in float32; double precision is plain torch's."""

    def __init__(self, ref: Reference, squares: int) -> None:
        kind = np.float32
        self.squares, self.kind, self.groups = squares, kind, len(ref.scales)
        self.scratch: dict[tuple[int, int, bool], tuple[np.ndarray, ...]] = {}
        c, cell, conv = ref.circuit, ref.circuit.line.cell, ref.conversion
        grid = ref.grid
        zero = torch.zeros(1, dtype=torch.float64)
        leak = float(leakage_current(cell, zero + c.v_read_v, zero, c.w_select_um)) * 1e6
        step = 1.0 if conv.rate is None else 1 / conv.rate.step_ua
        lifted = 0.0 if conv.clamp is None else float(conv.clamp.pieces[0, 0]) - c.v_read_v
        rest = conv.offset + conv.guard * idle_answer(ref)
        k = [
            0, 1, 2, 3, 0.5, np.sqrt(3.0), ref.r_ohm, ref.share, c.v_read_v, ref.k_source, ref.d_source, ref.d_drain,
            leak, 1 / float(cell.v_leak_drain_v), 1 / float(cell.v_leak_source_v),
            float(gate_current(cell, zero, c.w_select_um)) * 1e6, 1 / float(cell.v_gate_source_v), 1 / 16, ref.start_drop,
            ref.end_drop, ref.start_square, ref.end_square, ref.end_clamp, ref.line, ref.node, conv.start_gain, step, rest,
            lifted, 1 / 6, 1 / 3, TINY, conv.ideal * c.v_read_v, ref.s_const, ref.s_gain, ref.reach, 0.25, 127,
            float(ref.g.mean()), 1 / len(ref.g),
        ]  # fmt: skip
        pad = torch.zeros(1, dtype=torch.float64)
        # The longest code belongs to the last bin.
        tops = torch.cat([grid.edges[1:-1], 2 * grid.edges[-1:], pad])
        cells = torch.stack([ref.e_const, ref.e_gain, torch.cat([ref.c_const, pad]), torch.cat([ref.c_gain, pad]), tops])

        def a(values: Any) -> np.ndarray:
            return np.ascontiguousarray(np.asarray(values, dtype=kind))

        ratio = ref.ratio()
        none = np.zeros((1, 4), kind)
        curves = [none if curve is None else a(curve.pieces) for curve in (conv.rate, conv.start, conv.clamp)]
        width = grid.width
        cuts = [a for a, _ in parts(len(width), squares)] + [len(width)] if squares else [0]
        modes = np.array([c.effects.leakage, c.effects.pulse, conv.rate is not None, conv.clamp is not None])
        self.squares = len(cuts) - 1
        lengths = np.diff(np.array(grid.bounds))
        padded = np.concatenate([[0], np.cumsum(-(-lengths // LANES) * LANES)])
        distance = np.zeros(padded[-1], kind)
        for at, (low, high) in zip(padded, itertools.pairwise(grid.bounds), strict=False):
            distance[at : at + high - low] = ref.distance[low:high].numpy()
        self.arguments = (
            a(ref.g), distance, np.array(grid.bounds), padded, a(grid.edges), a(1 / width), a(width), a(ref.lengths),
            a(ref.source), a(ref.drain), a(ref.weight), a(ref.spread), a(ratio), a(cells), a(ref.times),
            a(k), a(ref.scales), *curves, modes, np.array(cuts),
        )  # fmt: skip

    def __call__(self, x: Tensor, rates: bool = False, *, reuse: bool = False) -> Prepared:
        """Prepare ``x`` (batch, rows), in as many threads as torch uses; ``reuse``: valid until the next such call."""
        from aimcard.models.fast import blocks

        # What numba compiles has no type of its own, and the number of arguments is not known before it runs.
        prepare = cast(Callable[..., None], blocks.prepare)
        batch, rows, groups = *x.shape, self.groups
        # Fresh memory costs a page fault every 4 kB, a tenth of the whole.
        made = self.scratch.get((batch, groups, rates)) if reuse else None
        if made is None:
            some = batch if rates else 0
            made = (
                np.empty((groups, batch, rows + EXTRA), self.kind), np.empty((self.squares, batch, rows), np.int8),
                *(np.empty((groups, self.squares, batch), self.kind) for _ in range(3)),
                np.empty((groups, some, rows), self.kind), np.empty((some, rows), self.kind),
            )  # fmt: skip
            if reuse:
                self.scratch.clear()
                self.scratch[batch, groups, rates] = made
        codes = x.detach().contiguous().numpy()
        y, z, scale, sign, cubic, y_rate, z_rate = made

        def run(a: int, b: int) -> None:
            # The slices of later axes are views: the kernel wants them whole, so every thread gets its own.
            parts = [y[:, a:b], z[:, a:b], scale[..., a:b], sign[..., a:b], cubic[..., a:b], y_rate[:, a:b]]
            own = [np.ascontiguousarray(q) for q in parts]
            prepare(codes[a:b], *self.arguments, *own, z_rate[a:b])
            for whole, part in zip(parts, own, strict=True):
                whole[...] = part

        threads = min(torch.get_num_threads(), batch // 16)
        if threads > 1:
            edges = [16 * (batch * k // (16 * threads)) for k in range(threads)] + [batch]
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(run, edges[:-1], edges[1:]))
        else:
            prepare(codes, *self.arguments, y, z, scale, sign, cubic, y_rate, z_rate)
        t = [torch.from_numpy(q) for q in made]
        return Prepared(t[0], t[1], t[2], t[3], t[4], t[5] if rates else None, t[6] if rates else None)
