"""A phase slot by slot, for a line whose cells are the tile's on average: what its product makes of the course of the current.

A product knows a few bins of a phase, gives pulses' recharges the rate of one delayed time, and lets regulator and mirror settle
as if the current fell smoothly. In a short window all of that counts: recharges of small cells last for several slots and reach
into the guard slots, where the ring idles at a gain half as high again; each slot's step is a large part of the current. And what
the pulses draw is expanded about the group's middle line. But all of it goes with how many rows conduct in each slot and with the
line's current, hardly with which rows. So a phase of three multiples of the mean line is taken once slot by slot, as the slow
twin does it, and once as the product does it, and a line's own answer says where between them it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.phase_charges import slot_charges
from aimcard.models.fast.reference import Reference, fall_edge, parabola
from aimcard.models.fast.weights import apparent
from aimcard.models.modes import Mode
from aimcard.models.pulse import fall_delay, node_capacitance, recharge_amount, recharging, rise_delay
from aimcard.models.readout import StepResponse, step_charges

#: Quantiles of the conductances of which charges are the mean, and how far apart in parts the mean cells of lines of less and of
#: more conductance must be to tell a slope.
SAMPLE, APART = 96, 0.02


@dataclass(frozen=True)
class Samples:
    """Conductances [S] like those of all lines of a tile, and of the thirds with less and with more of it, (SAMPLE,) each."""

    all: Tensor
    less: Tensor
    more: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """All three."""
        return self.all, self.less, self.more

    @classmethod
    def of(cls, conductance_s: Tensor) -> Samples:
        """Of conductances (lines, rows) [S]."""
        g = conductance_s.detach()[conductance_s.detach().sum(1).argsort()].double().cpu()
        third = max(len(g) // 3, 1)

        def quantiles(some: Tensor) -> Tensor:
            flat = some.flatten()
            return torch.quantile(flat[:: max(1, len(flat) // 65536)], torch.linspace(0, 1, SAMPLE).double()).clamp(min=1e-9)

        return cls(quantiles(g), quantiles(g[:third]), quantiles(g[-third:]))


@dataclass(frozen=True)
class SlotCharges:
    """Mean charge of the pulses of a tile's cells in each slot of a phase's window [µA·LSB], whole (codes, slots), beside the
    static current; share (digits, slots): of a digit's recharge. push, back: how a pulse's end and its recharge grow with the
    voltage dropped, per volt and per volt squared."""

    whole: Tensor
    share: Tensor
    push: tuple[float, float]
    back: tuple[float, float]

    @classmethod
    def of(cls, circuits: list[Circuit], mode: Mode, guard: int, digit: Tensor, k: int, conductance_s: Tensor) -> SlotCharges:
        """Arguments as ``slot_charges``'s."""
        c, g = circuits[k], conductance_s
        p, e, w, t = c.line.pulse, c.edges, c.w_select_um, c.t_lsb_s
        whole = slot_charges(circuits, mode, guard, digit, k, g).mean(-1)
        first, beyond = mode.windows(guard)[k]
        top = torch.arange(int(digit[k].max()) + 1)
        after = torch.arange(beyond - first + 1) - top[:, None]
        since = (after * t - float(fall_delay(p, e))).clamp(min=0.0)[..., None]
        left = torch.exp(-since * (recharging(g) / node_capacitance(p, w))).mean(-1)
        share = (left[:, :-1] - left[:, 1:]) * (top > 0)[:, None]
        r_bit, r_return = float(c.line.wire.r_bit_ohm), float(c.line.wire.r_return_ohm)
        low, at = r_return / max(r_bit + r_return, 1e-30), apparent(c, g)
        push = parabola(lambda drop: fall_edge(c, g, at, drop).mean() * (1e6 / t))
        back = parabola(lambda drop: recharge_amount(p, e, g, c.v_read_v - (1 - low) * drop, low * drop, w).mean() * (1e6 / t))
        return cls(whole, share, push, back)


