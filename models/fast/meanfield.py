"""Mean field and adjoint, in plain torch: what each input vector makes of the tile, from its mean column alone.

All columns see the same inputs. The ladder of the mean column is solved in a few time bins per vector; its adjoint
gives what a departure of any cell adds to the answer, to first order a weight per row, y(t) integrated over the
row's pulse. The second order is a quadratic form in the departures; one product, its action on the mean column
itself, catches most of it (Nyström's method with one probe: exact for a column that is a multiple of the mean).

Within a bin the conductance is its least-squares line in time: constant and slope are exact sums over the pulses,
and the ladder is solved at the bin's two Gauss points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.fast.mean_ladder import Fields, convert, solve_fields, solve_ladder
from aimcard.models.fast.mean_rows import BinSums, Rows
from aimcard.models.fast.reference import Reference

ROOT3 = math.sqrt(3.0)
#: Columns behind the rows of y.
EXTRA = 8
#: Where the window is cut for a number of squares, as shares of the bins.
SHARES: dict[int, list[float]] = {1: [], 2: [0.4], 3: [0.25, 0.55], 4: [0.2, 0.4, 0.65]}
#: Strength of a square below which there is nothing to correct.
TINY = 1e-20


@dataclass(frozen=True)
class Prepared:
    """Answer of a line c of a group for a vector:
    base + Σ_i W_ci·y_i − (left + bias·e_c)·share_c + r_2·e_c² + r_4·e_c⁴ + ended·pulse_c − arched·bow_c
    − Σ_k sign_k·m_k²·(1 + cubic_k·m_k).

    W: apparent conductance [µS], δ: its departure from the group's middle column, m_k = scale_k·Σ_i δ_ci·z_ki.
    e_c: the line's total conductance over the middle one's, less one, and within the group's reach; share: Σ_i of its squared
    departure beside the mean column, over the variance. pulse: what the mean pulse of the line's cells draws beside the straight
    line of all; ended: the force of all pulses. bow: what the squares miss of a line's pattern along the wire, beside share;
    arched: left, by the share of the rows that conduct meanwhile.
    y (groups, batch, rows + 8): weights of the rows, then base, left, r_2, r_4, ended, bias, arched, 0. z (squares, batch, rows):
    of the first group, bytes or real numbers. scale, sign, cubic (groups, squares, batch).
    y_rate (groups, batch, rows), z_rate (batch, rows): derivatives to the codes per LSB, if asked for, of the first group's
    scaled z in whose part the code lies.
    """

    y: Tensor
    z: Tensor
    scale: Tensor
    sign: Tensor
    cubic: Tensor
    y_rate: Tensor | None = None
    z_rate: Tensor | None = None


def prepare(ref: Reference, x: Tensor, squares: int, rates: bool = False) -> Prepared:
    """What the vectors ``x`` (batch, rows) make of the tile; differentiable, memory batch × rows × bins.

    Shapes inside: (segments, groups, batch, bins), without what does not apply; the groups' middle columns are solved side by
    side, and with them the multiples of the first.
    """
    ref = ref.like(x)
    width, v0 = ref.grid.width, ref.circuit.v_read_v
    at = BinSums.of(ref, x)
    scale = x.new_tensor(ref.scales)[:, None, None]
    groups, bent = len(ref.scales), squares > 0
    h = ref.reach if bent else 0.0
    cases = [*ref.scales, *((1 + h / 2, 1 - h / 2, 1 + h, 1 - h) if h > 0 else ())]
    fall = x.new_tensor([*ref.scales, *((1.0,) * (len(cases) - groups))])
    conduct, ramp = at.conduct[:, None] * scale, at.ramp[:, None] * scale
    mid = _points(at.conduct, at.ramp)[:, None] * x.new_tensor(cases)[:, None, None]
    pair = _points(at.n, at.n_ramp).clamp(min=0.0)
    solved = solve_ladder(ref, mid, at.centre.repeat_interleave(2, 2), pair, fall)
    answer, rate, bend = convert(ref, solved.current)
    # The ideal product is left out here and added to every row's weight: its rounding would be the mean column's.
    ideal = ref.conversion.ideal * v0
    answer = _mean(answer - ideal * mid.sum(0)) * width
    multiples, answer = answer[groups:], answer[:groups]
    # How many pulses end in each bin, from one bin's middle to the next one's; all that is left ends in the last.
    ended = (torch.cat([at.n[..., :1], at.n[..., :-1]], -1) - torch.cat([at.n[..., 1:], -at.n[..., -1:]], -1)) / 2
    # To the adjoint, what idle cells store on the bit line is one more charge of the pulses' ends.
    ends = (ref.end_drop + (1 - ref.share) * ref.node) * ended / width
    ends = torch.cat([ends[..., :1] + ref.start_drop * at.started[..., None], ends[..., 1:]], -1)
    # The pulses' own charge is a current too, at which the rate is taken.
    middle = ref.e_const + ref.e_gain * ref.g.mean() * scale
    extra = ended.sum(0) * (middle[..., 1:] + middle[..., :-1]) / 2 / width
    rate, bend = rate[:groups], bend[:groups]
    rate = rate + bend * extra.repeat_interleave(2, -1)
    column = solved.first(groups)
    found = solve_fields(ref, column, ends.repeat_interleave(2, -1), rate, bend, bent)
    force, bend = _beside_turn_on(_mean(rate)), _beside_turn_on(_mean(bend))
    drop, lift = _mean(column.drop), _mean(column.clamp) - v0
    knots = force @ ref.times.T
    knots, begin = knots[..., :-1], knots[..., -1:]
    const, gain = knots * ref.e_const, knots * ref.e_gain
    step_gain, bend_gain = gain.diff(dim=-1), force * ref.c_gain
    pulses = _pulses(ref, at, ended, drop, lift, force, begin[..., 0])
    pulses = pulses + const[..., 0] * at.on.sum(1) + (const.diff(dim=-1) * at.n.sum(0)).sum(-1)
    pulses = pulses + (force * ref.c_const * at.n_ramp.sum(0)).sum(-1)
    pulses = pulses + gain[..., 0] * (at.on @ ref.g) * scale[..., 0]
    pulses = pulses + (step_gain * conduct.sum(0) + bend_gain * ramp.sum(0)).sum(-1)
    # The force is the rate's slope at the pulses' own current; their answer is the rate's rise up to there.
    pulses = pulses - 0.5 * (bend * extra * extra * width).sum(-1)
    rest = ref.conversion.offset + ref.conversion.guard * idle_answer(ref)
    whole = answer.sum(-1) + pulses + rest
    y_mean, y_slope = _line(found.y)
    tilt = _mean(found.tilt)
    by_f = width * ((y_mean - ideal) - at.centre[:, None] * tilt) + step_gain
    by_h, by_place = width * y_slope / 2 + bend_gain, width * tilt
    rows = Rows.of(ref, at, x)
    turned_on = gain[..., 0] + begin[..., 0] * ref.s_gain
    size = len(ref.g)
    y, base, y_rates = x.new_empty(groups, len(x), size + EXTRA), [], []
    for k in range(groups):
        weights, y_rate = rows.weights(by_f[:, k], by_h[:, k], by_place[:, k], rates=rates)
        weights = torch.addcmul(weights, at.on, turned_on[k, :, None])
        base.append(whole[k] - (weights @ ref.g) * ref.scales[k])
        y[k, :, :size] = torch.add(weights, x, alpha=ideal)
        y_rates.append(ideal + y_rate if y_rate is not None else None)
    forces = (force * ended.sum(0)).sum(-1)
    square = _squares(ref, at, found, conduct, ramp, squares) if bent else None
    none = torch.zeros_like(whole)
    left, arched = (none, none) if square is None else (square.left, square.arched)
    rest, last, growth, cubic = none, none, none, None
    if square is not None and h > 0:
        # The mean column's multiples, about the groups' middle ones.
        strength, strong = square.strength, square.strength.abs().clamp(min=TINY)
        off = scale - 1
        second, third, fourth = _course(h, square.spans, multiples, answer[0])
        third_here = scale**3 * (third + 4 * off * fourth)
        rest = strength.sum(1) + (scale**2 * (second + 3 * off * third + 6 * off**2 * fourth)).sum(1)
        last = (scale**4 * fourth).sum(1)
        growth = (-3 * third_here.sum(1) / strength.sum(1).clamp(min=TINY)).clamp(-3.0, 3.0)
        # Third order above the second is rounding.
        cubic = (-third_here / strong).clamp(-1.0, 1.0) / strong.sqrt()
    columns = (torch.stack(base), left, rest, last, forces, left * growth, arched)
    y[..., size:] = torch.stack([*columns, *([none] * (EXTRA - len(columns)))], -1)
    y_rate = torch.stack(y_rates) if rates else None  # type: ignore[arg-type]
    if square is None:
        empty = x.new_zeros(groups, 0, len(x))
        return Prepared(y, x.new_zeros(0, *x.shape), empty, empty, empty, y_rate, torch.zeros_like(x) if rates else None)
    strong = square.strength.abs().clamp(min=TINY)
    z, z_rate = rows.squares(square.by_f[:, 0], square.by_h[:, 0], square.scale[0], square.spans, rates=rates)
    sign = torch.sign(square.strength)
    cubic = sign * cubic if cubic is not None else torch.zeros_like(sign)
    return Prepared(y, z, (strong / strong[:1]).sqrt() / scale, sign, cubic, y_rate, z_rate)


def _points(mean: Tensor, slope: Tensor) -> Tensor:
    """Values at the two Gauss points of every bin, one behind the other, of straight lines across the bins."""
    return torch.stack([mean - ROOT3 * slope, mean + ROOT3 * slope], -1).flatten(-2)


def _line(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over each bin and slope across it, of values at the Gauss points."""
    first, last = values[..., ::2], values[..., 1::2]
    return (first + last) / 2, ROOT3 * (last - first)


