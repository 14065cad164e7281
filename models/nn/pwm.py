"""Layers in a PWM mode that is not conventional: a reading for each phase, whose counts are weighted and added digitally.

Each phase is read as conventional PWM of its digit would be, in the phase's own window: noise, a chip's mismatch, and the
counter's range and truncation come once a phase, before its weight. The slow part of the noise is the same in all phases of a
product.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aimcard.models.fast import Effects, FastTile, TiedProduct
from aimcard.models.fast.phases import phase_models, weighted, widths
from aimcard.models.fast.tied_circuit import TiedCircuit
from aimcard.models.modes import Mode
from aimcard.models.nn.chip import TileChip
from aimcard.models.nn.gated import GatedHardware
from aimcard.models.nn.hardware import Hardware
from aimcard.models.nn.options import Mapping, NonIdealities
from aimcard.models.nn.pairs import Written
from aimcard.models.nn.tied import TiedHardware
from aimcard.models.nn.usage import Usage
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel

#: Draws the noise of all phases of a product, (..., batch, lines) each, from what rows conduct in them.
Noise = Callable[[Sequence[Tensor]], list[Tensor]]


def drawing(generator: torch.Generator | None) -> torch.Generator:
    """The generator, which whoever draws has."""
    assert generator is not None
    return generator


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


class _Reading:
    """A phase's reading, which may begin with what the phase before has left; its noise was drawn with that of all phases."""

    residue: Residue | None = None
    drawn: Tensor | None = None

    def after(self, residue: Residue | None, drawn: Tensor | None) -> Any:
        """The same with this residue and this noise."""
        if residue is None and drawn is None:
            return self
        new = copy.copy(self)
        new.residue, new.drawn = residue, drawn
        return new

    def noise(self, *_: Any) -> list[Tensor]:
        """The noise given."""
        assert self.drawn is not None
        return [self.drawn]

    def shown(self, seen: Tensor) -> Tensor:
        """See ``Hardware.shown``."""
        return super().shown(seen) if self.residue is None else self.residue.show(seen)  # type: ignore[misc]


class GatedPhase(_Reading, GatedHardware):
    """One phase of a gated card; what its lines answer is worked out already and comes in the tile's place."""

    def phase(self, tile: Any, lines: Tensor, codes: Tensor, n: NonIdealities, mapping: Mapping) -> Tensor:
        """The answer given."""
        return tile


class TiedPhase(_Reading, TiedHardware):
    """One phase of a tied card."""


class Answer:
    """What a tied phase's columns answer, and their circuit, in the product's place; ``values`` are those of the last call."""

    def __init__(self, circuit: TiedCircuit) -> None:
        self.circuit, self.values = circuit, torch.zeros(())

    def charge(self, *_: Any, **__: Any) -> Tensor:
        """The answer given."""
        return self.values

    phase = charge


class _Modes:
    """What both topologies share: the card in conventional PWM, the tile model in its mode, and the phases' readings."""

    base: Hardware
    model: Any
    phases: list[Any]

    def take(self, base: Hardware, model: Any, phases: list[Any]) -> None:
        """Become the hardware of ``model``. Raises InputError for a mode without fast products, unless the accuracy is exact."""
        self.base, self.own, self.model, self.phases = base, model, model, phases
        self.tile(NonIdealities.none(), torch.float32)  # type: ignore[attr-defined]

    def in_mode(self, mode: str | Mode | None, phase_rule: str | None) -> Hardware:
        """See ``Hardware.in_mode``: None is the card's own mode, not this one."""
        return self.base.in_mode(mode, phase_rule)

    def make_mode(self, model: Any) -> Hardware:
        """See ``Hardware.make_mode``."""
        return self.base.make_mode(model)

    def readings(
        self, codes: Tensor, n: NonIdealities, chip: list[Any] | None, noise: Noise | None = None
    ) -> list[tuple[Any, Tensor, Any]]:
        """The reading of each phase for one product, what each row conducts in it (..., batch, rows), and the phase's chip.

        noise: draws that of all phases, from what rows conduct in them.
        """
        residue = Residue() if self.model.phase_rule == "carry" and n.adc_rounding else None
        none, conducting = [None] * len(self.phases), widths(self.model.mode, codes)
        drawn = noise(conducting) if noise is not None and n.draws else none
        parts = zip(self.phases, conducting, none if chip is None else chip, drawn, strict=True)
        return [(phase.after(residue, own), width, its) for phase, width, its, own in parts]

    def lines(self, held: Written, n: NonIdealities, chip: list[Any] | None) -> Any:
        """See ``Hardware.lines``; every phase reads the same lines."""
        return self.phases[0].lines(held, n, None if chip is None else chip[0])

    def draw_chip(self, chip: int, place: str, held: Written) -> list[Any]:
        """The same chip as each phase sees it."""
        drawn = [phase.draw_chip(chip, place, held) for phase in self.phases]
        if self.model.phase_rule == "carry":
            # The oscillator starts once.
            drawn[1:] = [_without_start(d) for d in drawn[1:]]
        return drawn


