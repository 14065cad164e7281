"""A column of the ``tied`` topology: always-connected cells between two source lines and one column line.

A weight is a pair of cells (after HERMES, Khaddam-Aljameh et al., JSSC 57, 1027, 2022, and IBM's aihwkit): G+ from the
plus source line and G− from the minus source line into the same column line, each a PCM on its source line's side and a
select transistor, gate at V_DD, on the column's. All lines rest at the common mode; an active row moves its two source
lines by the read voltage V in opposite directions, swapped for negative inputs. Currents are those that the read-out
delivers to the column, as in ``gated``: a positive product draws, so the plus line goes *down* for a positive input.

Because idle cells stay connected, the conductance of every node is constant. The column is then linear and
time-invariant but for its transistors, and one adjoint solve per column, the voltage h at each node for 1 V at the
clamp and all sources at rest, gives (reciprocity) the current that a source at any node draws from the read-out:

    I(t) = Y·(V_clamp − V_cm) + I_rest + Σ_i [s_i(t)·weight_i + |s_i(t)|·even_i],    s = −1, 0, 1.

``weight`` and ``even`` hold the wire and the cells' own law at zero column voltage. What is left, the transistors'
answer to the column's own few millivolts, is one more sum over the same nodes (``bend``). Voltages count from the
common mode throughout. Shapes: (..., rows), or (..., slots, rows).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.column import Clamp
from aimcard.models.departure import Departure, departure, departure_slope
from aimcard.models.lut import lookup, lookup_slope

Scalar = Tensor | float


@dataclass(frozen=True)
class SourceGain:
    """Shares of the read voltage that arrive at a cell (models/source_line.py) when its plus or minus line goes down or up;
    numbers, or tensors that broadcast to (..., rows)."""

    down_plus: Scalar = 1.0
    up_plus: Scalar = 1.0
    down_minus: Scalar = 1.0
    up_minus: Scalar = 1.0


@dataclass(frozen=True)
class TiedCell:
    """Fitted numbers of one always-on cell; scalars, or tensors (..., 1) with one value per column.

    r_on_ohm: triode resistance at the reference width, both ends at the common mode. dw_um: drawn minus effective width.
    k_mid_per_v, k_mid_per_v2: R_on goes with 1/(1 − k·v − k2·v²), v the middle of the transistor's two ends: less gate
    drive, and body effect.
    k_drain_per_v2: rise of R_on with the square of the voltage across the transistor.
    i_gate_a: gate tunnelling current at the reference width; it leaves through the column, whatever the inputs.
    v_gate_v: the column voltage that divides it by e.
    w_ref_um, v_read_v: reference width and read voltage V, the distance of an active source line from the common mode.
    gain: which part of V arrives.
    """

    r_on_ohm: Scalar
    dw_um: Scalar
    k_mid_per_v: Scalar
    k_mid_per_v2: Scalar
    k_drain_per_v2: Scalar
    i_gate_a: Scalar
    v_gate_v: Scalar
    w_ref_um: float
    v_read_v: float
    gain: SourceGain = SourceGain()


@dataclass(frozen=True)
class TiedWire:
    """Column wire of one cell pitch: resistance [Ω] and the capacitance of one row at the column line [F],
    wire, junctions and channels of its two transistors together. c_width_f: how much more transistors of twice the
    reference width would add."""

    r_bit_ohm: Scalar
    c_column_f: Scalar
    c_width_f: Scalar = 0.0


def source_voltage(p: TiedCell, sign: Tensor, plus: bool) -> Tensor:
    """Voltage of a row's plus or minus source line for its sign −1, 0 or 1: a positive input pulls the plus line down."""
    down, up = (p.gain.down_plus, p.gain.up_plus) if plus else (p.gain.down_minus, p.gain.up_minus)
    moved = -sign if plus else sign
    return moved * p.v_read_v * torch.where(moved < 0, torch.as_tensor(down), torch.as_tensor(up))


