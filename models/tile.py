"""A tile driven by a model card: conductances and codes in; currents, charges, phases and counts out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aimcard.models.adc import HOLD_S, PHASE_RULES, AdcParameters, phase_counts, truncated
from aimcard.models.card import Card
from aimcard.models.cell import APPARENT_WEIGHTS, CellParameters
from aimcard.models.checks import check_choice, check_codes, check_conductances
from aimcard.models.column import WireParameters
from aimcard.models.domain import check_domain
from aimcard.models.energy import OSCILLATOR_TABLE
from aimcard.models.errors import CardError, InputError
from aimcard.models.line import LineDrive, LineParameters, ideal_clamp, mode_drive, slot_currents
from aimcard.models.lut import lookup
from aimcard.models.modes import Mode, get_mode
from aimcard.models.pulse import EDGE_TABLES, PulseParameters, edges_at
from aimcard.models.readout import (
    ReadoutParameters,
    StepResponse,
    lagged,
    mirror,
    regulated_clamp,
    response_names,
    step_charges,
)

if TYPE_CHECKING:
    from aimcard.models.chip import ChipModel

Values = Mapping[str, Tensor | float]
READOUT_TABLES = ("clamp", "mirror", "adc")
#: Meta keys of the tile model beyond those that every card has.
TILE_META = ("guard_slots", "w_ref_um", "w_select_um", "apparent_weight")


def _card_fields(cls: type) -> list[str]:
    """Names of the fields that a card gives; one with a default is not the card's."""
    return [f.name for f in fields(cls) if f.default is MISSING]


def _pick(cls: type, values: Values, **fixed: object):
    names = set(_card_fields(cls)) - set(fixed)
    missing = names - set(values)
    if missing:
        raise InputError(f"parameters: {cls.__name__} needs {', '.join(sorted(missing))}, which are not given")
    return cls(**{name: values[name] for name in names}, **fixed)


def line_parameters(
    values: Values,
    *,
    w_ref_um: float,
    v_read_v: float,
    vdd_v: float,
    segments: int,
    wire_scale: Tensor | float = 1.0,
    apparent_weight: str = "rational",
) -> LineParameters:
    """Group flat parameter values as the equations want them. ``wire_scale`` multiplies the per-cell wire only.

    Raises InputError if one is missing.
    """
    missing = [n for n in ("r_bit_ohm", "r_return_ohm", "c_bit_f") if n not in values]
    if missing:
        raise InputError(f"parameters: WireParameters needs {', '.join(missing)}, which are not given")
    return LineParameters(
        _pick(CellParameters, values, w_ref_um=w_ref_um, v_read_v=v_read_v, apparent_weight=apparent_weight),
        _pick(PulseParameters, values, w_ref_um=w_ref_um, v_read_v=v_read_v, vdd_v=vdd_v),
        WireParameters(values["r_bit_ohm"] * wire_scale, values["r_return_ohm"] * wire_scale, values["c_bit_f"], segments),
    )


def readout_parameters(values: Values, tables: Mapping[str, tuple[Tensor, Tensor]]) -> ReadoutParameters:
    """``tables``: ``clamp`` (line current to clamp voltage) and ``mirror`` (line current to mirror current)."""
    (ic, vc), (im, m) = tables["clamp"], tables["mirror"]
    return ReadoutParameters(ic, vc, im, m, _response("clamp", values), _response("mirror", values))


def _response(block: str, values: Values) -> StepResponse:
    names = response_names(block)
    missing = [n for group in names.values() for n in group if n not in values]
    if missing:
        raise InputError(f"parameters: the read-out's {block} needs {', '.join(missing)}, which are not given")
    taps = {field: tuple(values[n] for n in group) for field, group in names.items()}
    return StepResponse(
        taps["step_s"], taps["step_idle_s"], taps["step_low_s"], taps["half_a"][0],
        taps["on_s"], taps["on_idle_s"], taps["on_half_a"][0],
    )  # fmt: skip


