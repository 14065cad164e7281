"""A whole calibration on data made from the equations: what made them comes back."""

import dataclasses

import attrs
import numpy as np
import pytest
import torch

from aimcard.calibrate import pipeline
from aimcard.calibrate.cell_targets import cell_on
from aimcard.calibrate.columns import POSITIONS
from aimcard.calibrate.fit import minimise, tensors
from aimcard.calibrate.parameters import SPECS
from aimcard.calibrate.pipeline import calibrate
from aimcard.calibrate.setting import Setting, edge_tables
from aimcard.calibrate.stages import CELL_ON, GATE, LEAK, LINE, PULSE, READOUT
from aimcard.calibrate.targets import Columns, quiet_current, quiet_slots
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.adc import HOLD_S, phase
from aimcard.models.cell import cell_current, gate_current, idle_weight, leakage_current
from aimcard.models.errors import FitError
from aimcard.models.line import LineDrive
from aimcard.models.pulse import (
    R_REF_OHM,
    edges_at,
    fall_charge,
    fall_delay,
    recharge_amount,
    recharge_share,
    rise_charge,
    rise_delay,
)
from aimcard.models.readout import lagged, mirror
from aimcard.models.tile import TileModel, adc_parameters, line_current, readout_parameters

T, V = 1e-9, 0.2
TILE_ROWS, TILE_CODE, GUARD, SEGMENTS = 48, 19, 4, 6
# Away from where the fits start, by about one natural unit of each.
TRUTH = {n: s.start + {"read-out": -1.0, "adc": 1.0}.get(s.group, 0.0) * s.scale for n, s in SPECS.items()} | {
    "r_on_ohm": 560.0, "dw_um": 0.012, "k_source_per_v": 1.1, "k_drain_per_v": 1.4, "i_leak_a": 1.3e-9,
    "dw_leak_um": 0.02, "v_leak_source_v": 0.031, "v_leak_drain_v": 0.5, "i_gate_a": 0.8e-9, "v_gate_source_v": 0.19,
    "t_rise_s": 8e-12, "k_rise": 0.1, "t_fall_s": 16e-12, "k_fall": 0.05, "k_gate": 1.2, "q_rise_c": 3e-18,
    "q_fall_c": 2.6e-16, "i_fall_a": 5e-8, "c_node_f": 7e-16, "i_recharge_a": 2.5e-9, "dw_node_um": 0.01,
    "dw_cap_um": 0.01, "c_rise_push_f": -2e-15, "c_fall_push_f": 1.6e-15, "c_idle_f": 4e-16, "r_bit_ohm": 0.8,
    # What no fit moves stays where it starts.
    **{n: s.start for n, s in SPECS.items() if n not in {*CELL_ON, *LEAK, *GATE, *PULSE, *LINE, *READOUT}},
}  # fmt: skip


def f64(x) -> torch.Tensor:
    return torch.tensor(np.asarray(x), dtype=torch.float64)


META = {
    "technology": "made up", "corner": "nom", "temperature_c": 27.0, "vdd_v": 1.0, "v_read_v": V, "t_lsb_s": T,
    "code_max": TILE_CODE, "mode": "conventional", "topology": "gated", "simulator": "the equations themselves",
    "guard_slots": GUARD, "edge_delay_s": 50e-12, "rows": TILE_ROWS, "w_ref_um": 0.5, "w_min_um": 0.3,
    "r_bit_ohm": 0.8, "r_return_ohm": 0.8, "seed": 7,
}  # fmt: skip


def edge_record() -> Record:
    time = np.linspace(-100e-12, 200e-12, 601)
    position = np.array([0.0, 0.5, 1.0])
    ramps = [np.clip(0.5 + (time - 8e-12 * (1 + u)) / ((30 + 20 * u) * 1e-12), 0, 1) for u in position]
    return Record(
        "driver", "edge", "fit", {},
        {"time_s": time, "position": position, "rise_v": np.array(ramps), "fall_v": 1 - np.array(ramps)},
    )  # fmt: skip


def grid(*axes):
    return [a.ravel() for a in np.meshgrid(*axes, indexing="ij")]


