"""The tile that the layers of a model share: a card, read once, and its products by effects and precision."""

from __future__ import annotations

import torch
from torch import Tensor

from aimcard.models.adc import count
from aimcard.models.card import Card
from aimcard.models.cell import on_resistance
from aimcard.models.domain import check_domain
from aimcard.models.errors import InputError
from aimcard.models.fast import Effects, FastTile
from aimcard.models.fast.effects import linear_gain
from aimcard.models.lut import lookup_slope
from aimcard.models.nn.chip import TileChip
from aimcard.models.nn.inputs import straight_through
from aimcard.models.nn.options import Mapping, NonIdealities
from aimcard.models.nn.read_noise import draw_per_device, draw_per_line
from aimcard.models.nn.usage import Usage
from aimcard.models.tile import TileModel


class Hardware:
    """A card for layers. Shared, not copied, by every layer of a converted model and its copies.

    accuracy: as ``FastTile``'s.
    """

    def __init__(self, card: Card | TileModel, accuracy: str | float = "fast") -> None:
        """Raises CardError on an incomplete card, InputError on an unknown accuracy."""
        if not isinstance(card, Card | TileModel):
            raise InputError(f"card: expected a Card or TileModel, such as TileModel.read(path); got {type(card).__name__}")
        topology = (card.card if isinstance(card, TileModel) else card).meta["topology"]
        if topology != "gated":
            raise InputError(f"card: layers run on the fast product of gated tiles; got topology {topology!r}; take a gated card")
        self.model = card if isinstance(card, TileModel) else TileModel(card)
        self.accuracy = accuracy
        self.code_max = self.model.code_max
        self.tile(NonIdealities.none(), torch.float32)

    def __deepcopy__(self, memo: dict) -> Hardware:
        return self

    def tile(self, n: NonIdealities, dtype: torch.dtype) -> FastTile:
        """A product under these switches, its answers of type ``dtype``. It keeps what depends on its last weights."""
        if n.ir_drop:
            check_domain(self.model.card, wire_scale=n.wire_scale)
        return FastTile(self.model, n.effects, accuracy=self.accuracy, wire_scale=n.wire_scale, dtype=dtype)

    @property
    def unit_c(self) -> float:
        """Charge of one LSB on one siemens [C/S]: V·T."""
        return self.model.v_read_v * self.model.t_lsb_s

    def counts_per_coulomb(self) -> float:
        """Mean slope of the card's rate table."""
        return float(linear_gain(self.model.adc()))

    def converts(self, n: NonIdealities) -> bool:
        """Whether the answer goes through the card's converter; a card without one answers in charge."""
        return n.converts and self.model.has_readout

    def phase(self, tile: FastTile, lines: Tensor, codes: Tensor, n: NonIdealities) -> Tensor:
        """Counts before rounding, or charges [C] where nothing converts, (batch, lines)."""
        if n.effects == Effects.none():
            # The limit that the tile has by construction, as one product; in double, for what follows takes differences
            # of charges several times as large as their result.
            charge = self.unit_c * (codes.double() @ lines.double().mT)
            return charge * self.counts_per_coulomb() if self.converts(n) else charge
        return tile.phase(lines, codes) if self.converts(n) else tile.charge(lines, codes)

    def read(
        self, tile: FastTile, lines: Tensor, codes: Tensor, n: NonIdealities, mapping: Mapping, generator: torch.Generator | None,
        usage: Usage | None = None, chip: TileChip | None = None,
    ) -> Tensor:  # fmt: skip
        """What the digital side sees, as charge [C], (batch, lines).

        lines (lines, rows) [S]; codes (batch, rows) in LSB; generator: of the read noise; usage: where to note the counts;
        chip: the lines' mismatch.
        """
        seen = self.phase(tile, lines, codes, n)
        if chip is not None:
            factor, offset = chip.readout(lines, codes, n, self.converts(n))
            seen = seen * factor + offset
            if n.leakage:
                seen = seen + chip.leakage(codes) * (self.counts_per_coulomb() if self.converts(n) else 1.0)
        if n.read_noise != "off":
            assert generator is not None
            seen = seen + self._noise(lines, codes, n, generator)
        if not self.converts(n):
            return seen
        top = float(2**mapping.adc_bits - 1)
        if usage is not None:
            usage.note_counts(seen.detach(), top)
        if n.adc_clip:
            seen = seen.clamp(max=top)
        if n.adc_rounding:
            # A counter truncates; half a count more than it shows is its best reading.
            seen = straight_through(seen, count(seen) + 0.5)
        return seen / self.counts_per_coulomb()

    @torch.no_grad()
    def _noise(self, lines: Tensor, codes: Tensor, n: NonIdealities, generator: torch.Generator) -> Tensor:
        model = self.model
        r_on = 0.0
        if n.apparent_weight:
            r_on = float(on_resistance(model.line().cell, float(model.card.meta["w_select_um"])))
        draw = draw_per_device if n.read_noise == "device" else draw_per_line
        charge = draw(lines, codes.abs() * model.t_lsb_s, model.v_read_v, r_on, generator)
        if not self.converts(n):
            return charge
        if not n.adc:
            return charge * self.counts_per_coulomb()
        adc = model.adc()
        mean_a = model.v_read_v * (codes.abs().double() @ lines.double().mT) / self.code_max
        return charge * lookup_slope(adc.i_adc_a, adc.rate_hz, mean_a.cpu()).to(charge)
