"""How much of the converters' and drivers' range a layer uses, counted while batches run."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Usage:
    """top_count: the largest count seen; counts, counts_clipped, inputs, inputs_clipped: how many there were."""

    top_count: float = 0.0
    counts: int = 0
    counts_clipped: int = 0
    inputs: int = 0
    inputs_clipped: int = 0

    def note_counts(self, counts: Tensor, least: float, top: float) -> None:
        """Counts before clipping to ``least`` and ``top``; of a range with both signs, the largest size is kept."""
        self.top_count = max(self.top_count, float(counts.abs().max() if least < 0 else counts.max()))
        self.counts += counts.numel()
        self.counts_clipped += int((counts > top).sum()) + (int((counts < least).sum()) if least < 0 else 0)

    def note_inputs(self, x: Tensor, scale: Tensor) -> None:
        """Inputs (batch, rows) and what the largest code stands for (batch, 1)."""
        self.inputs += x.numel()
        self.inputs_clipped += int((x.abs() > scale).sum())
