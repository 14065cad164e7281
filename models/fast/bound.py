"""How far a fast answer is from the slow twin: every line against a finer expansion, some lines against the twin itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.fast.columns import Settings
from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.exact import solve

#: Vectors and lines on which the finer expansion is compared with the slow twin.
SAMPLE_VECTORS, SAMPLE_LINES = 6, 8
#: What the finer expansion's error in the lines compared stands for in the others.
SAFETY = 2.0


@dataclass(frozen=True)
class ErrorBound:
    """How far the fast answer is from the slow twin.

    one_minus_r2: bound of the worst line; per_line (lines,): of each; relative: rms error over rms answer, in the lines that
    were compared; settings: what was run; vectors, lines: how many were compared with the slow twin.
    """

    one_minus_r2: float
    relative: float
    settings: Settings
    vectors: int
    lines: int
    per_line: Tensor

    def __str__(self) -> str:
        s = self.settings
        return (
            f"1 - R² at most {self.one_minus_r2:.1e} in the worst of {len(self.per_line)} lines, "
            f"relative error {self.relative:.1e} ({self.lines} lines and {self.vectors} vectors solved slot by slot; "
            f"{s.bins} bins, {s.segments} segments, {s.squares} squares)"
        )


class Judge:
    """Judges settings on one set of conductances (lines, rows) [S] and codes (batch, rows): solves the slow twin once."""

    def __init__(self, circuit: Circuit, conductance_s: Tensor, codes: Tensor, fine: Tensor, scale: float, counts: bool) -> None:
        """fine (batch, lines): answers of the finest settings, in units of ``scale``."""
        self.fine = fine.double() * scale
        self.scale = scale
        # The lines of least and largest total conductance are the hardest; the others are spread in between.
        order = conductance_s.sum(1).argsort()
        self.lines = order[torch.linspace(0, len(order) - 1, min(SAMPLE_LINES, len(order))).round().long()]
        self.vectors = torch.linspace(0, len(codes) - 1, min(SAMPLE_VECTORS, len(codes))).round().long()
        self.twin = solve(circuit, conductance_s[self.lines], codes[self.vectors].double(), counts=counts)
        self.sigma = self.fine.std(0, correction=0).clamp(min=1e-300)
        left = (self.fine[self.vectors][:, self.lines] - self.twin).square().mean(0).sqrt() / self.sigma[self.lines]
        self.rest = SAFETY * float(left.max())

    def bound(self, fast: Tensor, settings: Settings) -> ErrorBound:
        """Bound for answers ``fast`` (batch, lines), in the finest ones' units.

        A line's error is its distance from the finest settings' answer, and at most SAFETY times what those leave in the lines
        that were solved slot by slot: an estimate, not a proof.
        """
        answer = fast.double() * self.scale
        apart = (answer - self.fine).square().mean(0).sqrt() / self.sigma
        per_line = (apart + self.rest).square()
        error = answer[self.vectors][:, self.lines] - self.twin
        # What was measured is not estimated.
        seen = error.square().mean(0) / self.sigma[self.lines].square()
        per_line[self.lines] = torch.maximum(per_line[self.lines], seen)
        relative = float(error.square().mean().sqrt() / self.twin.square().mean().sqrt().clamp(min=1e-300))
        return ErrorBound(float(per_line.max()), relative, settings, len(self.vectors), len(self.lines), per_line)
