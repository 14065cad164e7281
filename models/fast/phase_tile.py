"""A gated tile in a PWM mode of several phases: a product for each phase, and what the phases leave to each other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aimcard.models.fast.bound import SAFETY, SAMPLE_LINES, SAMPLE_VECTORS, ErrorBound
from aimcard.models.fast.columns import Settings
from aimcard.models.fast.curve import unit
from aimcard.models.fast.mode_exact import solve_phases
from aimcard.models.fast.phase_bins import PhaseBins
from aimcard.models.fast.phase_compiled import PhaseKernel, padded
from aimcard.models.fast.phase_lines import PhaseLines, PhaseTables
from aimcard.models.fast.phase_pulses import CellSlopes, PhasePulses, PulseSlopes
from aimcard.models.fast.phase_rest import Rest, features, sample_codes, sample_lines
from aimcard.models.fast.phase_slots import PhaseSlots, Samples
from aimcard.models.fast.phases import check_products, digits, holds, phase_models, weighted
from aimcard.models.fast.product import Columns
from aimcard.models.fast.shared import SharedTile
from aimcard.models.lut import lookup

if TYPE_CHECKING:
    from aimcard.models.fast.tile import FastTile


class GatedPhases:
    """The phases of a FastTile whose mode is not conventional."""

    def __init__(self, tile: FastTile, wire_scale: float, w_select_um: float | None, position: float | None) -> None:
        """Raises InputError for a mode that is no sum of products, unless the tile is exact."""
        self.tile, self.mode = tile, tile.model.mode
        self.exact = tile.accuracy == "exact"
        self.tiles: list[FastTile] = []
        if self.exact:
            return
        self.table = check_products(self.mode)
        kind = type(tile)
        self.tiles = [
            kind(m, tile.effects, tile.accuracy, wire_scale, tile.work, w_select_um, position, plain=tile.plain)
            for m in phase_models(tile.model)
        ]
        for own in self.tiles:
            own.circuit = replace(own.circuit, line_pulses=False)
        self.extras: dict[bool, Extras] = {}
        self._shared: dict[tuple[float, float], list[SharedTile]] = {}
        self._shared_extras: dict[tuple[bool, float, float, int, torch.dtype], Extras] = {}

    def answers(self, conductance_s: Tensor, codes: Tensor, *, counts: bool) -> Tensor:
        """Charges [C] or counts of each phase, (phases, batch, lines), of (lines, rows) and (batch, rows)."""
        work = self.tile.work
        if self.exact:
            return solve_phases(self.tile.model, self.tile.circuit, conductance_s, codes, counts=counts)
        found, columns = [], []
        for tile, digit in zip(self.tiles, digits(self.mode, codes.to(work)), strict=True):
            found.append((tile.phase if counts else tile.charge)(conductance_s, digit))
            columns.append(tile.columns(conductance_s, digit, counts))
        g = conductance_s.detach().to(work)
        extras = self.extras.get(counts)
        if extras is None or not extras.fits(columns):
            extras = self.extras[counts] = Extras(self, columns, g, counts)
        more = extras.answers(columns, g, codes, found)
        found = [a + b for a, b in zip(found, more, strict=True)]
        if torch.is_grad_enabled() and conductance_s.requires_grad:
            found = [a + b for a, b in zip(found, extras.slopes(columns, conductance_s.to(work), codes), strict=True)]
        return torch.stack(found)

    def shared(self, conductance_s: Tensor, codes: Tensor, range_s: tuple[float, float], *, counts: bool) -> Tensor:
        """The same of a batch of tiles, (phases, tiles, batch, lines), about shared mean columns (``SharedTile``)."""
        if self.exact:
            each = [self.answers(g, x, counts=counts) for g, x in zip(conductance_s, codes, strict=True)]
            return torch.stack(each, 1)
        work = self.tile.work
        if range_s not in self._shared:
            self._shared[range_s] = [SharedTile(tile, *range_s) for tile in self.tiles]
        made = self._shared[range_s]
        g = conductance_s.to(work)
        still = g.detach()
        key = (counts, *range_s, g.shape[-1], g.dtype)
        if key not in self._shared_extras:
            lines = made[0].sample(still)
            self._shared_extras[key] = Extras(self, [s.reference(still, counts) for s in made], lines, counts)
        extras = self._shared_extras[key]
        columns = [s.columns(still, counts) for s in made]
        found = []
        for tile, each, digit in zip(self.tiles, columns, digits(self.mode, codes.to(work)), strict=True):
            answers = [c.answers(tile.circuit, a, x) for c, a, x in zip(each, g, digit, strict=True)]
            found.append(torch.stack(answers) * unit(tile.circuit, counts))
        more = []
        for t, (c, a, x) in enumerate(zip(zip(*columns, strict=True), still, codes, strict=True)):
            more.append(extras.answers(list(c), a, x, [f[t] for f in found]))
            if torch.is_grad_enabled() and g.requires_grad:
                more[-1] = [m + s for m, s in zip(more[-1], extras.slopes(list(c), g[t], x), strict=True)]
        return torch.stack([f + torch.stack([m[k].expand(f.shape[1:]) for m in more]) for k, f in enumerate(found)])

    @torch.no_grad()
    def bound(self, conductance_s: Tensor, codes: Tensor, settings: Settings, *, counts: bool) -> ErrorBound:
        """Error of the weighted answer in eight lines and six vectors solved slot by slot. The worst of it, times ``SAFETY``
        as an rms, stands for the other lines, half as much of a line's own for the other vectors."""
        g, x = conductance_s.detach(), codes.detach()
        order = g.sum(1).argsort()
        lines = order[torch.linspace(0, len(order) - 1, min(SAMPLE_LINES, len(order))).round().long()]
        vectors = torch.linspace(0, len(x) - 1, min(SAMPLE_VECTORS, len(x))).round().long()
        fast = weighted(self.answers(g, x, counts=counts), self.mode).double()
        twin = weighted(solve_phases(self.tile.model, self.tile.circuit, g[lines], x[vectors].double(), counts=counts), self.mode)
        error = fast[vectors][:, lines] - twin
        seen = error.square().mean(0) / fast.var(0, correction=0)[lines].clamp(min=1e-300)
        per_line = torch.full((len(g),), SAFETY**2 * float(seen.max()), dtype=torch.float64)
        per_line[lines] = seen if len(vectors) == len(x) else seen * SAFETY
        relative = float(error.square().mean().sqrt() / twin.square().mean().sqrt().clamp(min=1e-300))
        return ErrorBound(float(per_line.max()), relative, settings, len(vectors), len(lines), per_line)


