"""A tile as a matrix product: conductances and codes in, charges or phases out, differentiable in both."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.models.fast.autocast import without_autocast
from aimcard.models.fast.bound import ErrorBound, Judge
from aimcard.models.fast.columns import Settings, group, refresh
from aimcard.models.fast.curve import unit
from aimcard.models.fast.effects import Effects, circuit_of
from aimcard.models.fast.exact import solve
from aimcard.models.fast.phase_tile import GatedPhases
from aimcard.models.fast.phases import digits, in_mode, weighted
from aimcard.models.fast.product import Columns
from aimcard.models.modes import Mode
from aimcard.models.tile import TileModel

#: From coarse to fine, tried in this order for a tolerance; the last judges the others.
LADDER = (
    Settings(4, 4, 0, 2.5), Settings(4, 8, 1, 2.0), Settings(6, 8, 3), Settings(6, 8, 6, 1.3), Settings(8, 8, 8, 1.2),
    Settings(12, 16, 12, 1.1, 64), Settings(24, 16, 24, 1.05, 128),
)  # fmt: skip
FAST = {False: Settings(4, 8, 1), True: Settings(6, 8, 6, 1.3)}

class FastTile:
    """A card's columns as a fast, differentiable product.

    >>> tile = FastTile(TileModel.read("card.h5"))       # doctest: +SKIP
    >>> charge_c = tile.charge(conductance_s, codes)     # doctest: +SKIP
    """

    def __init__(
        self,
        model: TileModel | Card,
        effects: Effects | None = None,
        accuracy: str | float = "fast",
        wire_scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        w_select_um: float | None = None,
        position: float | None = None,
        *,
        plain: bool = False,
        mode: str | Mode | None = None,
        phase_rule: str | None = None,
    ) -> None:
        """accuracy: "fast", "exact" (the slow twin, slot by slot in double precision), or 1 − R² to stay below.

        wire_scale multiplies the wire per cell; w_select_um and position as ``TileModel.respond``'s. dtype is the answer's;
        bfloat16 computes in float32. plain: leave numba and Triton out even where installed. mode, phase_rule: as
        ``TileModel.respond``'s; a fast product needs pulses that start with their phase, the same in all rows.
        Raises InputError on an unknown accuracy or mode, CardError on an incomplete card.
        """
        self.model = in_mode(model if isinstance(model, TileModel) else TileModel(model), mode, phase_rule)
        self.effects = effects if effects is not None else Effects()
        if accuracy not in ("fast", "exact") and not (isinstance(accuracy, float) and 0 < accuracy < 1):
            raise InputError(f"accuracy: expected 'fast', 'exact', or 1 - R² as a number between 0 and 1; got {accuracy!r}")
        self.accuracy = accuracy
        self.dtype = dtype
        self.plain = plain
        w = float(self.model.card.meta["w_select_um"]) if w_select_um is None else float(w_select_um)
        self.circuit = circuit_of(self.model, self.effects, wire_scale, w, 0.5 if position is None else position)
        #: Type of the products.
        self.work = torch.float64 if dtype == torch.float64 else torch.float32
        #: The phases of a mode that is not conventional.
        self.phases = None
        if self.model.mode.name != "conventional":
            self.phases = GatedPhases(self, wire_scale, w_select_um, position)
        self._kept: dict[bool, tuple[tuple, Columns, Tensor, Settings]] = {}

    @without_autocast
    def charge(self, conductance_s: Tensor, codes: Tensor) -> Tensor:
        """Charges [C], (batch, lines), of ``conductance_s`` (lines, rows) [S] and ``codes`` (batch, rows) in LSB.

        Codes are real, from 0 to the card's code_max; a whole one is the pulse of ``TileModel``. Raises InputError on
        shapes and signs. In a mode of several phases each one's charge counts with its weight.
        """
        return self._answer(conductance_s, codes, counts=False)

    @without_autocast
    def phase(self, conductance_s: Tensor, codes: Tensor) -> Tensor:
        """Counts before rounding, (batch, lines); arguments as ``charge``'s. InputError for a card without a read-out."""
        if self.circuit.adc is None:
            raise InputError("phase: this card was calibrated without a read-out; take the charge, or another card")
        return self._answer(conductance_s, codes, counts=True)

    @without_autocast
    def each_phase(self, conductance_s: Tensor, codes: Tensor, *, counts: bool = False) -> Tensor:
        """Charges, or counts before truncation, of each PWM phase, not weighted, (phases, batch, lines)."""
        self.check(conductance_s, codes)
        if self.phases is None:
            return self._answer(conductance_s, codes, counts=counts)[None]
        return self.phases.answers(conductance_s, codes, counts=counts).to(self.dtype)

    @without_autocast
    def settings(self, conductance_s: Tensor, codes: Tensor, *, counts: bool = False) -> Settings:
        """What ``accuracy`` comes to for these weights; a tolerance is met on a sample of ``codes``, or the finest is taken."""
        if self.accuracy == "fast" or self.accuracy == "exact":
            return FAST[counts]
        assert isinstance(self.accuracy, float)
        if self.phases is not None:
            # Every phase has its own; the first one's stand for them.
            first = self.phases.tiles[0]
            return first.settings(conductance_s, digits(self.model.mode, codes.to(self.work))[0], counts=counts)
        judge = self._judge(conductance_s, codes, counts)
        for settings in LADDER:
            if self._bound(judge, conductance_s, codes, settings, counts).one_minus_r2 <= self.accuracy:
                return settings
        return LADDER[-1]

    @without_autocast
    def error_bound(self, conductance_s: Tensor, codes: Tensor, *, counts: bool = False) -> ErrorBound:
        """Error of the settings in use against the slow twin, line by line, for the vectors given (``models/fast/bound.py``).

        R² needs a variance: at least 3 vectors that differ, else InputError.
        """
        self.check(conductance_s, codes)
        settings = self.settings(conductance_s, codes, counts=counts)
        if self.phases is not None:
            return self.phases.bound(conductance_s, codes, settings, counts=counts)
        return self._bound(self._judge(conductance_s, codes, counts), conductance_s, codes, settings, counts)

    @torch.no_grad()
    def _judge(self, conductance_s: Tensor, codes: Tensor, counts: bool) -> Judge:
        if len(codes) < 3:
            raise InputError(f"codes: expected at least 3 vectors to judge an error by; got {len(codes)}")
        g, x = conductance_s.detach().to(self.work), codes.detach().to(self.work)
        fine = group(self.circuit, g, LADDER[-1], counts=counts, plain=self.plain).answers(self.circuit, g, x)
        return Judge(self.circuit, g, x, fine, unit(self.circuit, counts), counts)

    @torch.no_grad()
    def _bound(self, judge: Judge, conductance_s: Tensor, codes: Tensor, settings: Settings, counts: bool) -> ErrorBound:
        g, x = conductance_s.detach().to(self.work), codes.detach().to(self.work)
        fast = group(self.circuit, g, settings, counts=counts, plain=self.plain).answers(self.circuit, g, x)
        return judge.bound(fast, settings)

    def _answer(self, conductance_s: Tensor, codes: Tensor, *, counts: bool) -> Tensor:
        self.check(conductance_s, codes)
        if self.phases is not None:
            return weighted(self.phases.answers(conductance_s, codes, counts=counts), self.model.mode).to(self.dtype)
        if self.accuracy == "exact":
            return solve(self.circuit, conductance_s, codes, counts=counts).to(self.dtype)
        g, x = conductance_s.to(self.work), codes.to(self.work)
        return self._run(self.columns(conductance_s, codes, counts), g, x, counts).to(self.dtype)

    def _run(self, columns: Columns, g: Tensor, x: Tensor, counts: bool) -> Tensor:
        out = columns.answers(self.circuit, g, x)
        scale = unit(self.circuit, counts)
        return out if scale == 1.0 else out * scale if torch.is_grad_enabled() and out.requires_grad else out.mul_(scale)

    def columns(self, conductance_s: Tensor, codes: Tensor, counts: bool) -> Columns:
        """The groups of these weights: kept while they stay, about new means when they change in place or step by step."""
        kept = self._kept.get(counts)
        # A weak reference, for a new tensor may get the address of one that is gone; the version counts changes in place.
        if kept is not None and kept[0][0]() is conductance_s and kept[0][1] == conductance_s._version:
            return kept[1]
        key = (weakref.ref(conductance_s), conductance_s._version)
        g = conductance_s.detach().to(self.work)
        total = g.sum(1)
        if kept is not None and kept[2].shape == total.shape and bool(((total - kept[2]).abs() <= 0.02 * kept[2].abs()).all()):
            columns, settings, total = refresh(kept[1], g), kept[3], kept[2]
        else:
            settings = self.settings(conductance_s, codes, counts=counts)
            columns = group(self.circuit, g, settings, counts=counts, plain=self.plain)
        self._kept[counts] = (key, columns, total, settings)
        return columns

    def check(self, conductance_s: Tensor, codes: Tensor) -> None:
        """Raises InputError on shapes, and on codes that are no pulses."""
        for name, value, meaning in (("conductance_s", conductance_s, "(lines, rows)"), ("codes", codes, "(batch, rows)")):
            if value.ndim != 2 or not value.is_floating_point() or value.numel() == 0:
                raise InputError(
                    f"{name}: expected real numbers, two dimensions {meaning}, not empty; got {value.dtype} {tuple(value.shape)}"
                )
        if conductance_s.shape[1] != codes.shape[1]:
            raise InputError(
                f"codes: expected {conductance_s.shape[1]} rows, as many as the conductances have; got {codes.shape[1]}"
            )
        low, high = (float(q) for q in torch.aminmax(codes.detach()))
        if not (low >= 0 and high <= self.circuit.code_max):
            raise InputError(
                f"codes: expected pulses of 0 to {self.circuit.code_max} LSB; got {low:g} to {high:g}; "
                "clip or rescale the inputs, and drive each sign in its own phase"
            )
