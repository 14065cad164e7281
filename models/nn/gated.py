"""Layers on gated tiles: a line for G+ and one for G−, and a phase for each sign of the inputs; four readings a product."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from aimcard.models.card import Card
from aimcard.models.cell import on_resistance
from aimcard.models.errors import InputError
from aimcard.models.fast import Effects, FastTile
from aimcard.models.fast.effects import linear_gain
from aimcard.models.fast.pair import PairTile
from aimcard.models.fast.phases import holds
from aimcard.models.fast.shared import SharedTile
from aimcard.models.lut import lookup_slope
from aimcard.models.nn.chip import TileChip
from aimcard.models.nn.circuit_noise import bin_currents, draw_counts, phase_noise
from aimcard.models.nn.hardware import Hardware
from aimcard.models.nn.options import Mapping, NonIdealities
from aimcard.models.nn.pairs import Written, halves
from aimcard.models.nn.read_noise import draw_per_device, draw_per_line
from aimcard.models.nn.usage import Usage
from aimcard.models.read_gain import gated_line_gain
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel


def needs_gradient(*values: Tensor) -> bool:
    """Whether a product of these is to be differentiated."""
    return torch.is_grad_enabled() and any(v.requires_grad for v in values)


class GatedHardware(Hardware, topology="gated"):
    """A gated card: cells know no sign."""

    lines_per_pair = 2
    model: TileModel

    def __init__(self, card: Card | TileModel, accuracy: str | float = "fast") -> None:
        """As ``Hardware``'s."""
        #: What batches of tiles share, as long as their product lives.
        self._shared: weakref.WeakKeyDictionary[FastTile, SharedTile] = weakref.WeakKeyDictionary()
        self._pairs: weakref.WeakKeyDictionary[FastTile, PairTile] = weakref.WeakKeyDictionary()
        super().__init__(card, accuracy)

    @staticmethod
    def read_model(card: Card | TileModel | TiedTile) -> TileModel:
        """The tile model of the card."""
        if isinstance(card, TiedTile):
            raise InputError("card: expected a gated one; got a TiedTile; use Hardware(card)")
        return card if isinstance(card, TileModel) else TileModel(card)

    def make_mode(self, model: TileModel) -> Hardware:
        """A reading for each phase."""
        from aimcard.models.nn.pwm import GatedModes  # it is a GatedHardware itself

        return GatedModes(self, model)

    def make_tile(self, n: NonIdealities, dtype: torch.dtype) -> FastTile:
        """The fast product."""
        return FastTile(self.model, n.effects, accuracy=self.accuracy, wire_scale=n.wire_scale, dtype=dtype)

    def lines(self, held: Written, n: NonIdealities, chip: TileChip | None) -> Tensor:
        """(..., pairs · 2 · outputs, rows) [S]."""
        return held.lines if chip is None else chip.cells(held.lines, n)

    def draw_chip(self, chip: int, place: str, held: Written) -> TileChip:
        """The mismatch of lines and rows."""
        return TileChip.draw(self.model, chip, place, *held.lines.shape[-2:])

    @property
    def has_converter(self) -> bool:
        """Whether the card was calibrated with a read-out."""
        return self.model.has_readout

    def counts_per_coulomb(self) -> float:
        """Mean slope of the card's rate table."""
        return float(linear_gain(self.model.adc()))

    def signed_charge(
        self, tile: FastTile, lines: Tensor, codes: Tensor, n: NonIdealities, mapping: Mapping,
        generator: torch.Generator | None, usage: Usage | None = None, chip: TileChip | None = None,
    ) -> Tensor:  # fmt: skip
        """Four readings for signed inputs, two for inputs that have none; or what they come to, where none is seen by itself."""
        seen = usage is not None or chip is not None or needs_gradient(lines, codes)
        if not seen and self.is_linear(n) and self._expands(tile, lines, n):
            return self._difference(tile, lines, codes, n, mapping)
        phases = codes
        if mapping.signed:
            positive, negative = halves(codes)
            if usage is None and chip is None and not n.draws and not bool((codes < 0).any()):
                # All vectors of the second phase are one.
                negative = negative[..., :1, :]
            phases = torch.cat([positive, negative], -2)
        charge = self.read(tile, lines, phases, n, mapping, generator, usage, chip, 2 if mapping.signed else 1)
        sides = charge.unflatten(-1, (len(mapping.significance), 2, -1))
        out = (sides[..., 0, :] - sides[..., 1, :]).flatten(-2)
        if not mapping.signed:
            return out
        return out[..., : codes.shape[-2], :] - out[..., codes.shape[-2] :, :]

    def is_linear(self, n: NonIdealities) -> bool:
        """Whether nothing but sums happens to readings: no noise, and no converter that rounds or ends."""
        return not n.draws and not (self.converts(n) and (n.adc_rounding or n.adc_clip))

    @staticmethod
    def _expands(tile: FastTile, lines: Tensor, n: NonIdealities) -> bool:
        """Whether pairs are expanded about middle columns: the limit of no effects, the slow twin and modes of several phases
        have none, and tiles that share them are so small that readings cost as little."""
        return n.effects != Effects.none() and tile.accuracy != "exact" and tile.phases is None and lines.ndim == 2

    def _difference(self, tile: FastTile, lines: Tensor, codes: Tensor, n: NonIdealities, mapping: Mapping) -> Tensor:
        """What the readings come to, all pairs' first order in one product."""
        pairs = self._pairs.get(tile)
        if pairs is None:
            pairs = self._pairs[tile] = PairTile(tile, len(mapping.significance))
        if not self.converts(n):
            return pairs.charge(lines, codes)
        return pairs.phase(lines, codes) / self.counts_per_coulomb()

    def phase(self, tile: FastTile, lines: Tensor, codes: Tensor, n: NonIdealities, mapping: Mapping) -> Tensor:
        """Counts before rounding, or charges [C] where nothing converts, (..., batch, lines)."""
        if n.effects == Effects.none():
            # The limit that the tile has by construction, as one product; in double, for what follows takes differences
            # of charges several times as large as their result.
            charge = self.unit_c * (codes.double() @ lines.double().mT)
            return charge * self.counts_per_coulomb() if self.converts(n) else charge
        if lines.ndim > 2:
            return self._many(tile, lines, codes, mapping, counts=self.converts(n))
        return tile.phase(lines, codes) if self.converts(n) else tile.charge(lines, codes)

    def _many(self, tile: FastTile, lines: Tensor, codes: Tensor, mapping: Mapping, *, counts: bool) -> Tensor:
        """The same of a batch of tiles, (tiles, batch, lines): each by itself in the slow twin, about one mean column else."""
        if tile.accuracy == "exact":
            solver = tile.phase if counts else tile.charge
            return torch.stack([solver(g, x) for g, x in zip(lines, codes, strict=True)])
        shared = self._shared.get(tile)
        if shared is None:
            shared = self._shared[tile] = SharedTile(tile, mapping.g_min_s, mapping.g_max_s)
        return (shared.phase if counts else shared.charge)(lines, codes)

    def read(
        self, tile: FastTile, lines: Tensor, codes: Tensor, n: NonIdealities, mapping: Mapping, generator: torch.Generator | None,
        usage: Usage | None = None, chip: TileChip | None = None, signs: int = 1,
    ) -> Tensor:  # fmt: skip
        """One reading of every line as charge [C], (..., batch, lines), of codes (..., batch, rows) of one sign.

        signs: sign phases of one product, which are equal parts of the batch and follow one another.
        """
        seen = self.phase(tile, lines, codes, n, mapping)
        if chip is not None:
            factor, offset = chip.readout(lines, codes, n, self.converts(n))
            seen = seen * factor + offset
            if n.leakage:
                seen = seen + chip.leakage(codes) * (self.counts_per_coulomb() if self.converts(n) else 1.0)
        if n.draws:
            assert generator is not None
            seen = seen + self.noise(tile, lines, [codes], n, generator, signs)[0]
        if not self.converts(n):
            return seen
        return self.digitise(seen, n, usage, 0.0, float(2**mapping.adc_bits - 1))

    @torch.no_grad()
    def circuit_noise(
        self, tile: FastTile, lines: Tensor, widths: Sequence[Tensor], n: NonIdealities, generator: torch.Generator,
        signs: int = 1,
    ) -> list[Tensor]:  # fmt: skip
        """As ``Hardware.circuit_noise``."""
        del tile
        p, model = self.noise_parameters(n), self.model
        begin, end = self.edges_s(signs)
        each = zip(widths, model.mode.windows(model.guard_slots), strict=True)
        found = []
        for hold, (width, (first, beyond)) in zip(holds(model), each, strict=True):
            current = bin_currents(lines, width, model.v_read_v, beyond - first)
            found.append(phase_noise(p, current, model.t_lsb_s, beyond - first, hold_s=hold))
        # In time: all phases of the first sign, then all of the next.
        order = [phase.part(s, signs) for s in range(signs) for phase in found]
        drawn = draw_counts(order, (begin, end), widths[0], generator)
        return [torch.cat(drawn[k :: len(found)], -2) for k in range(len(found))]

    @torch.no_grad()
    def read_noise(
        self, lines: Tensor, widths: Sequence[Tensor], n: NonIdealities, generator: torch.Generator
    ) -> list[Tensor]:
        """As ``Hardware.read_noise``."""
        model, converts = self.model, self.converts(n)
        r_on = 0.0
        if n.apparent_weight:
            r_on = float(on_resistance(model.line().cell, float(model.card.meta["w_select_um"])))
        draw = draw_per_device if n.read_noise == "device" else draw_per_line
        r_column = 0.0
        if n.ir_drop:
            r_column = lines.shape[-1] * n.wire_scale * float(model.values["r_bit_ohm"] + model.values["r_return_ohm"])
        out = []
        charges = draw(lines, self.pulses(widths), model.v_read_v, r_on, generator)
        for charge, width, phase in zip(charges, widths, model.mode.phases, strict=True):
            # Of the phase's mean current: the longest pulses, whose noise counts most, see all of its course.
            y = (width.abs().double() @ lines.double().mT).cpu() / phase.slots
            mean_a = model.v_read_v * y
            r_out = -lookup_slope(*model.tables["clamp"], mean_a) if n.regulator and model.has_readout else 0.0
            gain = gated_line_gain(y, r_column, r_out)
            if converts:
                adc = model.adc() if n.adc else None
                gain = gain * (self.counts_per_coulomb() if adc is None else lookup_slope(adc.i_adc_a, adc.rate_hz, mean_a))
            out.append(charge * gain.to(charge))
        return out
