"""What an analog layer is made of (``Mapping``) and what goes wrong in it (``NonIdealities``), as frozen dataclasses."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields
from typing import Any

from aimcard.models.adc import PHASE_RULES
from aimcard.models.checks import check_choice, check_positive
from aimcard.models.errors import InputError
from aimcard.models.fast import Effects
from aimcard.models.modes import Mode, get_mode
from aimcard.models.pcm import G_MAX_S, G_MIN_S

SCALINGS = ("column", "tile")
RANGES = ("vector", "fixed")
READ_NOISE = ("off", "device", "analytical")


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}: expected a whole number of at least {least}; got {value!r}")


@dataclass(frozen=True)
class Mapping:
    """How a weight matrix and its inputs become conductances and pulses.

    rows, columns: lines of a tile; larger matrices are split evenly, partial results are added digitally.
    g_min_s, g_max_s: range of the conductances [S]; weight 0 is g_min on both sides of the pair.
    significance: factor of each conductance pair of a weight. All pairs hold the same weight and are averaged with these
    factors; with ``correct`` the first pair holds it and each later one what programming left over.
    scaling: "column" (each output's largest weight in a tile is g_max) or "tile" (the tile's largest).
    input_range: the largest code stands for the largest input of each vector ("vector"), or for a number found by
    ``calibrate_inputs`` ("fixed").
    signed: inputs of either sign; False saves the second phase of a gated tile and refuses inputs below zero.
    adc_bits: width of the counter; a tied one's range is half of it on either side of the idle count.
    mode: PWM mode of ``models/modes.py``, by name or itself; None: the card's own. phase_rule: what a phase boundary does to the
    oscillator's phase, one of PHASE_RULES; None: the card's own.
    """

    rows: int = 512
    columns: int = 512
    g_min_s: float = G_MIN_S
    g_max_s: float = G_MAX_S
    significance: tuple[float, ...] = (1.0,)
    correct: bool = False
    scaling: str = "column"
    input_range: str = "vector"
    signed: bool = True
    adc_bits: int = 12
    mode: str | Mode | None = None
    phase_rule: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("columns", 2), ("adc_bits", 1)):
            _whole(name, getattr(self, name), least)
        check_positive("g_min_s", self.g_min_s, zero=True)
        check_positive("g_max_s", self.g_max_s)
        if self.g_max_s <= self.g_min_s:
            raise InputError(f"g_max_s: expected more than g_min_s ({self.g_min_s:g} S); got {self.g_max_s:g}")
        if not self.significance:
            raise InputError("significance: expected at least one factor, such as (1.0,); got none")
        for factor in self.significance:
            check_positive("significance", factor)
        if 2 * len(self.significance) > self.columns:
            raise InputError(f"significance: {len(self.significance)} pairs do not fit {self.columns} columns; use fewer")
        check_choice("scaling", self.scaling, SCALINGS)
        check_choice("input_range", self.input_range, RANGES)
        if self.mode is not None:
            get_mode(self.mode)
        if self.phase_rule is not None:
            check_choice("phase_rule", self.phase_rule, PHASE_RULES)

    def outputs(self, lines_per_pair: int = 2) -> int:
        """Weights' columns that fit a tile, each pair on two lines (gated) or one (tied)."""
        return self.columns // (lines_per_pair * len(self.significance))

    def row_tiles(self, rows: int) -> list[slice]:
        """Rows of each tile, as even as possible."""
        parts = math.ceil(rows / self.rows)
        edges = [round(k * rows / parts) for k in range(parts + 1)]
        return [slice(a, b) for a, b in itertools.pairwise(edges)]


@dataclass(frozen=True)
class NonIdealities:
    """One switch for each departure from the digital layer; the field's default says whether it is on.

    Circuit, from the card: ir_drop with wire_scale (1: multiplies each cell's wire), apparent_weight (select transistor),
    leakage, pulse (edges), regulator, adc (rate table and start). mismatch: the chip ``chip`` of the card's population.
    Conversion: input_rounding (to whole codes), input_clip (beyond a fixed range), adc_rounding (whole counts), adc_clip
    (the counter's width), weight_clip_sigma (None: off; else weights beyond so many rms of their column are clipped).
    Devices: programming with programming_form (aihwkit, joshi); drift with drift_time_s [s] since programming and
    drift_compensation (one factor a tile, from a read of all rows); read_noise ("off"; "device": one sample per device and
    product; "analytical": one sample per line with the same sigma).
    circuit_noise: regulator, mirror, oscillator, cells and clock, once per count; the card must have its tables.
    Hardware-aware training: weight_noise [share of the column's largest weight], fresh at each call; output_noise [share of
    the output's rms].
    seed: of every draw above. None: what is fresh in each call follows torch's global generator, as dropout does, so
    torch.manual_seed governs it and gradient checkpointing repeats it; devices and chips are those of seed 0.
    """

    ir_drop: bool = True
    wire_scale: float = 1.0
    apparent_weight: bool = True
    leakage: bool = True
    pulse: bool = True
    regulator: bool = True
    adc: bool = True
    mismatch: bool = False
    chip: int = 0
    input_rounding: bool = True
    input_clip: bool = True
    adc_rounding: bool = True
    adc_clip: bool = True
    weight_clip_sigma: float | None = None
    programming: bool = False
    programming_form: str = "aihwkit"
    drift: bool = False
    drift_time_s: float = 86400.0
    drift_compensation: bool = True
    read_noise: str = "off"
    circuit_noise: bool = False
    weight_noise: float = 0.0
    output_noise: float = 0.0
    seed: int | None = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type == "bool" and not isinstance(getattr(self, field.name), bool):
                raise InputError(f"{field.name}: expected True or False; got {getattr(self, field.name)!r}")
        for name in ("wire_scale", "drift_time_s", "weight_noise", "output_noise"):
            check_positive(name, getattr(self, name), zero=True)
        if self.weight_clip_sigma is not None:
            check_positive("weight_clip_sigma", self.weight_clip_sigma)
        check_choice("programming_form", self.programming_form, ("aihwkit", "joshi"))
        check_choice("read_noise", self.read_noise, READ_NOISE)
        _whole("chip", self.chip, 0)
        if self.seed is not None:
            _whole("seed", self.seed, 0)

    @classmethod
    def none(cls, **on: Any) -> NonIdealities:
        """All off but those given: the digital product, through the same code."""
        off: dict[str, Any] = {f.name: False for f in fields(cls) if f.type == "bool" and f.name != "drift_compensation"}
        return cls(**(off | on))

    @property
    def effects(self) -> Effects:
        """The circuit's switches, as the tile takes them."""
        return Effects(self.ir_drop, self.apparent_weight, self.leakage, self.pulse, self.regulator, self.adc)

    @property
    def draws(self) -> bool:
        """Whether every reading has fresh noise."""
        return self.read_noise != "off" or self.circuit_noise

    @property
    def converts(self) -> bool:
        """Whether anything of the converter acts, so that counts are needed and not charges."""
        return self.adc or self.adc_rounding or self.adc_clip
