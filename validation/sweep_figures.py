"""Every parameter of a card set over temperature, a figure a group: value with its error, a curve for each corner."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from aimcard.models.card_set import CardSet
from aimcard.models.errors import InputError
from aimcard.validation.style import new_figure, si, tidy
from aimcard.validation.sweep_style import corner_color

COLUMNS = 3
_LINES = ("-", "--", ":", "-.")
#: Drawn on a logarithmic axis if they are positive: currents that rise by decades.
LOGARITHMIC = ("i_leak_a", "i_gate_a")


def groups(cards: CardSet) -> tuple[str, ...]:
    """The parameters' groups, in the card's order."""
    return tuple(dict.fromkeys(p.group for p in cards.cards[0].parameters))


def curves(cards: CardSet, name: str) -> Iterator[tuple[str, float, np.ndarray, np.ndarray, np.ndarray]]:
    """Corner, supply, temperatures [°C], values and standard errors (0 where unknown) of a parameter."""
    for corner in cards.corners:
        for vdd in cards.supplies_v:
            found = [c for c in cards.cards if c.meta["corner"] == corner and c.meta["vdd_v"] == vdd]
            if found:
                p = [c.parameter(name) for c in found]
                celsius = np.array([float(c.meta["temperature_c"]) for c in found])
                yield corner, vdd, celsius, np.array([q.value for q in p]), np.array([q.stderr or 0.0 for q in p])


def parameters(cards: CardSet, group: str) -> Figure:
    """The parameters of one group over temperature. InputError for a group that the cards have not."""
    chosen = [p for p in cards.cards[0].parameters if p.group == group]
    if not chosen:
        raise InputError(f"group: expected one of {', '.join(groups(cards))}; got {group!r}")
    rows = math.ceil(len(chosen) / COLUMNS)
    fig = new_figure(3.5 * min(COLUMNS, len(chosen)), 2.5 * rows + 0.5)
    axes = fig.subplots(rows, min(COLUMNS, len(chosen)), squeeze=False).ravel()
    lines = dict(zip(cards.supplies_v, _LINES * len(cards.supplies_v), strict=False))
    for ax, p in zip(axes, chosen, strict=False):
        found = list(curves(cards, p.name))
        factor, unit = si(np.concatenate([y for *_, y, _ in found]), "" if p.unit == "1" else p.unit)
        if p.unit in ("um", "s/S"):
            factor, unit = 1.0, p.unit
        for corner, vdd, x, y, e in found:
            label = corner if len(cards.supplies_v) == 1 else f"{corner} {vdd:g} V"
            ax.errorbar(
                x, factor * y, factor * e, color=corner_color(corner), marker="o", markersize=4, linewidth=1.3,
                linestyle=lines[vdd], capsize=3, label=label,
            )  # fmt: skip
        if p.name in LOGARITHMIC and all((y > 0).all() for *_, y, _ in found):
            ax.set_yscale("log")
        ax.set_title(f"{p.name} ({unit})" if unit else p.name, fontsize="small")
        tidy(ax)
    for ax in axes[len(chosen) :]:
        ax.set_axis_off()
    for ax in axes[max(0, len(chosen) - COLUMNS) : len(chosen)]:
        ax.set_xlabel("temperature (°C)", fontsize="small")
    fig.suptitle(f"{group}: parameters over corner and temperature, bars one standard error", fontsize="medium")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize="small")
    return fig
