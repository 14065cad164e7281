"""Fits on data of known truth: the optimiser, the bootstrap, the drawn columns, the plan, and a whole calibration."""

import dataclasses
import itertools

import attrs
import numpy as np
import pytest
import torch

from aimcard.calibrate import pipeline
from aimcard.calibrate.bootstrap import bootstrap
from aimcard.calibrate.columns import (
    CODE_MAX,
    DISTRIBUTIONS,
    G_MAX_S,
    G_MIN_S,
    POSITIONS,
    ROWS,
    draw_codes,
    fit_columns,
    floor_columns,
    held_out_columns,
    pair_conductances,
)
from aimcard.calibrate.fit import jacobian, minimise, tensors
from aimcard.calibrate.parameters import SPECS
from aimcard.calibrate.pipeline import calibrate
from aimcard.calibrate.plan import EFFORTS, Options, estimate, expected_cpu_s, plan
from aimcard.calibrate.stages import CELL_ON, GATE, LEAK, LINE, PULSE, READOUT
from aimcard.calibrate.targets import Columns, Setting, cell_on, edge_tables, quiet_current, quiet_slots
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.adc import phase
from aimcard.models.cell import cell_current, gate_current, idle_weight, leakage_current
from aimcard.models.errors import FitError, InputError, TechnologyError
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


# --- one fit ---------------------------------------------------------------------------------------------------


def decay(names=("r_on_ohm", "k_source_per_v")):
    """y = a·exp(−k·x) at a = 560, k = 1.1 under two parameters' names."""
    x = torch.linspace(0, 2, 15, dtype=torch.float64)
    y = 560.0 * torch.exp(-1.1 * x)
    return lambda v: v[names[0]] * torch.exp(-v[names[1]] * x) - y


START = {name: spec.start for name, spec in SPECS.items()}


def test_known_parameters_come_back():
    fit = minimise("decay", ("r_on_ohm", "k_source_per_v"), START, decay())
    assert fit.values["r_on_ohm"] == pytest.approx(560, rel=1e-8)
    assert fit.values["k_source_per_v"] == pytest.approx(1.1, rel=1e-8)
    assert fit.converged
    assert fit.messages == ()
    assert fit.rms < 1e-6
    assert fit.values["dw_um"] == START["dw_um"]


def test_the_jacobian_is_that_of_the_scaled_parameters():
    names = ("r_on_ohm", "k_source_per_v")
    found = jacobian(names, START, decay())
    for k, name in enumerate(names):
        h = 1e-5
        up, down = (decay()(tensors(START | {name: START[name] + s * h * SPECS[name].scale})) for s in (1, -1))
        np.testing.assert_allclose((up - down) / (2 * h), found[:, k], rtol=1e-5, atol=1e-6)


def test_a_bound_is_reported():
    # The optimum k = -3.5 lies below the parameter's lower bound of -2.
    x = torch.linspace(0, 1, 9, dtype=torch.float64)
    fit = minimise("bound", ("k_source_per_v",), START, lambda v: (v["k_source_per_v"] + 3.5) * (1 + x))
    assert fit.values["k_source_per_v"] == pytest.approx(SPECS["k_source_per_v"].lo, abs=1e-3)
    assert fit.at_bound == ("k_source_per_v",)
    assert any("ended at a bound: k_source_per_v" in m for m in fit.messages)


def test_what_the_data_cannot_tell_is_reported():
    x = torch.linspace(0, 1, 9, dtype=torch.float64)
    fit = minimise(
        "sum", ("k_source_per_v", "k_drain_per_v"), START, lambda v: (v["k_source_per_v"] + v["k_drain_per_v"] - 3) * x
    )
    assert set(fit.unidentified) == {"k_source_per_v", "k_drain_per_v"}
    alone = minimise("none", ("k_source_per_v", "r_on_ohm"), START, lambda v: (v["k_source_per_v"] - 1) * x)
    assert alone.unidentified == ("r_on_ohm",)
    assert "not identified by these data: r_on_ohm" in alone.messages[0]


def test_what_no_fit_can_use():
    with pytest.raises(FitError, match="fit of bad: the residuals are not finite"):
        minimise("bad", ("r_on_ohm",), START, lambda v: v["r_on_ohm"] * f64([1.0, np.nan]))
    with pytest.raises(FitError, match="expected at least 2 data points for 2 parameters; got 1"):
        minimise("few", ("r_on_ohm", "k_drain_per_v"), START, lambda v: (v["r_on_ohm"] * v["k_drain_per_v"])[None])


