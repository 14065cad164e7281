"""A small tile's card and reference sets made from the card's own model, with errors of known size."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from aimcard.calibrate.parameters import SPECS
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.card import DOMAIN_UNITS, Card, FitSummary, Interval, Parameter, Provenance, Table
from aimcard.models.pulse import EDGE_TABLES
from aimcard.models.tile import TileModel

pytest.register_assert_rewrite("made_card", "made_set")

ROWS, CODE_MAX, GUARD, T_LSB_S, V_READ_V = 24, 15, 2, 1e-9, 0.2
SLOTS = CODE_MAX + GUARD
WIRE = {"r_bit_ohm": 0.15, "r_return_ohm": 0.15}
# Every parameter where its fit starts, so that a new term of the equations needs no change here; the read-out's
# start at 0, which would leave them untested, so they get one natural unit (steps that arrive late are negative).
_UNITS = {"read-out": -1.0, "adc": 1.0}
VALUES = {n: s.start or _UNITS.get(s.group, 0.0) * s.scale for n, s in SPECS.items()} | WIRE
RECORD_ATTRS = {"w_select_um": 0.5, "position": 0.5, **WIRE}


def make_parameters(values: dict[str, float]) -> list[Parameter]:
    """Card parameters of these values, with the units and bounds of the fits."""
    specs = SPECS | {"r_return_ohm": SPECS["r_bit_ohm"]}
    return [
        Parameter(name, value, None, specs[name].lo, specs[name].hi, specs[name].unit, specs[name].group)
        for name, value in values.items()
    ]


def _tables() -> list[Table]:
    line_a = np.array([0.0, 10e-6, 30e-6, 60e-6, 100e-6])
    place = np.array([0.0, 0.5, 1.0])
    edges = {
        "edge_rise_delay": 40e-12 + 10e-12 * place,
        "edge_fall_delay": 38e-12 + 12e-12 * place,
        "edge_rise_time": 20e-12 + 15e-12 * place,
        "edge_fall_time": 18e-12 + 17e-12 * place,
    }
    assert set(edges) == set(EDGE_TABLES)
    rate_hz = 1.5e9 * (1 + line_a / 9e-6 / (1 + line_a / 300e-6))
    return [
        Table("clamp", line_a, V_READ_V - 18.0 * line_a, "A", "V", "line current", "clamp voltage"),
        Table("mirror", line_a, (line_a + 10e-6) / 8, "A", "A", "line current", "mirror current"),
        Table("adc", line_a, rate_hz, "A", "Hz", "line current", "rate"),
        *(Table(name, place, y, "1", "s", "position", "time") for name, y in edges.items()),
    ]


@pytest.fixture(scope="session")
def card_of() -> Callable[..., Card]:
    """A card of the small tile; keywords replace Card's fields, ``readout=False`` leaves the read-out's tables out."""

    def make(*, readout: bool = True, **changes) -> Card:
        meta = {
            "topology": "gated", "mode": "conventional", "technology": "freepdk45", "corner": "nom",
            "temperature_c": 27.0, "vdd_v": 1.0, "v_read_v": V_READ_V,
            "t_lsb_s": T_LSB_S, "code_max": CODE_MAX, "guard_slots": GUARD, "rows": ROWS, "segments": 4,
            **WIRE, "r_end_ohm": 0.075, "n_phases": 5,
            "mirror_ratio": 8.0, "w_ref_um": 0.5, "w_select_um": 0.5, "apparent_weight": "rational",
        }  # fmt: skip
        bounds = {name: Interval(0.0, 1e6, unit) for name, unit in DOMAIN_UNITS.items()}
        fields = {
            "meta": meta,
            "parameters": make_parameters(VALUES),
            "domain": bounds,
            "fit": FitSummary(len(VALUES), 40, 12, True),
            "provenance": Provenance("made up", "0", {}),
            "tables": _tables() if readout else _tables()[3:],
        }
        return Card(**(fields | changes))

    return make


@pytest.fixture(scope="session")
def column_of(card_of) -> Callable[..., Record]:
    """A column record: the card's own response plus an error that alternates in sign from vector to vector.

    `error_a`, a number or (lines,) [A], goes to all slots of line and mirror, `error_count` to the phase.
    """

    def make(
        name: str = "c0", *, seed: int = 0, clamp: str = "ideal", distribution: str = "gaussian",
        wire_scale: float = 1.0, role: str = "held_out", vectors: int = 6, lines: int = 2,
        error_a: float | np.ndarray = 0.0, error_count: float = 0.0, codes: np.ndarray | None = None, **attrs,
    ) -> Record:  # fmt: skip
        rng = np.random.default_rng(seed)
        g = rng.uniform(0.1e-6, 12e-6, (lines, ROWS))
        if codes is None:
            codes = rng.integers(0, CODE_MAX + 1, (vectors, ROWS))
        if distribution == "all-on":
            codes = np.maximum(codes, CODE_MAX - 1)
        response = TileModel(card_of()).respond(g, codes, clamp=clamp, wire_scale=wire_scale, w_select_um=0.5)
        signs = np.where(np.arange(len(codes)) % 2, -1.0, 1.0)[:, None]
        added = signs * np.broadcast_to(error_a, lines)
        arrays = {
            "conductance_s": g,
            "codes": codes,
            "slot_edge_s": T_LSB_S * np.arange(SLOTS + 1),
            "current_a": response.current_a + added[..., None],
        }
        if response.mirror_a is not None and response.phase_count is not None:
            phase = response.phase_count + signs * error_count
            arrays |= {"mirror_a": response.mirror_a + added[..., None], "phase_count": phase}
            arrays["count"] = np.floor(phase).astype(np.int64)
        own = {
            "clamp": clamp,
            "distribution": distribution,
            "wire_scale": wire_scale,
            "column": f"held{seed}",
        }
        return Record(name, "column", role, {**RECORD_ATTRS, **own, **attrs}, arrays)

    return make


@pytest.fixture(scope="session")
def set_of() -> Callable[..., ReferenceSet]:
    """A reference set of the small tile from records."""

    def make(*records: Record, **changes) -> ReferenceSet:
        meta = {
            "technology": "freepdk45", "corner": "nom", "temperature_c": 27.0, "vdd_v": 1.0,
            "v_read_v": V_READ_V, "t_lsb_s": T_LSB_S, "code_max": CODE_MAX, "mode": "conventional",
            "topology": "gated", "simulator": "the card's own model",
        }  # fmt: skip
        return ReferenceSet(meta | changes, records)

    return make


@pytest.fixture(scope="session")
def readout_records() -> tuple[Record, ...]:
    """Static curves, oscillator and loop gain of a one-pole, two-stage regulator, in closed form."""
    line_a = np.linspace(0, 100e-6, 6)
    _, mirror, adc, *_ = _tables()
    static = {
        "current_a": line_a,
        "v_clamp_v": V_READ_V - 18.0 * line_a,
        "mirror_a": np.interp(line_a, mirror.x, mirror.y),
    }
    rates = {"current_a": adc.x, "count_rate_hz": adc.y}
    hz = np.geomspace(1e6, 1e11, 60)
    second_hz = np.array([2e9, 4e9, 6e9])
    crossing_hz = np.array([1e9, 1.5e9, 2e9])
    gain = crossing_hz[:, None] / (1j * hz) / (1 + 1j * hz / second_hz[:, None])
    loops = {
        "current_a": np.array([0.0, 50e-6, 100e-6]),
        "frequency_hz": hz,
        "gain_db": 20 * np.log10(np.abs(gain)),
        "phase_deg": np.degrees(np.unwrap(np.angle(gain))),
        "phase_margin_deg": 90 - np.degrees(np.arctan(crossing_hz / second_hz)),
    }
    assert math.isclose(loops["phase_deg"][0, 0], -90, abs_tol=0.1)
    kinds = (("readout_dc", static), ("oscillator", rates), ("loop_gain", loops))
    return tuple(Record(kind, kind, "fit", {}, arrays) for kind, arrays in kinds)
