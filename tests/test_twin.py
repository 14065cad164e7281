"""The fast line against its node-by-node twin: values, convergence with the segments, gradients, limits."""

import dataclasses

import attrs
import numpy as np
import pytest
import torch

from aimcard.models.cell import gate_current
from aimcard.models.errors import InputError
from aimcard.models.ladder import OhmicCell, line_current_gradient, solve_ladder
from aimcard.models.line import LineDrive, ideal_clamp, static_solution
from aimcard.models.pulse import Edges
from aimcard.models.readout import regulated_clamp
from aimcard.models.tile import TileModel, readout_parameters
from aimcard.models.twin import CardCell, clamp_curve, static_gradient, static_line

CODE_MAX, GUARD = 127, 4
NO_EDGES = Edges(0.0, 0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def model(card_of):
    """The small card's cell and wire in a tile of full size."""
    card = card_of()
    size = {"rows": 512, "code_max": CODE_MAX, "guard_slots": GUARD, "segments": 64}
    return TileModel(attrs.evolve(card, meta=card.meta | size))


def draw(kind: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One line of a differential pair of normal weights, and one vector."""
    rng = np.random.default_rng([seed, rows])
    g = 0.1e-6 + np.maximum(np.clip(rng.normal(0, 1, rows) / 3, -1, 1), 0) * 24.9e-6
    if kind == "gaussian":
        return g, np.clip(np.round(rng.normal(0, CODE_MAX / 3, rows)), 0, CODE_MAX).astype(np.int64)
    x = rng.integers(0, CODE_MAX + 1, rows)
    return g, x if kind == "uniform" else np.where(rng.random(rows) < 0.1, x, 0)


def fast(model, g, x, scale=1.0, segments=64, clamp="ideal", passes=3) -> torch.Tensor:
    """Static slot currents of the fast line; conductances may require a gradient."""
    line = model.line(scale)
    line = dataclasses.replace(line, wire=dataclasses.replace(line.wire, segments=segments))
    drive = LineDrive(torch.as_tensor(g), torch.as_tensor(x), model.slots, model.t_lsb_s, 0.5, NO_EDGES, passes)
    readout = readout_parameters(model.values, model.tables)
    end = ideal_clamp(model.v_read_v) if clamp == "ideal" else regulated_clamp(readout)
    return static_solution(line, drive, end).current_a


def errors(model, g, x, scale, **options) -> tuple[float, float]:
    """Relative error of the charge, and the largest slot error relative to the line's rms current."""
    a, b = fast(model, g, x, scale, **options).numpy(), static_line(model, g, x, wire_scale=scale).line_current_a
    return abs(a.sum() / b.sum() - 1), np.abs(a - b).max() / np.sqrt((b**2).mean())


@pytest.mark.parametrize("scale", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("kind", ["gaussian", "uniform", "sparse"])
def test_64_segments_of_512_rows(model, kind, scale):
    # What is lost goes with the spread of the cells within a segment times its drop, hence with the wire's
    # resistance. 3 ppm of the charge is a seventh of the 20 ppm to which a fit weighs it, 8 ppm of the rms
    # current a twenty-fifth of what it allows a slot.
    charge, slot = errors(model, *draw(kind, 512, 3), scale)
    assert charge < 3e-6 * scale
    assert slot < 8e-6 * scale


@pytest.mark.parametrize("rows", [1, 7, 130])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_any_number_of_rows(model, rows, scale):
    charge, slot = errors(model, *draw("uniform", rows, 4), scale)
    # Up to 64 rows every cell is its own segment: only the half cell of wire that a gate current sees differs.
    bound = 1e-8 if rows <= 64 else 1e-6 * scale
    assert charge < bound
    assert slot < bound


def test_error_falls_with_the_square_of_the_segments(model):
    counts = (4, 8, 16, 32)
    found = []
    for segments in counts:
        slots = [errors(model, *draw("uniform", 256, seed), 10.0, segments=segments, passes=6)[1] for seed in range(4)]
        found.append(float(np.sqrt(np.mean(np.square(slots)))))
    orders = np.diff(np.log2(found))
    # Second order; the random cells of a segment scatter it about a factor of four for each doubling.
    assert -2.6 < orders.mean() < -1.75
    assert (orders < -1.2).all()


def test_three_passes_are_enough(model):
    g, x = draw("uniform", 512, 5)
    three, many = (fast(model, g, x, 10.0, passes=n) for n in (3, 8))
    assert (three - many).abs().max() < 1e-7 * many.max()
    one = fast(model, g, x, 10.0, passes=1)
    assert (one - many).abs().max() > 1e-5 * many.max()


def test_clamp_table_is_solved_with_the_line(model):
    g, x = draw("uniform", 512, 6)
    ota = static_line(model, g, x, clamp="ota", wire_scale=3.0)
    table = clamp_curve(*model.tables["clamp"])
    np.testing.assert_allclose(ota.v_clamp_v, table(ota.line_current_a)[0], rtol=1e-12)
    b, a = ota.line_current_a, fast(model, g, x, 3.0, clamp="ota").numpy()
    assert abs(a.sum() / b.sum() - 1) < 1e-5
    ideal = static_line(model, g, x, wire_scale=3.0).line_current_a
    assert 0.9 < (b / ideal)[0] < 0.995


@pytest.mark.parametrize("clamp", ["ideal", "ota"])
def test_no_wire_is_the_sum_of_the_cells(model, clamp):
    g, x = draw("uniform", 40, 7)
    # One cell a segment: nothing is lumped. Without wire there is nothing to lose in a segment of many either.
    twin = static_line(model, g, x, wire_scale=0.0, clamp=clamp)
    for segments in (64, 3):
        np.testing.assert_allclose(fast(model, g, x, 0.0, segments, clamp, passes=6), twin.line_current_a, rtol=1e-12)
    assert np.all(twin.v_return_v == 0)
    cell = model.line().cell
    if clamp == "ideal":
        assert cell.w_ref_um == 0.5
        law = CardCell(cell, 0.5)
        on = x > np.arange(model.slots)[:, None]
        i = law.current(g, np.full((len(on), len(g)), model.v_read_v), np.zeros((len(on), len(g))), on)[0]
        np.testing.assert_allclose(twin.line_current_a, i.sum(1), rtol=1e-12)


@pytest.mark.parametrize(("rows", "scale"), [(7, 10.0), (130, 10.0), (512, 1.0), (512, 10.0)])
def test_gradient_to_the_conductances(model, rows, scale):
    g, x = draw("uniform", rows, 8)
    _, exact = static_gradient(model, g, x, wire_scale=scale)
    gt = torch.tensor(g, requires_grad=True)
    current = fast(model, gt, x, scale)
    # A clump knows its cells' sum, centroid and count: what it forgets is a tenth of its own drop at the most,
    # which is 0.4 % of the read voltage at 512 rows and scale 1, and less with fewer rows.
    bound = 4e-4 * scale if rows > 64 else 1e-7
    for slot in (0, 40, 100):
        (found,) = torch.autograd.grad(current[slot], gt, retain_graph=True)
        assert np.abs(found.numpy() - exact[slot]).max() < bound * np.abs(exact[slot]).max()


def test_the_gradient_is_the_wires_not_the_cells(model):
    # Without a wire's part in it, the gradient would be off by the line's whole IR-drop.
    g, x = draw("uniform", 512, 9)
    gradients = [static_gradient(model, g, x, wire_scale=s)[1][0] for s in (0.0, 3.0)]
    on = x > 0
    assert 0.05 < np.abs(gradients[1] / gradients[0] - 1)[on].mean() < 0.9


def test_derivatives_of_the_law(model):
    rng = np.random.default_rng(10)
    law = CardCell(model.line().cell, 0.4)
    g, vb, vr = rng.uniform(0.1e-6, 25e-6, (3, 5)), rng.uniform(0.1, 0.25, (3, 5)), rng.uniform(0, 0.05, (3, 5))
    on = rng.random((3, 5)) < 0.5
    _, to_bit, to_return = law.current(g, vb, vr, on)
    to_g = law.current_per_conductance(g, vb, vr, on)
    i_gate, gate_slope = law.return_injection(vr, on)

    def central(f, h):
        return (f(h) - f(-h)) / (2 * h)

    np.testing.assert_allclose(central(lambda h: law.current(g, vb + h, vr, on)[0], 1e-5), to_bit, rtol=1e-6)
    np.testing.assert_allclose(central(lambda h: law.current(g, vb, vr + h, on)[0], 1e-5), to_return, rtol=1e-6)
    numeric = central(lambda h: law.current(g * (1 + h), vb, vr, on)[0], 1e-4) / g
    np.testing.assert_allclose(numeric, to_g, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(central(lambda h: law.return_injection(vr + h, on)[0], 1e-5), gate_slope, rtol=1e-6)
    assert np.all((i_gate > 0) == on)


def test_the_return_line_carries_line_and_gate_currents(model):
    g, x = draw("uniform", 130, 11)
    s = static_line(model, g, x, wire_scale=10.0)
    on = x > np.arange(model.slots)[:, None]
    gates = (gate_current(model.line().cell, torch.tensor(s.v_return_v), 0.5).numpy() * on).sum(1)
    assert gates[0] > 1e-8
    np.testing.assert_allclose(s.return_current_a, s.line_current_a + gates, rtol=1e-12)
    np.testing.assert_allclose(s.cell_current_a.sum(1), s.line_current_a, rtol=1e-11)


class InjectingCell(OhmicCell):
    """An ohmic cell that also lets j + s·V into its return node."""

    j_a, s_s = 3e-6, -2e-5

    def return_injection(self, v_return_v, on):
        return np.where(on, self.j_a + self.s_s * v_return_v, 0.0), np.where(on, self.s_s, 0.0)


@pytest.mark.parametrize("lines", [1, 2])
def test_injected_current_in_closed_form(lines):
    g, rb, rr = 1e-3, 40.0, 60.0
    law = InjectingCell()
    s = solve_ladder(
        law, [[g]] * 2 if lines == 2 else [g], [True],
        r_bit_ohm=rb, r_return_ohm=rr, v_clamp_v=0.2, shared_return=lines == 2,
    )  # fmt: skip
    # V = rr/2·(n·I + n·(j + s·V)), I = (0.2 − V)/(1/g + rb/2)
    cell = 1 / (1 / g + rb / 2)
    v = lines * (0.2 * cell + law.j_a) / (2 / rr + lines * (cell - law.s_s))
    np.testing.assert_allclose(s.v_return_v, v, rtol=1e-12)
    np.testing.assert_allclose(s.line_current_a, (0.2 - v) * cell, rtol=1e-12)


def test_gradient_with_injected_current():
    rng = np.random.default_rng(12)
    g, on = rng.uniform(1e-5, 1e-3, 6), rng.random((4, 6)) < 0.7
    wire = {"r_bit_ohm": 5.0, "r_return_ohm": 9.0, "v_clamp_v": 0.2}
    _, gradient = line_current_gradient(InjectingCell(), g, on, **wire)
    for i in range(6):
        up, down = (g * (1 + h * (np.arange(6) == i)) for h in (1e-4, -1e-4))
        change = [solve_ladder(InjectingCell(), x, on, **wire).line_current_a for x in (up, down)]
        np.testing.assert_allclose((change[0] - change[1]) / (2e-4 * g[i]), gradient[:, i], rtol=1e-6, atol=1e-9)


def test_one_line_and_one_vector(model):
    g, x = draw("uniform", 7, 13)
    with pytest.raises(InputError, match="expected one line and one vector; got 2 and 1"):
        static_line(model, np.stack([g, g]), x)
    with pytest.raises(InputError, match="codes: expected 7 rows"):
        static_line(model, g, x[:5])
    with pytest.raises(InputError, match="clamp: expected one of ideal, ota"):
        static_line(model, g, x, clamp="otta")