def on_resistance(p: TiedCell, w_select_um: Scalar) -> Scalar:
    """R_on at the common mode [Ω]."""
    return p.r_on_ohm * (p.w_ref_um - p.dw_um) / (w_select_um - p.dw_um)


def cell_current(p: TiedCell, conductance_s: Tensor, v_column: Scalar, v_source: Scalar, w_select_um: Scalar) -> Tensor:
    """Current from the column line into a cell [A]; arguments broadcast.

    G/(1 + G·R) times the voltage, with R at the middle of the transistor's ends: the column, and the inner node, which
    the transistor's share of the voltage separates; the share depends on R in turn, and one correction of it is enough.
    Beside it, the gate's tunnelling current flows into the column.
    """
    r = on_resistance(p, w_select_um)
    across = v_column - v_source
    r_here = _resistance(p, r, conductance_s * r, v_column, across)
    r_here = _resistance(p, r, conductance_s * r_here, v_column, across)
    gate = p.i_gate_a * (w_select_um / p.w_ref_um) * torch.exp(-torch.as_tensor(v_column) / p.v_gate_v)
    return across * conductance_s / (1 + conductance_s * r_here) - gate


def _resistance(p: TiedCell, r_ohm: Scalar, gr: Tensor, v_column: Scalar, across: Scalar) -> Tensor:
    """R of a transistor that takes gr/(1 + gr) of the voltage ``across`` the cell."""
    drop = gr / (1 + gr) * across
    middle = v_column - 0.5 * drop
    return r_ohm * (1 + p.k_drain_per_v2 * drop**2) / (1 - p.k_mid_per_v * middle - p.k_mid_per_v2 * middle**2)


def cell_slope(p: TiedCell, conductance_s: Tensor, v_source: Scalar, w_select_um: Scalar) -> Tensor:
    """Derivative of ``cell_current`` to the column's voltage at the common mode [S]."""
    shape = torch.broadcast_shapes(conductance_s.shape, torch.as_tensor(v_source).shape)
    zero = torch.zeros(shape, dtype=conductance_s.dtype)
    law = lambda v: cell_current(p, conductance_s, v, v_source, w_select_um)  # noqa: E731
    return torch.func.jvp(law, (zero,), (torch.ones_like(zero),))[1]


@dataclass(frozen=True)
class RowCurrents:
    """What each row's pair draws at zero column voltage, (..., rows).

    node_s: conductance at the column node, at rest. odd_a, even_a: current of an active row, times its sign, and whatever
    its sign. rest_a: current at rest. bend_odd_s, bend_even_s: change of node_s when active, times the sign, and
    whatever the sign.
    """

    node_s: Tensor
    odd_a: Tensor
    even_a: Tensor
    rest_a: Tensor
    bend_odd_s: Tensor
    bend_even_s: Tensor


def row_currents(p: TiedCell, g_plus_s: Tensor, g_minus_s: Tensor, w_select_um: Scalar) -> RowCurrents:
    """Expand the pairs of all rows about zero column voltage; exact in the source lines' voltages −V, 0 and V."""
    zero = torch.zeros((), dtype=g_plus_s.dtype)

    def pair(law: Callable[..., Tensor], sign: int) -> Tensor:
        x = zero + sign
        return law(g_plus_s, source_voltage(p, x, True)) + law(g_minus_s, source_voltage(p, x, False))

    def current(g: Tensor, source: Tensor) -> Tensor:
        return cell_current(p, g, zero, source, w_select_um)

    def slope(g: Tensor, source: Tensor) -> Tensor:
        return cell_slope(p, g, source, w_select_um)

    low, rest, high = (pair(current, s) for s in (-1, 0, 1))
    s_low, node, s_high = (pair(slope, s) for s in (-1, 0, 1))
    return RowCurrents(
        node, 0.5 * (high - low), 0.5 * (high + low) - rest, rest, 0.5 * (s_high - s_low), 0.5 * (s_high + s_low) - node
    )


