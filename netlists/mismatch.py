"""Transistor mismatch: a technology in which every transistor of one chip has its own threshold.

σ(V_t) = A_vt/√(W·L) per transistor (Pelgrom, IEEE JSSC 24, 1433, 1989; the difference of a pair is √2 of that). The shift is
drawn from chip number and transistor name alone, so a transistor has the same threshold in every deck of a chip, whatever else
the deck holds and in whatever order it is built.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, fields
from typing import Any

from scipy.special import ndtri

from aimcard.models.checks import check_choice, check_positive
from aimcard.models.errors import InputError, TechnologyError
from aimcard.netlists.technology import Technology

#: Select transistors are called s and the cell's number (netlists/cell.py), with p or m before it in a tied pair; everything
#: else belongs to a read-out.
_CELL = re.compile(r"s[pm]?\d\w*")
PARTS = ("all", "cells", "readout")


def normal(seed: int, name: str) -> float:
    """A standard normal number that depends on seed and name only, on any machine."""
    bits = int.from_bytes(hashlib.sha256(f"aimcard mismatch 1 {seed} {name}".encode()).digest()[:8], "big") >> 11
    return float(ndtri((bits + 0.5) / 2**53))


@dataclass(frozen=True)
class MismatchedTechnology(Technology):
    """`Technology` of one chip; ``part`` limits the mismatch to the cells or to the read-outs."""

    seed: int = 0
    part: str = "all"

    def sigma_v(self, w_um: float, l_um: float, m: int = 1, kind: str = "nmos", flavour: str = "svt") -> float:
        """Standard deviation of a transistor's threshold [V]; m fingers average theirs."""
        assert self.a_vt_v_um is not None
        return self.a_vt_v_um * self.a_vt_ratio.get((kind, flavour), 1.0) / math.sqrt(w_um * l_um * m)

    def threshold_shift_v(
        self, name: str, w_um: float, l_um: float, m: int = 1, kind: str = "nmos", flavour: str = "svt"
    ) -> float:
        """Shift of the transistor ``name`` [V]."""
        if self.part != "all" and (_CELL.fullmatch(name) is not None) != (self.part == "cells"):
            return 0.0
        return self.sigma_v(w_um, l_um, m, kind, flavour) * normal(self.seed, name)

    def mosfet(
        self, circuit: Any, name: str, d: str, g: str, s: str, b: str, *,
        kind: str, w_um: float, l_um: float | None = None, flavour: str = "svt", m: int = 1, delvto_v: float = 0.0,
    ) -> None:  # fmt: skip
        """As `Technology.mosfet`, with the threshold that this transistor drew on top of ``delvto_v``."""
        shift = self.threshold_shift_v(name, w_um, l_um or self.l_min_um, m, kind, flavour)
        super().mosfet(
            circuit, name, d, g, s, b, kind=kind, w_um=w_um, l_um=l_um, flavour=flavour, m=m, delvto_v=delvto_v + shift
        )


def mismatched(technology: Technology, seed: int, *, a_vt_v_um: float | None = None, part: str = "all") -> MismatchedTechnology:
    """The technology of chip ``seed``. a_vt_v_um [V·µm]: None takes the technology's own; zero gives the nominal netlist.

    Raises TechnologyError if neither is known, InputError for a negative constant or seed.
    """
    a_vt = technology.a_vt_v_um if a_vt_v_um is None else a_vt_v_um
    if a_vt is None:
        raise TechnologyError(
            f"Pelgrom constant: technology {technology.name} states none; give one (2 mV·µm is usual at 45 nm)"
        )
    check_choice("part", part, PARTS)
    if seed < 0:
        raise InputError(f"seed: expected 0 or more; got {seed}")
    own = {f.name: getattr(technology, f.name) for f in fields(Technology)}
    own["a_vt_v_um"] = check_positive("Pelgrom constant", a_vt, zero=True)
    return MismatchedTechnology(**own, seed=seed, part=part)