@dataclass(frozen=True)
class Line:
    """Lines on which a conductance [µS], (lines, batch, times), is spread evenly along the wire: current [µA], its part per
    logarithm of the conductance, and the mean drops of cells and clamp [V]."""

    current: Tensor
    moves: Tensor
    drop: Tensor
    lift: Tensor | float

    @classmethod
    def of(cls, ref: Reference, conductance: Tensor) -> Line:
        """A third of the wire is in series with cells spread evenly."""
        r, v0, clamp = ref.r_ohm * len(ref.g) / 3, ref.circuit.v_read_v, ref.conversion.clamp
        series = 1 / (1 + conductance * r)
        y = conductance * series
        volts: Tensor | float = v0
        if clamp is not None:
            # It falls by a tenth at most: twice is enough.
            volts = clamp.line_at(y * clamp.line_at(y * v0)[0])[0]
        current = y * volts
        return cls(current + ref.idle_ua, current * series, current * r, volts - v0)


def ended_in(n: Tensor) -> Tensor:
    """How many pulses end in each bin, from one bin's middle to the next one's, of those that are on (..., bins)."""
    return (torch.cat([n[..., :1], n[..., :-1]], -1) - torch.cat([n[..., 1:], -n[..., -1:]], -1)) / 2


def later(values: Tensor) -> Tensor:
    """The first slot's is that of another curve: the next bin's stands for it, as in ``meanfield``."""
    return torch.cat([values[..., 1:2], values[..., 1:]], -1) if values.shape[-1] > 1 else values


@dataclass(frozen=True)
class Course:
    """Lines of which a phase is taken: paths (4, batch, slots), the conductance [µS] in each slot in which a digit can conduct:
    of the mean line less and more by a reach, between them itself, and then itself with ``ALONG`` of the departure that lines of
    its conductance have on average. busy (batch, slots): rows that conduct. ending (batch, digits): rows of each digit; whole
    (batch, codes): rows of each code; cell (4,): mean conductance of the rows [µS]."""

    paths: Tensor
    busy: Tensor
    ending: Tensor
    whole: Tensor
    cell: Tensor

    @classmethod
    def of(cls, ref: Reference, member: Tensor, hist: Tensor, reach: float) -> Course:
        """hist (batch, codes): rows of each code; member (codes, digits); reach: how far the multiples are from the mean line."""
        rows, size = len(ref.g), ref.g.sum()
        ending = hist @ member
        n = ending.flip(1).cumsum(1).flip(1)[:, 1:] / rows
        # Rows depart from the mean line's independently: what two slots share are the rows that conduct in both, and the total
        # of all is taken.
        count = torch.arange(1, n.shape[1] + 1).to(n)
        beyond = n.flip(1).cumsum(1).flip(1)
        shared = n * (count - 1) + beyond - n * n.sum(1, keepdim=True)
        shared = shared * (n.sum(1) / shared.sum(1).clamp(min=1e-9))[:, None]
        paths = torch.stack([n * (1 - reach), n, n * (1 + reach), n + ALONG * shared])
        cell = hist.new_tensor([1 - reach, 1.0, 1 + reach, 1.0]) * (size / rows)
        return cls(paths * size, n * rows, ending, hist, cell)


#: Size of the departure that is tried, of the mean line.
ALONG = 0.05


