"""Curves against the line's current on an even grid: what a conversion needs of regulator and oscillator, ready to look up.

Units of the fast path: µS, V, µA and LSB; charges in µA·LSB, resistances in MΩ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.fast.effects import Circuit, linear_gain
from aimcard.models.lut import lookup, lookup_slope
from aimcard.models.readout import TAPS, StepResponse

#: Points of an even grid. The tables have 41 and 121 knots; a cubic between even points is theirs to 1e-7.
POINTS = 513


@dataclass(frozen=True)
class Curve:
    """A curve on the even grid 0, step, 2·step …: cubics in grid steps, (points − 1, 4); straight beyond its ends."""

    step_ua: float
    pieces: Tensor

    def at(self, current_ua: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value, first and second derivative to the current [1/µA, 1/µA²]; any shape."""
        value, first, (t, s, c, cubic) = self._at(current_ua)
        second = torch.where(t == s, 2 * c + 6 * cubic, torch.zeros_like(t))
        return value, first / self.step_ua, second / self.step_ua**2

    def line_at(self, current_ua: Tensor) -> tuple[Tensor, Tensor]:
        """Value and first derivative alone."""
        value, first, _ = self._at(current_ua)
        return value, first / self.step_ua

    def _at(self, current_ua: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Value, derivative per grid step, and place beside the piece's begin, the same within it, its c and s·d."""
        place = current_ua / self.step_ua
        n = place.detach().floor().clamp(0, len(self.pieces) - 1)
        pieces = self.pieces.T.to(current_ua).contiguous()
        a, b, c, d = pieces.index_select(1, n.flatten().to(torch.int32)).unflatten(1, n.shape)
        t = place - n
        s = t.clamp(0.0, 1.0)
        cubic = s * d
        first = torch.addcmul(b, s, 2 * c + 3 * cubic)
        value = torch.addcmul(a, s, torch.addcmul(b, s, c + cubic))
        return torch.addcmul(value, t - s, first), first, (t, s, c, cubic)


def _curve(top_ua: float, value: Tensor, slope_per_ua: Tensor) -> Curve:
    step = top_ua / (POINTS - 1)
    slope = slope_per_ua * step
    a, b, ma, mb = value[:-1], value[1:], slope[:-1], slope[1:]
    return Curve(step, torch.stack([a, ma, 3 * (b - a) - 2 * ma - mb, 2 * (a - b) + ma + mb], -1))


@dataclass(frozen=True)
class Conversion:
    """How line currents become the answer: charge in µA·LSB, or counts.

    rate: answer per LSB against the current; start: the whole first slot's answer, with turn-on, the delays of all
    pulses and what all later steps leave behind, against that slot's static current. None: both are the current itself,
    the first slot's times ``start_gain``. clamp: regulator's voltage [V]; None is an ideal clamp.
    offset: what is added to the answer once; guard: LSBs after the longest pulse.
    """

    rate: Curve | None
    start: Curve | None
    start_gain: float
    clamp: Curve | None
    offset: float
    guard: float

    @property
    def ideal(self) -> float:
        """Answer per LSB and µA of the straight line between the ends of the rate's curve."""
        if self.rate is None:
            return 1.0
        pieces = self.rate.pieces
        return float(pieces[-1].sum() - pieces[0, 0]) / (len(pieces) * self.rate.step_ua)


def _step_time(p: StepResponse, i: Tensor) -> Tensor:
    """Charge per ampere that a small step leaves in all slots together [s]."""
    w = 1 / (1 + i / p.half_a)
    parts = (p.step_s[k] + p.step_idle_s[k] * w + p.step_low_s[k] * w * w for k in range(TAPS))
    return torch.stack([torch.as_tensor(q) for q in parts]).sum(0)


def _turn_on(p: StepResponse, i: Tensor, first: bool) -> Tensor:
    """Charge [C] that turn-on to ``i`` leaves in the first slot, or in those after it."""
    w = 1 / (1 + i / p.on_half_a)
    taps = range(1) if first else range(1, TAPS)
    return sum(((p.on_s[k] + p.on_idle_s[k] * w) * i for k in taps), torch.zeros_like(i))


def conversion(circuit: Circuit, counts: bool, rise_s: float, fall_s: float, idle_ua: float) -> Conversion:
    """The conversion of a circuit; rise_s, fall_s: delays of the pulses' edges, idle_ua: current of the idle line."""
    t = circuit.t_lsb_s
    guard = float(circuit.slots - circuit.code_max)
    converter = counts and circuit.mirror is not None
    if circuit.readout is None and not converter:
        gain = 1 + (fall_s - rise_s) / t
        return Conversion(None, None, gain, None, -(gain - 1) * idle_ua, guard)
    source = circuit.readout if circuit.readout is not None else circuit.mirror
    assert source is not None
    top = 1.25 * float(source.i_clamp_a[-1])
    i = torch.linspace(0, top, POINTS, dtype=torch.float64)
    blocks = [] if circuit.readout is None else [circuit.readout.clamp]
    if converter:
        assert circuit.mirror is not None
        blocks.append(circuit.mirror.mirror)
        assert circuit.adc is not None
        adc = circuit.adc
        knots = (adc.i_adc_a, adc.rate_hz)
        wait = min(float(adc.t_wait_s) / t, 0.5)

        def rate(at: Tensor) -> Tensor:
            return lookup(*knots, at) * t

        slope = lookup_slope(*knots, i) * t
    else:
        wait = 0.0

        def rate(at: Tensor) -> Tensor:
            return at * 1e6

        slope = torch.full_like(i, 1e6)
    idle = torch.tensor(idle_ua * 1e-6, dtype=torch.float64)
    first = i - rise_s / t * (i - idle) + sum((_turn_on(b, i, True) for b in blocks), torch.zeros_like(i)) / t
    begin = wait * rate(idle) + (1 - wait) * rate((first - wait * idle) / (1 - wait))
    later = sum((_turn_on(b, i, False) for b in blocks), torch.zeros_like(i)) / t * slope
    settle = sum((_step_time(b, i) for b in blocks), torch.zeros_like(i)) / t * slope
    # All later steps lead from the first slot's current down to the idle one, whatever the path.
    descent = torch.cat([settle[:1] * 0, torch.cumulative_trapezoid(settle, i)])
    down = descent - lookup(i, descent, idle)
    start = begin + later - down + fall_s / t * (rate(i) - rate(idle))
    curve_start = _curve(top * 1e6, start, lookup_slope(i, start, i) * 1e-6)
    curve_rate = _curve(top * 1e6, rate(i), slope * 1e-6)
    clamp = None
    if circuit.readout is not None:
        r = circuit.readout
        clamp = _curve(top * 1e6, lookup(r.i_clamp_a, r.v_clamp_v, i), lookup_slope(r.i_clamp_a, r.v_clamp_v, i) * 1e-6)
    offset = float(circuit.adc.phase_start) if converter and circuit.adc is not None else 0.0
    return Conversion(curve_rate, curve_start, 1.0, clamp, offset, guard)


def unit(circuit: Circuit, counts: bool) -> float:
    """What one unit of the fast path's answer is: coulombs, or counts."""
    if not counts:
        return 1e-6 * circuit.t_lsb_s
    if circuit.mirror is None:
        assert circuit.adc is not None
        return 1e-6 * circuit.t_lsb_s * float(linear_gain(circuit.adc))
    return 1.0
