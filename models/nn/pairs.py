"""Weights as conductance pairs: scale, programming error, drift and its compensation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.errors import InputError
from aimcard.models.nn.options import Mapping, NonIdealities
from aimcard.models.pcm import drift_exponent, drifted, normal_like, programmed


def halves(values: Tensor) -> tuple[Tensor, Tensor]:
    """Positive and negative part; at zero each has half the gradient, so their difference has all of it."""
    size = values.abs()
    return (size + values) / 2, (size - values) / 2


def weight_scale(weight: Tensor, mapping: Mapping, clip_sigma: float | None = None, lines_per_pair: int = 2) -> Tensor:
    """The weight that g_max stands for, (..., outputs, 1), of tiles' weights (..., outputs, rows); 1 where all are zero.

    Raises InputError on weights that are not finite.
    """
    scale = weight.abs().amax(-1, keepdim=True)
    if not bool(scale.isfinite().all()):
        raise InputError("weights: expected finite numbers; got NaN or infinity, for which no conductance stands")
    if clip_sigma is not None:
        square = weight.square().mean(-1, keepdim=True)
        rms = torch.where(square > 0, square, torch.ones_like(square)).sqrt()
        scale = torch.minimum(scale, clip_sigma * rms)
    if mapping.scaling == "tile":
        parts = scale.split(mapping.outputs(lines_per_pair), -2)
        scale = torch.cat([part.amax(-2, keepdim=True).expand_as(part) for part in parts], -2)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


@dataclass(frozen=True)
class Written:
    """conductance_s (pairs, 2, ..., outputs, rows) [S], G+ first, ... tiles; factors (pairs,): weights of the pairs in a product;
    scale (..., outputs, 1): the weight that a difference of g_max − g_min stands for, drift compensation included."""

    conductance_s: Tensor
    factors: Tensor
    scale: Tensor

    @property
    def lines(self) -> Tensor:
        """(..., pairs · 2 · outputs, rows) [S]: every side of every pair on a line of its own."""
        return self.conductance_s.movedim((0, 1), (-4, -3)).flatten(-4, -2)

    def side(self, minus: int) -> Tensor:
        """G+ (0) or G− (1) of every pair, (..., pairs · outputs, rows) [S]."""
        return self.conductance_s[:, minus].movedim(0, -3).flatten(-3, -2)


def write(
    weight: Tensor, mapping: Mapping, n: NonIdealities, fixed: torch.Generator, fresh: torch.Generator | None = None,
    lines_per_pair: int = 2,
) -> Written:  # fmt: skip
    """Tiles' weights (..., outputs, rows) as conductances. fixed: of what is drawn once per programming; fresh: per call."""
    scale = weight_scale(weight, mapping, n.weight_clip_sigma, lines_per_pair)
    share = weight / scale
    if n.weight_clip_sigma is not None:
        share = share.clamp(-1.0, 1.0)
    if n.weight_noise:
        share = (share + n.weight_noise * normal_like(share, fresh)).clamp(-1.0, 1.0)
    span = mapping.g_max_s - mapping.g_min_s
    order = mapping.significance
    norm = order[0] if mapping.correct else sum(order)
    targets, pairs, left = [], [], share
    for _ in order:
        target = mapping.g_min_s + span * torch.stack(halves(left if mapping.correct else share))
        pair = programmed(target, mapping.g_max_s, generator=fixed, form=n.programming_form) if n.programming else target
        targets.append(target)
        pairs.append(pair)
        if mapping.correct and len(pairs) < len(order):
            held = sum(f * (p[0] - p[1]) for f, p in zip(order, pairs, strict=False)) / span
            left = ((share * norm - held) / order[len(pairs)]).clamp(-1.0, 1.0)
    g = torch.stack(pairs)
    if n.drift:
        later = drifted(g, drift_exponent(torch.stack(targets), mapping.g_max_s, generator=fixed), n.drift_time_s)
        if n.drift_compensation:
            scale = scale * (g.sum() / later.sum().clamp(min=1e-30))
        g = later
    factors = torch.tensor(order, dtype=weight.dtype, device=weight.device) / norm
    return Written(g, factors, scale)