def _mean(values: Tensor) -> Tensor:
    return (values[..., ::2] + values[..., 1::2]) / 2


def _beside_turn_on(values: Tensor) -> Tensor:
    """The first slot's is that of another curve: the next bin's stands for it."""
    return torch.cat([values[..., 1:2], values[..., 1:]], -1) if values.shape[-1] > 1 else values


def _pulses(ref: Reference, at: BinSums, ended: Tensor, drop: Tensor, lift: Tensor, force: Tensor, begin: Tensor) -> Tensor:
    """What pulses add beside their charge at full voltage: with the drops, at their begin, and by what the line stores."""
    each = (ref.end_drop + ref.end_square * drop) * drop + ref.end_clamp * lift
    first = (ref.start_drop + ref.start_square * drop[..., 0]) * drop[..., 0]
    pulses = (force * (ended[:, None] * each).sum(0)).sum(-1) + begin * (at.started[:, None] * first).sum(0)
    size = lift.new_tensor(ref.scales)[:, None]
    pulses = pulses + begin * (ref.s_const * at.on.sum(1) + ref.s_gain * (at.on @ ref.g) * size)
    return pulses + _stored(ref, at.n, drop, lift, force)


@dataclass(frozen=True)
class Square:
    """The second order of the groups' middle columns: strength, scale (groups, squares, batch), left, arched (groups, batch), z's
    weights by_f, by_h (segments, groups, batch, bins), and the bins of each square."""

    strength: Tensor
    scale: Tensor
    left: Tensor
    arched: Tensor
    by_f: Tensor
    by_h: Tensor
    spans: list[tuple[int, int]]


