"""The read-out of a tied column: regulator on its bias, mirror, oscillator, and the counts that they make of signed currents.

The equations are those of ``models/readout.py`` and ``models/adc.py``. What differs: the regulator carries bias + line
current and never turns off, so a phase's first slot holds a step from the resting current and no turn-on, and the speed
goes with that sum. While the regulator follows, its output impedance is an inductance L: the line is off its voltage
for L·ΔI, which through the column's conductance Y, always connected, costs a charge of −Y·L·ΔI. So the step responses
are polynomials in Y, with a term for the capacitance. The counts of the resting column, its offset's and the bias', are
subtracted digitally.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from aimcard.models.adc import AdcParameters, phase_counts, truncated
from aimcard.models.errors import InputError
from aimcard.models.readout import TAPS, ReadoutParameters, StepResponse, answered, mirror
from aimcard.models.tied import Clamp, regulated_clamp

Values = Mapping[str, Tensor | float]
Scalar = Tensor | float
Tables = Mapping[str, tuple[Tensor, Tensor]]
#: Conductance of a column [S] in units of which the step responses are written.
Y_REF_S = 4e-3
#: The addition at small current goes with 1/(1 + regulator's current/half), half this part of the bias: about with
#: 1/current, as transistors' resistances do.
HALF_PER_BIAS = 0.1
BLOCKS = ("clamp", "mirror")
#: Terms of a step response: name within a parameter's, power of Y/Y_REF_S, power of W/W_ref − 1, whether at small current.
#: The select transistor's width stands for the column's capacitance, which is mostly theirs.
TERMS = (
    ("", 0, 0, False), ("_y", 1, 0, False), ("_y2", 2, 0, False), ("_w", 0, 1, False), ("_y_w", 1, 1, False),
    ("_idle", 0, 0, True), ("_y_idle", 1, 0, True),
)  # fmt: skip
ADC = ("phase_start", "t_wait_s")
TABLES = ("clamp", "mirror", "adc")


def response_names(block: str) -> tuple[str, ...]:
    """Parameter names of a block's step response."""
    return tuple(f"{block}_step_{tap}{term}_s" for tap in range(TAPS) for term, *_ in TERMS)


#: Every parameter of the read-out.
READOUT = (*(n for block in BLOCKS for n in response_names(block)), *ADC)


def _response(block: str, values: Values, y: Tensor, w: Scalar, bias_a: float) -> StepResponse:
    def charge(tap: int, idle: bool) -> Tensor:
        parts = [values[f"{block}_step_{tap}{term}_s"] * y**n * w**m for term, n, m, i in TERMS if i == idle]
        return sum(parts[1:], start=parts[0])

    none, half = (0.0,) * TAPS, HALF_PER_BIAS * bias_a
    steps, idle = (tuple(charge(k, small) for k in range(TAPS)) for small in (False, True))
    return StepResponse(steps, idle, none, half, none, none, half)


@dataclass(frozen=True)
class TiedReadout:
    """The read-outs of columns: tables and step responses, each column's own (..., 1), and the bias [A].

    shift_a: how much more each column's bias sink takes than the nominal one [A], (..., 1); regulator, mirror and oscillator
    carry it, and the tables are looked up that much higher.
    """

    readout: ReadoutParameters
    adc: AdcParameters
    bias_a: float
    shift_a: Scalar = 0.0


def tied_readout(values: Values, tables: Tables, y_s: Tensor, width: Scalar, bias_a: float) -> TiedReadout:
    """Group flat parameter values for columns of conductance ``y_s`` (...,) at the read-out [S].

    width: drawn width of the select transistors over the reference's, a number or (..., 1).
    tables: ``clamp`` (line current to voltage), ``mirror`` (to current), ``adc`` (to count rate), bias included.
    InputError if a parameter is missing.
    """
    missing = [n for n in READOUT if n not in values]
    if missing:
        raise InputError(f"parameters: a tied read-out needs {', '.join(missing)}, which are not given")
    y = (y_s / Y_REF_S)[..., None]
    (ic, vc), (im, m), (ia, rate) = (tables[name] for name in TABLES)
    clamp, mirror = (_response(block, values, y, width - 1, bias_a) for block in BLOCKS)
    p = ReadoutParameters(ic, vc, im, m, clamp, mirror)
    return TiedReadout(p, AdcParameters(ia, rate, values["phase_start"], values["t_wait_s"]), bias_a)


def tied_clamp(tables: Tables, v_common_v: float, offset_v: float = 0.0) -> Clamp:
    """The regulator as the column sees it at rest, from the common mode; ``offset_v`` adds to the table's own offset."""
    current_a, clamp_v = tables["clamp"]
    return regulated_clamp(current_a, clamp_v - v_common_v + offset_v)


@dataclass(frozen=True)
class TiedReading:
    """current_a, mirror_a: slot means [A], (..., slots). phases: counts gained in each PWM phase, bias included (..., phases)."""

    current_a: Tensor
    mirror_a: Tensor
    phases: Tensor


def read(
    r: TiedReadout, base_a: Tensor, static_a: Tensor, t_lsb_s: float, windows: tuple[tuple[int, int], ...], rule: str,
    hold_s: float,
) -> TiedReading:  # fmt: skip
    """What the read-out makes of a column's slot currents.

    base_a, static_a (..., slots): with the regulator's static voltage, as ``models.tied.slot_currents`` gives them; the last
    slot stands for the resting column. windows: slots (first, beyond) of each PWM phase.
    """
    # In terms of the regulator's current, which is positive while the regulator works.
    starts = tuple(first for first, _ in windows)
    regulator = static_a + (r.bias_a + r.shift_a)
    current, seen = answered(r.readout, base_a, regulator, t_lsb_s, starts, regulator[..., -1:])
    carried = seen + r.shift_a
    return TiedReading(current, mirror(r.readout, carried), phase_counts(r.adc, carried, t_lsb_s, windows, rule, hold_s))


def resting(
    r: TiedReadout, rest_a: Tensor, t_lsb_s: float, windows: tuple[tuple[int, int], ...], rule: str, hold_s: float
) -> Tensor:
    """Phases of a column at rest, (..., phases): what a zero vector counts. rest_a (...,): its current [A]."""
    line = rest_a[..., None].expand(*rest_a.shape, windows[-1][1])
    return phase_counts(r.adc, line + r.shift_a, t_lsb_s, windows, rule, hold_s)


def signed(phases: Tensor, rest: Tensor, rule: str) -> tuple[Tensor, Tensor, Tensor]:
    """Phases and counts with the resting column's counts subtracted, and these, whole numbers, (..., phases) each.

    rest: phases of the resting column, as ``resting`` gives them: what the digital side once measured with a zero vector.
    """
    bias = truncated(rest, rule)
    return phases - bias, truncated(phases, rule) - bias, bias
