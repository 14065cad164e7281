"""The read-out of tied columns from whole columns on it, the columns themselves held as the ideal clamp's fit left them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimcard.calibrate.bootstrap import Errors, bootstrap
from aimcard.calibrate.error_units import PHASE_ERROR_COUNT
from aimcard.calibrate.fit import Residual, Values, jacobian, tensors, together
from aimcard.calibrate.parameters import Spec
from aimcard.calibrate.stages import Stages, readout_tables
from aimcard.calibrate.tied_targets import TiedColumns, TiedSetting, base_currents, stack_pairs, weighed
from aimcard.data.reference import ReferenceSet
from aimcard.models.adc import HOLD_S, PHASE_RULES
from aimcard.models.card import Parameter, Table
from aimcard.models.errors import FitError
from aimcard.models.lut import lookup
from aimcard.models.readout import TAPS
from aimcard.models.tied_readout import ADC, BLOCKS, READOUT, TERMS, Y_REF_S, Tables, read, tied_clamp, tied_readout

#: Few columns leave terms of a step response open. Each counts as one residual, this large [s], so that those stay small;
#: what columns do tell weighs a hundred times as much.
LOOSE_S = 3e-10
_WHEN = ("in its slot", "one slot later", "two slots later")
_WHAT = {"clamp": "clamp", "mirror": "mirror's lag"}


_OF = {"": "", "y": ", times Y/Y_ref", "y2": ", times (Y/Y_ref)^2", "w": ", times W/W_ref - 1"}


def _specs() -> dict[str, Spec]:
    found = {}
    for block in BLOCKS:
        for tap in range(TAPS):
            for term, *_ in TERMS:
                parts = [part for part in term.split("_") if part]
                text = f"{_WHAT[block]}: charge per ampere of a step {_WHEN[tap]}"
                text += "".join(_OF[part] for part in parts if part != "idle") + ", what small current adds" * ("idle" in parts)
                name = f"{block}_step_{tap}{term}_s"
                found[name] = Spec(name, 0.0, -1e-7, 1e-7, 1e-11, "s", "read-out", text)
    found["phase_start"] = Spec("phase_start", 0, -50, 50, 1, "1", "adc", "counts gained by the oscillator's start from reset")
    text = "time before the first slot's current reaches the oscillator"
    found["t_wait_s"] = Spec("t_wait_s", 2e-10, -5e-9, 5e-9, 1e-10, "s", "adc", text)
    return found


#: Every fitted number of the read-out. Y is the column's conductance at the read-out, Y_ref 4 mS.
READOUT_SPECS = _specs()


def check_readout_columns(reference: ReferenceSet) -> None:
    """Raises FitError if a column with a read-out lacks what its fit needs."""
    found = reference.select(kind="column", role="fit", clamp="ota")
    if lacking := [r.name for r in found if "mirror_a" not in r or not ("phase_count" in r or "phase_counts" in r)]:
        raise FitError(f"{reference.source}: records/{lacking[0]}: columns with clamp 'ota' need mirror_a and phase_count")


def readout_columns(reference: ReferenceSet, setting: TiedSetting, tables: Tables) -> tuple[TiedColumns | None, list[str]]:
    """The columns with a read-out that a fit may use, stacked, and what must be said of those left out."""
    found = reference.select(kind="column", role="fit", clamp="ota")
    low, high = (float(tables["adc"][0][k]) for k in (0, -1))
    within = [r for r in found if low <= float(r["current_a"].min()) and float(r["current_a"].max()) <= high]
    said = []
    if len(within) < len(found):
        said.append(
            f"{len(found) - len(within)} of {len(found)} columns with clamp ota left out: their current is beyond the "
            f"converter's table, {low * 1e6:.0f} to {high * 1e6:.0f} uA"
        )
    return (stack_pairs(within, setting) if within else None), said


def readout_residual(
    c: TiedColumns, setting: TiedSetting, tables: Tables, base: tuple[Tensor, Tensor, Tensor], bias_a: float, ratio: float
) -> Residual:
    """Columns with their read-out: line current, mirror current times its ratio, and the phases in units of
    PHASE_ERROR_COUNT.

    base: ``base_currents`` of these columns at the static clamp.
    """
    assert c.mirror_a is not None
    assert c.phases is not None
    truth_mirror, truth_phases = c.mirror_a, c.phases
    current, static, y_s = base
    windows = setting.windows(current.shape[-1])

    def residual(values: Values) -> Tensor:
        readout = tied_readout(values, tables, y_s, c.w_select_um / setting.w_ref_um, bias_a)
        got = read(readout, current, static, setting.t_lsb_s, windows, PHASE_RULES[0], HOLD_S)
        parts = [
            weighed(got.current_a - c.current_a, c.current_a, windows),
            weighed(ratio * (got.mirror_a - truth_mirror), c.current_a, windows),
            (got.phases - truth_phases) / PHASE_ERROR_COUNT,
        ]
        return torch.cat(parts, dim=-1).flatten()

    return residual


@dataclass(frozen=True)
class Found:
    """The read-out's tables, what was fitted, and its errors from a bootstrap over columns."""

    tables: Tables
    names: tuple[str, ...]
    errors: Errors