def cell_records(setting: Setting, values) -> list[Record]:
    p = setting.line(values)
    g, vb, vr, w, on = grid(np.geomspace(1e-7, 3e-5, 6), [0.14, 0.2, 0.23], [0.0, 0.02, 0.05], [0.3, 0.5], [0.0, 1.0])
    at = [f64(x) for x in (g, vb, vr, w)]
    leak = leakage_current(p.cell, *at[1:]) * idle_weight(p.cell, at[0], at[3])
    static = {
        "conductance_s": g, "v_bit_v": vb, "v_return_v": vr, "v_gate_v": on, "w_select_um": w,
        "current_a": torch.where(f64(on) > 0, cell_current(p.cell, *at), leak).numpy(),
        "gate_current_a": on * gate_current(p.cell, at[2], at[3]).numpy(),
    }  # fmt: skip
    # From 1 µS on a recharge is over in the window: the last slot is then the leakage that a fit takes it for.
    g, vb, vr, w, u, x = grid(
        np.geomspace(1e-6, 2.5e-5, 4), [0.18, 0.2], [0.0, 0.015], [0.3, 0.5], POSITIONS, [1.0, 3.0]
    )
    code = torch.tensor(x.astype(np.int64))
    gt, vbt, vrt, wt = (f64(a) for a in (g, vb, vr, w))
    e = edges_at(setting.edge_tables, f64(u))
    slots = 44
    i_on = cell_current(p.cell, gt, vbt, vrt, wt)
    i_off = leakage_current(p.cell, vbt, vrt, wt) * idle_weight(p.cell, gt, wt)
    pushes = ("c_rise_push_f", "g_rise_push_s", "c_fall_push_f", "g_fall_push_s", "c_small_push_f")
    none = dataclasses.replace(p.pulse, **dict.fromkeys(pushes, 0.0))
    charge = torch.where(code[:, None] > torch.arange(slots), i_on[:, None], i_off[:, None]) * T
    edge_s = torch.arange(slots + 1, dtype=torch.float64) * T
    amount = recharge_amount(none, e, gt, vbt, vrt, wt)
    charge = charge + amount[:, None] * recharge_share(none, e, gt, code, edge_s, T, wt)
    charge[:, 0] += rise_charge(none, e, i_on, vrt, wt, R_REF_OHM) - rise_delay(none, e) * (i_on - i_off)
    falling = fall_charge(none, e, gt, i_on, vrt, wt, R_REF_OHM) + fall_delay(none, e) * (i_on - i_off)
    charge[torch.arange(len(code)), code] += falling
    pulse = {
        "conductance_s": g, "code": code.numpy(), "position": u, "w_select_um": w, "v_bit_v": vb, "v_return_v": vr,
        "current_a": (charge / T).numpy(), "slot_edge_s": edge_s.numpy(),
    }  # fmt: skip
    return [Record("cell-dc", "cell_dc", "fit", {}, static), Record("cell-pulse", "cell_pulse", "fit", {}, pulse)]


def readout_records() -> list[Record]:
    i = np.linspace(0, 4e-4, 12)
    static = {"current_a": i, "v_clamp_v": V - 10 * i - 2e4 * i**2, "mirror_a": (i + 1e-5) / 8}
    ring = {"current_a": i, "count_rate_hz": 1.5e9 + 1e14 * i / (1 + i / 1e-3)}
    return [Record("readout-dc", "readout_dc", "fit", {}, static), Record("ring", "oscillator", "fit", {}, ring)]


