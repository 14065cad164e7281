"""What a calibration simulates, from the user's options, and how long that takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import joblib

from aimcard.calibrate.columns import (
    CODE_MAX,
    DISTRIBUTIONS,
    ROWS,
    Column,
    fit_columns,
    floor_columns,
    held_out_columns,
    saturated_column,
    supply_column,
    thinned,
)
from aimcard.models.checks import check_choice
from aimcard.models.errors import InputError
from aimcard.models.modes import get_mode
from aimcard.models.topology import TOPOLOGIES
from aimcard.netlists.column import Pulses
from aimcard.netlists.readout import ReadoutDesign, check_mirror_ratio, default_readout
from aimcard.netlists.technology import Technology, get_technology


@dataclass(frozen=True)
class Effort:
    """Sizes of a run: lines fitted per clamp, held-out columns and vectors, their input distributions per clamp,
    wire scales beside 1, and how many vectors are run again with tighter settings. A sweep of many cards thins its
    columns: their first ``rows`` and ``lines``, and codes that are multiples of ``code_step``."""

    fit_ideal: int
    fit_ota: int
    columns: int
    vectors: int
    distributions: dict[str, tuple[str, ...]]
    wire_scales: tuple[float, ...]
    floor_vectors: int
    rows: int = ROWS
    lines: int = 2
    code_step: int = 1


_ALL: dict[str, tuple[str, ...]] = {"ideal": DISTRIBUTIONS, "ota": DISTRIBUTIONS}
#: All cells on saturates nothing at an ideal clamp, and the saturated column shows the read-out's end.
_USUAL = _ALL | {"ota": ("gaussian", "uniform", "sparse")}
EFFORTS = {
    "sweep": Effort(5, 3, 1, 3, {"ideal": ("gaussian",), "ota": ("gaussian",)}, (), 0, rows=256, lines=1, code_step=3),
    "quick": Effort(5, 3, 1, 2, {"ideal": ("gaussian",), "ota": ("gaussian",)}, (), 0),
    "default": Effort(16, 8, 1, 4, _USUAL, (3.0, 10.0), 1),
    "full": Effort(32, 20, 2, 6, _ALL, (2.0, 3.0, 10.0), 3),
}


@dataclass(frozen=True)
class Options:
    """What the user may choose. ``held_out_columns``: how many judge the card; None takes the effort's.

    ``corner`` "nom" is the typical corner of every technology, and becomes its own name for it.
    ``w_select_um`` calibrates for select transistors of one drawn width; None for the technology's range.
    ``vdd_v`` is the supply of everything; None takes the technology's own.
    ``mode``: the PWM mode that all columns are driven in, a name of ``models/modes.py``.
    ``lsb_ns`` is the LSB time [ns]; None for the one that the technology's read-out is made for.
    ``mirror_ratio``: line current over the mirror's, a whole number; None for that of the technology's read-out.
    ``held_out_only``: the columns that judge a card and none that one is fitted to; another ``seed`` gives columns that
    nobody has seen while a model was made.
    """

    technology: str = "freepdk45"
    corner: str = "nom"
    temperature_c: float = 27.0
    held_out_columns: int | None = None
    effort: str = "default"
    jobs: int | None = None
    seed: int = 1
    w_select_um: float | None = None
    vdd_v: float | None = None
    mode: str = "conventional"
    lsb_ns: float | None = None
    topology: str = "gated"
    held_out_only: bool = False
    mirror_ratio: float | None = None

    def __post_init__(self) -> None:
        check_choice("effort", self.effort, tuple(EFFORTS))
        check_choice("topology", self.topology, TOPOLOGIES)
        get_mode(self.mode, CODE_MAX)
        technology = self.pdk
        technology.library(self.corner)
        object.__setattr__(self, "corner", technology.corner(self.corner))
        technology.check_temperature(self.temperature_c)
        for name, value in (("held-out columns", self.held_out_columns), ("jobs", self.jobs)):
            if value is not None and value < 1:
                raise InputError(f"{name}: expected 1 or more; got {value}")
        if self.seed < 0:
            raise InputError(f"seed: expected 0 or more; got {self.seed}")
        if self.w_select_um is not None and not technology.w_min_um <= self.w_select_um <= 2:
            raise InputError(f"drawn select width: expected {technology.w_min_um:g} to 2 µm; got {self.w_select_um:g}")
        if self.lsb_ns is not None and not 0.5 <= self.lsb_ns <= 100:
            raise InputError(f"LSB of the pulses: expected 0.5 to 100 ns; got {self.lsb_ns:g}")
        if self.mirror_ratio is not None:
            object.__setattr__(self, "mirror_ratio", check_mirror_ratio(self.mirror_ratio))

    @property
    def pdk(self) -> Technology:
        """The technology, at the supply asked for."""
        technology = get_technology(self.technology)
        return technology if self.vdd_v is None else technology.at_supply(self.vdd_v)

    @property
    def readout(self) -> ReadoutDesign:
        """The technology's read-out, with the mirror and the LSB asked for."""
        own = default_readout(self.pdk, self.mirror_ratio)
        return own if self.lsb_ns is None else replace(own, t_lsb_s=self.lsb_ns * 1e-9)

    @property
    def size(self) -> Effort:
        """The sizes that the effort stands for."""
        return EFFORTS[self.effort]

    @property
    def w_range_um(self) -> tuple[float, float]:
        """Select widths that the fit covers [µm]."""
        w = self.w_select_um
        return self.pdk.w_select_range_um if w is None else (w, w)

    @property
    def w_ref_um(self) -> float:
        """Select width that the cell's equations are written for [µm]: the widest of the range."""
        return self.w_range_um[1]


