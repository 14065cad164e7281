"""The slow twin in any PWM mode: all phases in one window, slot by slot, differentiable in conductances and codes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aimcard.models.adc import phase_counts
from aimcard.models.fast.effects import Circuit, linear_gain
from aimcard.models.fast.exact import BLOCK, drive_currents
from aimcard.models.line import LineDrive
from aimcard.models.modes import Mode
from aimcard.models.readout import lagged
from aimcard.models.tile import TileModel


def real_pulses(mode: Mode, guard: int, codes: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """``Mode.window_pulses`` of real codes (rows,) from 0 to code_max: a code between two has the pulses of both, each for its
    share. Whole codes that need no gradient give whole slots."""
    rows = torch.arange(codes.shape[-1])
    size = codes.detach()
    below = size.floor().clamp(max=mode.code_max - 1)
    if not codes.requires_grad and bool((size == size.round()).all()):
        return tuple(mode.window_pulses(size.to(torch.int64), rows, guard))
    found, beyond = [], codes - below
    low, high = (mode.window_pulses((below + k).to(torch.int64), rows, guard) for k in (0, 1))
    for (start, stop), (start_above, stop_above) in zip(low, high, strict=True):
        moves = start_above - start
        first = start if not bool(moves.any()) else start + beyond * moves
        found.append((first, stop + beyond * (stop_above - stop)))
    return tuple(found)


def _phases(model: TileModel, circuit: Circuit, conductance_s: Tensor, codes: Tensor, counts: bool) -> Tensor:
    """Charges [C] or counts of each phase, (phases, lines), of ``codes`` (rows,), or a vector for each line, on (lines, rows)."""
    mode, guard, t = model.mode, model.guard_slots, circuit.t_lsb_s
    starts, windows = mode.starts(guard), mode.windows(guard)
    drive = LineDrive(
        conductance_s, codes.expand(conductance_s.shape), circuit.slots, t, circuit.w_select_um, circuit.edges,
        pulses=real_pulses(mode, guard, codes), starts=starts,
    )  # fmt: skip
    current, static = drive_currents(circuit, drive)
    if counts and circuit.mirror is not None:
        assert circuit.adc is not None
        seen = lagged(circuit.mirror, current, static, t, starts)
        return phase_counts(circuit.adc, seen, t, windows, model.phase_rule, model.hold_s).movedim(-1, 0)
    charge = torch.stack([current[..., first:beyond].sum(-1) * t for first, beyond in windows])
    if not counts:
        return charge
    assert circuit.adc is not None
    return charge * linear_gain(circuit.adc)


def solve_phases(model: TileModel, circuit: Circuit, conductance_s: Tensor, codes: Tensor, *, counts: bool) -> Tensor:
    """Charges [C], or counts before truncation, of each phase, (phases, batch, lines), in double and the type of ``codes``.

    model: the tile in its mode; circuit: what of it acts. codes (batch, rows), real, from 0 to code_max.
    """
    g, x = conductance_s.double(), codes.double()
    lines, rows = len(g), []
    if not (torch.is_grad_enabled() and (g.requires_grad or x.requires_grad)):
        # Of few lines several vectors at a time: the steps are many, and cost as much for one.
        for some in x.split(max(1, BLOCK // lines)):
            each = some.repeat_interleave(lines, 0)
            blocks = zip(g.repeat(len(some), 1).split(BLOCK), each.split(BLOCK), strict=True)
            found = torch.cat([_phases(model, circuit, part, vectors, counts) for part, vectors in blocks], -1)
            rows.append(found.unflatten(-1, (-1, lines)))
        return torch.cat(rows, 1).to(codes.dtype)
    for vector in x:
        # All slots of all vectors would not fit: they are solved again in the backward pass.
        blocks = [checkpoint(_phases, model, circuit, part, vector, counts, use_reentrant=False) for part in g.split(BLOCK)]
        rows.append(torch.cat(blocks, -1))
    return torch.stack(rows, 1).to(codes.dtype)
