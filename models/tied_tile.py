"""A tied tile driven by a model card: pairs of conductances and signed codes in; currents and charges out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aimcard.models.adc import HOLD_S, PHASE_RULES
from aimcard.models.card import Card
from aimcard.models.checks import check_choice, check_conductances, check_signed_codes
from aimcard.models.domain import check_domain
from aimcard.models.errors import CardError, InputError
from aimcard.models.lut import lookup
from aimcard.models.modes import Mode, get_mode
from aimcard.models.source_line import SourceLine, with_source_line
from aimcard.models.tied import (
    Clamp,
    EffectiveColumn,
    RowPulses,
    SourceGain,
    TiedCell,
    TiedEdges,
    TiedPulse,
    TiedWire,
    effective_column,
    fixed_clamp,
    slot_currents,
)
from aimcard.models.tied_readout import (
    READOUT,
    TABLES,
    TiedReading,
    TiedReadout,
    read,
    resting,
    signed,
    tied_clamp,
    tied_readout,
)
from aimcard.models.tile import Response, weighted_charge

if TYPE_CHECKING:
    from aimcard.models.tied_chip import TiedChipTile

Values = Mapping[str, Tensor | float]
CELL = ("r_on_ohm", "dw_um", "k_mid_per_v", "k_mid_per_v2", "k_drain_per_v2", "i_gate_a", "v_gate_v")
PULSE = ("t_start_s", "t_end_s", "t_node_s_per_s")
WIRE = ("r_bit_ohm", "c_column_f")
#: How the column's capacitance goes with the select transistor's width; cards of before have none.
WIDTH = "c_width_f"
EDGE_TABLES = ("edge_down_start", "edge_down_end", "edge_up_start", "edge_up_end")
TIED_META = ("guard_slots", "w_ref_um", "w_select_um", "v_common_v")
READ_OUTS = ("south", "north")


def tied_edges_at(tables: Mapping[str, tuple[Tensor, Tensor]], position: float | Tensor) -> TiedEdges:
    """Delays of the source lines' edges at ``position`` (0 at the drivers, 1 far) from tables over the position."""
    u = torch.as_tensor(position, dtype=torch.float64)
    return TiedEdges(*(lookup(*tables[name], u) for name in EDGE_TABLES))


def tied_parameters(
    values: Values, *, w_ref_um: float, v_read_v: float, wire_scale: Tensor | float = 1.0
) -> tuple[TiedCell, TiedWire, TiedPulse]:
    """Group flat parameter values; ``wire_scale`` multiplies the resistance only. InputError if one is missing."""
    missing = [n for n in (*CELL, *WIRE, *PULSE) if n not in values]
    if missing:
        raise InputError(f"parameters: a tied column needs {', '.join(missing)}, which are not given")
    cell = TiedCell(**{n: values[n] for n in CELL}, w_ref_um=w_ref_um, v_read_v=v_read_v, gain=SourceGain())
    wire = TiedWire(values["r_bit_ohm"] * wire_scale, values["c_column_f"], values.get(WIDTH, 0.0))
    return cell, wire, TiedPulse(**{n: values[n] for n in PULSE})


def row_pulses(mode: Mode, guard: int, codes: Tensor, rows: Tensor) -> RowPulses | None:
    """What ``models/tied.py`` takes as ``pulses``: codes (..., rows) in a mode, with each entry's own row index (rows,)."""
    return None if mode.name == "conventional" else tuple(mode.window_pulses(codes, rows, guard))