def plan(options: Options) -> list[Column]:
    """All columns that ``options`` asks for: fitted, held out, floor, saturated."""
    columns = _every_column(options)
    return [c for c in columns if c.role == "held_out"] if options.held_out_only else columns


def _every_column(options: Options) -> list[Column]:
    if options.topology == "tied":
        from aimcard.calibrate.tied_columns import tied_plan

        return list(tied_plan(options))
    size = options.size
    fitted = fit_columns("ideal", size.fit_ideal, options.seed, options.w_range_um)
    fitted += fit_columns("ota", size.fit_ota, options.seed + 1, options.w_range_um)
    held = held_out_columns(
        options.held_out_columns or size.columns,
        size.vectors,
        options.seed,
        size.distributions,
        size.wire_scales,
        options.w_range_um,
    )
    out = fitted + held + (floor_columns(held, size.floor_vectors) if size.floor_vectors else [])
    if options.effort == "sweep":
        return [thinned(c, size.rows, size.lines, size.code_step) for c in out]
    return out if options.effort == "quick" else [*out, saturated_column(options.w_ref_um), supply_column(held)]


#: CPU seconds that a ring takes for a time step.
RING_STEP_CPU_S = 60e-6


def ring_cpu_s(options: Options) -> float:
    """CPU seconds of a ring over a window: as many steps as the design's ring needs, in FreePDK45 66 000, in sky130 52 000."""
    readout = options.readout
    slots = get_mode(options.mode, CODE_MAX).window_slots(Pulses.guard)
    return RING_STEP_CPU_S * slots * readout.t_lsb_s / readout.ring_step_s


def expected_cpu_s(column: Column, ring_s: float = 4.0) -> float:
    """CPU seconds of a column's decks, as measured on one core of a 2-core machine; its ring included (``ring_cpu_s``).

    A line of 512 rows takes as long in sky130 as in FreePDK45 (0.96 times, measured side by side): edges are what costs.
    """
    distinct = len(set(column.codes[0].tolist()))
    one = column.codes.shape[1] / ROWS * (0.5 + 0.09 * distinct) * (1.0 if column.clamp == "ideal" else 1.6)
    return column.runs * (one * (2.0 if column.role == "floor" else 1.0) + (0.0 if column.clamp == "ideal" else ring_s))


#: Seconds that fits, validation and figures take after the simulation.
FIT_S = {"sweep": 30.0, "quick": 45.0, "default": 200.0, "full": 300.0}


def estimate(options: Options) -> str:
    """How many decks, and about how long on this machine."""
    columns = plan(options)
    jobs = options.jobs or joblib.cpu_count()
    decks = sum(c.runs * (1 if c.clamp == "ideal" else 2) for c in columns)
    ring_s = ring_cpu_s(options)
    minutes = (sum(expected_cpu_s(c, ring_s) for c in columns) / jobs + FIT_S[options.effort]) / 60
    at_most = {"quick": 3, "default": 15}.get(options.effort)
    limit = f", at most {at_most} on 2 idle cores" if at_most and options.held_out_columns is None else ""
    return (
        f"{decks} decks in ngspice, {jobs} at a time, then the fits: about {minutes:.0f} min the first time{limit}; "
        "finished decks are kept, so it can be interrupted"
    )