@dataclass(frozen=True)
class PhaseSlots:
    """Tables of a phase: charges, of lines of mean cell ``cell`` [µS]; tilt (codes, slots): how they grow with the conductance,
    for lines of less have more small cells, per_share: that over what lines of more have beside those of less; member (codes,
    digits), 1 for a code's digit; hold: how much of the last slot the ring is held; rise, fall: delays of the edges [LSB]."""

    charges: SlotCharges
    cell: float
    per_share: float
    tilt: Tensor
    member: Tensor
    hold: float
    rise: float
    fall: float

    @classmethod
    def of(cls, circuits: list[Circuit], mode: Mode, guard: int, digit: Tensor, k: int, samples: Samples,
           hold_s: float) -> PhaseSlots:  # fmt: skip
        """Arguments as ``slot_charges``'s; hold_s: how long the ring is held at the phase's end."""
        c = circuits[k]
        charges, less, more = (SlotCharges.of(circuits, mode, guard, digit, k, g) for g in samples.parts)
        cell, low, high = (float(apparent(c, g).mean()) for g in samples.parts)
        apart = (high - low) / cell
        per_share = apart / (apart**2 + APART**2)
        tilt = (more.whole - less.whole) * per_share
        member = torch.nn.functional.one_hot(digit[k].long(), len(charges.share))
        rise, fall = (float(f(c.line.pulse, c.edges)) / c.t_lsb_s for f in (rise_delay, fall_delay))
        return cls(charges, cell, per_share, tilt, member.double(), hold_s / c.t_lsb_s, rise, fall)

    def to(self, device: torch.device) -> PhaseSlots:
        """The same on another device."""
        charges = replace(self.charges, whole=self.charges.whole.to(device), share=self.charges.share.to(device))
        return replace(self, charges=charges, tilt=self.tilt.to(device), member=self.member.to(device))

    def beside(self, course: Course) -> Tensor:
        """How far the course's lines are from those of the tables, as a share (4,)."""
        return course.cell / self.cell - 1

    def answers(self, ref: Reference, course: Course, quiet: float) -> tuple[Tensor, Tensor]:
        """Answers without a start, (4, batch), slot by slot, and what a charge is worth in each slot of the mean line, (batch,
        slots); quiet: that of an idle line per LSB."""
        circuit, conv, t = ref.circuit, ref.conversion, ref.circuit.t_lsb_s
        assert conv.rate is not None
        digits, slots = self.charges.share.shape
        over = (0, slots - digits + 1)
        line = Line.of(ref, torch.nn.functional.pad(course.paths, over))
        still = line.current
        own, before, ending = line.drop[..., :digits], line.drop[..., : digits - 1], course.ending
        (push, push_square), (back, back_square) = self.charges.push, self.charges.back
        lift = line.lift[..., :digits] if isinstance(line.lift, Tensor) else line.lift
        each = (back + back_square * own) * own + ref.end_clamp * lift
        drawn = course.whole @ self.charges.whole + self.beside(course)[:, None, None] * (course.whole @ self.tilt)
        seen = still + drawn + (each * ending) @ self.charges.share
        # What wire and idle cells store as the bit line's voltage moves.
        volts = line.lift - (1 - ref.share) * line.drop
        idle = len(ref.g) - torch.nn.functional.pad(course.busy, over)
        seen = seen + (volts - volts.roll(1, -1)) * (ref.line * len(ref.g) + ref.node * idle)
        seen[..., 1:digits] += (push + push_square * before) * before * ending[:, 1:]
        begun, drop = ending[:, 1:].sum(1), line.drop[..., 0]
        seen[..., 0] += self.rise * (ref.idle_ua - still[..., 0]) + (ref.start_drop + ref.start_square * drop) * drop * begun
        seen[..., 1:] -= self.fall * still.diff(dim=-1)
        mirror = circuit.mirror
        if circuit.readout is not None:
            seen = seen + _settling(circuit.readout.clamp, still, t)
        wait = 0.0
        if mirror is not None and circuit.adc is not None:
            seen = seen + _settling(mirror.mirror, still, t)
            wait = min(float(circuit.adc.t_wait_s) / t, 0.5)
        first = (seen[..., :1] - wait * seen[..., -1:]) / (1 - wait)
        rate, slope = conv.rate.line_at(torch.cat([first, seen[..., 1:]], -1))
        last, worth = rate[..., -1], slope[1]
        out = (1 - wait) * rate[..., 0] + rate[..., 1:].sum(-1) + wait * last - self.hold * (last - quiet)
        return out, torch.cat([worth[:, :-1], worth[:, -1:] * (1 - self.hold)], -1)


def _settling(block: StepResponse, still: Tensor, t_lsb_s: float) -> Tensor:
    return step_charges(block, still * 1e-6) * (1e6 / t_lsb_s)