class TiedTile:
    """Simulates tied columns with the parameters of a card.

    >>> tile = TiedTile.read("tied.h5")                                                    # doctest: +SKIP
    >>> tile.respond(g_plus_s, codes, conductance_minus_s=g_minus_s).charge_c              # doctest: +SKIP
    """

    def __init__(self, card: Card) -> None:
        """Raises CardError, with the card's file and the field, if the card is not a tied one or not complete."""
        self.card, meta = card, card.meta
        if meta["topology"] != "tied":
            raise CardError(f"{card.source}: meta@topology: expected 'tied'; got {meta['topology']!r}; use TileModel")
        for key in TIED_META:
            if key not in meta:
                raise CardError(f"{card.source}: meta@{key}: missing (the tied tile needs it); calibrate again")
        self.v_read_v, self.t_lsb_s = float(meta["v_read_v"]), float(meta["t_lsb_s"])
        self.code_max = int(meta["code_max"])
        self.guard_slots = int(meta["guard_slots"])
        self.mode = get_mode(str(meta["mode"]), self.code_max)
        self.slots = self.mode.window_slots(self.guard_slots)
        self.phase_rule = str(meta.get("phase_rule", PHASE_RULES[0]))
        self.hold_s = float(meta.get("hold_s", HOLD_S))
        self.v_common_v = float(meta["v_common_v"])
        self.w_ref_um = float(meta["w_ref_um"])
        self.values = card.values()
        self.tables = {t.name: (torch.tensor(t.x), torch.tensor(t.y)) for t in card.tables}
        # A card may have the read-out's static tables alone, and then answers without counts.
        self.has_readout = "adc" in self.tables
        own = (READOUT, TABLES) if self.has_readout else ((), ())
        for group, has, needs in (
            ("parameters", self.values, (*CELL, *WIRE, *PULSE, *own[0])), ("tables", self.tables, (*EDGE_TABLES, *own[1])),
        ):  # fmt: skip
            if missing := [name for name in needs if name not in has]:
                raise CardError(f"{card.source}: {group}/{missing[0]}: missing (the tied tile needs it); calibrate again")
        self.source_line = SourceLine.of(self.values, int(meta.get("row_columns", 1)), float(meta.get("row_load_s", 0.0)))

    @classmethod
    def read(cls, path: str | Path) -> TiedTile:
        """The model of the card file ``path``; raises CardError if it is unsound or incomplete."""
        return cls(Card.read(path))

    def parameters(self, wire_scale: float = 1.0) -> tuple[TiedCell, TiedWire, TiedPulse]:
        """The card's parameters with the per-cell wire scaled."""
        return tied_parameters(self.values, w_ref_um=self.w_ref_um, v_read_v=self.v_read_v, wire_scale=wire_scale)

    def effective(
        self, g_plus_s: Tensor, g_minus_s: Tensor, *, wire_scale: float = 1.0, w_select_um: float | None = None,
        position: float = 0.5,
    ) -> EffectiveColumn:  # fmt: skip
        """Effective weights of columns (lines, rows), differentiable in the conductances."""
        cell, wire, _ = self.parameters(wire_scale)
        cell, w = with_source_line(cell, self.source_line, position), self._width(w_select_um)
        return effective_column(cell, wire, *self.conducting(g_plus_s, g_minus_s, w), w)

    def regulated(self, offset_v: float = 0.0) -> Clamp:
        """The card's regulator as columns see it at rest, ``offset_v`` beyond its own offset."""
        return tied_clamp(self.tables, self.v_common_v, offset_v)

    def readout(self, y_s: Tensor, w_select_um: float) -> TiedReadout:
        """The read-outs of columns of conductance ``y_s`` (lines,) [S]."""
        width, bias_a = w_select_um / self.w_ref_um, float(self.card.meta["bias_a"])
        return tied_readout(self.values, self.tables, y_s, width, bias_a)

    def conducting(self, g_plus_s: Tensor, g_minus_s: Tensor, w_select_um: float) -> tuple[Tensor, Tensor]:
        """Conductances (lines, rows) [S] that with the card's transistor act as the given ones with their own."""
        del w_select_um
        return g_plus_s, g_minus_s

    def judged(self, current_a: Tensor) -> Tensor:
        """Line currents (..., lines, slots) [A] as the card's validity domain sees them."""
        return current_a

    def chip(self, seed: int, lines: int, rows: int, w_select_um: float | None = None) -> TiedChipTile:
        """One chip out of the card's population, the same for the same seed: every column and cell with its own mismatch.

        Its ``respond`` takes conductances of shape (lines, rows). Raises CardError if the card has no mismatch.
        """
        from aimcard.models.tied_chip import TiedChipTile  # it is a TiedTile itself

        return TiedChipTile.draw(self.card, seed, lines, rows, w_select_um)

    def _width(self, w_select_um: float | None) -> float:
        return float(self.card.meta["w_select_um"]) if w_select_um is None else float(w_select_um)

    def respond(
        self,
        conductance_s: np.ndarray,
        codes: np.ndarray,
        *,
        conductance_minus_s: np.ndarray,
        clamp: str = "ideal",
        wire_scale: float = 1.0,
        w_select_um: float | None = None,
        position: float = 0.5,
        read_out: str = "south",
        offset_v: float = 0.0,
        bend: bool = True,
        mode: str | Mode | None = None,
        phase_rule: str | None = None,
        row_load_s: np.ndarray | None = None,
    ) -> Response:
        """Currents of columns: conductance_s and conductance_minus_s (lines, rows) [S], codes (vectors, rows), signed.

        clamp: "ideal", or "ota" for the card's read-out; a card with static tables alone answers without lags and counts.
        Counts and phases have a sign: what the resting column counts is subtracted, as whole numbers (``bias_counts``).
        read_out: "south" (next to the last row) or "north" (next to row 0, as on every other column of a tile).
        offset_v: the clamp's distance from the common mode [V], an OTA's offset, beyond the card's own with "ota".
        bend False leaves out the cells' answer to the column's voltage: two products, with the weights of ``effective``,
        are then all. mode: a PWM mode of ``models/modes.py`` (None: the one that the card was fitted in); the code's sign
        holds in each of its phases. phase_rule: what a phase boundary does to the oscillator's phase, one of PHASE_RULES.
        row_load_s: mean conductances [S] of each row's plus and minus cells over all columns of the tile, (2, rows), which
        load the source lines; None: the card's mean load.
        Raises InputError on bad shapes, signs, NaN or codes out of range; warns OutsideDomainWarning.
        """
        plus = check_conductances(conductance_s)
        minus = check_conductances(conductance_minus_s, "conductance_minus_s")
        if minus.shape != plus.shape:
            raise InputError(f"conductance_minus_s: expected shape {plus.shape}, that of conductance_s; got {minus.shape}")
        pwm = self.mode if mode is None else get_mode(mode, self.code_max)
        if pwm.code_max != self.code_max:
            raise InputError(f"mode {pwm.name}: expected the card's code_max of {self.code_max}; got {pwm.code_max}")
        rule = check_choice("phase_rule", self.phase_rule if phase_rule is None else phase_rule, PHASE_RULES)
        x = check_signed_codes(codes, rows=plus.shape[1], code_max=self.code_max)
        check_choice("read_out", read_out, READ_OUTS)
        check_choice("clamp", clamp, ("ideal", "ota") if "clamp" in self.tables else ("ideal",))
        end = fixed_clamp(offset_v) if clamp == "ideal" else self.regulated(offset_v)
        w = self._width(w_select_um)
        used = np.stack([plus, minus])
        check_domain(self.card, conductance_s=used, code=x, wire_scale=wire_scale, w_select_um=w, position=position)
        plus, minus = (g.numpy() for g in self.conducting(torch.as_tensor(plus), torch.as_tensor(minus), w))
        rows, loads = np.arange(plus.shape[1]), None
        if row_load_s is not None:
            given = check_conductances(row_load_s, "row_load_s")
            if given.shape != (2, plus.shape[1]):
                raise InputError(f"row_load_s: expected shape (2, {plus.shape[1]}), plus and minus; got {given.shape}")
            loads = tuple(torch.tensor(g) for g in (given[:, ::-1].copy() if read_out == "north" else given))
        if read_out == "north":
            plus, minus, x, rows = plus[:, ::-1].copy(), minus[:, ::-1].copy(), x[:, ::-1].copy(), rows[::-1].copy()
        cell, wire, pulse = self.parameters(wire_scale)
        cell = with_source_line(cell, self.source_line, position, loads)
        edges = tied_edges_at(self.tables, position)
        g = torch.as_tensor(plus), torch.as_tensor(minus)
        slots, parts = pwm.window_slots(self.guard_slots), []
        with torch.no_grad():
            # One vector at a time bounds the memory of the node voltages (lines × slots × rows).
            for row in torch.as_tensor(x):
                each = row[None, :].expand(len(plus), -1)
                pulses = row_pulses(pwm, self.guard_slots, each, torch.as_tensor(rows))
                current, solution = slot_currents(
                    cell, wire, pulse, edges, *g, each, slots, self.t_lsb_s, w, end, bend, pulses
                )
                parts.append((current, solution.current_a))
            current, static = (torch.stack(part) for part in zip(*parts, strict=True))
            if clamp == "ota" and self.has_readout:
                return self._counted(current, static, effective_column(cell, wire, *g, w), end, w, pwm, rule)
        slot_edge_s = np.arange(slots + 1) * self.t_lsb_s
        charge = weighted_charge(current, pwm, self.guard_slots, self.t_lsb_s).numpy()
        if clamp == "ideal":
            return Response(slot_edge_s, current.numpy(), charge)
        check_domain(self.card, line_current_a=current.numpy())
        return Response(slot_edge_s, current.numpy(), charge, lookup(*self.tables["mirror"], current).numpy())

    def reading(
        self, base_a: Tensor, static_a: Tensor, column: EffectiveColumn, end: Clamp, w_select_um: float,
        mode: Mode | None = None, phase_rule: str | None = None,
    ) -> tuple[TiedReading, tuple[Tensor, Tensor, Tensor]]:
        """What the card's read-out makes of slot currents (..., lines, slots) of columns (lines,), differentiable.

        base_a, static_a: from ``models.tied.slot_currents`` at the clamp ``end``. The reading, and phases and counts with
        the resting column's subtracted, and these. mode, phase_rule: as for ``respond``.
        """
        readout = self.readout(column.y_s, w_select_um)
        rule, windows = phase_rule or self.phase_rule, (mode or self.mode).windows(self.guard_slots)
        how = (self.t_lsb_s, windows, rule, self.hold_s)
        got = read(readout, base_a, static_a, *how)
        at_rest = end(column.y_s[..., None], column.rest_a[..., None])[1][..., 0]
        return got, signed(got.phases, resting(readout, at_rest, *how), rule)

    def _counted(
        self, base_a: Tensor, static_a: Tensor, column: EffectiveColumn, end: Clamp, w_select_um: float, mode: Mode, rule: str
    ) -> Response:
        got, (phases, counts, bias) = self.reading(base_a, static_a, column, end, w_select_um, mode, rule)
        check_domain(self.card, line_current_a=self.judged(got.current_a))
        weights = torch.tensor(mode.weights, dtype=phases.dtype)
        return Response(
            np.arange(mode.window_slots(self.guard_slots) + 1) * self.t_lsb_s,
            got.current_a.numpy(),
            weighted_charge(got.current_a, mode, self.guard_slots, self.t_lsb_s).numpy(),
            got.mirror_a.numpy(),
            (phases * weights).sum(-1).numpy(),
            (counts * weights).sum(-1).numpy().astype(np.int64),
            phases.numpy(),
            counts.numpy().astype(np.int64),
            bias_counts=bias.numpy().astype(np.int64),
        )

    def offset_current_a(self, g_plus_s: np.ndarray, g_minus_s: np.ndarray, offset_v: float | None = None) -> np.ndarray:
        """What an OTA's offset makes columns (lines, rows) draw at rest [A], (lines,): their conductance times the offset,
        less what the regulator's own resistance takes.

        offset_v None: the card's own, the regulator's systematic one. InputError if the card has none.
        """
        if offset_v is None and "offset_v" not in self.values:
            raise InputError("offset_v: this card has no read-out, hence no offset of its own; give one")
        with torch.no_grad():
            y = self.effective(torch.as_tensor(g_plus_s), torch.as_tensor(g_minus_s)).y_s[..., None]
            own = self.values.get("offset_v", 0.0) if offset_v is None else offset_v
            if "clamp" not in self.tables:
                return (y * own)[..., 0].numpy()
            level = float(self.values.get("offset_v", 0.0))
            return self.regulated(own - level)(y, torch.zeros_like(y))[1][..., 0].numpy()
