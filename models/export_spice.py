"""A card as a behavioural ngspice netlist: a column driven by pulses, and the read-out.

`spice_library` is the card's subcircuits, `spice_deck` a complete deck for a line of given conductances and codes, of
either topology. The netlist needs ngspice only: no transistor models.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from aimcard.models.card import Card
from aimcard.models.checks import check_choice, check_codes, check_conductances, check_positive
from aimcard.models.domain import check_domain
from aimcard.models.errors import InputError
from aimcard.models.export_form import Exported
from aimcard.models.export_spice_tied import tied_deck, tied_example, tied_left_out, tied_library
from aimcard.models.pulse import edges_at, fall_delay, rise_delay
from aimcard.models.spice_column import column_instance, column_library, column_subcircuit, pulses
from aimcard.models.spice_form import LEAD_S, LEFT_OUT, RAMP_S, library_head, mode_left_out, parameter_lines, window_slots
from aimcard.models.spice_readout import clamp_library, readout_library
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel, needed_parameters
from aimcard.models.topology import tile_of

#: The step control must see charges of 1e-16 C: ngspice's default ignores a transistor's.
OPTIONS = "reltol=1e-4 chgtol=1e-16"
#: Rows of the example: conductances [S] and codes as shares of the largest code.
_EXAMPLE_S = (1e-6, 5e-6, 0.5e-6, 12e-6, 3e-6, 8e-6, 2e-6, 4e-6)
_EXAMPLE_CODES = (0.7, 0.2, 1.0, 0.45, 0.0, 0.2, 0.9, 0.03)


def to_spice(card: Card) -> Exported:
    """The card's subcircuits, with an example deck in comments."""
    model = tile_of(card)
    if isinstance(model, TiedTile):
        example, left_out = tied_example(model), tied_left_out(model)
    else:
        example, left_out = _example(model), _left_out(model)
    head = [
        "* The example that follows is a deck. Write this file as card.lib and run it:",
        "*   sed -n 's/^\\*> \\{0,1\\}//p' card.lib > example.cir && ngspice -b example.cir",
        *(f"*> {line}".rstrip() for line in example.splitlines()),
    ]
    return Exported("\n".join([*head, "", spice_library(card)]), left_out)


def spice_library(card: Card, *, position: float = 0.5) -> str:
    """Subcircuits of pulses, rows and clamp and, with a read-out in the card, of the read-out; docs/exports.md lists them.

    position: of the column along the word or source lines, 0 at the drivers, 1 at the far end.
    """
    model = tile_of(card)
    return tied_library(model, position) if isinstance(model, TiedTile) else _library(model, position)


def spice_deck(
    card: Card,
    conductance_s: np.ndarray,
    codes: np.ndarray,
    *,
    conductance_minus_s: np.ndarray | None = None,
    clamp: str = "ota",
    wire_scale: float = 1.0,
    w_select_um: float | None = None,
    position: float = 0.5,
    read_out: str = "south",
    offset_v: float = 0.0,
) -> str:
    """A complete deck of one line: conductance_s [S] and codes, both (rows,), the first row at the far end.

    The arguments are those of `TileModel.respond`; for a tied card those of `TiedTile.respond`, with conductance_minus_s,
    signed codes, and read_out and offset_v beside. Saved are i(Vline), and i(Vmir) and v(phase) with the read-out (tied:
    v(rest) and v(count) too); the window begins at LEAD_S. The first line is the title. Raises InputError and warns
    OutsideDomainWarning as `respond` does.
    """
    model = tile_of(card)
    if isinstance(model, TiedTile):
        if conductance_minus_s is None:
            raise InputError("conductance_minus_s: expected (rows,) conductances, as a tied card's weights are pairs; got none")
        return tied_deck(
            model, conductance_s, codes, conductance_minus_s, clamp=clamp, wire_scale=wire_scale,
            w_select_um=w_select_um, position=position, read_out=read_out, offset_v=offset_v,
        )  # fmt: skip
    tied = {"conductance_minus_s": conductance_minus_s is None, "read_out": read_out == "south", "offset_v": offset_v == 0}
    if given := [name for name, default in tied.items() if not default]:
        raise InputError(f"{given[0]}: only a tied card's deck takes it; this card is gated: leave it out")
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


def _example(model: TileModel) -> str:
    g = np.array(_EXAMPLE_S)
    x = np.ceil(np.array(_EXAMPLE_CODES) * model.code_max).astype(int)
    clamp, width = "ota" if model.has_readout else "ideal", float(model.card.meta["w_select_um"])
    return _deck(model, g, x, clamp=clamp, w_select_um=width, include="card.lib")


def _library(model: TileModel, position: float) -> str:
    meta = model.card.meta
    parts = [
        *library_head(model.card),
        _parameters(model, position),
        column_library(str(meta["apparent_weight"]), w_ref_um=model.w_ref_um, w_select_um=float(meta["w_select_um"])),
        clamp_library(),
    ]
    if model.has_readout:
        parts.append(readout_library(model.tables))
    return "\n".join(parts)


def _deck(model: TileModel, g: np.ndarray, x: np.ndarray, *, clamp: str, wire_scale: float = 1.0,
          w_select_um: float, position: float = 0.5, include: str | None = None) -> str:  # fmt: skip
    stop = LEAD_S + window_slots(model.card, int(model.card.meta["guard_slots"])) * model.t_lsb_s
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
        f".include {include}" if include else _library(model, position),
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
    skipped = {"t_rise_s", "k_rise", "t_fall_s", "k_fall"}
    return parameter_lines(card, given, [name for name in needed_parameters(model.has_readout) if name not in skipped])


def _left_out(model: TileModel) -> list[str]:
    left = [
        *LEFT_OUT,
        *mode_left_out(model.card),
        "edges of columns at other positions along the word lines than the middle (Python: spice_library(card, position=...))",
        "the counter's truncation: v(phase) is the count before it",
        f"real edges: cells turn on and off in {RAMP_S * 1e12:g} ps ramps at the card's instants; slot means are what agrees",
    ]
    if model.has_readout:
        left.append("the lag's shape within a slot, and steps upward after the first pulse, which count as turn-on")
    else:
        left.append("a read-out: the card has none, so aim_clamp only")
    return left
