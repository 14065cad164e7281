"""Runs the compiled preparation where numba is installed; says once where it is not."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from aimcard.models.fast.compiled_reference import compiled_reference
from aimcard.models.fast.jit import LANES
from aimcard.models.fast.meanfield import EXTRA, Prepared
from aimcard.models.fast.reference import Reference

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


class Outputs(NamedTuple):
    """Arrays of ``meanfield.Prepared`` to fill, z in bytes; y_rate and z_rate are empty where no derivatives are asked for."""

    y: np.ndarray  # (groups, batch, rows + EXTRA)
    z: np.ndarray  # (parts, batch, rows)
    scale: np.ndarray  # (groups, parts, batch)
    sign: np.ndarray  # (groups, parts, batch)
    cubic: np.ndarray  # (groups, parts, batch)
    y_rate: np.ndarray  # (groups, batch, rows)
    z_rate: np.ndarray  # (batch, rows)

    @classmethod
    def empty(cls, groups: int, parts: int, batch: int, rows: int, rates: bool) -> Outputs:
        """Room for them, not filled."""
        kind, some = np.float32, batch if rates else 0
        scale, sign, cubic = (np.empty((groups, parts, batch), kind) for _ in range(3))
        return cls(
            np.empty((groups, batch, rows + EXTRA), kind), np.empty((parts, batch, rows), np.int8), scale, sign, cubic,
            np.empty((groups, some, rows), kind), np.empty((some, rows), kind),
        )  # fmt: skip

    def vectors(self, a: int, b: int) -> Outputs:
        """Views of the vectors a to b."""
        return Outputs(self.y[:, a:b], self.z[:, a:b], self.scale[..., a:b], self.sign[..., a:b], self.cubic[..., a:b],
                       self.y_rate[:, a:b], self.z_rate[a:b])  # fmt: skip


class Kernel:
    """The compiled preparation of one reference column, in float32; double precision is plain torch's."""

    def __init__(self, ref: Reference, squares: int) -> None:
        self.reference, self.groups = compiled_reference(ref, squares), len(ref.scales)
        self.squares = len(self.reference.bins.cuts) - 1
        self.scratch: dict[tuple[int, int, bool], Outputs] = {}

    def __call__(self, x: Tensor, rates: bool = False, *, reuse: bool = False) -> Prepared:
        """Prepare ``x`` (batch, rows), in as many threads as torch uses; ``reuse``: valid until the next such call."""
        from aimcard.models.fast import compiled_meanfield

        # What numba compiles has no type of its own.
        prepare = cast(Callable[..., None], compiled_meanfield.prepare)
        (batch, rows), groups = x.shape, self.groups
        # Fresh memory costs a page fault every 4 kB, a tenth of the whole.
        out = self.scratch.get((batch, groups, rates)) if reuse else None
        if out is None:
            out = Outputs.empty(groups, self.squares, batch, rows, rates)
            if reuse:
                self.scratch.clear()
                self.scratch[batch, groups, rates] = out
        codes = x.detach().contiguous().numpy()

        def run(a: int, b: int) -> None:
            # The slices of later axes are views: the kernel wants them whole, so every thread gets its own.
            views = out.vectors(a, b)
            own = Outputs(*(np.ascontiguousarray(q) for q in views))
            prepare(codes[a:b], *self.reference, own)
            for view, part in zip(views, own, strict=True):
                if view is not part:
                    view[...] = part

        threads = min(torch.get_num_threads(), batch // LANES)
        if threads > 1:
            edges = [LANES * (batch * k // (LANES * threads)) for k in range(threads)] + [batch]
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(run, edges[:-1], edges[1:]))
        else:
            prepare(codes, *self.reference, out)
        t = [torch.from_numpy(q) for q in out]
        return Prepared(t[0], t[1], t[2], t[3], t[4], t[5] if rates else None, t[6] if rates else None)
