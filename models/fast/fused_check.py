"""Whether the fused kernels give on a device what plain torch gives there: tried at their first use, on the tile at hand.

Compilers and GPUs differ, and a wrong answer would look like a right one.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from aimcard.models.fast.compiled import SlowerPathWarning
from aimcard.models.fast.effects import Circuit
from aimcard.models.fast.product import Columns

#: Largest departure, in units of the largest number, of answers and gradients: squares in bfloat16 depart by a tenth of it.
BOUND = 3e-3
_found: dict[torch.device, bool] = {}


@torch.enable_grad()
def _numbers(columns: Columns, circuit: Circuit, conductance_s: Tensor, codes: Tensor) -> tuple[Tensor, ...]:
    """Answers, and gradients of their sum weighted by place to the conductances and to the codes."""
    g, x = conductance_s.detach().requires_grad_(), codes.clone().requires_grad_()
    out = columns.answers(circuit, g, x)
    weight = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype, device=out.device).view_as(out)
    return out.detach(), *torch.autograd.grad((out * weight).sum(), (g, x))


def departure(columns: Columns, circuit: Circuit, conductance_s: Tensor) -> float:
    """Largest departure of the columns' numbers from plain torch's, for inputs at rest, rising, falling and full."""
    rising = torch.linspace(0, circuit.code_max, conductance_s.shape[1]).round().to(conductance_s)
    codes = torch.stack([0 * rising, rising, rising.flip(0), 0 * rising + circuit.code_max])
    plain = replace(columns, plans=[replace(p, fused=None) for p in columns.plans], ready=None)
    pairs = (_numbers(c, circuit, conductance_s, codes) for c in (replace(columns, ready=None), plain))
    worst = 0.0
    for found, truth in zip(*pairs, strict=True):
        apart = float((found - truth).abs().max() / truth.abs().max().clamp(min=1e-30))
        # Not a number is no agreement.
        worst = max(worst, apart) if apart == apart else float("inf")
    return worst


def agree(columns: Columns, circuit: Circuit, conductance_s: Tensor) -> bool:
    """Whether ``columns`` of the conductances (lines, rows) [S] may keep their fused kernels; if not, warns once a device."""
    device = conductance_s.device
    if device not in _found:
        why = ""
        try:
            apart = departure(columns, circuit, conductance_s)
            if apart > BOUND:
                why = f"they depart from plain torch by {apart:.1g} of the largest number, expected below {BOUND:g}"
        except Exception as error:  # Triton raises its compilers' own kinds.
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        _found[device] = not why
        if why:
            warnings.warn(
                f"the fast path's fused kernels are left out on {device}, and plain torch runs instead: {why}", SlowerPathWarning,
                stacklevel=2,
            )  # fmt: skip
    return _found[device]
