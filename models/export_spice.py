"""A card as a behavioural ngspice netlist: a column driven by pulses, and the read-out.

`spice_library` is the card's subcircuits, `spice_deck` a complete deck for a line of given conductances and codes. The
netlist needs ngspice only: no transistor models.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from aimcard.models.card import Card
from aimcard.models.checks import check_choice, check_codes, check_conductances, check_positive
from aimcard.models.domain import check_domain
from aimcard.models.errors import InputError
from aimcard.models.export_form import Exported
from aimcard.models.pulse import edges_at, fall_delay, rise_delay
from aimcard.models.spice_column import RAMP_S, column_instance, column_library, column_subcircuit, pulses
from aimcard.models.spice_readout import TABLE_ERROR, clamp_library, readout_library
from aimcard.models.tile import TileModel, needed_parameters

#: The step control must see charges of 1e-16 C: ngspice's default ignores a transistor's.
OPTIONS = "reltol=1e-4 chgtol=1e-16"
#: Time before the window, in which the circuit rests in its operating point [s].
LEAD_S = 1e-9
#: Rows of the example: conductances [S] and codes as shares of the largest code.
_EXAMPLE_S = (1e-6, 5e-6, 0.5e-6, 12e-6, 3e-6, 8e-6, 2e-6, 4e-6)
_EXAMPLE_CODES = (0.7, 0.2, 1.0, 0.45, 0.0, 0.2, 0.9, 0.03)


def to_spice(card: Card) -> Exported:
    """The card's subcircuits, with an example deck in comments. InputError for a card of another topology than gated."""
    model = _model(card)
    g = np.array(_EXAMPLE_S)
    x = np.ceil(np.array(_EXAMPLE_CODES) * model.code_max).astype(int)
    clamp, width = "ota" if model.has_readout else "ideal", float(card.meta["w_select_um"])
    example = _deck(model, g, x, clamp=clamp, w_select_um=width, include="card.lib")
    head = [
        "* The example that follows is a deck. Write this file as card.lib and run it:",
        "*   sed -n 's/^\\*> \\{0,1\\}//p' card.lib > example.cir && ngspice -b example.cir",
        *(f"*> {line}".rstrip() for line in example.splitlines()),
    ]
    return Exported("\n".join([*head, "", spice_library(card)]), _left_out(model))


def spice_library(card: Card, *, position: float = 0.5) -> str:
    """Subcircuits aim_pulse, aim_row, aim_clamp and, with a read-out in the card, aim_readout.

    position: of the column along the word lines, 0 at the drivers, 1 at the far end.
    """
    model = _model(card)
    meta = card.meta
    parts = [
        f"* aimcard: {meta['topology']} column of {meta['technology']}, {meta['corner']}, {meta['temperature_c']:g} degC.",
        f"* Card {card.content_hash}, written by aimcard {card.provenance.software_version}.",
        f"* SI units, but for widths in um. Tables follow the card's within {TABLE_ERROR:g} of their largest value.",
        "",
        _parameters(model, position),
        column_library(str(meta["apparent_weight"]), w_ref_um=model.w_ref_um, w_select_um=float(meta["w_select_um"])),
        clamp_library(),
    ]
    if model.has_readout:
        parts.append(readout_library(model.tables))
    return "\n".join(parts)


def spice_deck(
    card: Card,
    conductance_s: np.ndarray,
    codes: np.ndarray,
    *,
    clamp: str = "ota",
    wire_scale: float = 1.0,
    w_select_um: float | None = None,
    position: float = 0.5,
) -> str:
    """A complete deck of one line: conductance_s [S] and codes, both (rows,), the first row at the far end.

    The arguments are those of `TileModel.respond`. Saved are i(Vline), and i(Vmir) and v(phase) with the read-out; the
    window begins at LEAD_S. The first line is the title. Raises InputError and warns OutsideDomainWarning as `respond` does.
    """
    model = _model(card)
    g = check_conductances(np.atleast_2d(conductance_s))
    if len(g) != 1:
        raise InputError(f"conductance_s: expected shape (rows,), one line a deck; got {np.shape(conductance_s)}")
    x = check_codes(np.atleast_2d(codes), rows=g.shape[1], code_max=model.code_max)
    check_choice("clamp", clamp, ("ideal", "ota"))
    if clamp == "ota" and not model.has_readout:
        raise InputError("clamp: this card was calibrated without a read-out; expected 'ideal', got 'ota'")
    check_positive("wire_scale", wire_scale, zero=True)
    width = float(card.meta["w_select_um"]) if w_select_um is None else check_positive("w_select_um", w_select_um)
    check_domain(card, conductance_s=g, code=x, wire_scale=wire_scale, w_select_um=width, position=position)
    return _deck(model, g[0], x[0], clamp=clamp, wire_scale=wire_scale, w_select_um=width, position=position)


