"""A tied card as a behavioural ngspice netlist: source lines, a column of pairs, and the read-out on its bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from aimcard.models.checks import check_choice, check_conductances, check_positive, check_signed_codes
from aimcard.models.domain import check_domain
from aimcard.models.errors import InputError
from aimcard.models.source_line import SOURCE
from aimcard.models.spice_form import LEAD_S, LEFT_OUT, RAMP_S, library_head, mode_left_out, parameter_lines, window_slots
from aimcard.models.spice_tied_column import (
    sources,
    tied_column_instance,
    tied_column_library,
    tied_column_subcircuit,
)
from aimcard.models.spice_tied_readout import tied_readout_library
from aimcard.models.tied_readout import READOUT
from aimcard.models.tied_tile import CELL, PULSE, READ_OUTS, WIDTH, WIRE, TiedTile, tied_edges_at

#: A column's current is a small difference of large ones. With abstol at 1 pA rounding decides whether a step converges
#: in the nodes that count in uA, and ngspice crawls (60 times the CPU).
OPTIONS = "reltol=1e-5 chgtol=1e-16 vntol=1e-8 abstol=1e-9"
#: Rows of the example: conductances [S] at the plus and the minus line, and codes as shares of the largest code.
_EXAMPLE_PLUS_S = (1e-6, 5e-6, 0.5e-6, 12e-6, 3e-6, 8e-6, 2e-6, 4e-6)
_EXAMPLE_MINUS_S = (2e-6, 0.5e-6, 9e-6, 1e-6, 6e-6, 0.3e-6, 3e-6, 4e-6)
_EXAMPLE_CODES = (0.7, -0.2, 1.0, 0.45, 0.0, 0.2, -0.9, 0.03)


def tied_library(tile: TiedTile, position: float) -> str:
    """Subcircuits aim_source, aim_row, aim_clamp and, with a read-out in the card, aim_readout and aim_ring."""
    widths = {"w_ref_um": tile.w_ref_um, "w_select_um": float(tile.card.meta["w_select_um"])}
    parts = [*library_head(tile.card), _parameters(tile, position), tied_column_library(**widths)]
    if tile.has_readout:
        parts.append(tied_readout_library(tile.tables, **widths))
    return "\n".join(parts)


def tied_example(tile: TiedTile) -> str:
    """A deck of eight rows that includes the library as ``card.lib``."""
    x = np.sign(_EXAMPLE_CODES) * np.ceil(np.abs(_EXAMPLE_CODES) * tile.code_max)
    g = np.array([_EXAMPLE_PLUS_S, _EXAMPLE_MINUS_S])
    clamp, width = "ota" if tile.has_readout else "ideal", float(tile.card.meta["w_select_um"])
    return _deck(tile, g, x.astype(int), clamp=clamp, w_select_um=width, include="card.lib")


def tied_deck(
    tile: TiedTile,
    conductance_s: np.ndarray,
    codes: np.ndarray,
    conductance_minus_s: np.ndarray,
    *,
    clamp: str = "ota",
    wire_scale: float = 1.0,
    w_select_um: float | None = None,
    position: float = 0.5,
    read_out: str = "south",
    offset_v: float = 0.0,
) -> str:
    """A deck of one column; the arguments are those of ``TiedTile.respond``, conductances and codes (rows,).

    Raises InputError and warns OutsideDomainWarning as ``respond`` does.
    """
    plus, minus = (
        check_conductances(np.atleast_2d(g), name)
        for g, name in ((conductance_s, "conductance_s"), (conductance_minus_s, "conductance_minus_s"))
    )
    if len(plus) != 1:
        raise InputError(f"conductance_s: expected shape (rows,), one line a deck; got {np.shape(conductance_s)}")
    if minus.shape != plus.shape:
        raise InputError(
            f"conductance_minus_s: expected shape {plus.shape[1:]}, that of conductance_s; got {np.shape(conductance_minus_s)}"
        )
    x = check_signed_codes(np.atleast_2d(codes), rows=plus.shape[1], code_max=tile.code_max)
    check_choice("clamp", clamp, ("ideal", "ota"))
    if clamp == "ota" and not tile.has_readout:
        raise InputError("clamp: this card was calibrated without a read-out; expected 'ideal', got 'ota'")
    check_positive("wire_scale", wire_scale, zero=True)
    check_choice("read_out", read_out, READ_OUTS)
    width = float(tile.card.meta["w_select_um"]) if w_select_um is None else check_positive("w_select_um", w_select_um)
    g = np.concatenate([plus, minus])
    check_domain(tile.card, conductance_s=g, code=x, wire_scale=wire_scale, w_select_um=width, position=position)
    if read_out == "north":
        g, x = g[:, ::-1].copy(), x[:, ::-1].copy()
    return _deck(
        tile, g, x[0], clamp=clamp, wire_scale=wire_scale, w_select_um=width, position=position, offset_v=offset_v
    )  # fmt: skip


def _deck(
    tile: TiedTile, g: np.ndarray, x: np.ndarray, *, clamp: str, w_select_um: float, wire_scale: float = 1.0,
    position: float = 0.5, offset_v: float = 0.0, include: str | None = None,
) -> str:  # fmt: skip
    stop = LEAD_S + window_slots(tile.card, tile.guard_slots) * tile.t_lsb_s
    measures = [f".meas tran charge integ i(vline) from={LEAD_S:g} to={stop:.9g}"]
    if clamp == "ideal":
        readout, saved = f"Xclamp bl iline aim_clamp offset={offset_v:.9g}\nVline iline 0 0", "i(Vline)"
    else:
        with torch.no_grad():
            plus, minus = torch.as_tensor(g)
            column = tile.effective(plus, minus, wire_scale=wire_scale, w_select_um=w_select_um, position=position)
        readout = (
            "Xreadout bl run iline imir phase rest count aim_readout "
            f"y={float(column.y_s):.9g} w={w_select_um:.9g} offset={offset_v:.9g}\nVline iline 0 0\nVmir imir 0 0\n"
            f"Vrun run 0 PWL(0 0 {LEAD_S - 5e-13:.12g} 0 {LEAD_S + 5e-13:.12g} 1)"
        )
        saved = "i(Vline) i(Vmir) v(phase) v(rest) v(count)"
        measures += [
            f".meas tran {name} find v({node}) at={stop:.9g}"
            for name, node in (("ring", "phase"), ("rest", "rest"), ("counts", "count"))
        ]  # fmt: skip
    return "\n".join([
        f"* {len(x)} rows of an aimcard column",
        f".include {include}" if include else tied_library(tile, position),
        tied_column_subcircuit(g[0], g[1], x, w_select_um=w_select_um, wire_scale=wire_scale).rstrip(),
        sources(x, LEAD_S).rstrip(),
        tied_column_instance(x).rstrip(),
        readout,
        f".options {OPTIONS}",
        f".save {saved}",
        f".tran {tile.t_lsb_s / 20:.9g} {stop:.9g}",
        *measures,
        ".end",
        "",
    ])  # fmt: skip


def _parameters(tile: TiedTile, position: float) -> str:
    """.param lines: meta, edges at ``position``, and every parameter that the equations read, with what it is."""
    meta = tile.card.meta
    edges = tied_edges_at(tile.tables, position)
    at = f"equal-area delay after the slot boundary at position {position:g} [s]"
    line = tile.source_line
    given: list[tuple[str, Any, str]] = [
        ("v_read_v", tile.v_read_v, "distance of an active source line from the common mode [V]"),
        ("v_common_v", tile.v_common_v, "common mode [V]"),
        ("t_lsb_s", tile.t_lsb_s, "time of one code [s]"),
        ("position", position, "of the column along the source lines, 0 at the drivers, 1 far"),
        ("row_columns", line.columns, "cells along a source line"),
        ("row_load_s", line.load_s, "their mean conductance [S]"),
        ("edge_down_start_s", edges.down_start_s, f"source line's edge down from the common mode, {at}"),
        ("edge_down_end_s", edges.down_end_s, "and back up to it"),
        ("edge_up_start_s", edges.up_start_s, "source line's edge up from the common mode"),
        ("edge_up_end_s", edges.up_end_s, "and back down to it"),
        ("edge_last_s", _last_edge(tile, position), "the latest of these, with what a cell is later [s]"),
    ]
    optional = [name for name in (*SOURCE, WIDTH) if name in tile.values]
    given += [(name, 0.0, "not in this card") for name in (*SOURCE, WIDTH) if name not in tile.values]
    names = [*CELL, *WIRE, *PULSE, *optional]
    if tile.has_readout:
        given.append(("bias_a", meta["bias_a"], "regulator's current at no line current [A]"))
        names += READOUT
    return parameter_lines(tile.card, given, names)


def _last_edge(tile: TiedTile, position: float) -> float:
    edges = tied_edges_at(tile.tables, position)
    _, _, pulse = tile.parameters()
    starts = (edges.down_start_s + pulse.t_start_s, edges.up_start_s + pulse.t_start_s)
    ends = (edges.down_end_s + pulse.t_end_s, edges.up_end_s + pulse.t_end_s)
    return max(float(delay) for delay in (*starts, *ends))


def tied_left_out(tile: TiedTile) -> list[str]:
    """What the netlist of a tied card does not carry."""
    left = [
        *LEFT_OUT,
        *mode_left_out(tile.card),
        "columns at other positions along the source lines than the middle (Python: spice_library(card, position=...))",
        "loads of a source line other than the card's mean: every row loses the same share of the read voltage",
        f"real edges: source lines move in {RAMP_S * 1e12:g} ps ramps at the card's instants; slot means are what agrees",
        "the supply and rail currents of switches and read-out",
    ]
    if tile.has_readout:
        left.append("the lag's shape within a slot")
    else:
        left.append("a read-out: the card has none, so aim_clamp only")
    return left
