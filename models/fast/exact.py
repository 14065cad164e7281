"""The slow twin: every line slot by slot with ``models/line.py``, one vector at a time, differentiable in both arguments."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aimcard.models.adc import phase
from aimcard.models.fast.effects import Circuit, linear_gain
from aimcard.models.line import LineDrive, ideal_clamp, slot_currents, static_solution
from aimcard.models.readout import lagged, regulated_clamp, step_charges

#: Lines that are solved together; (lines, rows, slots) must fit the memory.
BLOCK = 64


def currents(circuit: Circuit, conductance_s: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Slot currents and the static ones behind them [A], (lines, slots), of ``codes`` (rows,) on (lines, rows)."""
    return drive_currents(
        circuit,
        LineDrive(
            conductance_s, codes.expand(conductance_s.shape), circuit.slots, circuit.t_lsb_s, circuit.w_select_um, circuit.edges
        ),
    )


def drive_currents(circuit: Circuit, drive: LineDrive) -> tuple[Tensor, Tensor]:
    """The same of a drive."""
    clamp = ideal_clamp(circuit.v_read_v) if circuit.readout is None else regulated_clamp(circuit.readout)
    if circuit.effects.pulse:
        current, static = slot_currents(circuit.line, drive, clamp)
    else:
        static = static_solution(circuit.line, drive, clamp)
        current = static.current_a
    if circuit.readout is not None:
        current = current + step_charges(circuit.readout.clamp, static.current_a, drive.starts) / circuit.t_lsb_s
    return current, static.current_a


def _charge(circuit: Circuit, conductance_s: Tensor, codes: Tensor) -> Tensor:
    return currents(circuit, conductance_s, codes)[0].sum(-1) * circuit.t_lsb_s


def _phase(circuit: Circuit, conductance_s: Tensor, codes: Tensor) -> Tensor:
    assert circuit.adc is not None
    current, static = currents(circuit, conductance_s, codes)
    if circuit.mirror is None:
        return current.sum(-1) * circuit.t_lsb_s * linear_gain(circuit.adc)
    return phase(circuit.adc, lagged(circuit.mirror, current, static, circuit.t_lsb_s), circuit.t_lsb_s)


def solve(circuit: Circuit, conductance_s: Tensor, codes: Tensor, *, counts: bool) -> Tensor:
    """Charges [C], or phases in counts, (batch, lines), in double precision and the type of ``codes``."""
    solver = _phase if counts else _charge
    g, x = conductance_s.double(), codes.double()
    rows = []
    for vector in x:
        blocks = []
        for part in g.split(BLOCK):
            if torch.is_grad_enabled() and (part.requires_grad or vector.requires_grad):
                # All slots of all vectors would not fit: they are solved again in the backward pass.
                blocks.append(checkpoint(solver, circuit, part, vector, use_reentrant=False))
            else:
                blocks.append(solver(circuit, part, vector))
        rows.append(torch.cat(blocks))
    return torch.stack(rows).to(codes.dtype)
