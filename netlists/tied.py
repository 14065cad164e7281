"""A tied column: pairs of always-on cells between two source lines and one column line, and the source lines' pulses.

Each cell is a PCM on its source line and a select NMOS, gate at V_DD, on the column line. There the transistor's lower end
is at the common mode for either direction of current, 0.4 V below which R_on is 1.3 kΩ at 0.5 µm in FreePDK45; on the
source line's side it would be at 0.2 or near 0.6 V, where it hardly conducts. It also keeps the source line's swing
away from the transistor's capacitances.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PySpice.Spice.Netlist import Circuit

from aimcard.models.checks import check_choice, check_conductances, check_signed_codes
from aimcard.models.errors import InputError
from aimcard.models.tied_tile import READ_OUTS
from aimcard.netlists.cell import CellDesign, add_cell
from aimcard.netlists.column import LEAD_S, Pattern, Pulses, Wire, word_nodes
from aimcard.netlists.column_decks import AFTER_S, ColumnBench
from aimcard.netlists.deck import Deck, make_deck
from aimcard.netlists.levels import V_COMMON_V
from aimcard.netlists.readout import add_supplies
from aimcard.netlists.tied_readout import add_tied_readout

#: A column's current is a small difference of large ones (10 µA of 2 mA): Newton and step control must be tighter than for
#: a gated one.
TIED_OPTIONS = "reltol=1e-5 chgtol=1e-16 vntol=1e-8 abstol=1e-13"
TIED_TIGHT = "reltol=1e-6 chgtol=1e-17 vntol=1e-9 abstol=1e-13"
READOUTS = ("ideal", "ota")


@dataclass(frozen=True)
class SourceEdge:
    """One edge of a source line as few points: offsets from the ideal instant [s], and levels (0 before, 1 after)."""

    time_s: tuple[float, ...] = (0.0, 100e-12)
    level: tuple[float, ...] = (0.0, 1.0)

    @property
    def delay_s(self) -> float:
        """Delay of an ideal step of equal area: the integral of what is missing to 1."""
        steps = itertools.pairwise(zip(self.time_s, self.level, strict=True))
        missing = sum((b[0] - a[0]) * (1 - 0.5 * (a[1] + b[1])) for a, b in steps)
        return self.time_s[0] + missing


@dataclass(frozen=True)
class SourceEdges:
    """The four edges: away from the common mode to the lower or the upper rail (start), and back (end).

    down_gain, up_gain: which part of the read voltage arrives; switch and row wire take the rest.
    """

    down_start: SourceEdge = field(default_factory=SourceEdge)
    down_end: SourceEdge = field(default_factory=SourceEdge)
    up_start: SourceEdge = field(default_factory=SourceEdge)
    up_end: SourceEdge = field(default_factory=SourceEdge)
    down_gain: float = 1.0
    up_gain: float = 1.0


def source_waveform(pattern: Pattern, pulses: Pulses, start: SourceEdge, end: SourceEdge, swing_v: float) -> str:
    """The ngspice source of a source line that is ``swing_v`` away from the common mode during these pulses."""
    if not pattern:
        return f"DC {V_COMMON_V:.9g}"
    points: list[tuple[float, float]] = []
    for first, stop in pattern:
        t0 = LEAD_S + pulses.delay_s + first * pulses.t_lsb_s
        t1 = LEAD_S + pulses.delay_s + stop * pulses.t_lsb_s
        points += [(t0 + t, x) for t, x in zip(start.time_s, start.level, strict=True)]
        points += [(t1 + t, 1 - x) for t, x in zip(end.time_s, end.level, strict=True)]
    if any(b[0] <= a[0] for a, b in itertools.pairwise(points)):
        shown = ", ".join(f"slot {a} to {b}" for a, b in pattern)
        raise InputError(
            f"pulse: {shown} at {pulses.t_lsb_s:g} s per LSB leaves no room for the source line's edges; "
            "make the LSB longer or the driver stronger"
        )
    return "PWL(" + " ".join(f"{t * 1e12:.4f}p {V_COMMON_V + swing_v * x:.9g}" for t, x in points) + ")"


def add_source_lines(circuit: Any, codes: np.ndarray, pulses: Pulses, edges: SourceEdges, v_read_v: float) -> list[str]:
    """Nodes ``d<tag>`` and ``u<tag>``: lines that go down and up. Rows of equal pulses share them; returns the rows' tags.

    A tag is the magnitude in conventional PWM, and lists the pulses in any other mode.
    """
    magnitudes = np.abs(codes)
    tags = [node.removeprefix("w") for node in word_nodes(magnitudes, pulses)]
    found = dict(zip(tags, zip(magnitudes, pulses.patterns(magnitudes), strict=True), strict=True))
    for tag, (_, pattern) in sorted(found.items(), key=lambda item: (item[1][0], item[0])):
        for name, start, end, swing in (
            ("d", edges.down_start, edges.down_end, -v_read_v * edges.down_gain),
            ("u", edges.up_start, edges.up_end, v_read_v * edges.up_gain),
        ):
            circuit.raw_spice += f"V{name}{tag} {name}{tag} 0 {source_waveform(pattern, pulses, start, end, swing)}\n"
    return tags


def add_tied_column(
    circuit: Any, bench: ColumnBench, cell: CellDesign, wire: Wire, *, g_plus_s: np.ndarray, g_minus_s: np.ndarray,
    codes: np.ndarray, end: str, tags: Sequence[str], word: str = "vword", read_out: str = "south",
) -> None:  # fmt: skip
    """One column, shapes (rows,), half a cell of wire between ``end`` and the last row (south) or row 0 (north).

    A positive code pulls the plus line down: its cell draws current from the read-out. tags: each row's source lines, as
    ``add_source_lines`` returns them.
    """
    rows, r = len(codes), wire.r_bit_ohm * wire.scale
    lines = []
    last, step = (rows - 1, 1) if read_out == "south" else (0, -1)
    for i in range(rows):
        ohm, to = (0.5 * r, end) if i == last else (r, f"c{i + step}")
        lines.append(f"Rc{i} c{i} {to} {ohm:.9g}" if ohm > 0 else f"Vc{i} c{i} {to} 0")
        lines.append(f"Cc{i} c{i} 0 {wire.c_bit_f:.6g}")
    circuit.raw_spice += "\n".join(lines) + "\n"
    for i, code in enumerate(codes):
        down, up = f"d{tags[i]}", f"u{tags[i]}"
        plus, minus = (down, up) if code >= 0 else (up, down)
        for tag, g, source in (("p", g_plus_s[i], plus), ("m", g_minus_s[i], minus)):
            add_cell(
                circuit, bench.technology, cell, f"{tag}{i}", conductance_s=float(g), bit=source, word=word, back=f"c{i}"
            )


def tied_column_deck(
    bench: ColumnBench, name: str, *, g_plus_s: np.ndarray, g_minus_s: np.ndarray, codes: np.ndarray, cell: CellDesign,
    wire: Wire, pulses: Pulses, edges: SourceEdges | None = None, clamp: str = "ideal", offset_v: float = 0.0,
    read_out: str = "south", options: str = TIED_OPTIONS, save_supply: bool = False,
) -> Deck:  # fmt: skip
    """One column and one vector, each (rows,); codes of either sign.

    clamp: "ideal" (a source at the common mode plus ``offset_v``) or "ota" (regulator with its bias, mirror, and the
    oscillator's input as load; ``offset_v`` is then the reference's). ``save_supply`` records V_DD's and every source
    line's current too (``tied_supply.rail_charges``).
    """
    check_choice("clamp", clamp, READOUTS)
    check_choice("read_out", read_out, READ_OUTS)
    for label, value in (("g_plus_s", g_plus_s), ("g_minus_s", g_minus_s), ("codes", codes)):
        if np.ndim(value) != 1 or np.shape(value) != np.shape(codes):
            raise InputError(f"{label}: expected shape (rows,) as the codes; got {np.shape(value)}")
    plus, minus = (check_conductances(np.asarray(g, dtype=float)[None])[0] for g in (g_plus_s, g_minus_s))
    x = check_signed_codes(np.asarray(codes)[None], rows=len(plus), code_max=pulses.code_max)[0]
    circuit = Circuit("tied column")
    circuit.V("word", "vword", "0", bench.technology.vdd_v)
    tags = add_source_lines(circuit, x, pulses, edges or SourceEdges(), bench.v_read_v)
    add_tied_column(circuit, bench, cell, wire, g_plus_s=plus, g_minus_s=minus, codes=x, end="end",
                    tags=tags, read_out=read_out)  # fmt: skip
    if clamp == "ideal":
        circuit.V("clamp", "end", "0", V_COMMON_V + offset_v)
        save: tuple[str, ...] = ("i(vclamp)",)
    else:
        add_supplies(circuit, bench.technology, V_COMMON_V + offset_v)
        add_tied_readout(circuit, bench.technology, bench.readout, column="end")
        save = ("i(vcol)", "i(vreg)", "i(vmir)", "v(end)")
    if save_supply:
        lines = [f"i(v{line}{tag})" for _, tag in sorted(set(zip(np.abs(x).tolist(), tags, strict=True))) for line in "du"]
        save += (*(("i(vdd)",) if clamp == "ota" else ()), *lines)
    distinct = len({edge for pattern in pulses.patterns(x) for one in pattern for edge in one})
    cpu = len(x) / 512 * (1.0 + 0.15 * distinct) * (1.0 if clamp == "ideal" else 1.6)
    analysis = f".tran {pulses.t_lsb_s:.9g} {pulses.stop_s + AFTER_S:.9g}"
    return make_deck(
        circuit, name, bench.technology, bench.corner, bench.temperature_c, analysis, save, options, expected_cpu_s=cpu
    )