def _deck(model: TileModel, g: np.ndarray, x: np.ndarray, *, clamp: str, wire_scale: float = 1.0,
          w_select_um: float, position: float = 0.5, include: str | None = None) -> str:  # fmt: skip
    stop = LEAD_S + model.slots * model.t_lsb_s
    if clamp == "ideal":
        readout, saved = "Xclamp bl q iline aim_clamp\nVline iline 0 0", "i(Vline)"
    else:
        readout = (
            "Xreadout bl q run iline imir phase aim_readout\nVline iline 0 0\nVmir imir 0 0\n"
            f"Vrun run 0 PWL(0 0 {LEAD_S:.9g} 0 {LEAD_S + 1e-12:.12g} 1)"
        )
        saved = "i(Vline) i(Vmir) v(phase)"
    measures = [f".meas tran charge integ i(vline) from={LEAD_S:g} to={stop:.9g}"]
    if clamp == "ota":
        measures.append(f".meas tran counts find v(phase) at={stop:.9g}")
    return "\n".join([
        f"* {len(x)} rows of an aimcard column",
        f".include {include}" if include else spice_library(model.card, position=position),
        column_subcircuit(g, x, w_select_um=w_select_um, wire_scale=wire_scale).rstrip(),
        pulses(x, LEAD_S).rstrip(),
        column_instance(x).rstrip(),
        readout,
        f".options {OPTIONS}",
        f".save {saved}",
        f".tran {model.t_lsb_s / 20:.9g} {stop:.9g}",
        *measures,
        ".end",
        "",
    ])  # fmt: skip


def _model(card: Card) -> TileModel:
    check_choice("--to spice: topology", card.meta["topology"], ("gated",))
    return TileModel(card)


def _parameters(model: TileModel, position: float) -> str:
    """.param lines: meta, edges at ``position``, and every parameter that the equations read, with what it is."""
    card = model.card
    edges = edges_at(model.tables, position)
    timing = model.line().pulse
    given: list[tuple[str, Any, str]] = [
        ("v_read_v", model.v_read_v, "read voltage [V]"),
        ("vdd_v", card.meta["vdd_v"], "supply [V]"),
        ("t_lsb_s", model.t_lsb_s, "time of one code [s]"),
        ("rise_s", edges.rise_s, f"10 to 90 % of the rising word line at position {position:g} [s]"),
        ("fall_s", edges.fall_s, "90 to 10 % of the falling word line [s]"),
        ("rise_delay_s", rise_delay(timing, edges), "start of conduction after a slot's boundary [s]"),
        ("fall_delay_s", fall_delay(timing, edges), "end of conduction after a slot's boundary [s]"),
    ]
    known = {p.name: p for p in card.parameters}
    skipped = {"t_rise_s", "k_rise", "t_fall_s", "k_fall"}
    for name in needed_parameters(model.has_readout):
        if name in skipped:
            continue
        p = known[name]
        error = "" if p.stderr is None else f" +- {p.stderr:.2g}"
        unit = "" if p.unit == "1" else f" [{p.unit}]"
        given.append((name, p.value, f"{p.description or name}{unit}{error}"))
    lines = ["* Parameters of the card: value, and behind the semicolon what it is, its unit and its standard error."]
    for name, value, text in given:
        number = float(torch.as_tensor(value, dtype=torch.float64))
        assert math.isfinite(number)
        lines.append(f".param aim_{name}={number:.13g} ; {text}")
    return "\n".join(lines) + "\n"


def _left_out(model: TileModel) -> list[str]:
    left = [
        "standard errors and units other than as comments; bounds, correlations, decisions, validation figures",
        "the validity domain: ngspice does not warn outside it",
        "edges of columns at other positions along the word lines than the middle (Python: spice_library(card, position=...))",
        "mismatch, noise and energy",
        "the counter's truncation: v(phase) is the count before it",
        f"real edges: cells turn on and off in {RAMP_S * 1e12:g} ps ramps at the card's instants; slot means are what agrees",
    ]
    if model.has_readout:
        left.append("the lag's shape within a slot, and steps upward after the first pulse, which count as turn-on")
    else:
        left.append("a read-out: the card has none, so aim_clamp only")
    return left
