"""ε_MAC against TOPS/W: every PWM mode of every topology, as counted and linearised, beside the tile-circuit paper's points."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from aimcard.models.adc import PHASE_RULES
from aimcard.validation.energy import PAPER_TOPS_PER_W
from aimcard.validation.mode_table import PAPER_EPS_PERCENT, ModeRow, ModeTable
from aimcard.validation.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, new_figure, tidy

_COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY, GREY)
_RULES = {"reset": "reset in each phase", "carry": "running on"}
_MARKERS = {"gated": "o", "tied": "s"}


def mode_figure(table: ModeTable) -> Figure:
    """Left every row's error; right the error over TOPS/W, where a card has an energy model. Hollow: as counted; full:
    with the count table and the code curve. One colour a mode, one marker a topology."""
    modes = list(dict.fromkeys(r.counts.mode for r in table.rows))
    colors = {mode: _COLORS[k % len(_COLORS)] for k, mode in enumerate(modes)}
    fig = new_figure(11.5, 2.2 + 0.25 * max(len(table.rows), 10))
    rows, over = fig.subplots(1, 2)
    _rows(rows, table, colors)
    _over_energy(over, table, colors)
    fig.suptitle("ε_MAC of a product: hollow as counted, full with count table and code curve", fontsize="medium")
    return fig


def _name(r: ModeRow) -> str:
    c = r.counts
    ring = f", {c.rule}" if c.quantity == "counts" and r.phases > 1 else ""
    return f"{r.tile} {c.mode}{ring}" + ("" if c.quantity == "counts" else " (charge)")


def _rows(ax: Axes, table: ModeTable, colors: dict[str, str]) -> None:
    for k, r in enumerate(table.rows):
        c = r.counts
        color, marker = colors[c.mode], _MARKERS.get(c.topology, "D")
        ax.plot([c.plain.eps, c.curve.eps], [k, k], color=color, linewidth=1.2)
        ax.plot(c.plain.eps, k, marker, color=color, markerfacecolor="white")
        ax.plot(c.curve.eps, k, marker, color=color)
    ax.set_yticks(range(len(table.rows)), [_name(r) for r in table.rows], fontsize="small")
    ax.invert_yaxis()
    ax.set_xscale("log")
    _plain_log(ax.xaxis)
    ax.set_xlabel("ε_MAC (% of the largest product)")
    for mode, eps in PAPER_EPS_PERCENT.items():
        ax.axvline(eps, color=BLACK, linewidth=0.9, linestyle="--")
        ax.annotate(f"paper, {mode}", (eps, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
                    textcoords="offset points", ha="center", fontsize="small")  # fmt: skip
    tidy(ax)


def _over_energy(ax: Axes, table: ModeTable, colors: dict[str, str]) -> None:
    shown: set[tuple[str, str]] = set()
    for r in table.rows:
        c, key = r.counts, (r.tile, r.counts.mode)
        # One rule of the ring a mode, the first: both cost the same energy. The title names it.
        if r.energy is None or key in shown:
            continue
        shown.add(key)
        x, color, marker = r.energy.energy.tops_per_w, colors[c.mode], _MARKERS.get(c.topology, "D")
        ax.plot([x, x], [c.plain.eps, c.curve.eps], color=color, linewidth=1.2)
        ax.plot(x, c.plain.eps, marker, color=color, markerfacecolor="white")
        ax.plot(x, c.curve.eps, marker, color=color, linestyle="", label=f"{r.tile} {c.mode}")
    for mode, eps in PAPER_EPS_PERCENT.items():
        ax.plot(PAPER_TOPS_PER_W[mode], eps, "*", color=BLACK, markersize=11, linestyle="", label=f"paper, {mode}")
        ax.annotate(f"paper, {mode}", (PAPER_TOPS_PER_W[mode], eps), xytext=(0, 8), textcoords="offset points",
                    ha="center", fontsize="small")  # fmt: skip
    ax.loglog()
    _plain_log(ax.xaxis)
    _plain_log(ax.yaxis)
    ax.margins(x=0.15, y=0.12)
    rules = {r.counts.rule for r in table.rows if r.phases > 1 and r.counts.quantity == "counts"}
    if rules:
        first = next(rule for rule in PHASE_RULES if rule in rules)
        ax.set_title(f"modes of several phases: ring {_RULES[first]}", fontsize="small")
    ax.set_xlabel("TOPS/W")
    ax.set_ylabel("ε_MAC (% of the largest product)")
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    tidy(ax)


def _plain_log(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of every decade of a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
