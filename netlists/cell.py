"""The unit cell: a PCM element from the bit line to the drain of a select NMOS, whose source is on the return line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aimcard.models.errors import InputError
from aimcard.netlists.technology import Technology


@dataclass(frozen=True)
class CellDesign:
    """Sizes of a unit cell.

    ``w_select_um``: drawn width of the select transistor, at the technology's least length.
    ``flavour``: its threshold flavour (svt, lvt, hvt).
    ``pcm_v0_v``: None for an ohmic PCM; otherwise I = G·v0·sinh(V/v0), the usual form of a
    phase-change element's non-ohmic read-out (G is its conductance at zero voltage).
    """

    w_select_um: float = 0.5
    flavour: str = "svt"
    pcm_v0_v: float | None = None

    def __post_init__(self) -> None:
        if not 0.01 <= self.w_select_um <= 100:
            raise InputError(
                f"w_select_um: expected a drawn width in µm (0.09 to 0.5 is usual); got {self.w_select_um}"
            )
        if self.pcm_v0_v is not None and not self.pcm_v0_v > 0:
            raise InputError(f"pcm_v0_v: expected a voltage above zero or None; got {self.pcm_v0_v}")


def add_cell(
    circuit: Any,
    technology: Technology,
    design: CellDesign,
    name: str,
    *,
    conductance_s: float,
    bit: str,
    word: str,
    back: str,
) -> None:
    """Put one cell between nodes ``bit``, ``word`` and ``back`` (return line); the internal node is ``x<name>``.

    A conductance of zero leaves the PCM out: the transistor still loads its word line and return line.
    """
    inner = f"x{name}"
    if conductance_s > 0:
        if design.pcm_v0_v is None:
            circuit.raw_spice += f"Rg{name} {bit} {inner} {1.0 / conductance_s:.12g}\n"
        else:
            i0 = conductance_s * design.pcm_v0_v
            circuit.raw_spice += f"Bg{name} {bit} {inner} I={i0:.12g}*sinh(V({bit},{inner})/{design.pcm_v0_v:.9g})\n"
    else:
        # ngspice needs a path to ground from every node; 1 TΩ carries 0.2 pA.
        circuit.raw_spice += f"Rg{name} {bit} {inner} 1e12\n"
    technology.mosfet(
        circuit, f"s{name}", inner, word, back, "0",
        kind="nmos", flavour=design.flavour, w_um=design.w_select_um,
    )  # fmt: skip