def run_tied_readout(s: Stages, setting: TiedSetting, seed: int) -> Found | None:
    """Fit the read-out if the set has one and columns on it.

    ``s`` holds the fitted columns; their parameters stay.
    """
    tables = readout_tables(s.reference)
    if tables is None:
        return None
    columns, said = readout_columns(s.reference, setting, tables)
    s.messages += said
    if columns is None:
        return None
    meta = s.reference.meta
    clamp = tied_clamp(tables, setting.v_common_v)
    with torch.no_grad():
        base = base_currents(columns, setting, tensors(s.values), clamp)
    lines = readout_residual(columns, setting, tables, base, float(meta["bias_a"]), float(meta["mirror_ratio"]))
    s.specs = {**s.specs, **READOUT_SPECS}
    s.values |= {n: spec.start for n, spec in READOUT_SPECS.items()}
    names = tuple(n for n in READOUT if not (s.one_width and "_w_" in n))
    loose = [n for n in names if n not in ADC]
    residual = together([lines, lambda values: torch.stack([values[n] / LOOSE_S for n in loose])])
    s.fit("read-out", names, residual)
    with torch.no_grad():
        left = residual(tensors(s.values)).numpy()
    points = len(left) - len(loose)
    owner = np.concatenate([np.repeat(columns.owner, points // len(columns.owner)), np.full(len(loose), -1)])
    return Found(tables, names, bootstrap(jacobian(names, s.values, residual, READOUT_SPECS), left, owner, seed))


def offset_parameters(tables: Tables, v_common_v: float) -> list[Parameter]:
    """The regulator's own offset [V], and the current that it makes a column of Y_REF_S draw at rest [A]."""
    zero = torch.zeros((), dtype=torch.float64)
    offset_v = float(lookup(*tables["clamp"], zero)) - v_common_v
    with torch.no_grad():
        offset_a = float(tied_clamp(tables, v_common_v)(torch.tensor(Y_REF_S, dtype=torch.float64), zero)[1])
    return [
        Parameter("offset_v", offset_v, None, -0.1, 0.1, "V", "read-out",
                  "clamp voltage at no line current, from the common mode; in the table"),
        Parameter("offset_a", offset_a, None, -1e-2, 1e-2, "A", "read-out",
                  f"what it makes a column of {Y_REF_S * 1e3:g} mS draw at rest; goes with the column's conductance"),
    ]  # fmt: skip


def table_rows(tables: Tables) -> tuple[Table, ...]:
    """The read-out's tables as a card keeps them."""
    words = {
        "clamp": ("V", "clamp voltage", "voltage that the regulator holds, static"),
        "mirror": ("A", "mirror current", "mirror output, static, bias included"),
        "adc": ("Hz", "count rate", "edges counted per second, mirror and bias included"),
    }
    return tuple(
        Table(name, x.numpy(), y.numpy(), "A", unit, "line current", what, text)
        for name, (unit, what, text) in words.items()
        for x, y in [tables[name]]
    )