def adc_parameters(values: Values, tables: Mapping[str, tuple[Tensor, Tensor]]) -> AdcParameters:
    """``tables``: ``adc`` (line current to count rate)."""
    i, rate = tables["adc"]
    return _pick(AdcParameters, values, i_adc_a=i, rate_hz=rate)


def line_current(p: LineParameters, drive: LineDrive, readout: ReadoutParameters | None) -> tuple[Tensor, Tensor]:
    """Slot currents of a line into its read-out and the static currents behind them [A], both (..., slots).

    ``readout`` None is an ideal clamp.
    """
    if readout is None:
        current, static = slot_currents(p, drive, ideal_clamp(p.cell.v_read_v))
        return current, static.current_a
    current, static = slot_currents(p, drive, regulated_clamp(readout))
    steps = step_charges(readout.clamp, static.current_a, drive.starts)
    return current + steps / drive.t_lsb_s, static.current_a


@dataclass(frozen=True)
class Response:
    """What a tile answers, float64 arrays.

    current_a: mean current of each slot into the read-out [A], (vectors, lines, slots).
    charge_c: its integral over the window [C], (vectors, lines), each PWM phase's part times the phase's weight.
    mirror_a: mean mirror current of each slot [A], same shape; phase_count: the oscillator's phase in counts,
    (vectors, lines), weighted alike; count: what the counter shows, weighted. None for an ideal clamp.
    phase_counts, counts: the same of each PWM phase, unweighted, (vectors, lines, phases).
    oscillator_a: what the oscillator takes from its supply, like mirror_a, if the card has it.
    bias_counts: whole counts of a resting column that a tied tile has subtracted, (lines, phases); None in a gated one.
    """

    slot_edge_s: np.ndarray
    current_a: np.ndarray
    charge_c: np.ndarray
    mirror_a: np.ndarray | None = None
    phase_count: np.ndarray | None = None
    count: np.ndarray | None = None
    phase_counts: np.ndarray | None = None
    counts: np.ndarray | None = None
    oscillator_a: np.ndarray | None = None
    bias_counts: np.ndarray | None = None


def needed_parameters(readout: bool) -> tuple[str, ...]:
    """Names of the card parameters that the equations read, with or without the read-out's."""
    given = {"w_ref_um", "v_read_v", "vdd_v"}
    names = [n for cls in (CellParameters, PulseParameters) for n in _card_fields(cls) if n not in given]
    names += ["r_bit_ohm", "r_return_ohm", "c_bit_f"]
    if readout:
        names += [n for block in ("clamp", "mirror") for group in response_names(block).values() for n in group]
        names += [n for n in _card_fields(AdcParameters) if n not in ("i_adc_a", "rate_hz")]
    return tuple(names)


def _check_meta(card: Card) -> None:
    if card.meta["topology"] != "gated":
        raise CardError(
            f"{card.source}: meta@topology: expected 'gated'; got {card.meta['topology']!r}, whose tile is another model "
            "(Python: models.topology.tile_of); take a gated card"
        )
    for key in TILE_META:
        if key not in card.meta:
            raise CardError(f"{card.source}: meta@{key}: missing (the tile model needs it); calibrate again")
    form = card.meta["apparent_weight"]
    if form not in APPARENT_WEIGHTS:
        raise CardError(f"{card.source}: meta@apparent_weight: expected one of {', '.join(APPARENT_WEIGHTS)}; got {form!r}")


def _check_complete(card: Card, readout: bool) -> None:
    """Raises CardError for the first thing that the equations need and the card has not."""
    values, tables = card.values(), {t.name for t in card.tables}
    # One of the three without the others is a damaged card, not a card without a read-out.
    wanted = (*EDGE_TABLES, *(READOUT_TABLES if tables & set(READOUT_TABLES) else ()))
    for group, has, needs in (("parameters", values, needed_parameters(readout)), ("tables", tables, wanted)):
        missing = [name for name in needs if name not in has]
        if missing:
            many = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise CardError(
                f"{card.source}: {group}/{missing[0]}{many}: missing (the tile model needs it); "
                "the card is of another version of the equations: calibrate again"
            )


