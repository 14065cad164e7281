"""What the squares' one probe leaves of the second order, line by line, as far as it goes with patterns along the wire.

With u from 0 at the read-out to 1 at the far end, the second order is the kernel min(u, v) of the wire's drops and a constant β
of what all rows share: the clamp's drop, and the bend of the rate against the current. A uniform line's probe z = u − u²/2 + β
takes z(u)·z(v)/(1/3 + β) of it. The rest is, for departures beside the mean line, that of the drops alone, whose first
eigenfunction is the **bow**, 1 − cos(ω(1 − u))/cos ω with tan ω = ω, and, as the probe is of both, a **tilt**, u − u²/2 less its
mean, as strong as β/(1/3 + β)/15.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.fast.reference import Reference

#: First root of tan ω = ω above 0; the bow's eigenvalue is 1/ω².
BOW = 4.493409457909064
#: Share of the current of all rows at which the rate's bend is taken.
CURRENT = 1 / 3
#: A row's weight moves with its line's patterns by so much of twice the kernel's: as much as of the rows conducts meanwhile.
MEANWHILE = 0.25


@dataclass(frozen=True)
class Remainder:
    """patterns (2, rows): bow and tilt, mean square 1, none of the mean column in them. strength: of the kernel that they hold,
    in parts of min(1, 1); parts: of the whole remainder's trace."""

    patterns: Tensor
    strength: tuple[float, float]
    parts: tuple[float, float]

    @classmethod
    def of(cls, ref: Reference) -> Remainder:
        """About the middle column ``ref``; without wire there is none."""
        rows = len(ref.g)
        near = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
        u = 1 - near
        tilt = u - u * u / 2
        found = torch.stack([1 - torch.cos(BOW * near) / math.cos(BOW), tilt - tilt.mean()])
        found = found / found.square().mean(1, keepdim=True).sqrt().clamp(min=1e-30)
        g = ref.g.to(found)
        found = found - (found @ g / g.sum().clamp(min=1e-30))[:, None]
        if ref.r_ohm == 0:
            return cls(found, (0.0, 0.0), (0.0, 0.0))
        beta = shared(ref) / rows
        trace = 1 / 2 + beta - (2 / 15 + 2 * beta / 3 + beta * beta) / (1 / 3 + beta)
        strength = 1 / BOW**2, beta / (1 / 3 + beta) / 15
        return cls(found, strength, (strength[0] / trace, strength[1] / trace))


def shared(ref: Reference) -> float:
    """Second order that all rows share, clamp and rate, over that of one cell's wire: β times the number of rows."""
    conv, v = ref.conversion, ref.circuit.v_read_v
    current = (CURRENT * v) * ref.g.sum().double().cpu().reshape(1)
    found = 0.0
    if conv.rate is not None:
        _, slope, bend = (float(q) for q in conv.rate.at(current))
        found -= 0.5 * bend * v / (slope * ref.r_ohm)
    if conv.clamp is not None:
        found -= float(conv.clamp.at(current)[1]) / ref.r_ohm
    return max(found, 0.0)
