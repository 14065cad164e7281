"""What a PWM mode costs a layer, beside conventional PWM: mode by topology, on the fast products that networks run on.

python -m aimcard.validation.layer_report --mode split
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from rich.progress import track
from torch import nn

from aimcard.models.adc import PHASE_RULES
from aimcard.models.modes import get_mode
from aimcard.models.nn import Hardware, Mapping, NonIdealities, calibrate_affine, convert_to_analog

#: What is switched on, in the table's order.
STEPS: dict[str, NonIdealities] = {
    "counter rounding": NonIdealities.none(adc_rounding=True),
    "circuit": NonIdealities(adc_rounding=False),
    "circuit and rounding": NonIdealities(),
}
#: A layer's errors in a mode: mode, what becomes of the ring at a phase's end, and by step (without, with affine correction).
Row = tuple[str, str, dict[str, tuple[float, float]]]


@torch.no_grad()
def mode_errors(
    hardware: Hardware, modes: Iterable[str], rows: int = 512, outputs: int = 256, batch: int = 64, seed: int = 0
) -> list[Row]:
    """Rms error over rms of the digital product of a layer with normal weights and inputs; conventional PWM comes first.

    Raises InputError for an unknown mode, or one that has no fast product.
    """
    rng = torch.Generator().manual_seed(seed)
    layer = nn.Linear(rows, outputs, bias=False)
    layer.weight.copy_(torch.randn(outputs, rows, generator=rng))
    x, calibration = (torch.randn(n, rows, generator=rng) for n in (batch, 4 * batch))
    truth = layer(x)
    cases = [(m, r) for m in modes for r in (PHASE_RULES if len(get_mode(m).phases) > 1 else PHASE_RULES[:1])]
    found: list[Row] = []
    for mode, rule in track([("conventional", "-"), *(c for c in cases if c[0] != "conventional")], "modes", transient=True):
        mapping = Mapping(mode=mode, phase_rule=None if rule == "-" else rule)
        errors = {}
        for step, switches in STEPS.items():
            analog = convert_to_analog(layer, hardware, mapping=mapping, non_idealities=switches)
            plain = float((analog(x) - truth).norm() / truth.norm())
            calibrate_affine(analog, [calibration])
            errors[step] = (plain, float((analog(x) - truth).norm() / truth.norm()))
        found.append((mode, rule, errors))
    return found