# --- errors ----------------------------------------------------------------------------------------------------


def straight_lines(columns: int, seed: int = 0, noise: float = 0.1):
    """Columns of 20 points of y = a + b·x, each with one error common to its points."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (columns, 20))
    j = np.stack([np.ones_like(x), x], -1).reshape(-1, 2)
    r = np.repeat(noise * rng.normal(size=columns), 20)
    # The optimum: a fit leaves residuals without a component along the Jacobian.
    return j, r - j @ np.linalg.lstsq(j, r, rcond=None)[0], np.repeat(np.arange(columns), 20)


def test_errors_shrink_with_the_columns():
    few, many = (np.mean([bootstrap(*straight_lines(n, s), seed=s).stderr[0] for s in range(6)]) for n in (12, 192))
    # 1/sqrt(columns): a factor of 4; both are estimates from random columns.
    assert 3.0 < few / many < 5.3
    # The mean of 192 columns with an error of 0.1 each.
    assert many == pytest.approx(0.1 / np.sqrt(192), rel=0.2)


def test_no_residual_no_error():
    j, r, owner = straight_lines(10)
    errors = bootstrap(j, 0 * r, owner, seed=1)
    assert np.all(errors.stderr < 1e-14)
    np.testing.assert_array_equal(np.diag(errors.correlation), 1)


def test_the_bootstrap_repeats_and_single_cells_hold():
    j, r, owner = straight_lines(10)
    a, b = (bootstrap(j, r, owner, seed=3) for _ in range(2))
    np.testing.assert_array_equal(a.correlation, b.correlation)
    assert np.abs(a.correlation).max() <= 1
    heavy = np.concatenate([j, 100 * np.eye(2)]), np.append(r, [0, 0]), np.append(owner, [-1, -1])
    assert (bootstrap(*heavy, seed=3).stderr < 0.1 * a.stderr).all()


# --- which columns ---------------------------------------------------------------------------------------------


def test_fitted_columns():
    columns = fit_columns("ideal", 16, 1, (0.3, 0.5))
    for c in columns:
        assert c.conductance_s.shape == c.codes.shape == (1, ROWS)
        assert c.conductance_s.min() >= G_MIN_S
        assert c.conductance_s.max() <= G_MAX_S
        assert c.codes.min() == 0
        assert 40 <= c.codes.max() <= CODE_MAX
        assert c.position in POSITIONS
        assert c.role == "fit"
        assert c.runs == 1
    # Sobol points fill every situation: halves of each dimension are equally full.
    level = np.array([np.log(c.conductance_s.mean()) for c in columns])
    share = np.array([(c.codes > 0).mean() for c in columns])
    width = np.array([c.w_select_um for c in columns])
    assert np.sum(width < 0.4) == np.sum(width > 0.4) == 8
    assert width.min() >= 0.28
    assert width.max() <= 0.52
    assert share.min() < 0.4
    assert share.max() > 0.9
    assert np.exp(level.max() - level.min()) > 6
    assert {c.position for c in columns} == set(POSITIONS)
    assert {c.wire_scale for c in columns} > {1.0}
    assert {c.wire_scale for c in fit_columns("ota", 16, 1, (0.3, 0.5))} == {1.0}


def test_draws_repeat_and_differ():
    same, other = (fit_columns("ideal", 4, seed, (0.3, 0.5)) for seed in (1, 2))
    for a, b in zip(same, fit_columns("ideal", 4, 1, (0.3, 0.5)), strict=True):
        np.testing.assert_array_equal(a.conductance_s, b.conductance_s)
        np.testing.assert_array_equal(a.codes, b.codes)
    for a, b in itertools.combinations([*same, *other], 2):
        assert not np.array_equal(a.conductance_s, b.conductance_s)


def test_what_is_held_out_was_not_fitted():
    columns = plan(Options(seed=1, effort="full"))
    names = [c.name for c in columns]
    assert len(set(names)) == len(names)
    fitted = [c for c in columns if c.role == "fit"]
    held = [c for c in columns if c.role == "held_out"]
    assert {c.column for c in fitted}.isdisjoint({c.column for c in held})
    lines = {g.tobytes() for c in fitted for g in c.conductance_s}
    assert not any(g.tobytes() in lines for c in held for g in c.conductance_s)
    assert {(c.clamp, c.distribution) for c in held} == set(itertools.product(("ideal", "ota"), DISTRIBUTIONS))
    # Only the wire differs between the wire scales of one column.
    scales = [c for c in held if c.clamp == "ideal" and c.distribution == "gaussian" and c.column == "held0"]
    assert sorted(c.wire_scale for c in scales) == [1.0, 2.0, 3.0, 10.0]
    assert all(np.array_equal(c.codes, scales[0].codes) for c in scales)


def test_pairs_and_codes():
    rng = np.random.default_rng(0)
    plus, minus = pair_conductances(rng, 25e-6, 4096)
    assert np.all((plus == G_MIN_S) | (minus == G_MIN_S))
    w = (plus - minus) / (25e-6 - G_MIN_S)
    assert abs(w.mean()) < 0.02
    assert w.std() == pytest.approx(1 / 3, rel=0.05)
    gaussian, uniform, sparse, on = (draw_codes(rng, d, 4, 4096) for d in DISTRIBUTIONS)
    assert (gaussian == 0).mean() == pytest.approx(0.5, abs=0.03)
    assert uniform.mean() == pytest.approx(CODE_MAX / 2, rel=0.03)
    assert (sparse > 0).mean() == pytest.approx(0.1, abs=0.01)
    assert on.min() >= 96
    assert max(x.max() for x in (gaussian, uniform, sparse, on)) == CODE_MAX
    with pytest.raises(ValueError, match="normal"):
        draw_codes(rng, "normal", 1)


def test_the_floor_repeats_held_out_vectors():
    held = held_out_columns(1, 4, 1, {"ideal": DISTRIBUTIONS, "ota": DISTRIBUTIONS}, (3.0,), (0.3, 0.5))
    floor = floor_columns(held, 2)
    assert [c.clamp for c in floor] == ["ideal", "ota"]
    for c in floor:
        original = next(h for h in held if h.name == c.of)
        np.testing.assert_array_equal(c.codes, original.codes[:2])
        np.testing.assert_array_equal(c.conductance_s, original.conductance_s)


# --- the plan --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"effort": "fast"}, InputError, "effort: expected one of sweep, quick, default, full; got 'fast'"),
        ({"columns": 0}, InputError, "columns: expected 1 or more; got 0"),
        ({"jobs": -1}, InputError, "jobs: expected 1 or more; got -1"),
        ({"seed": -1}, InputError, "seed: expected 0 or more; got -1"),
        ({"w_select_um": 0.01}, InputError, "w_select_um: expected .* to 2 µm; got 0.01"),
        ({"technology": "freepdk54"}, TechnologyError, "freepdk45"),
        ({"corner": "slow"}, TechnologyError, "slow"),
    ],
)
def test_options_are_checked(wrong, error, message):
    with pytest.raises(error, match=message):
        Options(**wrong)


@pytest.mark.parametrize("topology", ["gated", "tied"])
def test_columns_of_another_seed_judge_and_share_nothing(topology):
    old, new = (plan(Options(effort="quick", topology=topology, seed=seed, held_out_only=True)) for seed in (1, 99))
    assert {c.role for c in new} == {"held_out"}
    for a, b in zip(old, new, strict=True):
        assert a.name == b.name
        assert not np.array_equal(a.conductance_s, b.conductance_s)
        assert not np.array_equal(a.codes, b.codes)
    # What judges is what judges with the fitted columns beside it.
    whole = plan(Options(effort="quick", topology=topology, seed=1))
    assert [c.name for c in whole if c.role == "held_out"] == [c.name for c in old]


def test_a_larger_effort_is_a_larger_plan():
    sizes = [sum(map(expected_cpu_s, plan(Options(effort=name)))) for name in EFFORTS]
    assert sizes == sorted(set(sizes))
    assert len(plan(Options(effort="quick", columns=2))) > len(plan(Options(effort="quick")))
    for name in EFFORTS:
        assert "decks in ngspice, 2 at a time" in estimate(Options(effort=name, jobs=2))


def test_one_width():
    options = Options(w_select_um=0.4, effort="quick")
    assert {c.w_select_um for c in plan(options)} == {0.4}
    assert options.w_ref_um == 0.4


# --- a calibration of known truth ------------------------------------------------------------------------------


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
    assert residual(tensors(START)).abs().max() > 1


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