@dataclass(frozen=True)
class EffectiveColumn:
    """A column reduced to products, (..., rows) each; y_s and rest_a (...,).

    transfer: h. y_s: conductance seen by the read-out. rest_a: current at rest, clamp at
    the common mode. weight_a, even_a: read-out current per active row, times its sign, and whatever its sign; weight_a/V
    is the effective weight matrix [S].
    """

    rows: RowCurrents
    transfer: Tensor
    y_s: Tensor
    rest_a: Tensor
    weight_a: Tensor
    even_a: Tensor
    r_bit_ohm: Scalar


def transfer(node_s: Tensor, r_bit_ohm: Scalar) -> tuple[Tensor, Tensor]:
    """Voltage at every node for 1 V at the clamp, (..., rows), and the conductance seen from there, (...,).

    Row 0 is the far end; r_bit_ohm lies between neighbours, half of it before the clamp. From the far end, the conductance
    Y beyond a node passes its wire as Y/(1 + r·Y), and the voltage falls by the same factor: the product of the
    factors from a node to the clamp is its transfer, exactly.
    """
    r = r_bit_ohm[..., 0] if isinstance(r_bit_ohm, Tensor) and r_bit_ohm.ndim else r_bit_ohm
    beyond = torch.zeros_like(node_s[..., 0])
    factors = []
    for i in range(node_s.shape[-1]):
        beyond = beyond + node_s[..., i]
        wire = 0.5 * r if i == node_s.shape[-1] - 1 else r
        factor = 1 / (1 + wire * beyond)
        factors.append(factor)
        beyond = beyond * factor
    each = torch.stack(factors, dim=-1)
    return torch.flip(torch.cumprod(torch.flip(each, (-1,)), -1), (-1,)), beyond


def effective_column(p: TiedCell, wire: TiedWire, g_plus_s: Tensor, g_minus_s: Tensor, w_select_um: Scalar) -> EffectiveColumn:
    """The effective weights of columns: g_plus_s, g_minus_s (..., rows), differentiable in them."""
    rows = row_currents(p, g_plus_s, g_minus_s, w_select_um)
    h, y = transfer(rows.node_s, wire.r_bit_ohm)
    return EffectiveColumn(rows, h, y, (h * rows.rest_a).sum(-1), h * rows.odd_a, h * rows.even_a, wire.r_bit_ohm)


def node_voltages(c: EffectiveColumn, taken_a: Tensor, v_clamp: Tensor) -> Tensor:
    """Node voltages [V], (..., slots, rows), for currents ``taken_a`` out of the nodes and the clamp at ``v_clamp`` (..., slots).

    With h the product of the factors from a node on, the sweep to the clamp and back is two cumulative sums.
    """
    h = c.transfer[..., None, :]
    after = torch.cat([h[..., 1:], torch.ones_like(h[..., :1])], dim=-1)
    wire = torch.ones(taken_a.shape[-1], dtype=taken_a.dtype)
    wire[-1] = 0.5
    r = c.r_bit_ohm[..., None] if isinstance(c.r_bit_ohm, Tensor) and c.r_bit_ohm.ndim else c.r_bit_ohm
    norton = torch.cumsum(taken_a * h, -1) / h
    drop = torch.flip(torch.cumsum(torch.flip(r * wire * norton / after, (-1,)), -1), (-1,))
    return h * (v_clamp[..., None] - drop)


#: (start, stop) of each row's pulses, each (..., rows), in slots of the window, one pair a phase; start None is slot 0.
RowPulses = tuple[tuple[Tensor | None, Tensor], ...]


