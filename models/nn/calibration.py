"""What layers learn from calibration data: fixed input ranges, and the affine correction of every column."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as Dictionary
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimcard.models.errors import InputError
from aimcard.models.nn.convert import crossbars
from aimcard.models.nn.crossbar import Crossbar, DynamicCrossbar


def run_batch(model: nn.Module, batch: Any) -> Any:
    """The model on a tensor, a tuple or list of arguments, or a dict of keywords."""
    if isinstance(batch, Dictionary):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


class _Fit:
    """Sums for the straight line from analog to digital partial results, (row tiles, outputs), in double."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None
        self.count = 0

    def __call__(self, crossbar: Crossbar, weight: Tensor, x: Tensor) -> None:
        tiles = crossbar.plan.mapping.row_tiles(x.shape[1])
        a = torch.stack(crossbar.partials(weight, x)).double()
        d = torch.stack([F.linear(x[:, rows], weight[:, rows]) for rows in tiles]).double()
        new = torch.stack([q.sum(1) for q in (a, d, a * a, a * d)])
        self.sums = new if self.sums is None else self.sums + new
        self.count += len(x)

    def solve(self) -> Tensor:
        """Scale and offset, (row tiles, 2, outputs); scale 1 where the analog result does not vary."""
        assert self.sums is not None
        a, d, aa, ad = self.sums / self.count
        variance = aa - a * a
        varies = variance > 1e-12 * aa
        scale = torch.where(varies, (ad - a * d) / torch.where(varies, variance, 1.0), 1.0)
        return torch.stack([scale, d - scale * a], dim=1)


class _Range:
    """Largest input, or a quantile of their sizes over the largest batch."""

    def __init__(self, quantile: float) -> None:
        self.quantile, self.level = quantile, 0.0

    def __call__(self, crossbar: Crossbar, weight: Tensor, x: Tensor) -> None:
        size = x.abs().flatten().float()
        k = max(1, round(self.quantile * size.numel()))
        self.level = max(self.level, float(size.kthvalue(k).values))


def _observe(model: nn.Module, batches: Iterable[Any], make: Any) -> list[tuple[Crossbar, Any]]:
    """One observer a crossbar while the batches run through the digital products. Raises InputError without batches."""
    found = [(m, make()) for _, m in crossbars(model) if not isinstance(m, DynamicCrossbar)]
    dynamic = [m for _, m in crossbars(model) if isinstance(m, DynamicCrossbar)]
    training = {m: m.training for m in model.modules()}
    count = 0
    try:
        for m, watcher in found:
            m.observer = watcher
        for m in dynamic:
            m.observer = _digital
        model.eval()
        with torch.no_grad():
            for batch in batches:
                run_batch(model, batch)
                count += 1
    finally:
        for m, _ in found:
            m.observer = None
        for m in dynamic:
            m.observer = None
        for m, mode in training.items():
            m.training = mode
    if not count:
        raise InputError("batches: expected at least one batch; got none")
    return found


def _digital(crossbar: Crossbar, weight: Tensor, x: Tensor) -> None:
    """Watch nothing: the product is digital."""


def calibrate_inputs(model: nn.Module, batches: Iterable[Any], quantile: float = 1.0) -> None:
    """Set the fixed input range of every layer to this quantile of the sizes of its inputs, in place.

    The inputs are those of the digital model. Raises InputError without batches, for a model that is not converted, or
    for a quantile outside 0 to 1.
    """
    if not 0 < quantile <= 1:
        raise InputError(f"quantile: expected a number above 0 and up to 1; got {quantile!r}")
    for crossbar, watcher in _observe(model, batches, lambda: _Range(quantile)):
        crossbar.input_level = torch.tensor(watcher.level)


def calibrate_affine(model: nn.Module, batches: Iterable[Any]) -> None:
    """Fit scale and offset of every column of every tile on a calibration set, in place.

    Each layer is fitted on the inputs that it has in the digital model; least squares from the analog to the digital
    partial result. Fixed input ranges that are not set yet are calibrated first, on the same batches. Products of two
    activations have no columns that stay and are not fitted. Raises InputError as ``calibrate_inputs``.
    """
    batches = list(batches)
    clear_affine(model)
    if any(m.plan.mapping.input_range == "fixed" and m.input_level is None for _, m in crossbars(model)):
        calibrate_inputs(model, batches)
    for crossbar, watcher in _observe(model, batches, _Fit):
        if watcher.sums is not None:
            crossbar.affine = watcher.solve()


def clear_affine(model: nn.Module) -> None:
    """Take the affine corrections away, in place."""
    for _, crossbar in crossbars(model):
        crossbar.affine = None
