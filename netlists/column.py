"""A column: cells on a bit line and a return line with wire resistance and capacitance, word lines, pulses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aimcard.models.checks import check_choice, check_codes, check_conductances
from aimcard.models.errors import InputError
from aimcard.models.modes import GUARD_SLOTS, Mode, get_mode
from aimcard.netlists.cell import CellDesign, add_cell
from aimcard.netlists.technology import Technology

#: Time before the first pulse, in which the circuit rests in its operating point [s].
LEAD_S = 1e-9


@dataclass(frozen=True)
class Wire:
    """Wire of one cell pitch. ``scale`` multiplies both resistances; capacitances stay.

    r_bit_ohm, r_return_ohm: 0.15 Ω as in aihwkit's time-dependent IR-drop tile; c_bit_f, c_return_f: 0.3 fF.
    ``ground``: which end of the return line is grounded (near = read-out end, far, both).
    """

    r_bit_ohm: float = 0.15
    r_return_ohm: float = 0.15
    c_bit_f: float = 0.3e-15
    c_return_f: float = 0.3e-15
    scale: float = 1.0
    ground: str = "near"

    def __post_init__(self) -> None:
        check_choice("ground", self.ground, ("near", "far", "both"))
        for name in ("r_bit_ohm", "r_return_ohm", "c_bit_f", "c_return_f", "scale"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: expected zero or more; got {getattr(self, name)}")


@dataclass(frozen=True)
class Edge:
    """A word line's rise and fall as few points: offsets from the ideal instant [s] and levels (1 = V_DD)."""

    rise_s: tuple[float, ...] = (0.0, 100e-12)
    rise: tuple[float, ...] = (0.0, 1.0)
    fall_s: tuple[float, ...] = (0.0, 100e-12)
    fall: tuple[float, ...] = (1.0, 0.0)


#: The pulses of one row over the window: (start, stop) in slots, in order.
Pattern = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Pulses:
    """How codes become pulses on the word lines, in one of the PWM modes of ``models/modes.py``.

    ``guard`` LSBs follow the longest pulse of each phase, so that the tails of the last pulses are inside its window.
    ``delay_s`` puts the ideal edges this long after the slot boundaries: whole edges then lie inside a slot.
    """

    t_lsb_s: float = 1e-9
    code_max: int = 127
    guard: int = GUARD_SLOTS
    delay_s: float = 150e-12
    edge: Edge = field(default_factory=Edge)
    mode: str | Mode = "conventional"

    @property
    def pwm(self) -> Mode:
        """The PWM mode, for codes up to ``code_max``. InputError for an unknown one."""
        return get_mode(self.mode, self.code_max)

    @property
    def slots(self) -> int:
        """Slots of the window: all phases, each with its guard."""
        return self.pwm.window_slots(self.guard)

    @property
    def slot_edge_s(self) -> np.ndarray:
        """Slot boundaries of the window, shape (slots + 1,), zero one ``delay_s`` before the ideal rising edges [s]."""
        return np.arange(self.slots + 1) * self.t_lsb_s

    @property
    def stop_s(self) -> float:
        """Simulated time, lead included [s]."""
        return LEAD_S + self.slots * self.t_lsb_s

    def phase_windows_s(self) -> list[tuple[float, float]]:
        """Begin and end of each phase's window, lead included [s]."""
        return [(LEAD_S + a * self.t_lsb_s, LEAD_S + b * self.t_lsb_s) for a, b in self.pwm.windows(self.guard)]

    def patterns(self, codes: np.ndarray) -> list[Pattern]:
        """Each row's pulses; codes (rows,). Rows of equal patterns can share a word-line source."""
        pulses = self.pwm.window_pulses(codes, np.arange(len(codes)), self.guard)
        arrays = [(np.broadcast_to(a, codes.shape), np.broadcast_to(b, codes.shape)) for a, b in pulses]
        return [tuple((int(a[k]), int(b[k])) for a, b in arrays if b[k] > a[k]) for k in range(len(codes))]

    def waveform(self, code: int, vdd_v: float) -> str:
        """The ngspice source of a word line with one pulse of ``code`` slots from the window's start."""
        return self.pattern_waveform(((0, code),) if code else (), vdd_v)

    def pattern_waveform(self, pattern: Pattern, vdd_v: float) -> str:
        """The ngspice source of a word line with these pulses."""
        if not pattern:
            return "DC 0"
        points: list[tuple[float, float]] = []
        for start, stop in pattern:
            t0, t1 = (LEAD_S + self.delay_s + k * self.t_lsb_s for k in (start, stop))
            points += [(t0 + t, v) for t, v in zip(self.edge.rise_s, self.edge.rise, strict=True)]
            points += [(t1 + t, v) for t, v in zip(self.edge.fall_s, self.edge.fall, strict=True)]
        if any(b[0] <= a[0] for a, b in itertools.pairwise(points)):
            pulses = ", ".join(f"slot {a} to {b}" for a, b in pattern)
            raise InputError(
                f"pulse: {pulses} at {self.t_lsb_s:g} s per LSB leaves no room for the word line's edges; "
                f"make the LSB longer or the driver stronger"
            )
        return "PWL(" + " ".join(f"{t * 1e12:.4f}p {v * vdd_v:.6g}" for t, v in points) + ")"


