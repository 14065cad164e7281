"""When the phases of one product count, for how long, and with what weight: what its noise has to know of a PWM mode."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from aimcard.models.adc import PHASE_RULES, residue_sigma
from aimcard.models.modes import Mode


@dataclass(frozen=True)
class Counting:
    """windows: slots (first, beyond) of each phase, one after the other. weights: of its counts. rule, hold_s: what ends a phase
    (``models.adc.phase_counts``): under "reset" the ring is held for the last ``hold_s`` of every phase but the last. signs:
    sign phases that these are, equal parts of them, one after the other, each a product of its own to the ring."""

    windows: tuple[tuple[int, int], ...]
    t_lsb_s: float
    weights: tuple[int, ...] = (1,)
    rule: str = PHASE_RULES[0]
    hold_s: float = 0.0
    signs: int = 1

    @classmethod
    def once(cls, slots: int, t_lsb_s: float) -> Counting:
        """One phase of so many slots."""
        return cls(((0, slots),), t_lsb_s)

    @classmethod
    def of(cls, mode: Mode, guard: int, t_lsb_s: float, rule: str, hold_s: float) -> Counting:
        """The phases of a mode."""
        return cls(mode.windows(guard), t_lsb_s, mode.weights, rule, hold_s)

    def in_signs(self, signs: int) -> Counting:
        """The same for each of ``signs`` sign phases that follow one another, every other one subtracted."""
        later = [k * self.windows[-1][1] for k in range(signs)]
        windows = tuple((a + t, b + t) for t in later for a, b in self.windows)
        weights = tuple(w * (-1) ** k for k in range(signs) for w in self.weights)
        return replace(self, windows=windows, weights=weights, signs=signs)

    @property
    def holds_s(self) -> tuple[float, ...]:
        """How long the ring is held at the end of each phase [s]."""
        each = len(self.windows) // self.signs
        held = self.hold_s if self.rule == "reset" else 0.0
        return (*[held] * (each - 1), 0.0) * self.signs

    @cached_property
    def slot_s(self) -> Tensor:
        """Time that each slot counts [s], (slots,)."""
        out = torch.full((self.windows[-1][1],), self.t_lsb_s, dtype=torch.float64)
        for (_, beyond), hold in zip(self.windows, self.holds_s, strict=True):
            out[beyond - 1] -= hold
        return out

    @cached_property
    def slot_weight(self) -> Tensor:
        """Weight of each slot's counts, (slots,)."""
        out = torch.zeros(self.windows[-1][1], dtype=torch.float64)
        for (first, beyond), weight in zip(self.windows, self.weights, strict=True):
            out[first:beyond] = weight
        return out

    @property
    def edges_s(self) -> tuple[Tensor, Tensor]:
        """When each phase begins and ends to count [s], (phases,) each."""
        ends = torch.tensor(self.windows, dtype=torch.float64) * self.t_lsb_s
        return ends[:, 0], ends[:, 1] - torch.tensor(self.holds_s, dtype=torch.float64)

    def by_phase(self, slots: Tensor) -> Tensor:
        """Sums over the slots of each phase, (..., slots) to (..., phases)."""
        return torch.stack([slots[..., first:beyond].sum(-1) for first, beyond in self.windows], dim=-1)

    @property
    def quantisation(self) -> float:
        """σ of the truncation of all phases [counts]."""
        each = self.weights[: len(self.weights) // self.signs]
        return math.sqrt(self.signs) * residue_sigma(each, self.rule)