class Extras:
    """What the phases' products lack, for one grouping of the columns: the pulses' own charges, the current's course slot by
    slot, and what the slow twin says of the rest. The answers have no gradients, ``slopes`` has what the products' own lack."""

    def __init__(self, phases: GatedPhases, columns: list[Columns], g: Tensor, counts: bool) -> None:
        """columns: of each phase, made of conductances ``g`` (lines, rows) [S]."""
        tile = phases.tile
        self.circuits = [t.circuit for t in phases.tiles]
        self.table = torch.from_numpy(phases.table).to(g.device)
        self.marks = _marks(columns)
        self.scale = [unit(c, counts) for c in self.circuits]
        self.idle = [0.0] * len(self.circuits)
        self._kept: list[tuple[Columns, PhaseLines] | None] = [None] * len(self.circuits)
        self.pulses: list[PhasePulses] = []
        self.tables: list[PhaseTables] = []
        self._slopes: list[list[CellSlopes]] = []
        converts = counts and tile.circuit.mirror is not None
        hold_s = holds(tile.model) if converts else self.idle
        if converts:
            adc = self.circuits[0].adc
            assert adc is not None
            # In double, at the idle line's current: what a held ring does not count.
            rest_a = torch.tensor([c.plans[0].ref.idle_ua * 1e-6 for c in columns], dtype=torch.float64)
            self.idle = (lookup(adc.i_adc_a, adc.rate_hz, rest_a) * torch.tensor(hold_s)).tolist()
        first = columns[0].plans[0]
        #: Whether numba is used, and whether the slots are then compiled: without a bend of the rate there are none.
        self.compiled = first.kernel is not None
        self.slots_compiled = self.compiled and first.ref.conversion.rate is not None
        if tile.effects.pulse:
            self._make(phases, columns, g, hold_s)
            self._learn(phases, columns, g, counts)

    def _make(self, phases: GatedPhases, columns: list[Columns], g: Tensor, hold_s: list[float]) -> None:
        """The tables of each phase."""
        mode, guard, table = phases.mode, phases.tile.model.guard_slots, torch.from_numpy(phases.table)
        samples, top = Samples.of(g), 1.5 * float(g.max()) + 1e-9
        for k, (c, hold) in enumerate(zip(columns, hold_s, strict=True)):
            pulses = PhasePulses(self.circuits, mode, guard, phases.table, k, hold, samples.all, top)
            charges = [pulses.functions(plan) for plan in c.plans]
            worth, slots, bins, kernels = [pulses.worth(plan, 0.5) for plan in c.plans], None, [], None
            if c.plans[0].ref.conversion.rate is not None:
                slots = PhaseSlots.of(self.circuits, mode, guard, table, k, samples, hold)
                bins = [PhaseBins.of(plan.ref, slots, f, samples) for plan, f in zip(c.plans, charges, strict=True)]
                if self.compiled:
                    kernels = [PhaseKernel(p.ref, slots, b, table, k) for p, b in zip(c.plans, bins, strict=True)]
                slots, bins = slots.to(g.device), [b.to(g.device) for b in bins]
            self.pulses.append(pulses)
            self.tables.append(PhaseTables(charges, worth, slots, bins, kernels, self.table, k, self.scale[k], self.compiled))

    @torch.no_grad()
    def _learn(self, phases: GatedPhases, columns: list[Columns], g: Tensor, counts: bool) -> None:
        """Fit what is left to the slow twin."""
        tile = phases.tile
        x = sample_codes(phases.mode, g.shape[1]).to(g.device)
        some = sample_lines(g.sum(1))
        twin = solve_phases(tile.model, tile.circuit, g[some].cpu(), x.double().cpu(), counts=counts)
        hist = _histogram(x, self.table.shape[1])
        base = [c.forward(d) * s for c, d, s in zip(columns, digits(phases.mode, x.to(g)), self.scale, strict=True)]
        more = self.answers(columns, g, x.to(g), base)
        for k, (b, m, t) in enumerate(zip(base, more, twin, strict=True)):
            found, shapes = (v[..., some].double().cpu() for v in (b + m, self._of(k, columns[k], g).shapes))
            self.tables[k].rest = Rest.fit(features(self.table, hist, k).cpu(), found - t, shapes)

    def fits(self, columns: list[Columns]) -> bool:
        """Whether the columns' tables of pulses are those of the grouping."""
        now = _marks(columns)
        return len(now) == len(self.marks) and all(a is b for a, b in zip(self.marks, now, strict=True))

    @torch.no_grad()
    def answers(self, columns: list[Columns], g: Tensor, codes: Tensor, found: list[Tensor]) -> list[Tensor]:
        """What to add to each phase's answers ``found`` (batch, lines), of that shape or a number."""
        if not self.tables:
            return [g.new_tensor(-idle) for idle in self.idle]
        x, more, size = codes.detach().to(g).contiguous(), [], self.table.shape[1]
        hist = _compiled_histogram(x, size) if self.slots_compiled else _histogram(x.round().long(), size)
        for k, c in enumerate(columns):
            own, scale = found[k].detach(), self.scale[k]
            out = self._of(k, c, g).answers(x, hist, own if scale == 1.0 else own / scale)
            if scale != 1.0:
                out = out.mul_(scale)
            more.append(out if self.idle[k] == 0.0 else out.sub_(self.idle[k]))
        return more

    def _of(self, k: int, columns: Columns, g: Tensor) -> PhaseLines:
        """What is kept of phase ``k`` for these columns, of conductances (lines, rows) [S]."""
        kept = self._kept[k]
        if kept is None or kept[0] is not columns:
            kept = self._kept[k] = columns, PhaseLines.of(self.tables[k], columns, g)
        return kept[1]

    def slopes(self, columns: list[Columns], g: Tensor, codes: Tensor) -> list[Tensor | float]:
        """Zeros to add to each phase's answer, for the gradient in the conductances ``g`` (lines, rows) [S] that they carry."""
        if not self.pulses:
            return [0.0] * len(columns)
        if not self._slopes:
            self._slopes = [[p.slopes(plan) for plan in c.plans] for p, c in zip(self.pulses, columns, strict=True)]
        whole = codes.detach().round().long()
        each = zip(columns, self._slopes, self.scale, strict=True)
        return [PulseSlopes.apply(g, whole, c, functions) * scale for c, functions, scale in each]


def _histogram(codes: Tensor, size: int) -> Tensor:
    """How often each vector of whole codes (batch, rows) has each of ``size`` codes, (batch, size), in double."""
    hist = torch.zeros(len(codes), size, dtype=torch.float64, device=codes.device)
    return hist.scatter_add_(1, codes, torch.ones(codes.shape, dtype=torch.float64, device=codes.device))


def _compiled_histogram(codes: Tensor, size: int) -> Tensor:
    """The same of the nearest whole codes, (size, padded batch), in float32; vectors that pad have none."""
    from aimcard.models.fast.phase_passes import count_codes

    hist = torch.empty(size, padded(len(codes)))
    count_codes(codes.numpy(), hist.numpy())
    return hist


def _marks(columns: list[Columns]) -> list[Tensor]:
    """What stays when columns are made about new means, and changes with their groups."""
    return [plan.ref.e_const for c in columns for plan in c.plans]
