"""A phase's lines for one version of the weights: what is to be added to the answers of its product."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.fast.columns import low_precision
from aimcard.models.fast.phase_bins import PhaseBins
from aimcard.models.fast.phase_compiled import PhaseKernel
from aimcard.models.fast.phase_errors import VectorErrors, places, vector_errors
from aimcard.models.fast.phase_pulses import CellCharges, by_code
from aimcard.models.fast.phase_rest import Rest, features, line_shapes
from aimcard.models.fast.phase_slots import PhaseSlots
from aimcard.models.fast.product import Columns
from aimcard.models.fast.reference import Reference
from aimcard.models.fast.weights import Plan, apparent


@dataclass
class PhaseTables:
    """What is kept of a phase for one grouping of the columns.

    charges, worth: of each plan, the latter for a rate without a bend; slots: None without one; bins: of each plan; kernels: the
    same, None without a bend and in plain torch; digits (phases, codes): of the mode; k: the phase; scale: answer per unit of the
    product; compiled: numba is there, in float32 on a processor."""

    charges: list[CellCharges]
    worth: list[Tensor]
    slots: PhaseSlots | None
    bins: list[PhaseBins]
    kernels: list[PhaseKernel] | None
    digits: Tensor
    k: int
    scale: float
    compiled: bool
    rest: Rest | None = None


@dataclass
class PlanLines:
    """A plan's lines. weights (lines, rows·r): functions of their conductances; places (·, lines): see ``VectorErrors``, then the
    shapes of the rest; lines: their numbers, None: all of the tile; number: the plan's."""

    number: int
    ref: Reference
    reach: float
    weights: Tensor
    places: Tensor
    lines: Tensor | None


@dataclass
class PhaseLines:
    """All lines of a tile; shapes (3, lines): see ``phase_rest.line_shapes``."""

    tables: PhaseTables
    parts: list[PlanLines]
    shapes: Tensor

    @classmethod
    def of(cls, tables: PhaseTables, columns: Columns, conductance_s: Tensor) -> PhaseLines:
        """Of the conductances (lines, rows) [S] that the columns were made of."""
        g = conductance_s.detach()
        several = len(columns.plans) > 1
        order = torch.arange(len(g), device=g.device) if columns.order is None else columns.order
        low = torch.bfloat16 if g.dtype == torch.float32 and low_precision(g.device) else g.dtype
        along = torch.stack([torch.ones(g.shape[1], dtype=g.dtype), torch.linspace(-1, 1, g.shape[1], dtype=g.dtype)], 1).to(g)
        total, tilted = (apparent(columns.plans[0].ref.circuit, g) @ along).double().unbind(1)
        mean, off, parts = total.mean(), torch.empty_like(total), []
        for n, (plan, lines) in enumerate(zip(columns.plans, order.split(columns.sizes), strict=True)):
            size = plan.ref.g.sum().to(total)
            middle = middles(plan).to(total)
            if not several:
                middle, lines = middle[lines.argsort()], None
            e = (total if lines is None else total[lines]) / size - 1
            off[slice(None) if lines is None else lines] = (e - middle) * (size / mean)
            some, number = g if lines is None else g[lines], n if len(tables.charges) > 1 else 0
            reach = max(plan.ref.reach, 0.2)
            bent = [] if tables.slots is None else [places(e, middle, reach)]
            ref = plan.ref if tables.kernels is not None else plan.ref.like(e)
            found = torch.cat([*bent, torch.zeros(3, len(e)).to(e)]).to(g)
            parts.append(PlanLines(number, ref, reach, tables.charges[number].lines(some).to(low), found, lines))
        shapes = line_shapes(total, off, (tilted - total * (tilted.mean() / mean)) / mean, tables.slots is not None)
        for part in parts:
            part.places[-3:] = shapes if part.lines is None else shapes[:, part.lines]
        return cls(tables, parts, shapes)

    def answers(self, codes: Tensor, hist: Tensor, found: Tensor) -> Tensor:
        """What is to be added to a product's answers ``found`` (batch, lines), in its unit, for whole codes (batch, rows).

        hist: rows of each code, (batch, codes) in double, or where there are kernels (codes, padded batch) in float32."""
        out = None
        for part in self.parts:
            some = found if part.lines is None else found[:, part.lines]
            vectors = self._vectors(part, hist, len(found))
            each = self._correct(part, self._pulses(part, vectors, codes), vectors, some)
            if part.lines is None:
                return each
            out = torch.empty_like(found) if out is None else out
            out[:, part.lines] = each
        assert out is not None
        return out

    def _vectors(self, part: PlanLines, hist: Tensor, batch: int) -> VectorErrors:
        t, n = self.tables, part.number
        if t.kernels is not None:
            return t.kernels[n](part.ref, part.reach, hist, batch, t.rest, t.scale)
        if t.slots is None:
            worth = t.worth[n].to(hist)
            vectors = VectorErrors(hist.new_zeros(0, batch), hist.new_zeros(batch), hist @ t.charges[n].means(worth), worth)
        else:
            vectors = vector_errors(part.ref, t.slots, t.bins[n], part.reach, hist)
        seen = features(t.digits, hist, t.k)
        rest = hist.new_zeros(3, batch) if t.rest is None else t.rest.coefficients.to(seen) @ seen.T / t.scale
        return VectorErrors(torch.cat([vectors.by_line, rest]), vectors.share, vectors.base, vectors.worth)

    def _pulses(self, part: PlanLines, vectors: VectorErrors, codes: Tensor) -> Tensor:
        """The pulses' own product (batch, lines)."""
        table = self.tables.charges[part.number].tables(vectors.worth).to(part.weights.dtype)
        if table.ndim == 2 or not self.tables.compiled:
            return by_code(table, codes.round().long()) @ part.weights.T
        from aimcard.models.fast.phase_passes import take_codes

        taken = torch.empty(*codes.shape, table.shape[-1], dtype=table.dtype)
        # numpy has no bfloat16: bits are taken.
        bits = torch.int16 if table.dtype == torch.bfloat16 else table.dtype
        take_codes(table.contiguous().view(bits).numpy(), codes.numpy(), taken.view(bits).numpy())
        return taken.flatten(1) @ part.weights.T

    def _correct(self, part: PlanLines, pulses: Tensor, vectors: VectorErrors, found: Tensor) -> Tensor:
        out = vectors.by_line.T.to(found) @ part.places
        share, base, own = vectors.share.to(found), vectors.base.to(found), pulses.to(found)
        if self.tables.compiled:
            from aimcard.models.fast.phase_passes import correct

            correct(out.numpy(), own.numpy(), found.contiguous().numpy(), share.numpy(), base.numpy())
            return out
        return own.add_(base[:, None]).sub_(out).sub_(share[:, None] * found)


def middles(plan: Plan) -> Tensor:
    """What the middles of the groups of a plan's lines are of its mean line, less one, (lines,), in double."""
    return torch.repeat_interleave(torch.tensor(plan.ref.scales).double(), torch.tensor(plan.ref.sizes)) - 1
