"""A tied tile as one matrix product: its ladder is linear and constant in time, so a charge is a product of effective weights.

    Q = T·Σ_i [x_i·weight_i + |x_i|·even_i] + rest,    weight and even from one adjoint solve per column (models/tied.py)

Edges lengthen every pulse a little: what they add to a row of either sign is a charge that hardly differs from
δ·weight·sign(x), so ``fast`` folds it into the codes. The even part, and what edges add whatever the sign, go with
the column's total conductance: ``fast`` takes a rank-one form of them, ``two`` a second product. The transistors'
answer to the column's own millivolts is left to the slow twin, ``exact``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.card import Card
from aimcard.models.checks import check_choice
from aimcard.models.errors import InputError
from aimcard.models.source_line import with_source_line
from aimcard.models.tied import edge_terms, effective_column, fixed_clamp, slot_currents
from aimcard.models.tied_tile import TiedTile, row_pulses, tied_edges_at

ACCURACIES = ("fast", "two", "exact")


@dataclass(frozen=True)
class TiedWeights:
    """Columns prepared for products, (lines, rows) each, in units of V·T·siemens (``unit_c`` [C]); rest_c (lines,) [C].

    odd: charge per LSB of code. delta_lsb: LSBs that the edges add to every pulse, (). even, step: charge per LSB, and per
    pulse, whatever the sign. even_rows, step_rows (rows,) and even_lines, step_lines (lines,): their rank-one forms.
    """

    odd: Tensor
    delta_lsb: Tensor
    even: Tensor
    step: Tensor
    even_rows: Tensor
    even_lines: Tensor
    step_rows: Tensor
    step_lines: Tensor
    rest_c: Tensor
    unit_c: float


def _rank_one(m: Tensor) -> tuple[Tensor, Tensor]:
    """Row profile and line factors of a matrix (lines, rows) whose lines are nearly multiples of their mean."""
    profile = m.mean(0)
    return profile, (m @ profile) / (profile @ profile).clamp(min=torch.finfo(m.dtype).tiny)


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
    ) -> None:
        """accuracy: "fast" (one product), "two" (two products), or "exact" (slot by slot, whole codes only).

        wire_scale, w_select_um and position as ``TiedTile.respond``'s; dtype is the answer's. The clamp is ideal.
        Raises InputError for another accuracy or a mode of several phases, CardError for a card of another topology.
        """
        check_choice("accuracy", accuracy, ACCURACIES)
        self.tile = tile if isinstance(tile, TiedTile) else TiedTile(tile)
        if len(self.tile.mode.phases) > 1:
            raise InputError(
                f"mode {self.tile.mode.name}: the fast product of a tied tile sums one phase; got {len(self.tile.mode.phases)}; "
                "take a card of a mode of one phase, or TiedTile.respond"
            )
        self.accuracy, self.dtype = accuracy, dtype
        self.cell, self.wire, self.pulse = self.tile.parameters(wire_scale)
        self.cell = with_source_line(self.cell, self.tile.source_line, position)
        self.edges = tied_edges_at(self.tile.tables, position)
        self.w_um = self.tile.w_ref_um if w_select_um is None else float(w_select_um)
        self._work = torch.float64 if dtype == torch.float64 else torch.float32
        self._kept: tuple[tuple, TiedWeights] | None = None

    def charge(self, conductance_s: Tensor, conductance_minus_s: Tensor, codes: Tensor) -> Tensor:
        """Charges [C], (batch, lines), of pairs (lines, rows) [S] and codes (batch, rows) in LSB, real and of either sign.

        Raises InputError on shapes, and on codes beyond the card's code_max.
        """
        self._check(conductance_s, conductance_minus_s, codes)
        if self.accuracy == "exact":
            return self._exact(conductance_s, conductance_minus_s, codes).to(self.dtype)
        w, x = self._weights(conductance_s, conductance_minus_s), codes.to(self._work)
        sign = torch.sign(x)
        step = torch.mv(sign.abs(), w.step_rows)
        even = None if self.accuracy == "two" else torch.mv(x.abs(), w.even_rows)
        if torch.is_grad_enabled() and (x.requires_grad or w.odd.requires_grad):
            out = (x + w.delta_lsb * sign) @ w.odd.T
            out = out + (x.abs() @ w.even.T if even is None else torch.outer(even, w.even_lines))
            return ((out + torch.outer(step, w.step_lines)) * w.unit_c + w.rest_c).to(self.dtype)
        # The same in place: memory for one set of codes and the answer.
        out = sign.mul_(w.delta_lsb).add_(x) @ w.odd.T
        out = out.addmm_(torch.abs(x, out=sign), w.even.T) if even is None else out.addr_(even, w.even_lines)
        return out.addr_(step, w.step_lines).mul_(w.unit_c).add_(w.rest_c).to(self.dtype)

    def error(self, conductance_s: Tensor, conductance_minus_s: Tensor, codes: Tensor, lines: int = 4, vectors: int = 6) -> float:
        """1 − R² against the slow twin, the worst of a few lines and vectors of the ones given. At least 3 vectors."""
        if len(codes) < 3:
            raise InputError(f"codes: expected at least 3 vectors to judge an error by; got {len(codes)}")
        sizes = ((len(conductance_s), lines), (len(codes), vectors))
        k, v = (torch.linspace(0, n - 1, min(m, n)).round().long() for n, m in sizes)
        with torch.no_grad():
            g = conductance_s[k].double(), conductance_minus_s[k].double()
            fast, twin = self.charge(*g, codes[v].to(self._work)).double(), self._exact(*g, codes[v].round().double())
        spread = twin.var(0, correction=0).clamp(min=1e-300)
        return float(((fast - twin).square().mean(0) / spread).max())

    def _weights(self, plus: Tensor, minus: Tensor) -> TiedWeights:
        """Prepared columns, kept while the conductances stay and no gradient is asked for."""
        key = tuple((id(g), g.data_ptr(), g._version, tuple(g.shape)) for g in (plus, minus))
        if self._kept is not None and self._kept[0] == key:
            return self._kept[1]
        made = self.prepare(plus, minus)
        if not made.odd.requires_grad:
            self._kept = (key, made)
        return made

    def prepare(self, plus: Tensor, minus: Tensor) -> TiedWeights:
        """Effective weights in double precision, handed on in the working one; differentiable in the conductances."""
        gp, gm, t = plus.double(), minus.double(), self.tile.t_lsb_s
        c = effective_column(self.cell, self.wire, gp, gm, self.w_um)
        sides = []
        for sign in (1.0, -1.0):
            start, end = edge_terms(self.cell, c, self.pulse, self.edges, gp, gm, torch.full_like(gp, sign), self.w_um)
            sides.append((end - start) / t)
        odd_step, step = 0.5 * (sides[0] - sides[1]), 0.5 * (sides[0] + sides[1])
        delta = (odd_step * c.weight_a).sum() / c.weight_a.square().sum().clamp(min=1e-300)
        unit = self.tile.v_read_v * 1e-6
        scaled = [m / unit for m in (c.weight_a, c.even_a, step)]
        parts = [delta, *scaled[1:], *_rank_one(scaled[1]), *_rank_one(scaled[2]), c.rest_a * self.tile.slots * t]
        return TiedWeights(scaled[0].to(self._work), *(p.to(self._work) for p in parts), unit_c=unit * t)

    def _exact(self, plus: Tensor, minus: Tensor, codes: Tensor) -> Tensor:
        gp, gm = plus.double(), minus.double()
        rows, mode = [], self.tile.mode
        for x in codes.double().round():
            whole = x.long()[None].expand(len(gp), -1)
            pulses = row_pulses(mode, self.tile.guard_slots, whole, torch.arange(whole.shape[-1]))
            current, _ = slot_currents(
                self.cell, self.wire, self.pulse, self.edges, gp, gm, whole, self.tile.slots,
                self.tile.t_lsb_s, self.w_um, fixed_clamp(), pulses=pulses,
            )  # fmt: skip
            rows.append(current.sum(-1) * self.tile.t_lsb_s)
        return torch.stack(rows)

    def _check(self, plus: Tensor, minus: Tensor, codes: Tensor) -> None:
        for name, value in (("conductance_s", plus), ("conductance_minus_s", minus), ("codes", codes)):
            if value.ndim != 2 or not value.is_floating_point() or value.numel() == 0:
                raise InputError(
                    f"{name}: expected real numbers in two dimensions, not empty; got {value.dtype} {tuple(value.shape)}"
                )
        if plus.shape != minus.shape or plus.shape[1] != codes.shape[1]:
            raise InputError(
                f"conductance_minus_s, codes: expected {tuple(plus.shape)} and {plus.shape[1]} rows; "
                f"got {tuple(minus.shape)} and {codes.shape[1]}"
            )
        most = float(codes.detach().abs().max())
        if not most <= self.tile.code_max:
            raise InputError(f"codes: expected pulses of at most {self.tile.code_max} LSB; got {most:g}; rescale the inputs")