def signs(codes: Tensor, slots: int, dtype: torch.dtype, pulses: RowPulses | None = None) -> Tensor:
    """−1, 0 or 1 of every row in every slot, (..., slots, rows): the code's sign from each pulse's start to its stop.

    pulses: as ``Mode.window_pulses`` gives them. None: conventional PWM, row i active in slots 0 … |code| − 1.
    """
    slot = torch.arange(slots)[:, None]
    active = torch.zeros((), dtype=torch.bool)
    for start, stop in ((None, codes.abs()),) if pulses is None else pulses:
        inside = stop[..., None, :] > slot
        active = active | (inside if start is None else inside & (start[..., None, :] <= slot))
    return torch.sign(codes)[..., None, :].to(dtype) * active


def short_circuit(c: EffectiveColumn, s: Tensor) -> Tensor:
    """Current with the clamp at the common mode, column voltages left out of the cells' law [A], (..., slots).

    Two products with matrices of the columns: the whole model's linear part. s (..., slots, rows) as from ``signs``.
    """
    linear = (s * c.weight_a[..., None, :]).sum(-1) + (s.abs() * c.even_a[..., None, :]).sum(-1)
    return linear + c.rest_a[..., None]


@dataclass(frozen=True)
class TiedSolution:
    """current_a, v_clamp (..., slots); v_node (..., slots, rows)."""

    current_a: Tensor
    v_clamp: Tensor
    v_node: Tensor


def solve_column(c: EffectiveColumn, s: Tensor, clamp: Clamp, bend: bool = True) -> TiedSolution:
    """Static solution in every slot. ``bend`` adds the cells' answer to the column's voltage, to first order."""
    j = short_circuit(c, s)
    y = c.y_s[..., None].expand_as(j)
    v_clamp, current = clamp(y, j)
    r = c.rows
    taken = s * r.odd_a[..., None, :] + s.abs() * r.even_a[..., None, :] + r.rest_a[..., None, :]
    v = node_voltages(c, taken, v_clamp)
    if bend:
        change = s * r.bend_odd_s[..., None, :] + s.abs() * r.bend_even_s[..., None, :]
        v_clamp, current = clamp(y, j + (c.transfer[..., None, :] * change * v).sum(-1))
    return TiedSolution(current, v_clamp, v)


@dataclass(frozen=True)
class TiedEdges:
    """Delays of the source lines' edges after the slot boundaries [s], numbers or tensors (..., 1).

    A delay is that of an ideal step of equal area, which is all that a linear column sees of an edge. down: to or from the
    lower rail; up: to or from the upper one; start: away from the common mode; end: back to it.
    """

    down_start_s: Scalar
    down_end_s: Scalar
    up_start_s: Scalar
    up_end_s: Scalar


@dataclass(frozen=True)
class TiedPulse:
    """Fitted numbers of the edges: how much later than its source line a cell's current follows (the inner node's RC),
    at the start and at the end of a pulse; t_node_s_per_s: what a cell's conductance adds to both, per siemens."""

    t_start_s: Scalar
    t_end_s: Scalar
    t_node_s_per_s: Scalar


