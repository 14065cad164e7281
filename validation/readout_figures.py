"""Figures of the read-out: the ADC's look-up table with INL and DNL; clamp voltage, mirror and loop gain."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aimcard.data.reference import ReferenceSet
from aimcard.models.adc import inl_dnl
from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.models.lut import lookup
from aimcard.models.tile import adc_parameters
from aimcard.models.topology import tile_of
from aimcard.validation.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, new_figure, si, tidy

# Steps into which the table's range is cut for INL and DNL.
STEPS = 64
_LINES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"), (RED, "-"), (BLACK, "--"))


def lut(card: Card, reference: ReferenceSet | None = None) -> Figure:
    """Count rate against line current with its knots and the measured points; INL and DNL below."""
    model = tile_of(card)
    if "adc" not in model.tables:
        raise InputError("card: expected a card with a read-out, got one without the table 'adc'")
    table = adc_parameters(model.values, model.tables)
    knot_a, knot_hz = table.i_adc_a.numpy(), table.rate_hz.numpy()
    current_a, inl, dnl = (t.numpy() for t in inl_dnl(table, STEPS))
    factor, unit = si(knot_a, "A")
    rate_factor, rate_unit = si(knot_hz, "Hz")
    fine_a = np.linspace(knot_a[0], knot_a[-1], 400)
    fine_hz = lookup(table.i_adc_a, table.rate_hz, torch.as_tensor(fine_a)).numpy()
    fig = new_figure(6.4, 6.8)
    top, middle, below = fig.subplots(3, 1, sharex=True, height_ratios=(2.2, 1, 1))
    top.plot(factor * fine_a, rate_factor * fine_hz, color=BLUE, label="look-up table")
    top.plot(
        factor * knot_a,
        rate_factor * knot_hz,
        linestyle="",
        marker="o",
        color=BLUE,
        markersize=4,
        label="knots",
    )
    measured = [] if reference is None else reference.select(kind="oscillator")
    for k, record in enumerate(measured):
        x, y = factor * record["current_a"], rate_factor * record["count_rate_hz"]
        label = "oscillator in the reference set" if k == 0 else None
        top.plot(x, y, linestyle="", marker="x", color=ORANGE, markersize=5, label=label)
    ideal = rate_factor * (knot_hz[0] + (knot_hz[-1] - knot_hz[0]) * np.array([0.0, 1.0]))
    top.plot(factor * knot_a[[0, -1]], ideal, color=BLACK, linewidth=0.8, linestyle=":", label="end-point line")
    middle.plot(factor * current_a, inl, color=BLUE)
    below.stairs(dnl, factor * current_a, baseline=None, color=BLUE)
    for ax in (middle, below):
        ax.axhline(0, color=BLACK, linewidth=0.6)
    top.set_ylabel(f"count rate ({rate_unit})")
    middle.set_ylabel("INL (steps)")
    below.set_ylabel("DNL (steps)")
    below.set_xlabel(f"line current ({unit})")
    top.set_title(f"ADC: rate of counted edges; INL and DNL in steps of 1/{STEPS} of the range", fontsize="medium")
    top.legend(frameon=False, fontsize="small")
    for ax in (top, middle, below):
        tidy(ax)
    return fig


def readout(card: Card, reference: ReferenceSet) -> Figure:
    """Clamp voltage and mirror current over the load, the regulator's loop gain, and its phase margin."""
    static = reference.select(kind="readout_dc")
    loops = reference.select(kind="loop_gain")
    if not static and not loops:
        raise InputError(f"{reference.source}: records: expected readout_dc or loop_gain records, got none")
    fig = new_figure(10, 3.7 * (bool(static) + bool(loops)))
    axes = list(fig.subplots(bool(static) + bool(loops), 2, squeeze=False))
    if static:
        clamp, mirror = axes.pop(0)
        _static(clamp, card, reference, "clamp", "v_clamp_v", "V", "clamp voltage")
        _static(mirror, card, reference, "mirror", "mirror_a", "A", "mirror current")
    if loops:
        gain, margin = axes.pop(0)
        _loops(gain, margin, reference)
    return fig


def _static(ax: Axes, card: Card, reference: ReferenceSet, table: str, array: str, unit: str, name: str) -> None:
    """A static curve: the reference's points and the card's table."""
    records = reference.select(kind="readout_dc")
    factor, current_unit = si(np.concatenate([r["current_a"] for r in records]), "A")
    y_factor, y_unit = si(np.concatenate([r[array] for r in records]), unit)
    for t in (t for t in card.tables if t.name == table):
        fine = np.linspace(t.x[0], t.x[-1], 400)
        y = lookup(torch.tensor(t.x), torch.tensor(t.y), torch.as_tensor(fine)).numpy()
        ax.plot(factor * fine, y_factor * y, color=BLUE, label="model card")
    for k, r in enumerate(records):
        x, y = factor * r["current_a"], y_factor * r[array]
        ax.plot(x, y, linestyle="", marker="x", color=ORANGE, label="reference" if k == 0 else None)
    ax.set_xlabel(f"line current ({current_unit})")
    ax.set_ylabel(f"{name} ({y_unit})")
    ax.legend(frameon=False, fontsize="small")
    tidy(ax)


def _loops(gain: Axes, margin: Axes, reference: ReferenceSet) -> None:
    """Loop gain over frequency at a few loads, and the phase margin at all of them."""
    for r in reference.select(kind="loop_gain"):
        factor, unit = si(r["current_a"], "A")
        hz_factor, hz_unit = si(r["frequency_hz"], "Hz")
        picked = np.unique(np.linspace(0, len(r["current_a"]) - 1, len(_LINES)).round().astype(int))
        for k, (color, style) in zip(picked, _LINES, strict=False):
            label = f"{factor * r['current_a'][k]:.3g} {unit}"
            positive = r["frequency_hz"] > 0
            x, y = hz_factor * r["frequency_hz"][positive], r["gain_db"][k][positive]
            gain.plot(x, y, color=color, linestyle=style, linewidth=1.3, label=label)
        margin.plot(factor * r["current_a"], r["phase_margin_deg"], color=BLUE, marker="o", markersize=4)
        gain.set_xlabel(f"frequency ({hz_unit})")
        margin.set_xlabel(f"line current ({unit})")
    gain.axhline(0, color=BLACK, linewidth=0.7)
    gain.set(xscale="log", ylabel="loop gain (dB)")
    gain.legend(frameon=False, fontsize="small", title="line current")
    margin.set_ylabel("phase margin (deg)")
    margin.set_ylim(0, max(90.0, 1.1 * margin.get_ylim()[1]))
    for ax in (gain, margin):
        tidy(ax)
