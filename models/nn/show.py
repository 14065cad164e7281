"""The mapping of a converted model as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from aimcard.models.nn.calibration import run_batch
from aimcard.models.nn.convert import crossbars
from aimcard.models.nn.crossbar import Crossbar
from aimcard.models.nn.layer import AnalogLayer
from aimcard.models.nn.pairs import weight_scale
from aimcard.models.nn.usage import Usage


@dataclass(frozen=True)
class LayerRow:
    """One crossbar: matrix (outputs, rows), row and column tiles, rows used in each, shares clipped, and the PWM mode.

    outputs and rows are 0 for products of activations, whose matrices change. adc_top: the largest count seen, and
    counts_clipped, inputs_clipped: shares; None where no batches were given or nothing converts.
    """

    name: str
    outputs: int
    rows: int
    row_tiles: int
    column_tiles: int
    rows_used: int
    rows_of: int
    adc_range: int
    weights_clipped: float
    adc_top: float | None = None
    counts_clipped: float | None = None
    inputs_clipped: float | None = None
    mode: str = "conventional"

    @property
    def tiles(self) -> int:
        """Tiles that the matrix takes."""
        return self.row_tiles * self.column_tiles


@dataclass(frozen=True)
class MappingTable:
    """All crossbars of a model; ``str`` is the table."""

    layers: tuple[LayerRow, ...]

    @property
    def tiles(self) -> int:
        """Tiles of the whole model, those of activations apart."""
        return sum(row.tiles for row in self.layers)

    def __str__(self) -> str:
        width = max(len("layer"), *(len(row.name) for row in self.layers))
        modes = max(len("mode"), *(len(row.mode) for row in self.layers))
        lines = [
            f"{'layer':<{width}}  {'mode':<{modes}}  {'outputs x rows':>15}  {'tiles':>9}  {'rows used':>10}  "
            f"{'counts seen / range':>20}  {'clipped: weights':>16}  {'inputs':>8}  {'counts':>8}"
        ]
        for r in self.layers:
            top = "-" if r.adc_top is None else f"{r.adc_top:.0f}"
            shape = f"{r.outputs} x {r.rows}" if r.rows else "per product"
            tiles = f"{r.row_tiles} x {r.column_tiles}" if r.rows else "-"
            used = f"{r.rows_used} of {r.rows_of}" if r.rows else "-"
            lines.append(
                f"{r.name:<{width}}  {r.mode:<{modes}}  {shape:>15}  {tiles:>9}  {used:>10}  {f'{top} / {r.adc_range}':>20}  "
                f"{_percent(r.weights_clipped):>16}  {_percent(r.inputs_clipped):>8}  {_percent(r.counts_clipped):>8}"
            )
        lines.append(f"{self.tiles} tiles in all")
        return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"


def mapping_table(model: nn.Module, batches: Iterable[Any] | None = None) -> MappingTable:
    """The mapping, with the ranges that ``batches`` use, if given. Raises InputError for a model that is not converted."""
    parts = dict(crossbars(model))
    if batches is not None:
        try:
            for crossbar in parts.values():
                crossbar.usage = Usage()
            with torch.no_grad():
                for batch in batches:
                    run_batch(model, batch)
            used = {name: c.usage for name, c in parts.items()}
        finally:
            for crossbar in parts.values():
                crossbar.usage = None
    else:
        used = dict.fromkeys(parts)
    weights = {id(c): w for m in model.modules() if isinstance(m, AnalogLayer) for c, w in m.matrices()}
    return MappingTable(tuple(_row(name, c, weights.get(id(c)), used[name]) for name, c in parts.items()))


def _row(name: str, crossbar: Crossbar, weight: torch.Tensor | None, usage: Usage | None) -> LayerRow:
    m, n = crossbar.plan.mapping, crossbar.plan.non_idealities
    seen: dict[str, Any] = {"mode": crossbar.plan.hardware.model.mode.name}
    if usage is not None and usage.counts:
        seen |= {"adc_top": usage.top_count, "counts_clipped": usage.counts_clipped / usage.counts}
    if usage is not None and usage.inputs:
        seen["inputs_clipped"] = usage.inputs_clipped / usage.inputs
    lines = crossbar.plan.hardware.lines_per_pair
    # A tied counter's range has both signs.
    top = 2 ** (m.adc_bits - (lines == 1)) - 1
    if weight is None:
        return LayerRow(name, 0, 0, 0, 0, 0, m.rows, top, 0.0, **seen)
    outputs, rows = weight.shape
    tiles = m.row_tiles(rows)
    clipped = 0
    if n.weight_clip_sigma is not None:
        for part in (weight[:, t] for t in tiles):
            clipped += int((part.abs() > weight_scale(part, m, n.weight_clip_sigma, lines)).sum())
    longest = max(t.stop - t.start for t in tiles)
    columns = math.ceil(outputs / m.outputs(lines))
    return LayerRow(name, outputs, rows, len(tiles), columns, longest, m.rows, top, clipped / weight.numel(), **seen)


def show(model: nn.Module, batches: Iterable[Any] | None = None) -> None:
    """Print tiles, rows used, the counter's range and the share clipped of every layer; counts need ``batches``."""
    print(mapping_table(model, batches))