def column_record(setting, values, tables, k: int, clamp: str, role: str = "fit") -> Record:
    rng = np.random.default_rng([k, len(clamp), len(role)])
    g, x = rng.uniform(1e-6, 25e-6, TILE_ROWS), rng.integers(0, TILE_CODE + 1, TILE_ROWS)
    x[rng.random(TILE_ROWS) < rng.uniform(0, 0.6)] = 0
    w, u = float(rng.choice([0.3, 0.4, 0.5])), float(POSITIONS[k % 3])
    scale = [1.0, 2.0, 4.0][k % 5 % 3] if clamp == "ideal" else 1.0
    slots = TILE_CODE + GUARD
    drive = LineDrive(f64(g)[None], torch.tensor(x)[None], slots, T, w, edges_at(setting.edge_tables, u))
    arrays = {"conductance_s": g[None], "codes": x[None], "slot_edge_s": T * np.arange(slots + 1)}
    readout = readout_parameters(values, tables) if clamp == "ota" else None
    current, static_a = line_current(setting.line(values, scale), drive, readout)
    arrays["current_a"] = current[None].numpy()
    if readout is not None:
        seen = lagged(readout, current, static_a, T)
        arrays |= {
            "mirror_a": mirror(readout, seen)[None].numpy(),
            "phase_count": phase(adc_parameters(values, tables), seen, T)[None].numpy(),
        }
    own = {
        "clamp": clamp, "distribution": "made up", "wire_scale": scale, "r_bit_ohm": 0.8, "r_return_ohm": 0.8,
        "w_select_um": w, "position": u, "column": f"{role}{k}",
    }  # fmt: skip
    return Record(f"{role}-{clamp}-{k}", "column", role, own, arrays)


@pytest.fixture(scope="module")
def made_up() -> ReferenceSet:
    """A small tile's reference set from the equations, at the parameters TRUTH."""
    with torch.no_grad():
        setting = Setting.of(ReferenceSet(META, [edge_record()]), SEGMENTS)
        values = tensors(TRUTH)
        static, ring = readout_records()
        at = {name: f64(static[name]) for name in ("current_a", "v_clamp_v", "mirror_a")}
        tables = {
            "clamp": (at["current_a"], at["v_clamp_v"]), "mirror": (at["current_a"], at["mirror_a"]),
            "adc": (f64(ring["current_a"]), f64(ring["count_rate_hz"])),
        }  # fmt: skip
        columns = [column_record(setting, values, tables, k, "ideal") for k in range(8)]
        columns += [column_record(setting, values, tables, k, "ota") for k in range(6)]
        columns += [column_record(setting, values, tables, 90, c, "held_out") for c in ("ideal", "ota")]
        return ReferenceSet(META, [edge_record(), *cell_records(setting, values), static, ring, *columns])


@pytest.fixture(scope="module")
def card(made_up):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "SEGMENTS", SEGMENTS)
        return calibrate(made_up, progress=False)


def test_a_card_says_what_happens_at_a_phase_boundary_even_where_its_set_does_not(made_up, card):
    assert "phase_rule" not in made_up.meta
    assert (card.meta["phase_rule"], card.meta["hold_s"]) == ("reset", HOLD_S)


def test_the_parameters_that_made_the_data_come_back(card):
    assert card.fit.converged
    assert card.decision("apparent_weight").winner == "rational"
    for name in (*CELL_ON, *LEAK, *GATE):
        assert card.value(name) == pytest.approx(TRUTH[name], rel=1e-5), name
    for name in ("q_fall_c", "c_node_f", "t_fall_s", "r_bit_ohm", "i_leak_a", "phase_start", "c_idle_f"):
        assert card.value(name) == pytest.approx(TRUTH[name], rel=1e-3), name
    # The rest within a hundredth of a natural unit, or as far as its own error says.
    for name in (*PULSE, *LINE, *READOUT):
        p = card.parameter(name)
        if p.identified and p.stderr is not None:
            assert abs(p.value - TRUTH[name]) < max(0.02 * SPECS[name].scale, 5 * p.stderr), name
    assert card.value("r_return_ohm") == card.value("r_bit_ohm")


def test_the_card_predicts_what_it_has_not_seen(card, made_up):
    for clamp in ("ideal", "ota"):
        (record,) = made_up.select(role="held_out", clamp=clamp)
        options = {name: record.attrs[name] for name in ("wire_scale", "w_select_um", "position")}
        found = TileModel(card).respond(record["conductance_s"], record["codes"], clamp=clamp, **options)
        rms = np.sqrt((record["current_a"] ** 2).mean())
        assert np.abs(found.current_a - record["current_a"]).max() < 1e-5 * rms
        if clamp == "ota":
            assert np.abs(found.phase_count - record["phase_count"]).max() < 1e-3