class TileModel:
    """Simulates columns with the parameters of a card.

    >>> model = TileModel.read("card.h5")              # doctest: +SKIP
    >>> model.respond(conductance_s, codes).count      # doctest: +SKIP
    """

    def __init__(self, card: Card) -> None:
        """Raises CardError, with the card's file and the field, if the equations need what the card has not."""
        self.card = card
        meta = card.meta
        _check_meta(card)
        self.v_read_v = float(meta["v_read_v"])
        self.t_lsb_s = float(meta["t_lsb_s"])
        self.code_max = int(meta["code_max"])
        self.guard_slots = int(meta["guard_slots"])
        self.mode = get_mode(str(meta["mode"]), self.code_max)
        self.slots = self.mode.window_slots(self.guard_slots)
        self.phase_rule = str(meta.get("phase_rule", PHASE_RULES[0]))
        self.hold_s = float(meta.get("hold_s", HOLD_S))
        self.w_ref_um = float(meta["w_ref_um"])
        self.values = card.values()
        self.tables = {t.name: (torch.tensor(t.x), torch.tensor(t.y)) for t in card.tables}
        self.has_readout = set(READOUT_TABLES) <= set(self.tables)
        _check_complete(card, self.has_readout)

    @classmethod
    def read(cls, path: str | Path) -> TileModel:
        """The model of the card file ``path``; raises CardError if it is unsound or incomplete."""
        return cls(Card.read(path))

    def line(self, wire_scale: float = 1.0) -> LineParameters:
        """The card's line parameters with the per-cell wire scaled."""
        return line_parameters(
            self.values, w_ref_um=self.w_ref_um, v_read_v=self.v_read_v, vdd_v=float(self.card.meta["vdd_v"]),
            segments=int(self.card.meta["segments"]),
            wire_scale=wire_scale, apparent_weight=str(self.card.meta["apparent_weight"]),
        )  # fmt: skip

    def readout(self) -> ReadoutParameters:
        """The card's regulator and mirror."""
        return readout_parameters(self.values, self.tables)

    def adc(self) -> AdcParameters:
        """The card's converter."""
        return adc_parameters(self.values, self.tables)

    def chip(self, seed: int, lines: int, rows: int, w_select_um: float | None = None) -> ChipModel:
        """One chip out of the card's population, the same for the same seed: every line and cell with its own mismatch.

        Its ``respond`` takes conductances of shape (lines, rows). Raises CardError if the card has no mismatch.
        """
        from aimcard.models.chip import ChipModel  # it is a TileModel itself

        return ChipModel.draw(self.card, seed, lines, rows, w_select_um)

    def respond(
        self,
        conductance_s: np.ndarray,
        codes: np.ndarray,
        *,
        clamp: str = "ota",
        wire_scale: float = 1.0,
        w_select_um: float | None = None,
        position: float = 0.5,
        mode: str | Mode | None = None,
        phase_rule: str | None = None,
    ) -> Response:
        """Currents and counts of the lines ``conductance_s`` (lines, rows) [S] for ``codes`` (vectors, rows).

        clamp: "ota" (the card's read-out) or "ideal". wire_scale multiplies the wire of each cell, not the
        read-out's own resistance. position: 0 for a column at the drivers, 1 at the far end of the word lines.
        mode: a PWM mode of ``models/modes.py`` (None: the one that the card was fitted in; cell, wire and read-out
        carry over). phase_rule: what a phase boundary does to the oscillator's phase, one of PHASE_RULES.
        Raises InputError on bad shapes, signs, NaN or codes out of range; warns OutsideDomainWarning.
        """
        pwm = self.mode if mode is None else get_mode(mode, self.code_max)
        rule = self.phase_rule if phase_rule is None else phase_rule
        check_choice("phase_rule", rule, PHASE_RULES)
        if pwm.code_max != self.code_max:
            raise InputError(f"mode {pwm.name}: expected the card's code_max of {self.code_max}; got {pwm.code_max}")
        g = check_conductances(conductance_s)
        x = check_codes(codes, rows=g.shape[1], code_max=self.code_max)
        check_choice("clamp", clamp, ("ideal", "ota"))
        if clamp == "ota" and not self.has_readout:
            raise InputError(
                "clamp: this card was calibrated without a read-out; expected 'ideal', got 'ota'; "
                "calibrate from a reference set that has readout_dc and oscillator records"
            )
        w = float(self.card.meta["w_select_um"]) if w_select_um is None else float(w_select_um)
        check_domain(self.card, conductance_s=g, code=x, wire_scale=wire_scale, w_select_um=w, position=position)
        line = self.line(wire_scale)
        readout = self.readout() if clamp == "ota" else None
        g_t = torch.as_tensor(g)
        edges = edges_at(self.tables, position)
        parts = []
        with torch.no_grad():
            # One vector at a time bounds the memory of the edges' (rows × slots) shares.
            for row in torch.as_tensor(x):
                drive = mode_drive(pwm, self.guard_slots, g_t, row[None, :].expand(len(g_t), -1), self.t_lsb_s, w, edges)
                parts.append(line_current(line, drive, readout))
            current = torch.stack([current for current, _ in parts])
            static = torch.stack([static for _, static in parts])
            windows = pwm.windows(self.guard_slots)
            slot_edge_s = np.arange(windows[-1][1] + 1) * self.t_lsb_s
            charge = weighted_charge(current, pwm, self.guard_slots, self.t_lsb_s)
            if readout is None:
                return Response(slot_edge_s, current.numpy(), charge.numpy())
            check_domain(self.card, line_current_a=current.numpy())
            seen = lagged(readout, current, static, self.t_lsb_s, pwm.starts(self.guard_slots))
            out = mirror(readout, seen)
            phases = phase_counts(self.adc(), seen, self.t_lsb_s, windows, rule, self.hold_s)
            shown = truncated(phases, rule)
            weights = torch.tensor(pwm.weights, dtype=phases.dtype)
            supply = None if OSCILLATOR_TABLE not in self.tables else lookup(*self.tables[OSCILLATOR_TABLE], seen).numpy()
        return Response(
            slot_edge_s,
            current.numpy(),
            charge.numpy(),
            out.numpy(),
            (phases * weights).sum(-1).numpy(),
            (shown * weights).sum(-1).numpy().astype(np.int64),
            phases.numpy(),
            shown.numpy().astype(np.int64),
            supply,
        )