def edge_terms(
    p: TiedCell, c: EffectiveColumn, pulse: TiedPulse, e: TiedEdges, g_plus_s: Tensor, g_minus_s: Tensor, sign: Tensor,
    w_select_um: Scalar,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What a row's pulse of this ``sign`` loses at its start and gains at its end [C], (..., rows) each, at the read-out."""
    zero = torch.zeros((), dtype=g_plus_s.dtype)
    # Current that a cell gains when its line moves down or up, and its own lag.
    gains = []
    for g, plus in ((g_plus_s, True), (g_minus_s, False)):
        source = source_voltage(p, sign, plus)
        moved = cell_current(p, g, zero, source, w_select_um) - cell_current(p, g, zero, zero, w_select_um)
        lag = pulse.t_node_s_per_s * g
        down = source < 0
        start = torch.where(down, e.down_start_s + lag, e.up_start_s + lag) + pulse.t_start_s
        end = torch.where(down, e.down_end_s + lag, e.up_end_s + lag) + pulse.t_end_s
        gains.append((c.transfer * moved * start, c.transfer * moved * end))
    return gains[0][0] + gains[1][0], gains[0][1] + gains[1][1]


def edge_charges(
    p: TiedCell, c: EffectiveColumn, wire: TiedWire, pulse: TiedPulse, e: TiedEdges, g_plus_s: Tensor, g_minus_s: Tensor,
    codes: Tensor, solution: TiedSolution, w_select_um: Scalar, t_lsb_s: float, pulses: RowPulses | None = None,
) -> Tensor:  # fmt: skip
    """Charge per slot that the edges add to the static current [C], (..., slots).

    Until its source line has moved, a cell carries the current of before, in every pulse of every phase. The column's
    capacitance follows its voltage; the last slot, all pulses over, stands for the idle column before the first.
    """
    starts, ends = edge_terms(p, c, pulse, e, g_plus_s, g_minus_s, torch.sign(codes).to(g_plus_s.dtype), w_select_um)
    charge = torch.zeros_like(solution.current_a)
    last = charge.shape[-1] - 1
    for start, stop in ((None, codes.abs()),) if pulses is None else pulses:
        first = torch.zeros_like(stop) if start is None else start
        on = (stop > first).to(starts.dtype)
        charge = charge.scatter_add(-1, first.clamp(max=last).expand_as(starts), -starts * on)
        charge = charge.scatter_add(-1, stop.clamp(max=last).expand_as(ends), ends * on)
    v_node = solution.v_node
    change = v_node - torch.cat([v_node[..., -1:, :], v_node[..., :-1, :]], dim=-2)
    c_column = wire.c_column_f + wire.c_width_f * (w_select_um / p.w_ref_um - 1)
    return charge + c_column * (c.transfer[..., None, :] * change).sum(-1)


def slot_currents(
    p: TiedCell, wire: TiedWire, pulse: TiedPulse, e: TiedEdges, g_plus_s: Tensor, g_minus_s: Tensor, codes: Tensor,
    slots: int, t_lsb_s: float, w_select_um: Scalar, clamp: Clamp, bend: bool = True, pulses: RowPulses | None = None,
) -> tuple[Tensor, TiedSolution]:  # fmt: skip
    """Mean current of every slot [A], (..., slots), positive out of the read-out, and the static solution behind it.

    g_plus_s, g_minus_s, codes: (..., rows), broadcastable; codes of either sign. pulses: as ``signs`` takes them.
    """
    c = effective_column(p, wire, g_plus_s, g_minus_s, w_select_um)
    solution = solve_column(c, signs(codes, slots, g_plus_s.dtype, pulses), clamp, bend)
    charge = edge_charges(p, c, wire, pulse, e, g_plus_s, g_minus_s, codes, solution, w_select_um, t_lsb_s, pulses)
    return solution.current_a + charge / t_lsb_s, solution


def regulated_clamp(
    current_a: Tensor, clamp_v: Tensor, iterations: int = 4, shift_a: Scalar = 0.0, departs: Departure | None = None
) -> Clamp:
    """The read-out with a static table, line current to clamp voltage from the common mode, by Newton's method.

    shift_a: current of a line's regulator beyond the nominal bias, by which the table is shifted; departs: what is added to the
    voltage there. Both for mismatch, one number a line.
    """

    def voltage(i: Tensor) -> tuple[Tensor, Tensor]:
        at = i + shift_a
        v, slope = (f(current_a, clamp_v, at) for f in (lookup, lookup_slope))
        return (v, slope) if departs is None else (v + departure(departs, at), slope + departure_slope(departs, at))

    def clamp(y: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        i = j
        for _ in range(iterations):
            v, slope = voltage(i)
            i = i - (i - y * v - j) / (1 - y * slope)
        return voltage(i)[0], i

    return clamp


def fixed_clamp(v_offset_v: Scalar = 0.0) -> Clamp:
    """The read-out that holds the column's end at the common mode plus an offset, whatever the current."""

    def clamp(y: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        v = torch.zeros_like(y) + v_offset_v
        return v, y * v + j

    return clamp
