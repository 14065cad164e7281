"""Noise of a tied column's read-out from ngspice, element by element: cells, source-line drivers, regulator, mirror, ring's bias.

A tied column stays connected, so its whole conductance takes part at any signed current: what thermal noise it has, idle cells
and wire included, flows into the regulator, and the regulator's own voltage noise draws a current through it. So a point is a
line current *and* a conductance. As in ``noise_decks``, what is measured is the relative noise of the currents of a ring's stage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from PySpice.Spice.Netlist import Circuit

from aimcard.models.errors import InputError
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.deck import Deck, make_deck
from aimcard.netlists.levels import V_COMMON_V
from aimcard.netlists.noise_decks import SOURCES, add_stage, stage_noise_deck
from aimcard.netlists.readout import add_supplies
from aimcard.netlists.readout_decks import LINE_SECTIONS, add_line
from aimcard.netlists.tied import TIED_OPTIONS
from aimcard.netlists.tied_driver import default_tied_driver
from aimcard.netlists.tied_readout import add_tied_regulator, default_tied_readout
from aimcard.netlists.waveforms import Waveforms

ROWS = 512
#: Elements by source of noise; what is left over belongs to the regulator (its OTA, its lead network, the follower).
TIED_SOURCES = SOURCES | {
    "cells": re.compile(r"r(cell|line)\w+|mselect\w+"),
    "drivers": re.compile(r"mswitch\w+|rrow\w+"),
    "bias": re.compile(r"msink(ref)?"),
}
#: Steps of the reference's voltage and of the line's current either way, which show a point's derivatives.
PROBE_V, PROBE_A = 0.5e-3, 2e-6


@dataclass(frozen=True)
class NoiseColumn:
    """A column of ROWS equal rows: ``conductance_s`` of all PCMs together, which draw about ``current_a``, of either sign.

    Of the rows a share ``active`` has inputs of +1, so that G+ minus G− of these is the current over the read voltage; the
    others are idle. trim_a: a noiseless current out of the column beside, which takes the line current where it should be.
    """

    current_a: float
    conductance_s: float
    active: float = 1.0
    trim_a: float = 0.0


def _circuit(bench: ColumnBench, column: NoiseColumn) -> Circuit:
    difference = column.current_a / bench.v_read_v
    if not (0 < column.active <= 1 and abs(difference) < column.active * column.conductance_s):
        raise InputError(
            f"conductance_s: expected more than {abs(difference):.4g} S in active rows, which {column.current_a:.4g} A at "
            f"{bench.v_read_v:g} V take; got {column.active:g} of {column.conductance_s:.4g}"
        )
    circuit, technology = Circuit("tied read-out noise"), bench.technology
    add_supplies(circuit, technology, V_COMMON_V)
    add_tied_regulator(circuit, technology, default_tied_readout(technology), column="bl", mirror_gate="mirrorgate")
    add_stage(circuit, technology, bench.readout)
    for rail, volt in (("low", -bench.v_read_v), ("mid", 0.0), ("high", bench.v_read_v)):
        circuit.V(rail, rail, "0", V_COMMON_V + volt)
    circuit.I("trim", "bl", "0", column.trim_a)
    half = 0.5 * column.conductance_s / LINE_SECTIONS
    for node in add_line(circuit):
        for side, rail, sign in (("p", "low", 1), ("m", "high", -1)):
            both = half * column.active + 0.5 * sign * difference / LINE_SECTIONS
            _add_cells(circuit, bench, f"{node}{side}", node, rail, both, round(ROWS / LINE_SECTIONS * column.active))
            if column.active < 1:
                idle = round(ROWS / LINE_SECTIONS * (1 - column.active))
                _add_cells(circuit, bench, f"{node}{side}i", node, "mid", half * (1 - column.active), idle)
    return circuit


def _add_cells(circuit: Circuit, bench: ColumnBench, tag: str, node: str, rail: str, total_s: float, rows: int) -> None:
    """``rows`` equal cells between ``node`` and as many source lines on ``rail``, as one: noise of equal branches that know
    nothing of each other is that of all in parallel."""
    technology, driver = bench.technology, default_tied_driver(bench.technology)
    cell = driver.cell
    mos = technology.mosfet
    circuit.R(f"cell{tag}", f"x{tag}", f"s{tag}", 1 / total_s)
    mos(circuit, f"select{tag}", f"s{tag}", "vdd", node, "0", kind="nmos", w_um=cell.w_select_um, flavour=cell.flavour, m=rows)
    circuit.R(f"row{tag}", f"d{tag}", f"x{tag}", 0.5 * driver.columns * driver.r_row_ohm / rows)
    for kind, w_um in driver.switch_um(rail).items():
        if w_um > 0:
            gate, bulk, flavour = ("vdd", "0", driver.n_flavour) if kind == "nmos" else ("0", "vdd", driver.p_flavour)
            fingers = max(1, round(w_um))
            mos(
                circuit, f"switch{tag}{kind[0]}", f"d{tag}", gate, rail, bulk, kind=kind, w_um=w_um / fingers,
                m=fingers * rows, flavour=flavour,
            )  # fmt: skip
    # The row's other columns load its switch too, and their direct current brings out its flicker noise.
    load_a = {"low": 1.0, "mid": 0.0, "high": -1.0}[rail] * driver.columns * driver.load_s * bench.v_read_v * rows
    circuit.I(f"load{tag}", "0", f"d{tag}", load_a)


@dataclass(frozen=True)
class NoisePoint:
    """What a column is to its read-out: line current [A], conductance [S], and how a stage's current follows the line's,
    d ln I_stage/d I_line [1/A]."""

    current_a: float
    conductance_s: float
    log_slope_per_a: float


def tied_point_deck(bench: ColumnBench, column: NoiseColumn) -> Deck:
    """Operating point of ``tied_noise_deck`` and its neighbours (.dc): line current ±PROBE_A, reference ±PROBE_V."""
    circuit = _circuit(bench, column)
    sweeps = " ".join(
        f"{source} {middle - step:.9g} {middle + 1.5 * step:.9g} {step:.9g}"
        for source, middle, step in (("Itrim", column.trim_a, PROBE_A), ("Vref", V_COMMON_V, PROBE_V))
    )
    return make_deck(
        circuit, f"tied noise point {column.current_a * 1e6:g} uA", bench.technology, bench.corner, bench.temperature_c,
        f".dc {sweeps}", ("v(bl)", "i(vcol)", "i(vsn)", "i(vsp)"), TIED_OPTIONS, expected_cpu_s=0.2,
    )  # fmt: skip


def tied_point(waves: Waveforms) -> NoisePoint:
    """The point in the waveforms of ``tied_point_deck``."""
    v, i, n, p = (waves[name].reshape(3, 3) for name in ("v(bl)", "i(vcol)", "i(vsn)", "i(vsp)"))
    stage = 0.5 * np.log(np.abs(n * p))
    return NoisePoint(
        float(i[1, 1]),
        float((i[2, 1] - i[0, 1]) / (v[2, 1] - v[0, 1])),
        float((stage[1, 2] - stage[1, 0]) / (i[1, 2] - i[1, 0])),
    )


def tied_noise_deck(bench: ColumnBench, column: NoiseColumn) -> Deck:
    """Densities of a stage's relative current behind a column; read it with ``readout_noise(waves, TIED_SOURCES)``."""
    name = f"tied noise {column.current_a * 1e6:g} uA {column.conductance_s * 1e3:g} mS"
    return stage_noise_deck(_circuit(bench, column), name, bench.technology, bench.corner, bench.temperature_c, TIED_OPTIONS)
