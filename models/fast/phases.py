"""A PWM mode as products: each phase is conventional PWM of one digit of the code, in a window of its own.

That holds where every pulse starts with its phase and rows of equal code have equal pulses. Other modes are solved slot by slot
(``models/fast/mode_exact.py``). A code between two whole ones has the pulses of both, each for its share, so digits are real
numbers with Σ weight · digit = code, differentiable in the code.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from aimcard.models.adc import PHASE_RULES
from aimcard.models.checks import check_choice
from aimcard.models.errors import InputError
from aimcard.models.fast.compiled import available
from aimcard.models.modes import Mode, get_mode
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel

Model = TypeVar("Model", TileModel, TiedTile)
#: Rows on which it is tried whether pulses depend on the row, as registration tries them.
TRIED_ROWS = 64


def in_mode(model: Model, mode: str | Mode | None, phase_rule: str | None = None) -> Model:
    """The same tile in another PWM mode; None leaves the model's own. InputError for an unknown mode, rule, or code_max."""
    pwm = model.mode if mode is None else get_mode(mode, model.code_max)
    rule = model.phase_rule if phase_rule is None else check_choice("phase_rule", phase_rule, PHASE_RULES)
    if pwm.code_max != model.code_max:
        raise InputError(f"mode {pwm.name}: expected the card's code_max of {model.code_max}; got {pwm.code_max}")
    if pwm is model.mode and rule == model.phase_rule:
        return model
    new = copy.copy(model)
    new.mode, new.phase_rule, new.slots = pwm, rule, pwm.window_slots(model.guard_slots)
    return new


@lru_cache(maxsize=64)
def digit_table(mode: Mode) -> np.ndarray | None:
    """Pulse length of every code in every phase, (phases, code_max + 1) [LSB]; None where the mode is no sum of products."""
    codes, rows = np.arange(mode.code_max + 1)[:, None], np.arange(TRIED_ROWS)
    found = []
    for start, stop in mode.pulses(codes, rows):
        start, stop = (np.broadcast_to(a, (len(codes), len(rows))) for a in (start, stop))
        width = stop - start
        if (start * (width > 0)).any() or (width != width[:, :1]).any():
            return None
        found.append(width[:, 0])
    return np.stack(found)


def check_products(mode: Mode) -> np.ndarray:
    """``digit_table``; InputError, saying what to do, where there is none."""
    table = digit_table(mode)
    if table is None:
        raise InputError(
            f"mode {mode.name}: expected pulses that start with their phase, the same in all rows, as a fast product needs; "
            "its pulses depend on the row; take accuracy='exact', which solves any mode slot by slot"
        )
    return table


def digits(mode: Mode, codes: Tensor) -> list[Tensor]:
    """Pulse length in each phase, with the code's sign, of real codes (..., rows) [LSB], same shape and type; differentiable."""
    table = torch.from_numpy(check_products(mode)).to(codes)
    plain = codes.dtype == torch.float32 and codes.device.type == "cpu" and not (torch.is_grad_enabled() and codes.requires_grad)
    if plain and available():
        from aimcard.models.fast.phase_passes import digits_of

        found = torch.empty(len(table), *codes.shape)
        digits_of(codes.detach().contiguous().flatten().numpy(), table.numpy(), found.flatten(1).numpy())
        return list(found)
    size, sign = codes.detach().abs(), torch.sign(codes.detach())
    # The longest code's slope is the one below it.
    below = size.floor().clamp(max=mode.code_max - 1)
    at, beyond = below.to(torch.int64), codes - sign * below
    return [sign * t[at] + beyond * (t[at + 1] - t[at]) for t in table]


def widths(mode: Mode, codes: Tensor) -> list[Tensor]:
    """``digits`` of any mode: what each row conducts in each phase, also where pulses depend on the row."""
    if digit_table(mode) is not None:
        return digits(mode, codes)
    size, sign = codes.detach().abs(), torch.sign(codes.detach())
    below = size.floor().clamp(max=mode.code_max - 1)
    rows, whole, found = torch.arange(codes.shape[-1], device=codes.device), below.to(torch.int64), []
    for low, high in zip(mode.pulses(whole, rows), mode.pulses(whole + 1, rows), strict=True):
        width, more = low[1] - low[0], high[1] - high[0]
        found.append(sign * width + (codes - sign * below) * (more - width))
    return found


def phase_models(model: Model) -> list[Model]:
    """The tile of each phase: conventional, with the phase's longest digit as its code_max and the phase's window.

    Under the rule "carry" the oscillator starts in the first phase only.
    """
    found = []
    windows = model.mode.windows(model.guard_slots)
    for k, (phase, (first, beyond)) in enumerate(zip(model.mode.phases, windows, strict=True)):
        new = copy.copy(model)
        new.code_max, new.slots = phase.slots, beyond - first
        new.guard_slots, new.mode = new.slots - phase.slots, get_mode("conventional", phase.slots)
        if k and model.phase_rule == "carry" and "phase_start" in model.values:
            new.values = {**model.values, "phase_start": 0.0}
        found.append(new)
    return found


def weighted(answers: Sequence[Tensor] | Tensor, mode: Mode) -> Tensor:
    """Σ weight · answer over the phases, the answers' first dimension."""
    parts = [answer * float(w) for answer, w in zip(answers, mode.weights, strict=True)]
    return sum(parts[1:], start=parts[0])


def holds(model: TileModel | TiedTile) -> list[float]:
    """How long the ring is held at each phase's end [s]: nothing under the rule "carry", nor in the last phase."""
    last = len(model.mode.phases) - 1
    return [model.hold_s if model.phase_rule == "reset" and k < last else 0.0 for k in range(last + 1)]