def _squares(ref: Reference, at: BinSums, found: Fields, conduct: Tensor, ramp: Tensor, squares: int) -> Square:
    assert found.z is not None
    assert found.z_sign is not None
    assert found.own is not None
    width, rows = ref.grid.width, len(ref.g)
    z_mean, z_slope = (width * q for q in _line(found.z))
    sign_mean, sign_slope = (width * q for q in _line(found.z_sign))
    own_mean, own_slope = (width * q for q in _line(found.own))
    # What the squares leave is the same for all columns on average, if their departures are independent row by row.
    ratio = ref.ratio()[:, None, None] / conduct.new_tensor(ref.scales)[:, None]
    spare = ((own_mean * conduct + own_slope * ramp / 2) * ratio[..., None]).sum(0)
    by_h = z_slope / 2
    spans = parts(len(width), squares)
    starts = torch.tensor([a for a, _ in spans], device=width.device)
    of_bin = torch.tensor([k for k, (a, b) in enumerate(spans) for _ in range(a, b)], device=width.device)
    member = torch.nn.functional.one_hot(of_bin, len(spans)).to(width)
    size_z = (z_mean * conduct + by_h * ramp).sum(0) @ member
    signed = (sign_mean * conduct + sign_slope * ramp / 2).sum(0) @ member
    some = size_z > 0
    # The form may be weaker than its probe where its parts differ in sign: that goes into the scale.
    scale = torch.where(some, signed.abs().clamp(min=1e-30), torch.zeros_like(signed)).sqrt()
    scale = scale / torch.where(some, size_z, torch.ones_like(size_z))
    strength = signed * some
    sign = torch.where(signed >= 0, 1.0, -1.0).to(scale) * some
    before = torch.cumsum(z_mean, -1) - z_mean
    before = before - before.index_select(-1, starts).index_select(-1, of_bin)
    lost = (z_mean * (z_mean * (conduct + ramp) + 2 * before * conduct) * ratio[..., None]).sum(0)
    here = (spare - (sign * scale * scale).index_select(-1, of_bin) * lost) @ member
    busy = at.n.sum(0)
    on = ((busy * busy * width) @ member) / ((busy * width) @ member).clamp(min=1e-30)
    left, arched = here.sum(-1), (here * on).sum(-1) / rows
    return Square(strength.transpose(1, 2), scale.transpose(1, 2), left, arched, z_mean, by_h, spans)


