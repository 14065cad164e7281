"""Layers on tied tiles: both conductances of a pair in one column, inputs of either sign in one phase; one reading a product."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.models.fast import TiedProduct
from aimcard.models.fast.phases import holds
from aimcard.models.fast.tied_circuit import Curve
from aimcard.models.lut import lookup_slope
from aimcard.models.nn.circuit_noise import bin_currents, column_conductance, draw_counts, phase_noise
from aimcard.models.nn.hardware import Hardware
from aimcard.models.nn.options import Mapping, NonIdealities
from aimcard.models.nn.pairs import Written
from aimcard.models.nn.read_noise import draw_per_device, draw_per_line
from aimcard.models.nn.tied_chip import TiedTileChip
from aimcard.models.nn.usage import Usage
from aimcard.models.read_gain import source_share, spread_conductance, tied_line_gain
from aimcard.models.tied import on_resistance
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel


class TiedHardware(Hardware, topology="tied"):
    """A tied card. Its counter runs on a bias and may wrap: what counts is its distance from the idle count, of either sign."""

    lines_per_pair = 1
    model: TiedTile

    def __init__(self, card: Card | TiedTile, accuracy: str | float = "fast", rate: Curve | None = None) -> None:
        """As ``Hardware``'s. rate: signed line current [A] and count rate [Hz], for a card without a table ``adc`` of its own."""
        self.rate = rate
        self._slope: float | None = None
        #: Noise of the idle counts that were read of a product's last lines.
        self._idle: weakref.WeakKeyDictionary[TiedProduct, tuple[weakref.ref[Tensor], list[Tensor]]] = weakref.WeakKeyDictionary()
        super().__init__(card, accuracy)

    @staticmethod
    def read_model(card: Card | TileModel | TiedTile) -> TiedTile:
        """The tile model of the card."""
        if isinstance(card, TileModel):
            raise InputError("card: expected a tied one; got a TileModel; use Hardware(card)")
        return card if isinstance(card, TiedTile) else TiedTile(card)

    def make_mode(self, model: TiedTile) -> Hardware:
        """A reading for each phase."""
        from aimcard.models.nn.pwm import TiedModes  # it is a TiedHardware itself

        return TiedModes(self, model)

    def make_tile(self, n: NonIdealities, dtype: torch.dtype) -> TiedProduct:
        """The product with effective weights."""
        return TiedProduct(self.model, self.accuracy, n.wire_scale, dtype, effects=n.effects, rate=self.rate)

    def lines(self, held: Written, n: NonIdealities, chip: TiedTileChip | None) -> tuple[Tensor, Tensor]:
        """G+ and G− of every column, (..., pairs · outputs, rows) [S] each."""
        pair = held.side(0), held.side(1)
        return pair if chip is None else chip.cells(*pair, n)

    def draw_chip(self, chip: int, place: str, held: Written) -> TiedTileChip:
        """The mismatch of columns and rows."""
        return TiedTileChip.draw(self.model, chip, place, *held.side(0).shape[-2:])

    @property
    def has_converter(self) -> bool:
        """Whether there is a rate table, the card's or a given one."""
        return self._table() is not None

    def _table(self) -> Curve | None:
        return self.model.tables.get("adc", self.rate)

    def counts_per_coulomb(self) -> float:
        """Mean slope of the rate table."""
        if self._slope is None:
            table = self._table()
            assert table is not None
            i, rate = table
            self._slope = float((rate[-1] - rate[0]) / (i[-1] - i[0]))
        return self._slope

    def signed_charge(
        self, tile: TiedProduct, lines: tuple[Tensor, Tensor], codes: Tensor, n: NonIdealities, mapping: Mapping,
        generator: torch.Generator | None, usage: Usage | None = None, chip: TiedTileChip | None = None,
    ) -> Tensor:  # fmt: skip
        """One reading: the column has subtracted already. Its answer without inputs was read once and is taken off."""
        converts = self.converts(n)
        seen = (tile.phase if converts else tile.charge)(*lines, codes, idle=False)
        if chip is not None:
            gain, added = chip.readout(tile.circuit, lines, codes, converts)
            seen = seen * gain + added
        if n.draws:
            assert generator is not None
            seen = seen + self.noise(tile, lines, [codes], n, generator)[0]
        if not converts:
            return seen
        half = float(2 ** (mapping.adc_bits - 1))
        return self.digitise(seen, n, usage, -half, half - 1)

    @torch.no_grad()
    def circuit_noise(
        self, tile: TiedProduct, lines: tuple[Tensor, Tensor], widths: Sequence[Tensor], n: NonIdealities,
        generator: torch.Generator, signs: int = 1,
    ) -> list[Tensor]:  # fmt: skip
        """As ``Hardware.circuit_noise``, less the noise of the idle counts, which is drawn once for as long as the conductances
        stay. Inputs of either sign share a phase."""
        del signs
        p, model, (plus, minus) = self.noise_parameters(n), self.model, lines
        column_s = spread_conductance(column_conductance(plus, minus, self._r_on(n)), self._r_column(plus, n))[..., None, :]
        rest_a = column_s * float(model.values.get("offset_v", 0.0)) if n.regulator else torch.zeros_like(column_s)

        def draw(xs: Sequence[Tensor]) -> list[Tensor]:
            found = []
            for hold, x, (first, beyond) in zip(holds(model), xs, model.mode.windows(model.guard_slots), strict=True):
                current = bin_currents(plus - minus, x, model.v_read_v, beyond - first) + rest_a[..., None]
                found.append(phase_noise(p, current, model.t_lsb_s, beyond - first, column_s=column_s, hold_s=hold))
            return draw_counts(found, self.edges_s(), widths[0], generator)

        kept = self._idle.get(tile)
        if kept is None or kept[0]() is not plus:
            kept = self._idle[tile] = weakref.ref(plus), draw([torch.zeros_like(w[..., :1, :]) for w in widths])
        return [seen - idle for seen, idle in zip(draw(widths), kept[1], strict=True)]

    def _r_on(self, n: NonIdealities) -> float:
        if not n.apparent_weight:
            return 0.0
        return float(on_resistance(self.model.parameters()[0], float(self.model.card.meta["w_select_um"])))

    def _r_column(self, side_s: Tensor, n: NonIdealities) -> float:
        return side_s.shape[-1] * n.wire_scale * float(self.model.values["r_bit_ohm"]) if n.ir_drop else 0.0

    @torch.no_grad()
    def read_noise(
        self, lines: tuple[Tensor, Tensor], widths: Sequence[Tensor], n: NonIdealities, generator: torch.Generator
    ) -> list[Tensor]:
        """As ``Hardware.read_noise``: both devices of a pair conduct while its row is active, and theirs has no sign."""
        model, (plus, minus) = self.model, lines
        draw, table = draw_per_device if n.read_noise == "device" else draw_per_line, self._table()
        pulses = [(torch.cat([start] * 2, -1), torch.cat([time] * 2, -1)) for start, time in self.pulses(widths)]
        charges = draw(torch.cat([plus, minus], -1), pulses, model.v_read_v, self._r_on(n), generator)
        column_s = column_conductance(plus, minus, self._r_on(n))[..., None, :].cpu()
        source = source_share(model) if n.ir_drop else 1.0
        out = []
        for charge, width, phase in zip(charges, widths, model.mode.phases, strict=True):
            mean_a = model.v_read_v * (width @ (plus - minus).mT).double().cpu() / phase.slots
            regulated = n.regulator and "clamp" in model.tables
            r_out = -lookup_slope(*model.tables["clamp"], mean_a) if regulated else 0.0
            gain = source * tied_line_gain(column_s, self._r_column(plus, n), r_out)
            if self.converts(n):
                assert table is not None
                gain = gain * (lookup_slope(*table, mean_a) if n.adc else self.counts_per_coulomb())
            out.append(charge * gain.to(charge))
        return out
