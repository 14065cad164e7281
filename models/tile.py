"""A tile driven by a model card: conductances and codes in; currents, charges, phases and counts out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aimcard.models.adc import AdcParameters, phase
from aimcard.models.card import Card
from aimcard.models.cell import APPARENT_WEIGHTS, CellParameters
from aimcard.models.checks import check_choice, check_codes, check_conductances
from aimcard.models.column import WireParameters
from aimcard.models.domain import check_domain
from aimcard.models.errors import CardError, InputError
from aimcard.models.line import LineDrive, LineParameters, ideal_clamp, slot_currents
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

Values = Mapping[str, Tensor | float]
READOUT_TABLES = ("clamp", "mirror", "adc")
#: Meta keys of the tile model beyond those that every card has.
TILE_META = ("guard_slots", "w_ref_um", "w_select_um", "apparent_weight")


def _pick(cls: type, values: Values, **fixed):
    names = {f.name for f in fields(cls)} - set(fixed)
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
        WireParameters(
            values["r_bit_ohm"] * wire_scale, values["r_return_ohm"] * wire_scale, values["c_bit_f"], segments
        ),
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
    return current + step_charges(readout.clamp, static.current_a) / drive.t_lsb_s, static.current_a


@dataclass(frozen=True)
class Response:
    """What a tile answers, float64 arrays.

    current_a: mean current of each slot into the read-out [A], (vectors, lines, slots).
    charge_c: its integral over the window [C], (vectors, lines).
    mirror_a: mean mirror current of each slot [A], same shape; phase_count: the oscillator's phase in counts,
    (vectors, lines); count: the phase truncated. None for an ideal clamp.
    """

    slot_edge_s: np.ndarray
    current_a: np.ndarray
    charge_c: np.ndarray
    mirror_a: np.ndarray | None = None
    phase_count: np.ndarray | None = None
    count: np.ndarray | None = None


def needed_parameters(readout: bool) -> tuple[str, ...]:
    """Names of the card parameters that the equations read, with or without the read-out's."""
    given = {"w_ref_um", "v_read_v", "vdd_v", "apparent_weight"}
    names = [f.name for cls in (CellParameters, PulseParameters) for f in fields(cls) if f.name not in given]
    names += ["r_bit_ohm", "r_return_ohm", "c_bit_f"]
    if readout:
        names += [n for block in ("clamp", "mirror") for group in response_names(block).values() for n in group]
        names += [f.name for f in fields(AdcParameters) if f.name not in ("i_adc_a", "rate_hz")]
    return tuple(names)


def _check_meta(card: Card) -> None:
    for key in TILE_META:
        if key not in card.meta:
            raise CardError(f"{card.source}: meta@{key}: missing (the tile model needs it); calibrate again")
    form = card.meta["apparent_weight"]
    if form not in APPARENT_WEIGHTS:
        raise CardError(
            f"{card.source}: meta@apparent_weight: expected one of {', '.join(APPARENT_WEIGHTS)}; got {form!r}"
        )


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
        self.slots = self.code_max + int(meta["guard_slots"])
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

    def respond(
        self,
        conductance_s: np.ndarray,
        codes: np.ndarray,
        *,
        clamp: str = "ota",
        wire_scale: float = 1.0,
        w_select_um: float | None = None,
        position: float = 0.5,
    ) -> Response:
        """Currents and counts of the lines ``conductance_s`` (lines, rows) [S] for ``codes`` (vectors, rows).

        clamp: "ota" (the card's read-out) or "ideal". wire_scale multiplies the wire of each cell, not the
        read-out's own resistance. position: 0 for a column at the drivers, 1 at the far end of the word lines.
        Raises InputError on bad shapes, signs, NaN or codes out of range; warns OutsideDomainWarning.
        """
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
        readout = readout_parameters(self.values, self.tables) if clamp == "ota" else None
        g_t = torch.as_tensor(g)
        edges = edges_at(self.tables, position)
        parts = []
        with torch.no_grad():
            # One vector at a time bounds the memory of the edges' (rows × slots) shares.
            for row in torch.as_tensor(x):
                drive = LineDrive(g_t, row[None, :].expand(len(g_t), -1), self.slots, self.t_lsb_s, w, edges)
                parts.append(line_current(line, drive, readout))
            current = torch.stack([current for current, _ in parts])
            static = torch.stack([static for _, static in parts])
            slot_edge_s = np.arange(self.slots + 1) * self.t_lsb_s
            charge = current.sum(-1) * self.t_lsb_s
            if readout is None:
                return Response(slot_edge_s, current.numpy(), charge.numpy())
            check_domain(self.card, line_current_a=current.numpy())
            seen = lagged(readout, current, static, self.t_lsb_s)
            out = mirror(readout, seen)
            count = phase(adc_parameters(self.values, self.tables), seen, self.t_lsb_s)
        return Response(
            slot_edge_s,
            current.numpy(),
            charge.numpy(),
            out.numpy(),
            count.numpy(),
            np.floor(count.numpy()).astype(np.int64),
        )


def ideal_charge(conductance_s: np.ndarray, codes: np.ndarray, v_read_v: float, t_lsb_s: float) -> np.ndarray:
    """V·Σ G·x·T [C], (vectors, lines): the product that the tile is meant to compute."""
    return v_read_v * t_lsb_s * (np.asarray(codes, dtype=float) @ np.asarray(conductance_s, dtype=float).T)


def ideal_current(conductance_s: np.ndarray, codes: np.ndarray, v_read_v: float, slots: int) -> np.ndarray:
    """V·Σ ±G over the rows that conduct in each slot [A], (vectors, lines, slots); the sign is the code's."""
    x = np.asarray(codes)[:, None, :]
    on = np.sign(x) * (np.abs(x) > np.arange(slots)[None, :, None])
    return v_read_v * np.einsum("vsr,lr->vls", on, np.asarray(conductance_s, dtype=float), optimize=True)