def _course(h: float, spans: list[tuple[int, int]], multiples: Tensor, still: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients of e², e³ and e⁴ of each part's answer, (squares, batch) each, for 1 + e times the mean column.

    multiples (4, batch, bins): that answer at h/2, −h/2, h and −h; ``still`` (batch, bins): at 0.
    """
    up, down, more, less = multiples
    wide, narrow = more + less - 2 * still, up + down - 2 * still
    found = (
        (16 * narrow - wide) / (6 * h**2), ((more - less) - 2 * (up - down)) / (1.5 * h**3), (wide - 4 * narrow) / (1.5 * h**4)
    )  # fmt: skip
    return tuple(torch.stack([c[:, a:b].sum(1) for a, b in spans]) for c in found)  # type: ignore[return-value]


def parts(bins: int, squares: int) -> list[tuple[int, int]]:
    """The window's parts of which each gets its own square: half of what bends lies in the first fifth of the window."""
    cuts = [round(bins * k) for k in SHARES.get(squares, [k / squares for k in range(1, squares)])]
    return [(a, b) for a, b in zip([0, *cuts], [*cuts, bins], strict=True) if b > a]


def _stored(ref: Reference, n: Tensor, drop: Tensor, lift: Tensor, force: Tensor) -> Tensor:
    """What wire and idle cells store as the bit line's voltage moves; none is left, but the rate changes meanwhile."""
    if not ref.circuit.effects.pulse:
        return torch.zeros_like(force[..., 0])
    rest = 0.0 if ref.conversion.clamp is None else float(ref.conversion.clamp.pieces[0, 0]) - ref.circuit.v_read_v
    volts = lift - (1 - ref.share) * drop
    edge = torch.full_like(volts[..., :1], rest)
    moves = torch.cat([volts, edge], -1) - torch.cat([edge, volts], -1)
    busy = torch.cat([n[..., :1], (n[..., 1:] + n[..., :-1]) / 2, torch.zeros_like(n[..., :1])], -1)
    weight = torch.cat([force[..., :1], (force[..., 1:] + force[..., :-1]) / 2, force[..., -1:]], -1)
    lengths = ref.lengths[:, None, None]
    store = ref.line * lengths + ref.node * (lengths - busy)
    return (weight * (moves * store[:, None]).sum(0)).sum(-1)


def idle_answer(ref: Reference) -> float:
    """Answer per LSB of a line on which nothing conducts."""
    rate = ref.conversion.rate
    return ref.idle_ua if rate is None else float(rate.at(torch.tensor([ref.idle_ua], dtype=torch.float64))[0])
