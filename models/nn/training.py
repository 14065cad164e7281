"""Hardware-aware training: what acts in the forward pass while a converted model trains."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from aimcard.models.errors import InputError
from aimcard.models.nn.convert import crossbars
from aimcard.models.nn.options import NonIdealities


def train_mode(
    model: nn.Module,
    *,
    noise: float | tuple[float, float] = 0.0,
    ir_drop: bool = False,
    wire_scale: float = 1.0,
    switches: NonIdealities | None = None,
) -> nn.Module:
    """Put the model into training with these effects in the forward pass; ``model.eval()`` brings its own ones back.

    noise: Gaussian noise of the weights as a share of the largest weight of their column, or this and that of the outputs
    as a share of their rms; the usual hardware-aware training. ir_drop: the wires' drop at ``wire_scale``, with the
    select transistors, differentiated through. switches: any other set of non-idealities to start from, by default none.
    Returns the model. Raises InputError if it is not converted.
    """
    weight, output = noise if isinstance(noise, tuple) else (noise, 0.0)
    if isinstance(weight, bool) or isinstance(output, bool):
        raise InputError(f"noise: expected a share such as 0.02, or two of them; got {noise!r}")
    base = NonIdealities.none() if switches is None else switches
    chosen = replace(base, weight_noise=weight, output_noise=output)
    if ir_drop:
        chosen = replace(chosen, ir_drop=True, apparent_weight=True, wire_scale=wire_scale)
    for _, crossbar in crossbars(model):
        crossbar.training_switches = replace(chosen, seed=crossbar.plan.non_idealities.seed)
    return model.train()
