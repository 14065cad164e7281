"""Layers in a PWM mode that is not conventional: a reading for each phase, whose counts are weighted and added digitally.

Each phase is read as conventional PWM of its digit would be, in the phase's own window: noise, a chip's mismatch, and the
counter's range and truncation come once a phase, before its weight.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from aimcard.models.fast import Effects, FastTile, TiedProduct
from aimcard.models.fast.phases import phase_models, weighted, widths
from aimcard.models.nn.chip import TileChip
from aimcard.models.nn.gated import GatedHardware
from aimcard.models.nn.hardware import Hardware
from aimcard.models.nn.options import Mapping, NonIdealities
from aimcard.models.nn.pairs import Written
from aimcard.models.nn.tied import TiedHardware
from aimcard.models.nn.usage import Usage
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel


class Residue:
    """A counter's reading under the rule "carry": the fraction that a phase leaves is counted in the next one."""

    def __init__(self) -> None:
        self.phase: Tensor | float | None = None
        self.before: Tensor | float = 0.0

    def show(self, seen: Tensor) -> Tensor:
        """The best reading of the next phase. Only the last fraction of all is lost, so the first one has half a count more."""
        half = 0.5 if self.phase is None else 0.0
        self.phase = seen.detach() + (0.0 if self.phase is None else self.phase)
        total = torch.floor(self.phase)
        shown, self.before = total - self.before, total
        return shown + half


class _Carries:
    """A phase's reading, which may begin with what the phase before has left."""

    residue: Residue | None = None

    def after(self, residue: Residue | None) -> Any:
        """The same with this residue."""
        if residue is None:
            return self
        new = copy.copy(self)
        new.residue = residue
        return new

    def shown(self, seen: Tensor) -> Tensor:
        """See ``Hardware.shown``."""
        return super().shown(seen) if self.residue is None else self.residue.show(seen)  # type: ignore[misc]


class GatedPhase(_Carries, GatedHardware):
    """One phase of a gated card; what its lines answer is worked out already and comes in the tile's place."""

    def phase(self, tile: Any, lines: Tensor, codes: Tensor, n: NonIdealities, mapping: Mapping) -> Tensor:
        """The answer given."""
        return tile


@dataclass(frozen=True)
class Answer:
    """What a tied phase's columns answer, in the product's place."""

    values: Tensor

    def charge(self, *_: Any, **__: Any) -> Tensor:
        """The answer given."""
        return self.values

    phase = charge


class TiedPhase(_Carries, TiedHardware):
    """One phase of a tied card."""


class _Modes:
    """What both topologies share: the phases' readings."""

    own: Any
    model: Any
    accuracy: str | float
    phases: list[Any]

    def take(self, model: Any, phases: list[Any]) -> None:
        """Become the hardware of ``model``, a tile model in its mode."""
        self.own = self.model = model
        self.phases = phases

    def readings(self, n: NonIdealities) -> list[Any]:
        """The phases' readings for one product, which share the residue if they carry it."""
        residue = Residue() if self.model.phase_rule == "carry" and n.adc_rounding else None
        return [phase.after(residue) for phase in self.phases]

    def make_mode(self, model: Any) -> Hardware:
        """Modes are made of the conventional hardware only."""
        raise NotImplementedError

    def lines(self, held: Written, n: NonIdealities, chip: Any) -> Any:
        """See ``Hardware.lines``; every phase reads the same lines."""
        return self.phases[0].lines(held, n, None if chip is None else chip[0])

    def draw_chip(self, chip: int, place: str, held: Written) -> list[Any]:
        """The same mismatch for each phase."""
        drawn = [phase.draw_chip(chip, place, held) for phase in self.phases]
        if self.model.phase_rule == "carry":
            # The oscillator starts once.
            drawn[1:] = [_without_start(d) for d in drawn[1:]]
        return drawn


def _without_start(chip: Any) -> Any:
    if not isinstance(chip, TileChip):
        return chip
    started = chip.chip.readout["count_offset"]
    readout = {**chip.chip.readout, "count_offset": torch.zeros_like(started)}
    return replace(chip, chip=replace(chip.chip, readout=readout))
