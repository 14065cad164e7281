"""A tied tile as one matrix product: its ladder is linear and constant in time, so a charge is a product of effective weights.

    Q = T·Σ_i [x_i·weight_i + |x_i|·even_i] + rest,    weight and even from one adjoint solve per column (models/tied.py)

Edges lengthen every pulse a little: what they add to a row of either sign is a charge that hardly differs from
δ·weight·sign(x), so ``fast`` folds it into the codes. The even part, and what edges add whatever the sign, go with
the column's total conductance: ``fast`` takes a rank-one form of them, ``two`` a second product. The transistors'
answer to the column's own millivolts is left to the slow twin, ``exact``.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.models.fast.autocast import without_autocast
from aimcard.models.fast.effects import Effects
from aimcard.models.fast.phases import digits, in_mode, weighted
from aimcard.models.fast.tied_circuit import Curve, tied_circuit
from aimcard.models.fast.tied_exact import solve
from aimcard.models.fast.tied_modes import Modes, compiled_type
from aimcard.models.fast.tied_phases import TiedPhases
from aimcard.models.fast.tied_response import Response, response, rounded_up
from aimcard.models.fast.tied_weights import TiedWeights, answers, prepare
from aimcard.models.modes import Mode
from aimcard.models.tied_tile import TiedTile

if TYPE_CHECKING:
    from aimcard.models.fast.tied_lines import CellTable

ACCURACIES = ("fast", "two", "exact")


@dataclass(frozen=True)
class TiedSettings:
    """How finely a tied product computes: cosines of the window for what bends (0: as many as the weights' currents ask for), and
    whether the even part has a product of its own (``two``)."""

    modes: int
    two: bool = False


#: 1 − R² of 1, 2 … cosines over the square of the curvature, the worst of 24 lines of normal weights and Gaussian codes, by a
#: comparison with the slow twin (currents of 40 and 100 %); and how much of it is left.
ERRORS, ENOUGH = (0.29, 0.07, 0.02, 0.0078, 0.0052), 7e-6
#: From coarse to fine, tried in this order for a tolerance.
LADDER = tuple(TiedSettings(n) for n in (1, 2, 3, 4)) + tuple(TiedSettings(n, True) for n in (5, 7, 10, 15, 24))


#: Lines and vectors on which an error is estimated against the slow twin.
LINES, VECTORS = 4, 6


def _chosen(plus: Tensor, codes: Tensor, lines: int, vectors: int) -> tuple[Tensor, Tensor]:
    if len(codes) < 3:
        raise InputError(f"codes: expected at least 3 vectors to judge an error by; got {len(codes)}")
    k, v = (torch.linspace(0, n - 1, min(m, n)).round().long() for n, m in ((len(plus), lines), (len(codes), vectors)))
    return k, v


class TiedProduct:
    """A tied card's columns as a fast, differentiable product.

    >>> tile = TiedProduct(TiedTile.read("tied.h5"))                         # doctest: +SKIP
    >>> charge_c = tile.charge(g_plus_s, g_minus_s, codes)                   # doctest: +SKIP
    """

    def __init__(
        self,
        tile: TiedTile | Card,
        accuracy: str | float = "fast",
        wire_scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        w_select_um: float | None = None,
        position: float = 0.5,
        effects: Effects | None = None,
        rate: Curve | None = None,
        mode: str | Mode | None = None,
        phase_rule: str | None = None,
    ) -> None:
        """accuracy: "fast", "two" (a product of its own for the even part), "exact" (slot by slot, whole codes only), or 1 − R²
        to stay below.

        wire_scale, w_select_um and position as ``TiedTile.respond``'s; dtype is the answer's. effects: what acts, by default
        all of the column and the converter, with an ideal clamp. rate: signed line current [A] and count rate [Hz], for a card
        that has no table ``adc`` of its own. mode, phase_rule: as ``TiedTile.respond``'s; a product needs pulses that start with
        their phase, the same in all rows, other modes are for "exact".
        Raises InputError for another accuracy or an unknown mode, CardError for a card of another topology.
        """
        if accuracy not in ACCURACIES and not (isinstance(accuracy, float) and 0 < accuracy < 1):
            raise InputError(f"accuracy: expected {', '.join(ACCURACIES)}, or 1 - R² between 0 and 1; got {accuracy!r}")
        self.tile = in_mode(tile if isinstance(tile, TiedTile) else TiedTile(tile), mode, phase_rule)
        self.accuracy, self.dtype = accuracy, dtype
        self._place = {"wire_scale": wire_scale, "w_select_um": w_select_um, "position": position}
        self.effects = Effects(regulator=False) if effects is None else effects
        self.circuit = tied_circuit(self.tile, self.effects, wire_scale, w_select_um, position, rate)
        self.work = torch.float64 if dtype == torch.float64 else torch.float32
        #: The phases of a mode that is not conventional.
        self.phases = None
        if self.tile.mode.name != "conventional":
            self.phases = TiedPhases(self, wire_scale, w_select_um, position, rate)
        self._kept: dict[bool, tuple[tuple, TiedWeights, TiedSettings]] = {}
        self._responses: dict[tuple[bool, float], Response] = {}
        self._modes: dict[int, Modes] = {}
        self._cells: CellTable | None = None

    @without_autocast
    def charge(self, conductance_s: Tensor, conductance_minus_s: Tensor, codes: Tensor, *, idle: bool = True) -> Tensor:
        """Charges [C], (..., batch, lines), of pairs (..., lines, rows) [S] and codes (..., batch, rows) in LSB.

        Codes are real and of either sign; leading dimensions are tiles, each with its own conductances and codes. ``idle``
        False subtracts each line's own answer without inputs, as a digital side does that reads it once.
        Raises InputError on shapes, and on codes beyond the card's code_max.
        """
        return self._answer(conductance_s, conductance_minus_s, codes, counts=False, idle=idle)

    @without_autocast
    def phase(self, conductance_s: Tensor, conductance_minus_s: Tensor, codes: Tensor, *, idle: bool = True) -> Tensor:
        """Counts before rounding, the bias' included; arguments as ``charge``'s. InputError for a card without a rate table."""
        if self.circuit.rate is None:
            raise InputError("phase: this tied card has no table 'adc'; take the charge, or give rate=(current, rate)")
        return self._answer(conductance_s, conductance_minus_s, codes, counts=True, idle=idle)

    @without_autocast
    def each_phase(
        self, conductance_s: Tensor, conductance_minus_s: Tensor, codes: Tensor, *, counts: bool = False, idle: bool = True
    ) -> Tensor:
        """Charges, or counts before truncation, of each PWM phase, not weighted, (phases, ..., batch, lines)."""
        self._check(conductance_s, conductance_minus_s, codes)
        if self.phases is None:
            return self._answer(conductance_s, conductance_minus_s, codes, counts=counts, idle=idle)[None]
        return self.phases.answers(conductance_s, conductance_minus_s, codes, counts=counts, idle=idle).to(self.dtype)

    @without_autocast
    def settings(self, conductance_s: Tensor, conductance_minus_s: Tensor, codes: Tensor, *, counts: bool) -> TiedSettings:
        """What ``accuracy`` comes to for these weights; a tolerance is met on a sample of ``codes``, or the finest is taken."""
        if not isinstance(self.accuracy, float):
            return TiedSettings(0, self.accuracy == "two")
        if self.phases is not None:
            # Every phase has its own; the first one's stand for them.
            digit = digits(self.tile.mode, codes.to(self.work))[0]
            return self.phases.products[0].settings(conductance_s, conductance_minus_s, digit, counts=counts)
        plus, minus, x = (a if a.ndim == 2 else a.flatten(0, -3)[0] for a in (conductance_s, conductance_minus_s, codes))
        sample = self._sample(plus, minus, x, counts)
        for settings in LADDER:
            if self._distance(sample, settings, counts) <= self.accuracy:
                return settings
        return LADDER[-1]

    @without_autocast
    def error(
        self, conductance_s: Tensor, conductance_minus_s: Tensor, codes: Tensor, lines: int = LINES, vectors: int = VECTORS, *,
        counts: bool = False,
    ) -> float:  # fmt: skip
        """1 − R² against the slow twin, the worst of a few lines and vectors of the ones given. At least 3 vectors."""
        if self.phases is not None:
            return self._phases_error(conductance_s, conductance_minus_s, codes, counts, lines, vectors)
        settings = self.settings(conductance_s, conductance_minus_s, codes, counts=counts)
        sample = self._sample(conductance_s, conductance_minus_s, codes, counts, lines, vectors)
        return self._distance(sample, settings, counts)

    @torch.no_grad()
    def _phases_error(self, plus: Tensor, minus: Tensor, codes: Tensor, counts: bool, lines: int, vectors: int) -> float:
        k, v = _chosen(plus, codes, lines, vectors)
        x = codes[v].detach().round()
        twin = TiedProduct(
            self.tile, "exact", dtype=torch.float64, effects=self.effects, rate=self.circuit.rate, **self._place
        )
        exact = twin._answer(plus[k].detach(), minus[k].detach(), x.double(), counts=counts, idle=True)
        fast = self._answer(plus.detach(), minus.detach(), x, counts=counts, idle=True).double()[:, k]
        return float(((fast - exact).square().mean(0) / exact.var(0, correction=0).clamp(min=1e-300)).max())

    @torch.no_grad()
    def _sample(
        self, plus: Tensor, minus: Tensor, codes: Tensor, counts: bool, lines: int = LINES, vectors: int = VECTORS
    ) -> tuple[Tensor, ...]:
        """A few lines and vectors, and the slow twin's answers to them."""
        k, v = _chosen(plus, codes, lines, vectors)
        x = codes[v].detach().round()
        return plus.detach(), minus.detach(), x, k, solve(self.circuit, plus[k].detach(), minus[k].detach(), x, counts=counts)

    @torch.no_grad()
    def _distance(self, sample: tuple[Tensor, ...], settings: TiedSettings, counts: bool) -> float:
        plus, minus, x, k, twin = sample
        made = self._prepare(plus, minus, settings, counts)
        fast = answers(made, x.to(self.work), self._modes_of(settings, made)).double()[:, k]
        return float(((fast - twin).square().mean(0) / twin.var(0, correction=0).clamp(min=1e-300)).max())

    def _answer(self, plus: Tensor, minus: Tensor, codes: Tensor, *, counts: bool, idle: bool) -> Tensor:
        self._check(plus, minus, codes)
        if self.phases is not None:
            parts = self.phases.answers(plus, minus, codes, counts=counts, idle=idle)
            return weighted(parts, self.tile.mode).to(self.dtype)
        if self.accuracy == "exact":
            out = solve(self.circuit, plus, minus, codes, counts=counts)
            if not idle:
                out = out - solve(self.circuit, plus, minus, torch.zeros_like(codes[..., :1, :]), counts=counts)
            return out.to(self.dtype)
        weights, settings = self._weights(plus, minus, codes, counts)
        return answers(weights, codes.to(self.work), self._modes_of(settings, weights), idle=idle).to(self.dtype)

    def _weights(self, plus: Tensor, minus: Tensor, codes: Tensor, counts: bool) -> tuple[TiedWeights, TiedSettings]:
        """Prepared columns, kept while the conductances stay and no gradient is asked for."""
        kept = self._kept.get(counts)
        # Weak references, for a new tensor may get the address of one that is gone; versions count changes in place.
        if kept is not None and all(r() is g and v == g._version for (r, v), g in zip(kept[0], (plus, minus), strict=True)):
            return kept[1], kept[2]
        settings = self.settings(plus, minus, codes, counts=counts)
        made = self._prepare(plus, minus, settings, counts)
        if not made.wide.requires_grad:
            self._kept[counts] = tuple((weakref.ref(g), g._version) for g in (plus, minus)), made, settings
        return made, settings

    def _prepare(self, plus: Tensor, minus: Tensor, settings: TiedSettings, counts: bool) -> TiedWeights:
        g = plus.to(self.work), minus.to(self.work)
        return prepare(self.circuit, *g, lambda y_s: self._response(counts, y_s), two=settings.two, table=self._table(*g))

    def _table(self, plus: Tensor, minus: Tensor) -> CellTable | None:
        """The cells' currents, for compiled passes; None where a gradient is asked for or nothing is compiled."""
        if not compiled_type(plus) or (torch.is_grad_enabled() and (plus.requires_grad or minus.requires_grad)):
            return None
        from aimcard.models.fast.tied_lines import CellTable

        if self._cells is None or not self._cells.covers(plus, minus):
            self._cells = CellTable.of(self.circuit, 1.2 * max(float(plus.max()), float(minus.max())) + 1e-9)
        return self._cells

    def _response(self, counts: bool, y_s: float) -> Response:
        key = (counts, rounded_up(y_s))
        if key not in self._responses:
            self._responses[key] = response(self.circuit, *key)
        return self._responses[key]

    def _modes_of(self, settings: TiedSettings, weights: TiedWeights) -> Modes:
        count = settings.modes
        if not count:
            error = weights.curvature**2
            count = next((n for n, a in enumerate(ERRORS, 1) if a * error <= ENOUGH), len(ERRORS))
        if count not in self._modes:
            self._modes[count] = Modes(count, self.circuit.code_max)
        return self._modes[count]

    def _check(self, plus: Tensor, minus: Tensor, codes: Tensor) -> None:
        for name, value in (("conductance_s", plus), ("conductance_minus_s", minus), ("codes", codes)):
            if value.ndim < 2 or not value.is_floating_point() or value.numel() == 0:
                raise InputError(
                    f"{name}: expected real numbers in two dimensions or more, not empty; got {value.dtype} {tuple(value.shape)}"
                )
        if plus.shape != minus.shape or plus.shape[-1] != codes.shape[-1]:
            raise InputError(
                f"conductance_minus_s, codes: expected {tuple(plus.shape)} and {plus.shape[-1]} rows; "
                f"got {tuple(minus.shape)} and {codes.shape[-1]}"
            )
        low, high = (float(q) for q in torch.aminmax(codes.detach()))
        if not max(-low, high) <= self.tile.code_max:
            raise InputError(
                f"codes: expected pulses of at most {self.tile.code_max} LSB; got {low:g} to {high:g}; rescale the inputs"
            )
