"""Binned transistor models: one library file holds hundreds of cards, each for a range of widths and lengths.

ngspice would read all of a 4 MB library for every deck. A deck instead carries the few cards that its transistors fall
into, word for word with all their parameters, as part of its own text: the hash of the text is then the hash of the models.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aimcard.models.errors import TechnologyError

_CARD = re.compile(r"^\.model[ \t]+(?P<name>\S+?)\.\d+[ \t]+\S+[^\n]*\n(?:[+*][^\n]*\n?|[ \t]*\n)*", re.MULTILINE | re.IGNORECASE)
_RANGE = re.compile(r"\b([lw]m(?:in|ax))\s*=\s*([-+.\deE]+)", re.IGNORECASE)
_M_LINE = re.compile(
    r"^M\S+(?:[ \t]+\S+){4}[ \t]+(?P<model>\S+)[ \t]+W=(?P<w>[-+.\deE]+)u[ \t]+L=(?P<l>[-+.\deE]+)u", re.MULTILINE
)
#: Sizes on the border of two bins, rounded, belong to both; ngspice takes the first that fits [µm].
_SLACK_UM = 1e-6


@dataclass(frozen=True)
class Bin:
    """One card: its text, and the drawn sizes that it holds for [µm]."""

    text: str
    w_um: tuple[float, float]
    l_um: tuple[float, float]

    def holds(self, w_um: float, l_um: float) -> bool:
        """Whether a transistor of this drawn size belongs to the bin."""
        (w_lo, w_hi), (l_lo, l_hi) = self.w_um, self.l_um
        return w_lo - _SLACK_UM <= w_um <= w_hi + _SLACK_UM and l_lo - _SLACK_UM <= l_um <= l_hi + _SLACK_UM


def transistors(netlist: str) -> set[tuple[str, float, float]]:
    """(model, drawn width, drawn length) [µm] of every transistor that `Technology.mosfet` put into a netlist."""
    return {(m["model"], float(m["w"]), float(m["l"])) for m in _M_LINE.finditer(netlist)}


def cut(library: Path, used: Iterable[tuple[str, float, float]]) -> str:
    """The cards of ``library`` that hold for the transistors ``used`` (model, width, length [µm]), in the file's order.

    Raises TechnologyError for a model that the library lacks, or a size outside all its bins.
    """
    bins = _bins(library)
    chosen: dict[str, None] = {}
    for model, w_um, l_um in sorted(used):
        if model not in bins:
            raise TechnologyError(f"model: {library.name} has {', '.join(bins)}; got {model!r}; choose one of these")
        found = [b for b in bins[model] if b.holds(w_um, l_um)]
        if not found:
            ranges = [f"{min(b.w_um[0] for b in bins[model]):g} to {max(b.w_um[1] for b in bins[model]):g}"]
            ranges += [f"{min(b.l_um[0] for b in bins[model]):g} to {max(b.l_um[1] for b in bins[model]):g}"]
            raise TechnologyError(
                f"transistor {model}: expected W of {ranges[0]} µm and L of {ranges[1]} µm; got W = {w_um:g}, L = {l_um:g} µm; "
                "use fingers for a wide one"
            )
        chosen |= {b.text: None for b in found}
    return "".join(chosen)


@functools.cache
def _bins(library: Path) -> dict[str, list[Bin]]:
    # latin-1 takes any byte: what is in comments does not matter.
    text = library.read_text(encoding="latin-1")
    out: dict[str, list[Bin]] = {}
    for card in _CARD.finditer(text):
        size = {key.lower(): 1e6 * float(value) for key, value in _RANGE.findall(card[0])}
        body = "".join(f"{line}\n" for line in card[0].splitlines() if line.strip() and not line.startswith("*"))
        bounds = (size["wmin"], size["wmax"]), (size["lmin"], size["lmax"])
        out.setdefault(card["name"], []).append(Bin(body, *bounds))
    if not out:
        raise TechnologyError(f"{library}: expected binned .model cards; found none; is the package's file damaged?")
    return out
