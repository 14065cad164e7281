"""The tile that the layers of a model share: a card, read once, and what its topology makes of pairs and signed inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from aimcard.models.adc import count
from aimcard.models.card import Card
from aimcard.models.checks import check_choice
from aimcard.models.counting import Counting
from aimcard.models.domain import check_domain
from aimcard.models.errors import InputError
from aimcard.models.fast.phases import in_mode
from aimcard.models.modes import Mode
from aimcard.models.nn.inputs import straight_through
from aimcard.models.nn.options import Mapping, NonIdealities
from aimcard.models.nn.pairs import Written
from aimcard.models.nn.read_noise import Pulse
from aimcard.models.nn.usage import Usage
from aimcard.models.noise import NoiseParameters
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel


class Hardware:
    """A card for layers: ``Hardware(card)`` is that of the card's topology. Shared, not copied, by all layers and copies.

    accuracy: as ``FastTile``'s or ``TiedProduct``'s. A topology is a subclass; the layers know only what is below.
    """

    #: Lines of a tile that one pair of conductances takes.
    lines_per_pair: ClassVar[int]
    _kinds: ClassVar[dict[str, type[Hardware]]] = {}

    model: TileModel | TiedTile

    def __init_subclass__(cls, *, topology: str | None = None, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if topology is None:
            return
        if topology in cls._kinds:
            raise ValueError(f"topology {topology!r} is registered twice")
        # What ABC would check at the first call; but to a type checker nobody may call an ABC, and here everybody does.
        if missing := [n for n in dir(cls) if getattr(getattr(cls, n), "__isabstractmethod__", False)]:
            raise TypeError(f"{cls.__name__}: expected the methods of Hardware; {', '.join(missing)} missing")
        cls._kinds[topology] = cls

    def __new__(cls, card: Any = None, *others: Any, **options: Any) -> Hardware:
        """Of the card's topology, where no subclass is named."""
        del others, options
        if cls is not Hardware:
            return super().__new__(cls)
        if not isinstance(card, Card | TileModel | TiedTile):
            raise InputError(f"card: expected a Card, TileModel or TiedTile, as their read(path); got {type(card).__name__}")
        topology = (card if isinstance(card, Card) else card.card).meta["topology"]
        return object.__new__(cls._kinds[check_choice("topology", topology, cls._kinds)])

    def __init__(self, card: Card | TileModel | TiedTile, accuracy: str | float = "fast") -> None:
        """Raises CardError on an incomplete card, InputError on an unknown accuracy or topology."""
        self.own: Any = self.read_model(card)
        # Conventional PWM; ``in_mode`` gives the others.
        self.model = in_mode(self.own, "conventional")
        self.accuracy = accuracy
        self._modes: dict[tuple[Mode, str], Hardware] = {}
        self.code_max = self.model.code_max
        self._noise_of: NoiseParameters | None = None
        self.tile(NonIdealities.none(), torch.float32)

    def __deepcopy__(self, memo: dict) -> Hardware:
        return self

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: what is known by a product that lives is left out, as its class alone."""
        return {k: type(v) if isinstance(v, WeakKeyDictionary) else v for k, v in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({k: v() if v is WeakKeyDictionary else v for k, v in state.items()})

    def in_mode(self, mode: str | Mode | None, phase_rule: str | None) -> Hardware:
        """The same card in a PWM mode; None is the card's own. InputError for an unknown one, or one without fast products."""
        model = in_mode(self.own, mode, phase_rule)
        if model.mode.name == "conventional":
            return self
        key = (model.mode, model.phase_rule)
        if key not in self._modes:
            self._modes[key] = self.make_mode(model)
        return self._modes[key]

    @abstractmethod
    def make_mode(self, model: Any) -> Hardware:
        """The hardware of the same card for a tile model in a mode that is not conventional."""

    @staticmethod
    @abstractmethod
    def read_model(card: Card | TileModel | TiedTile) -> TileModel | TiedTile:
        """The tile model of the card."""

    @abstractmethod
    def make_tile(self, n: NonIdealities, dtype: torch.dtype) -> Any:
        """A product under these switches; see ``tile``."""

    @abstractmethod
    def lines(self, held: Written, n: NonIdealities, chip: Any) -> Any:
        """The written conductances as the product takes them, with the mismatch of ``chip`` if there is one."""

    @abstractmethod
    def draw_chip(self, chip: int, place: str, held: Written) -> Any:
        """The mismatch of the tile at ``place``. Raises CardError or InputError where the card has none."""

    @abstractmethod
    def signed_charge(
        self, tile: Any, lines: Any, codes: Tensor, n: NonIdealities, mapping: Mapping, generator: torch.Generator | None,
        usage: Usage | None = None, chip: Any = None,
    ) -> Tensor:  # fmt: skip
        """What the digital side makes of a product: G+ minus G−, positive minus negative inputs, as charge [C].

        codes (..., batch, rows) in LSB, of either sign; returns (..., batch, pairs · outputs). generator: of the read noise;
        usage: where to note the counts.
        """

    @property
    @abstractmethod
    def has_converter(self) -> bool:
        """Whether the card has a rate table."""

    @abstractmethod
    def counts_per_coulomb(self) -> float:
        """Mean slope of the card's rate table."""

    def tile(self, n: NonIdealities, dtype: torch.dtype) -> Any:
        """A product under these switches, its answers of type ``dtype``. It keeps what depends on its last weights."""
        if n.ir_drop:
            check_domain(self.model.card, wire_scale=n.wire_scale)
        return self.make_tile(n, dtype)

    @property
    def unit_c(self) -> float:
        """Charge of one LSB on one siemens [C/S]: V·T."""
        return self.model.v_read_v * self.model.t_lsb_s

    def converts(self, n: NonIdealities) -> bool:
        """Whether the answer goes through the card's converter; a card without one answers in charge."""
        return n.converts and self.has_converter

    def noise_parameters(self, n: NonIdealities) -> NoiseParameters:
        """The card's circuit noise. Raises CardError for a card without noise tables, InputError where nothing converts."""
        if self._noise_of is None:
            self._noise_of = NoiseParameters.of(self.model.card)
        if not (self.converts(n) and n.adc):
            raise InputError("circuit_noise: a noise of counts, which the switches turn off; switch adc on, or circuit_noise off")
        return self._noise_of

    def noise(
        self, tile: Any, lines: Any, widths: Sequence[Tensor], n: NonIdealities, generator: torch.Generator, signs: int = 1
    ) -> list[Tensor]:
        """Noise of the counts (or charges [C], where nothing converts) of every phase, (..., batch, lines) each.

        widths: what rows conduct in each phase [LSB], (..., batch, rows). signs: sign phases of one product, which are equal
        parts of the batch and follow one another. Raises as ``noise_parameters``.
        """
        out = [torch.zeros((), dtype=w.dtype, device=w.device) for w in widths]
        if n.read_noise != "off":
            out = [a + b for a, b in zip(out, self.read_noise(lines, widths, n, generator), strict=True)]
        if n.circuit_noise:
            out = [a + b for a, b in zip(out, self.circuit_noise(tile, lines, widths, n, generator, signs), strict=True)]
        return out

    @abstractmethod
    def circuit_noise(
        self, tile: Any, lines: Any, widths: Sequence[Tensor], n: NonIdealities, generator: torch.Generator, signs: int = 1
    ) -> list[Tensor]:
        """The circuit's part of ``noise``: the readings of a line in all phases of a product share its slow part."""

    @abstractmethod
    def read_noise(self, lines: Any, widths: Sequence[Tensor], n: NonIdealities, generator: torch.Generator) -> list[Tensor]:
        """The PCMs' part of ``noise``."""

    def edges_s(self, signs: int = 1) -> tuple[Tensor, Tensor]:
        """When the readings of one line in a product begin and end to count [s], (readings,) each: all phases of the mode, for
        each of ``signs`` sign phases, which follow one another."""
        model = self.model
        counting = Counting.of(model.mode, model.guard_slots, model.t_lsb_s, model.phase_rule, model.hold_s)
        return counting.in_signs(signs).edges_s

    def pulses(self, widths: Sequence[Tensor]) -> list[Pulse]:
        """When each row's pulse starts, with its phase, and how long it is [s], from what rows conduct in each phase [LSB]."""
        model = self.model
        starts = model.mode.starts(model.guard_slots)
        sizes = [w.abs() * model.t_lsb_s for w in widths]
        return [(torch.full_like(t, first * model.t_lsb_s), t) for first, t in zip(starts, sizes, strict=True)]

    def digitise(self, seen: Tensor, n: NonIdealities, usage: Usage | None, least: float, top: float) -> Tensor:
        """Counts before rounding as charge [C] after the counter: its range from ``least`` to ``top``, and truncation."""
        if usage is not None:
            usage.note_counts(seen.detach(), least, top)
        if n.adc_clip:
            seen = seen.clamp(min=None if least == 0 else least, max=top)
        if n.adc_rounding:
            seen = straight_through(seen, self.shown(seen))
        return seen / self.counts_per_coulomb()

    def shown(self, seen: Tensor) -> Tensor:
        """The best reading of a counter that has seen so many counts: it truncates, so half a count more than it shows."""
        return count(seen) + 0.5
