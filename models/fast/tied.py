"""A tied tile as one matrix product: its ladder is linear and constant in time, so a charge is a product of effective weights.

    Q = T·Σ_i [x_i·weight_i + |x_i|·even_i] + rest,    weight and even from one adjoint solve per column (models/tied.py)

Edges lengthen every pulse a little: what they add to a row of either sign is a charge that hardly differs from
δ·weight·sign(x), so ``fast`` folds it into the codes. The even part, and what edges add whatever the sign, go with
the column's total conductance: ``fast`` takes a rank-one form of them, ``two`` a second product. The transistors'
answer to the column's own millivolts is left to the slow twin, ``exact``.
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from aimcard.models.card import Card
from aimcard.models.checks import check_choice
from aimcard.models.errors import InputError
from aimcard.models.fast.effects import Effects
from aimcard.models.fast.tied_circuit import tied_circuit
from aimcard.models.fast.tied_exact import solve
from aimcard.models.fast.tied_weights import TiedWeights, charges, prepare
from aimcard.models.tied_tile import TiedTile

ACCURACIES = ("fast", "two", "exact")


class TiedProduct:
    """A tied card's columns as a fast, differentiable product.

    >>> tile = TiedProduct(TiedTile.read("tied.h5"))                         # doctest: +SKIP
    >>> charge_c = tile.charge(g_plus_s, g_minus_s, codes)                   # doctest: +SKIP
    """

    def __init__(
        self,
        tile: TiedTile | Card,
        accuracy: str = "fast",
        wire_scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        w_select_um: float | None = None,
        position: float = 0.5,
        effects: Effects | None = None,
    ) -> None:
        """accuracy: "fast" (one product), "two" (two products), or "exact" (slot by slot, whole codes only).

        wire_scale, w_select_um and position as ``TiedTile.respond``'s; dtype is the answer's. effects: what acts, by default
        all of the column and an ideal clamp.
        Raises InputError for another accuracy, CardError for a card of another topology.
        """
        check_choice("accuracy", accuracy, ACCURACIES)
        self.tile = tile if isinstance(tile, TiedTile) else TiedTile(tile)
        self.accuracy, self.dtype = accuracy, dtype
        self.effects = Effects(regulator=False) if effects is None else effects
        self.circuit = tied_circuit(self.tile, self.effects, wire_scale, w_select_um, position)
        self._work = torch.float64 if dtype == torch.float64 else torch.float32
        self._kept: tuple[tuple, TiedWeights] | None = None

    def charge(self, conductance_s: Tensor, conductance_minus_s: Tensor, codes: Tensor) -> Tensor:
        """Charges [C], (..., batch, lines), of pairs (..., lines, rows) [S] and codes (..., batch, rows) in LSB.

        Codes are real and of either sign; leading dimensions are tiles, each with its own conductances and codes.
        Raises InputError on shapes, and on codes beyond the card's code_max.
        """
        self._check(conductance_s, conductance_minus_s, codes)
        if self.accuracy == "exact":
            return solve(self.circuit, conductance_s, conductance_minus_s, codes).to(self.dtype)
        w, x = self._weights(conductance_s, conductance_minus_s), codes.to(self._work)
        out = charges(w, x)
        return (out * w.unit_c if out.requires_grad else out.mul_(w.unit_c)).to(self.dtype)

    def error(self, conductance_s: Tensor, conductance_minus_s: Tensor, codes: Tensor, lines: int = 4, vectors: int = 6) -> float:
        """1 − R² against the slow twin, the worst of a few lines and vectors of the ones given. At least 3 vectors."""
        if len(codes) < 3:
            raise InputError(f"codes: expected at least 3 vectors to judge an error by; got {len(codes)}")
        sizes = ((len(conductance_s), lines), (len(codes), vectors))
        k, v = (torch.linspace(0, n - 1, min(m, n)).round().long() for n, m in sizes)
        with torch.no_grad():
            g = conductance_s[k].double(), conductance_minus_s[k].double()
            fast, twin = self.charge(*g, codes[v].to(self._work)).double(), solve(self.circuit, *g, codes[v].double())
        spread = twin.var(0, correction=0).clamp(min=1e-300)
        return float(((fast - twin).square().mean(0) / spread).max())

    def _weights(self, plus: Tensor, minus: Tensor) -> TiedWeights:
        """Prepared columns, kept while the conductances stay and no gradient is asked for."""
        kept = self._kept
        # Weak references, for a new tensor may get the address of one that is gone; versions count changes in place.
        if kept is not None and all(r() is g and v == g._version for (r, v), g in zip(kept[0], (plus, minus), strict=True)):
            return kept[1]
        made = prepare(self.circuit, plus.to(self._work), minus.to(self._work), two=self.accuracy == "two")
        if not made.wide.requires_grad:
            self._kept = tuple((weakref.ref(g), g._version) for g in (plus, minus)), made
        return made

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