def weighted_charge(current_a: Tensor, mode: Mode, guard: int, t_lsb_s: float) -> Tensor:
    """Σ weight · charge over the phases [C] (...,), from the currents of all slots (..., slots)."""
    parts = [
        phase.weight * current_a[..., first:beyond].sum(-1)
        for phase, (first, beyond) in zip(mode.phases, mode.windows(guard), strict=True)
    ]
    return sum(parts[1:], start=parts[0]) * t_lsb_s


def ideal_charge(conductance_s: np.ndarray, codes: np.ndarray, v_read_v: float, t_lsb_s: float) -> np.ndarray:
    """V·Σ G·x·T [C], (vectors, lines): the product that the tile is meant to compute."""
    return v_read_v * t_lsb_s * (np.asarray(codes, dtype=float) @ np.asarray(conductance_s, dtype=float).T)


def ideal_current(
    conductance_s: np.ndarray, codes: np.ndarray, v_read_v: float, slots: int, mode: Mode | None = None, guard: int = 0
) -> np.ndarray:
    """V·Σ ±G over the rows that conduct in each slot [A], (vectors, lines, slots), with the code's sign; without a mode,
    conventional PWM."""
    sign, x = np.sign(codes), np.abs(codes)
    slot = np.arange(slots)[None, :, None]
    if mode is None:
        on = x[:, None, :] > slot
    else:
        pulses = mode.window_pulses(x, np.arange(x.shape[-1]), guard)
        on = np.any([(start[:, None, :] <= slot) & (slot < stop[:, None, :]) for start, stop in pulses], axis=0)
    on = sign[:, None, :] * on
    return v_read_v * np.einsum("vsr,lr->vls", on, np.asarray(conductance_s, dtype=float), optimize=True)
