"""The energy model's fit: supply currents of drivers, regulator and oscillator against what they carry."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aimcard.calibrate.bootstrap import Errors, bootstrap
from aimcard.calibrate.error_units import SUPPLY_ERROR
from aimcard.calibrate.fit import Residual, Values, jacobian, tensors
from aimcard.calibrate.parameters import SPECS, Spec
from aimcard.calibrate.stages import Stages
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.card import Table
from aimcard.models.energy import ENERGY_PARAMETERS, OSCILLATOR_TABLE, RAIL_PARAMETERS

#: What the energy model adds to a topology's own parameters.
ENERGY_SPECS = {name: spec for name, spec in SPECS.items() if spec.group == "energy"} | {
    name: Spec(name, 0.0, -1e-9, 1e-9, 1e-13, "C", "energy", f"charge of a row's pulse from the {rail} rail of source lines")
    for name, rail in zip(RAIL_PARAMETERS, ("lower", "middle", "upper"), strict=True)
}


def has_supplies(reference: ReferenceSet) -> bool:
    """Whether the set has what the energy model is fitted to."""
    static, ring = (reference.select(kind=kind, role="fit") for kind in ("readout_dc", "oscillator"))
    drivers = reference.select(kind="driver_supply", role="fit")
    return bool(drivers and static and ring and "supply_a" in static[0] and "supply_a" in ring[0])


def _t(array: np.ndarray) -> Tensor:
    return torch.tensor(np.array(array, dtype=float))


def supply_residual(static: Record, drivers: Record, t_lsb_s: float) -> tuple[Residual, np.ndarray]:
    """Relative errors of every supply current and charge, in units of SUPPLY_ERROR, and which point each belongs to."""
    line, regulator, output, supply = (_t(static[n]) for n in ("current_a", "regulator_a", "mirror_a", "supply_a"))
    bias, bleed = supply - regulator - output, regulator - line
    code, window, rest, charge = (_t(drivers[n]) for n in ("code", "window_s", "rest_a", "charge_c"))
    rails = _t(drivers["rail_c"]) if "rail_c" in drivers else None

    def residual(v: Values) -> Tensor:
        pulse_c = v["q_pulse_c"] + v["i_pulse_a"] * code * t_lsb_s + v["i_driver_a"] * window
        parts = (v["i_bias_a"] / bias, v["i_bleed_a"] / bleed, pulse_c / charge, v["i_driver_a"] / rest)
        errors = [(part - 1) / SUPPLY_ERROR for part in parts]
        if rails is not None:
            # Of the largest rail's: the middle one gives what the outer two nearly balance.
            most = rails.abs().max(-1).values
            errors += [(v[name] - rails[:, k]) / (SUPPLY_ERROR * most) for k, name in enumerate(RAIL_PARAMETERS)]
        return torch.cat(errors)

    # A pulse's rails belong to that pulse.
    pulses = 2 * len(line) + len(code) + np.arange(len(code))
    return residual, np.concatenate([np.arange(2 * len(line) + 2 * len(code)), *([pulses] * 3 if rails is not None else [])])


def oscillator_table(reference: ReferenceSet) -> tuple[Tensor, Tensor]:
    """Supply current of the oscillator against the line's, from its record at constant currents."""
    (ring,) = reference.select(kind="oscillator", role="fit")
    return _t(ring["current_a"]), _t(ring["supply_a"])


def oscillator_rows(reference: ReferenceSet) -> tuple[Table, ...]:
    """``oscillator_table`` as a card keeps it; nothing if the set has no supplies."""
    if not has_supplies(reference):
        return ()
    line, supply = (a.numpy() for a in oscillator_table(reference))
    text = "oscillator's supply, mirror and regulator's own current included"
    return (Table(OSCILLATOR_TABLE, line, supply, "A", "A", "line current", "supply current", text),)


def run_energy(s: Stages, seed: int) -> tuple[tuple[str, ...], Errors]:
    """Fit the energy model; errors from a bootstrap over operating points and pulses."""
    static, drivers = (s.record(kind) for kind in ("readout_dc", "driver_supply"))
    names = (*ENERGY_PARAMETERS, *(RAIL_PARAMETERS if "rail_c" in drivers else ()))
    s.specs = {**s.specs, **ENERGY_SPECS}
    s.values = {**{n: ENERGY_SPECS[n].start for n in names}, **s.values}
    residual, owner = supply_residual(static, drivers, float(s.reference.meta["t_lsb_s"]))
    fit = s.fit("energy", names, residual)
    with torch.no_grad():
        left = residual(tensors(s.values)).numpy()
    return fit.free, bootstrap(jacobian(fit.free, s.values, residual, s.specs), left, owner, seed)