def word_nodes(codes: np.ndarray, pulses: Pulses) -> list[str]:
    """The word line of each row: ``w<code>`` in conventional PWM, else named after its pulses."""
    if pulses.pwm.name == "conventional":
        return [f"w{code}" for code in codes]
    return ["w" + ("_".join(f"{a}t{b}" for a, b in pattern) or "0") for pattern in pulses.patterns(codes)]


def add_word_lines(circuit: Any, codes: np.ndarray, pulses: Pulses, vdd_v: float) -> list[str]:
    """One source at each node of ``word_nodes``: rows of equal pulses share it. Returns the rows' nodes."""
    nodes = word_nodes(codes, pulses)
    found = dict(zip(nodes, zip(codes, pulses.patterns(codes), strict=True), strict=True))
    # In conventional PWM in the order of the codes, whatever the rows' order.
    for node, (_, pattern) in sorted(found.items(), key=lambda item: (item[1][0], item[0])):
        circuit.raw_spice += f"V{node} {node} 0 {pulses.pattern_waveform(pattern, vdd_v)}\n"
    return nodes


def add_line(
    circuit: Any,
    technology: Technology,
    design: CellDesign,
    wire: Wire,
    *,
    conductance_s: np.ndarray,
    codes: np.ndarray,
    end: str,
    prefix: str = "",
    shared_return: str | None = None,
    words: Sequence[str] | None = None,
) -> None:
    """One line of a column: row 0 is the far end, the last row next to the read-out.

    conductance_s, codes: shape (rows,). ``words``: each row's word line; None: ``w<code>``.
    ``end`` is the read-out's node; half a cell of wire lies before it.
    The return line is the line's own, or that of the line whose prefix is ``shared_return``.
    """
    rows = len(conductance_s)
    r_bit, r_return = wire.r_bit_ohm * wire.scale, wire.r_return_ohm * wire.scale
    lines: list[str] = []
    own_return = shared_return is None
    back_prefix = prefix if own_return else shared_return
    for i in range(rows):
        bit, back = f"{prefix}b{i}", f"{back_prefix}r{i}"
        last = i == rows - 1
        to = end if last else f"{prefix}b{i + 1}"
        lines.append(_resistor(f"b{prefix}{i}", bit, to, r_bit * (0.5 if last else 1)))
        lines.append(f"Cb{prefix}{i} {bit} 0 {wire.c_bit_f:.6g}")
        if own_return:
            near = "0" if wire.ground in ("near", "both") else None
            if not last:
                lines.append(_resistor(f"r{prefix}{i}", back, f"{prefix}r{i + 1}", r_return))
            elif near:
                lines.append(_resistor(f"r{prefix}{i}", back, near, r_return / 2))
            # A return line without resistance is one node: a second short to ground would close a loop of sources.
            if i == 0 and (wire.ground == "far" or (wire.ground == "both" and r_return > 0)):
                lines.append(_resistor(f"rf{prefix}", back, "0", r_return / 2))
            lines.append(f"Cr{prefix}{i} {back} 0 {wire.c_return_f:.6g}")
    circuit.raw_spice += "\n".join(lines) + "\n"
    words = [f"w{code}" for code in codes] if words is None else words
    for i in range(rows):
        add_cell(
            circuit, technology, design, f"{prefix}{i}",
            conductance_s=float(conductance_s[i]), bit=f"{prefix}b{i}", word=words[i], back=f"{back_prefix}r{i}",
        )  # fmt: skip


def _resistor(name: str, a: str, b: str, ohm: float) -> str:
    # A resistor of zero is not allowed in SPICE; a zero source is the exact short.
    return f"R{name} {a} {b} {ohm:.9g}" if ohm > 0 else f"V{name} {a} {b} 0"


def check_line(conductance_s: np.ndarray, codes: np.ndarray, code_max: int) -> tuple[np.ndarray, np.ndarray]:
    """One line's conductances [S] and codes, both shape (rows,), checked; InputError says what does not fit."""
    for name, value in (("conductance_s", conductance_s), ("codes", codes)):
        if np.ndim(value) != 1:
            raise InputError(
                f"{name}: expected shape (rows,), one line and one vector a deck; got shape {np.shape(value)}"
            )
    g = check_conductances(np.atleast_2d(np.asarray(conductance_s, dtype=float)))
    x = check_codes(np.atleast_2d(np.asarray(codes)), rows=g.shape[1], code_max=code_max)
    return g[0], x[0]