def test_errors_and_domain_are_written(card):
    fitted = {n for n in (*LINE, *PULSE) if card.parameter(n).stderr is not None}
    assert fitted == {*LINE, *PULSE}
    assert len(card.correlation_names) == len(card.correlation)
    assert card.domain["w_select_um"].lo == 0.3
    assert card.domain["wire_scale"].hi == 4.0
    assert card.fit.n_columns == 14


def test_the_same_set_makes_the_same_card(card, made_up, monkeypatch):
    monkeypatch.setattr(pipeline, "SEGMENTS", SEGMENTS)
    assert calibrate(made_up, progress=False).content_hash == card.content_hash


@pytest.mark.parametrize(
    ("kind", "clamp", "message"),
    [
        ("cell_dc", None, "expected a record of kind cell_dc with role fit; there is none"),
        ("column", "ideal", "expected columns with clamp 'ideal' and role 'fit'; there are none"),
        ("oscillator", None, "columns with clamp 'ota' need records readout_dc and oscillator"),
    ],
)
def test_a_missing_record_is_named(made_up, monkeypatch, kind, clamp, message):
    monkeypatch.setattr(pipeline, "SEGMENTS", SEGMENTS)
    records = [
        r for r in made_up.records.values()
        if r.kind != kind or (clamp is not None and r.attrs.get("clamp") != clamp)
    ]  # fmt: skip
    with pytest.raises(FitError, match=message):
        calibrate(attrs.evolve(made_up, records=records), progress=False)


def test_edges_are_read_off_the_word_line():
    tables = edge_tables(ReferenceSet(META, [edge_record()]))
    for name in ("edge_rise_delay", "edge_fall_delay"):
        np.testing.assert_allclose(tables[name][1], 50e-12 + 8e-12 * np.array([1, 1.5, 2]), rtol=1e-6)
    for name in ("edge_rise_time", "edge_fall_time"):
        np.testing.assert_allclose(tables[name][1], 0.8e-12 * np.array([30, 40, 50]), rtol=1e-6)


def test_a_target_at_its_truth_is_zero(made_up):
    setting = Setting.of(made_up, SEGMENTS)
    residual = cell_on(made_up["cell-dc"], setting)
    assert residual(tensors(TRUTH)).abs().max() < 1e-6
    assert residual(tensors({name: spec.start for name, spec in SPECS.items()})).abs().max() > 1


def test_quiet_slots_tell_the_wire_whatever_edges_do():
    """Lines of long codes give the wire back to 1e-6 even if the pulse terms are all wrong."""
    setting = Setting.of(ReferenceSet(META, [edge_record()]), SEGMENTS)
    rng = np.random.default_rng(4)
    truth = tensors(TRUTH)
    g = torch.tensor(rng.uniform(1e-6, 25e-6, (2, TILE_ROWS)))
    codes = torch.tensor(rng.integers(12, 16, (2, TILE_ROWS)))
    drive = LineDrive(g, codes, 20, setting.t_lsb_s, 0.5, edges_at(setting.edge_tables, torch.tensor([[0.5], [0.5]])))
    one = torch.ones(2, 1, dtype=torch.float64)
    with torch.no_grad():
        current = line_current(setting.line(truth, one), drive, None)[0]
    columns = Columns(drive, one, np.arange(2), current, None, None)
    assert (quiet_slots(columns) >= 8).all()
    wrong = dict(TRUTH) | {"q_fall_c": 5e-16, "t_fall_s": 9e-11, "c_fall_push_f": 5e-15, "r_bit_ohm": 0.9 * TRUTH["r_bit_ohm"]}
    fit = minimise("wire", ("r_bit_ohm",), wrong, quiet_current(columns, setting))
    assert fit.values["r_bit_ohm"] == pytest.approx(TRUTH["r_bit_ohm"], rel=1e-5)
    short = dataclasses.replace(columns, drive=dataclasses.replace(drive, codes=torch.ones_like(codes)))
    assert (quiet_slots(short) == 0).all()
