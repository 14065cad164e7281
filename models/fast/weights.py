"""A group of columns as the products want them: what only the conductances decide, made once per weight version."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimcard.models.cell import expand, read_conductance
from aimcard.models.fast.compiled import Kernel
from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.fused import Fused
from aimcard.models.fast.meanfield import EXTRA, Prepared, prepare
from aimcard.models.fast.reference import BOW_SHARE, Reference, fall_edge, start_charge
from aimcard.models.pulse import fall_delay, node_capacitance, recharge_amount, recharging

#: Code at which a cell's slope is taken; those of other codes follow one common curve.
MIDDLE = 32.0
#: Points of a cell's slopes against √G.
POINTS = 2049


@dataclass(frozen=True)
class Cells:
    """A cell's slopes against its conductance, (points, 2) on even steps of √G [√S]: dG_app/dG [µS/S], and of the charge of a
    pulse of MIDDLE beside the static current's [µA·LSB/S]. over_codes: the latter of a small cell for every code.

    pulse (points,): a pulse's charge [µA·LSB], its mean over the codes, on even steps of the root of the apparent conductance
    [√µS].
    """

    step: float
    tables: Tensor
    over_codes: Tensor
    pulse_step: float
    pulse: Tensor

    @classmethod
    def of(cls, circuit: Circuit, conductance_s: Tensor) -> Cells:
        """For conductances up to half as large again as ``conductance_s``'s."""
        g = conductance_s.detach()
        top = 1.5 * float(g.max()) + 1e-9
        u = torch.linspace(0, top**0.5, POINTS, dtype=torch.float64)
        at = (u * u).clamp(min=1e-9)
        small = g.flatten().kthvalue(1 + g.numel() // 20).values.double().cpu().clamp(min=1e-9)
        codes = torch.arange(circuit.code_max + 1, dtype=torch.float64)
        over = recharge_slope(circuit, small, codes)
        tables = torch.stack([apparent_slope(circuit, at), recharge_slope(circuit, at, MIDDLE)], -1)
        visible = apparent(circuit, at).sqrt().numpy()
        even = np.linspace(0, visible[-1], POINTS)
        sample = codes[:: max(circuit.code_max // 16, 1)]
        charge = pulse_charge(circuit, at[:, None], sample).mean(1) if circuit.effects.pulse else torch.zeros_like(at)
        pulse = torch.from_numpy(np.interp(even, visible, charge.numpy()))
        return cls(float(u[1]), tables, over, float(even[1]), pulse)

    def pieces(self, taken: float | None) -> Tensor:
        """Both slopes as straight lines between the points, (points − 1, 4) float32: value, rise, value, rise.

        Of the charge's, what is beside ``taken`` of the apparent conductance's; None: no pulses.
        """
        visible, charge = self.tables.unbind(-1)
        own = torch.zeros_like(charge) if taken is None else charge - taken * visible
        return torch.stack([visible[:-1], visible.diff(), own[:-1], own.diff()], -1).float()

    def covers(self, conductance_s: Tensor) -> bool:
        """Whether these conductances lie on the tables."""
        return float(conductance_s.max()) <= (self.step * (POINTS - 1)) ** 2


def apparent(circuit: Circuit, conductance_s: Tensor) -> Tensor:
    """Apparent conductances [µS] of ``conductance_s`` [S], differentiable, same shape."""
    return read_conductance(circuit.line.cell, conductance_s, circuit.w_select_um)[0] * 1e6


def apparent_slope(circuit: Circuit, conductance_s: Tensor) -> Tensor:
    """Derivative of ``apparent`` [µS/S], same shape."""
    with torch.enable_grad():
        g = conductance_s.detach().clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(apparent(circuit, g).sum(), g)
    return slope


def recharge_slope(circuit: Circuit, conductance_s: Tensor, codes: Tensor | float) -> Tensor:
    """Derivative of a pulse's charge to the conductance [µA·LSB/S], beside the static current's; arguments broadcast."""
    codes = codes.clamp(max=circuit.code_max) if isinstance(codes, Tensor) else min(codes, circuit.code_max)
    shape = torch.broadcast_shapes(conductance_s.shape, torch.as_tensor(codes).shape)
    if not circuit.effects.pulse:
        return torch.zeros(shape, dtype=conductance_s.dtype)
    with torch.enable_grad():
        g = conductance_s.detach().expand(shape).clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(pulse_charge(circuit, g, codes).sum(), g)
    return slope


def pulse_charge(circuit: Circuit, conductance_s: Tensor, codes: Tensor | float) -> Tensor:
    """Charge of a pulse [µA·LSB] beside the static current's, no voltage having dropped; arguments broadcast."""
    zero = conductance_s.new_zeros(1)
    w, pulse = circuit.w_select_um, circuit.line.pulse
    at = expand(circuit.line.cell, conductance_s, w).g_s * 1e6
    charge = recharge_amount(pulse, circuit.edges, conductance_s, zero + circuit.v_read_v, zero, w)
    left = (circuit.slots - codes) * circuit.t_lsb_s - float(fall_delay(pulse, circuit.edges))
    charge = charge * -torch.expm1(-left * recharging(conductance_s) / node_capacitance(pulse, w))
    charge = charge + start_charge(circuit, at, zero) + fall_edge(circuit, conductance_s, at, zero)
    return charge * (1e6 / circuit.t_lsb_s)


@dataclass
class Plan:
    """How a group of columns is computed: reference column, squares, the compiled preparation or None, cells' slopes.

    half: without the compiled preparation, second-order products run in bfloat16. Its error in them is 1e-2 of a term that is
    1e-2 of the answer's spread. With it they run in bytes, whose error is as small. slopes: kept by the backward pass. fused: the
    preparation on a GPU, where it is not plain torch's.
    """

    ref: Reference
    squares: int
    kernel: Kernel | None
    half: bool
    cells: Cells
    slopes: tuple[Cells, tuple[Tensor | None, Tensor, float]] | None = None
    fused: Fused | None = None

    @property
    def ends(self) -> np.ndarray:
        """Lines at which the groups end."""
        return np.cumsum(self.ref.sizes)

    def by_line(self, by_group: Tensor) -> Tensor:
        """From (groups, batch) to (batch, lines)."""
        if len(by_group) == 1:
            return by_group[0, :, None]
        group = torch.from_numpy(np.repeat(np.arange(len(by_group)), self.ref.sizes))
        return by_group.T.index_select(1, group.to(by_group.device))

    def beside(self, weight: Tensor, sums: Tensor) -> Tensor:
        """Squared departure of each line from the multiple ``sums`` of the mean column (lines,)."""
        mean = self.ref.g.to(weight)
        if self.kernel is None:
            return torch.addr(weight, sums, mean, alpha=-1).square_().sum(1)
        from aimcard.models.fast.line_passes import beside

        out = weight.new_empty(len(weight))
        beside(weight.contiguous().numpy(), sums.numpy(), mean.numpy(), out.numpy())
        return out

    def pulses(self, weight: Tensor) -> Tensor:
        """Charge of the mean pulse of each line beside what the group's straight line gives, about the group's mean (lines,)."""
        if not (self.ref.circuit.effects.pulse and self.ref.circuit.line_pulses):
            return weight.new_zeros(len(weight))
        table = self.cells.pulse.to(weight)
        gain = self.ref.s_gain + float(self.ref.e_gain.mean())
        if self.kernel is not None:
            from aimcard.models.fast.line_passes import mean_of_root

            charge = weight.new_empty(len(weight))
            mean_of_root(weight.contiguous().numpy(), table.numpy(), np.float32(self.cells.pulse_step), charge.numpy())
            line = charge - gain * weight.mean(1)
            return line - line.mean()
        u = weight.clamp(min=0).sqrt_().div_(self.cells.pulse_step)
        n = u.to(torch.int32).clamp_(max=len(table) - 2)
        u -= n
        low, high = table[n], table[n + 1]
        charge = torch.lerp(low, high, u).mean(1)
        line = charge - gain * weight.mean(1)
        return line - line.mean()

    def prepare(self, x: Tensor, rates: bool = False, *, reuse: bool = False) -> Prepared:
        """``Prepared`` of codes (batch, rows), in their type; ``reuse``: valid until the next such call."""
        if self.kernel is not None:
            return self.kernel(x, rates, reuse=reuse)
        if self.fused is not None:
            return self.fused(x, rates)
        return prepare(self.ref, x, self.squares, rates)


@dataclass
class Weights:
    """Apparent conductances of a plan's columns: with the columns behind y; departures from the groups' middle columns, as bytes
    of ``scale`` (lines,) or as real numbers; middle (lines,): what the line's middle column is of the plan's.

    back (4, lines, EXTRA): derivatives of the columns behind to the weights, as parts of one, of the weights, of the mean column
    and of the bow (rows,), ``Reference.bow``."""

    wide: Tensor
    departure: Tensor
    scale: Tensor | None
    middle: Tensor
    back: Tensor
    bow: Tensor

    @classmethod
    def of(cls, weight: Tensor, plan: Plan) -> Weights:
        """From ``weight`` (lines, rows) [µS], the groups one behind the other."""
        ref = plan.ref
        mean = ref.g.to(weight)
        total, whole = float(ref.variance.sum()), float(ref.g.sum())
        middle, reach = (torch.from_numpy(np.repeat(q, ref.sizes)).to(weight) for q in (ref.scales, ref.reaches))
        sums = weight.sum(1) / whole if whole > 0 else middle
        e = sums / middle - 1
        near = torch.minimum(torch.maximum(e, -reach), reach)
        bow, per = ref.bow().to(weight), 1 / total if total > 0 else 0.0
        share, arch = plan.beside(weight, sums) * per, weight @ bow
        part = BOW_SHARE if ref.r_ohm > 0 else 0.0
        # A pattern of no kind has as much of the bow as of any other shape: share tells of that already.
        arched = part * (per * arch**2 - share)
        columns = torch.stack([torch.ones_like(e), -share, near**2, near**4, plan.pulses(weight), -share * near, -arched], 1)
        wide = torch.cat([weight, columns, weight.new_zeros(len(weight), EXTRA - columns.shape[1])], 1)
        back = weight.new_zeros(4, len(weight), EXTRA)
        if plan.squares and whole > 0:
            by_sum, twice = (e == near) / (middle * whole), 2 * per
            # Beside the mean column is W − sums·ḡ.
            along = twice * (weight @ mean - sums * (mean @ mean)) / whole
            for column, value in ((1, 1.0), (5, near)):
                back[0, :, column], back[1, :, column], back[2, :, column] = along * value, -twice * value, twice * sums * value
            back[..., 6] = -part * back[..., 1]
            back[0, :, 2], back[0, :, 3], back[3, :, 6] = 2 * e * by_sum, 4 * e**3 * by_sum, -2 * part * per * arch
            back[0, :, 5] -= share * by_sum
        if not plan.squares:
            return cls(wide, weight.new_zeros(0), None, middle, back, bow)
        if plan.kernel is None:
            departure = torch.addr(weight, middle, mean, alpha=-1)
            return cls(wide, departure.bfloat16() if plan.half else departure, None, middle, back, bow)
        from aimcard.models.fast.line_passes import departures

        small, scale = torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight))
        departures(weight.contiguous().numpy(), middle.numpy(), mean.numpy(), small.numpy(), scale.numpy())
        return cls(wide, small, scale, middle, back, bow)
