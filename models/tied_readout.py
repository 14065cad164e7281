"""The read-out of a tied column: regulator on its bias, mirror, oscillator, and the counts that they make of signed currents.

The equations are those of ``models/readout.py`` and ``models/adc.py``. What differs: the regulator carries bias + line
current and never turns off, so a phase's first slot holds a step from the resting current and no turn-on, and the speed
goes with that sum. While the regulator follows, its output impedance is an inductance L: the line is off its voltage
for L·ΔI, which through the column's conductance Y, always connected, costs a charge of −Y·L·ΔI. So the step responses
are polynomials in Y. The counts of the resting column, its offset's and the bias', are subtracted digitally.
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
Tables = Mapping[str, tuple[Tensor, Tensor]]
#: Conductance of a column [S] in units of which the step responses' polynomials are written.
Y_REF_S = 4e-3
BLOCKS = ("clamp", "mirror")
#: Parts of a step response: name within a parameter's, powers of Y/Y_REF_S that it has.
STEP_POWERS, IDLE_POWERS = (0, 1, 2), (0, 1)
ADC = ("phase_start", "t_wait_s")
TABLES = ("clamp", "mirror", "adc")


def _names(block: str, tap: int, idle: str, powers: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{block}_step_{tap}{idle}{('', '_y', '_y2')[n]}_s" for n in powers)


def response_names(block: str) -> tuple[str, ...]:
    """Parameter names of a block's step response."""
    found = []
    for tap in range(TAPS):
        found += [*_names(block, tap, "", STEP_POWERS), *_names(block, tap, "_idle", IDLE_POWERS)]
    return (*found, f"{block}_half_a")


#: Every parameter of the read-out.
READOUT = (*(n for block in BLOCKS for n in response_names(block)), *ADC)


def _response(block: str, values: Values, y: Tensor) -> StepResponse:
    def polynomial(tap: int, idle: str, powers: tuple[int, ...]) -> Tensor:
        names = _names(block, tap, idle, powers)
        parts = [values[name] * y**n for n, name in zip(powers, names, strict=True)]
        return sum(parts[1:], start=parts[0])

    taps, none, half = range(TAPS), (0.0,) * TAPS, values[f"{block}_half_a"]
    steps, idle = (
        tuple(polynomial(k, name, powers) for k in taps) for name, powers in (("", STEP_POWERS), ("_idle", IDLE_POWERS))
    )
    return StepResponse(steps, idle, none, half, none, none, half)


@dataclass(frozen=True)
class TiedReadout:
    """The read-outs of columns: tables and step responses, each column's own (..., 1), and the bias [A]."""

    readout: ReadoutParameters
    adc: AdcParameters
    bias_a: float


def tied_readout(values: Values, tables: Tables, y_s: Tensor, bias_a: float) -> TiedReadout:
    """Group flat parameter values for columns of conductance ``y_s`` (...,) at the read-out [S].

    tables: ``clamp`` (line current to voltage), ``mirror`` (to current), ``adc`` (to count rate), bias included.
    InputError if a parameter is missing.
    """
    missing = [n for n in READOUT if n not in values]
    if missing:
        raise InputError(f"parameters: a tied read-out needs {', '.join(missing)}, which are not given")
    y = (y_s / Y_REF_S)[..., None]
    (ic, vc), (im, m), (ia, rate) = (tables[name] for name in TABLES)
    p = ReadoutParameters(ic, vc, im, m, _response("clamp", values, y), _response("mirror", values, y))
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
    regulator = static_a + r.bias_a
    current, seen = answered(r.readout, base_a, regulator, t_lsb_s, starts, regulator[..., -1:])
    return TiedReading(current, mirror(r.readout, seen), phase_counts(r.adc, seen, t_lsb_s, windows, rule, hold_s))


def resting(
    r: TiedReadout, rest_a: Tensor, t_lsb_s: float, windows: tuple[tuple[int, int], ...], rule: str, hold_s: float
) -> Tensor:
    """Phases of a column at rest, (..., phases): what a zero vector counts. rest_a (...,): its current [A]."""
    line = rest_a[..., None].expand(*rest_a.shape, windows[-1][1])
    return phase_counts(r.adc, line, t_lsb_s, windows, rule, hold_s)


def signed(phases: Tensor, rest: Tensor, rule: str) -> tuple[Tensor, Tensor, Tensor]:
    """Phases and counts with the resting column's counts subtracted, and these, whole numbers, (..., phases) each.

    rest: phases of the resting column, as ``resting`` gives them: what the digital side once measured with a zero vector.
    """
    bias = truncated(rest, rule)
    return phases - bias, truncated(phases, rule) - bias, bias