class GatedModes(_Modes, GatedHardware):
    """A gated card in a mode that is not conventional."""

    def __init__(self, base: GatedHardware, model: TileModel) -> None:
        """base: the card; model: its tile in the mode."""
        super().__init__(model, base.accuracy)
        self.take(base, model, [GatedPhase(m, base.accuracy) for m in phase_models(model)])

    def read(
        self, tile: FastTile, lines: Tensor, codes: Tensor, n: NonIdealities, mapping: Mapping, generator: torch.Generator | None,
        usage: Usage | None = None, chip: list[Any] | None = None, signs: int = 1,
    ) -> Tensor:  # fmt: skip
        """As ``GatedHardware.read``, of all phases."""
        readings = self.readings(codes, n, chip, lambda xs: self.noise(tile, lines, xs, n, drawing(generator), signs))
        converts = self.converts(n)
        if n.effects == Effects.none():
            # As in conventional PWM: one product in double.
            unit = self.unit_c * (self.counts_per_coulomb() if converts else 1.0)
            answers = [unit * (width.double() @ lines.double().mT) for _, width, _ in readings]
        elif lines.ndim > 2:
            assert tile.phases is not None
            answers = tile.phases.shared(lines, codes, (mapping.g_min_s, mapping.g_max_s), counts=converts)
        else:
            answers = tile.each_phase(lines, codes, counts=converts)
        parts = [
            phase.read(answer, lines, width, n, mapping, generator, usage, own)
            for answer, (phase, width, own) in zip(answers, readings, strict=True)
        ]
        return weighted(parts, self.model.mode)


class TiedModes(_Modes, TiedHardware):
    """A tied card in a mode that is not conventional."""

    def __init__(self, base: TiedHardware, model: TiedTile) -> None:
        """base: the card; model: its tile in the mode."""
        super().__init__(model, base.accuracy, base.rate)
        #: What was read once of a product's lines, such as noise of idle counts, is known by these.
        self._answers: weakref.WeakKeyDictionary[TiedProduct, list[Answer]] = weakref.WeakKeyDictionary()
        self.take(base, model, [TiedPhase(m, base.accuracy, base.rate) for m in phase_models(model)])

    def signed_charge(
        self, tile: TiedProduct, lines: tuple[Tensor, Tensor], codes: Tensor, n: NonIdealities, mapping: Mapping,
        generator: torch.Generator | None, usage: Usage | None = None, chip: list[Any] | None = None,
    ) -> Tensor:  # fmt: skip
        """As ``TiedHardware.signed_charge``, of all phases."""
        answers = self._answers.get(tile)
        if answers is None:
            circuits = [replace(tile.circuit, code_max=p.code_max, slots=p.model.slots) for p in self.phases]
            answers = self._answers[tile] = [Answer(c) for c in circuits]
        seen = tile.each_phase(*lines, codes, counts=self.converts(n), idle=False)
        parts = []
        readings = self.readings(codes, n, chip, lambda xs: self.noise(tile, lines, xs, n, drawing(generator)))
        for answer, values, (phase, width, own) in zip(answers, seen, readings, strict=True):
            answer.values = values
            parts.append(phase.signed_charge(answer, lines, width, n, mapping, generator, usage, own))
        return weighted(parts, self.model.mode)


def _without_start(chip: Any) -> Any:
    if not isinstance(chip, TileChip):
        return chip
    started = chip.chip.readout["count_offset"]
    readout = {**chip.chip.readout, "count_offset": torch.zeros_like(started)}
    return replace(chip, chip=replace(chip.chip, readout=readout))
