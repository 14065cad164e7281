"""How figures look: colours that colour-blind readers tell apart (Okabe and Ito), SI prefixes, files."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aimcard.models.h5 import write_bytes

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
RED, SKY, BLACK, GREY = "#D55E00", "#56B4E9", "#000000", "#767676"

#: Predictor to colour, marker and legend text.
PREDICTOR_STYLE = {
    "model": (BLUE, "o", "model card"),
    "ideal_affine": (ORANGE, "^", "ideal MAC, affine-corrected"),
    "ideal": (RED, "s", "ideal MAC"),
    "floor": (GREY, "x", "reference's floor (tighter run)"),
}
_DISTRIBUTION_STYLE = {
    "gaussian": (BLUE, "o"),
    "uniform": (ORANGE, "^"),
    "sparse": (GREEN, "D"),
    "all-on": (PURPLE, "s"),
}
_OTHER_STYLES = ((SKY, "v"), (RED, "P"), (BLACK, "*"), (GREY, "h"))
QUANTITY_LABEL = {
    "current": "current",
    "charge": "charge",
    "phase": "ADC phase",
    "line_current": "line current",
    "line_charge": "line charge",
}
_UNIT = {"current": "A", "charge": "C", "phase": "counts", "line_current": "A", "line_charge": "C"}
_PREFIXES = {-18: "a", -15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}


def distribution_styles(names: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each input distribution; unknown ones take the colours left."""
    others = iter(_OTHER_STYLES * (1 + len(names)))
    return {name: _DISTRIBUTION_STYLE.get(name) or next(others) for name in names}


def si(values: np.ndarray | float, unit: str) -> tuple[float, str]:
    """Factor and unit with the SI prefix for the largest of ``values``: (1e6, "µA"). Counts get none."""
    finite = np.abs(np.asarray(values, dtype=float))
    largest = float(np.max(finite[np.isfinite(finite)], initial=0.0))
    if unit in ("counts", "1", "") or largest == 0:
        return 1.0, unit
    exponent = min(max(3 * math.floor(math.log10(largest) / 3 + 1e-12), min(_PREFIXES)), max(_PREFIXES))
    return 10.0**-exponent, f"{_PREFIXES[exponent]}{unit}"


def unit_of(quantity: str) -> str:
    """Unit that a quantity's errors are drawn in."""
    return _UNIT[quantity]


def new_figure(width_in: float, height_in: float) -> Figure:
    """A figure that makes room for all its text; drawn by Agg, whatever the screen."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=0.08, h_pad=0.06, wspace=0.03, hspace=0.02)  # type: ignore[call-arg]
    return figure


def tidy(ax: Axes) -> None:
    """Grid behind the data, and no frame above and on the right."""
    ax.grid(True, color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG whole or not at all. No date or version inside: equal figures make equal files."""
    image = io.BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    write_bytes(path, image.getvalue())
    return path
