"""A tile as a matrix product: conductances and codes in, charges or phases out, differentiable in both."""

from __future__ import annotations

import torch
from torch import Tensor

from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.models.fast.effects import Effects, circuit_of
from aimcard.models.fast.exact import solve
from aimcard.models.tile import TileModel


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
    ) -> None:
        """accuracy: "fast", "exact" (the slow twin, slot by slot in double precision), or 1 − R² to stay below.

        wire_scale multiplies the wire per cell; w_select_um and position as ``TileModel.respond``'s. dtype is the answer's.
        Raises InputError on an unknown accuracy, CardError on an incomplete card.
        """
        self.model = model if isinstance(model, TileModel) else TileModel(model)
        self.effects = effects if effects is not None else Effects()
        if accuracy not in ("fast", "exact") and not (isinstance(accuracy, float) and 0 < accuracy < 1):
            raise InputError(f"accuracy: expected 'fast', 'exact', or 1 - R² as a number between 0 and 1; got {accuracy!r}")
        self.accuracy = accuracy
        self.dtype = dtype
        w = float(self.model.card.meta["w_select_um"]) if w_select_um is None else float(w_select_um)
        self.circuit = circuit_of(self.model, self.effects, wire_scale, w, 0.5 if position is None else position)

    def charge(self, conductance_s: Tensor, codes: Tensor) -> Tensor:
        """Charges [C], (batch, lines), of ``conductance_s`` (lines, rows) [S] and ``codes`` (batch, rows) in LSB.

        Codes are real, at least 0; a whole one is the pulse of ``TileModel``. Raises InputError on shapes and signs.
        """
        self._check(conductance_s, codes)
        return solve(self.circuit, conductance_s, codes, counts=False).to(self.dtype)

    def phase(self, conductance_s: Tensor, codes: Tensor) -> Tensor:
        """Counts before rounding, (batch, lines); arguments as ``charge``'s. InputError for a card without a read-out."""
        self._check(conductance_s, codes)
        if self.circuit.adc is None:
            raise InputError("phase: this card was calibrated without a read-out; take the charge, or another card")
        return solve(self.circuit, conductance_s, codes, counts=True).to(self.dtype)

    def _check(self, conductance_s: Tensor, codes: Tensor) -> None:
        for name, value, meaning in (("conductance_s", conductance_s, "(lines, rows)"), ("codes", codes, "(batch, rows)")):
            if value.ndim != 2 or not value.is_floating_point():
                raise InputError(
                    f"{name}: expected real numbers, two dimensions {meaning}; got {value.dtype} {tuple(value.shape)}"
                )
        if conductance_s.shape[1] != codes.shape[1]:
            raise InputError(
                f"codes: expected {conductance_s.shape[1]} rows, as many as the conductances have; got {codes.shape[1]}"
            )
