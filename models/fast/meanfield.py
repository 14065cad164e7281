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
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.fast.mean_ladder import convert, solve_fields, solve_ladder
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


@dataclass(frozen=True)
class Group:
    """What a group's middle column gives: as ``Prepared``'s fields, without a group's axis; base, left, ended, arched (batch, 1).

    strength (squares, batch): its squares, as the form gives them; z scaled to them. course: second, third and fourth
    difference quotient of its multiples' answers, (squares, batch), or None.
    """

    y: Tensor
    base: Tensor
    left: Tensor
    ended: Tensor
    arched: Tensor
    z: Tensor
    strength: Tensor
    course: tuple[Tensor, Tensor, Tensor] | None
    y_rate: Tensor | None
    z_rate: Tensor | None


def shares(x: Tensor, ref: Reference) -> tuple[Tensor, Tensor]:
    """f and f² − f (batch, bins, rows): f is the share of each bin in which each row conducts."""
    edges, width = ref.grid.edges.to(x.dtype), ref.grid.width.to(x.dtype)
    f = ((x[:, None, :] - edges[:-1, None]) / width[:, None]).clamp(0.0, 1.0)
    return f, f * f - f


def _pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values at the two Gauss points of every bin, (batch, bins, …) each, from (batch, points, …)."""
    split = values.unflatten(1, (-1, 2))
    return split[:, :, 0], split[:, :, 1]


def _line(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over each bin and slope across it."""
    first, last = _pairs(values)
    return (first + last) / 2, ROOT3 * (last - first)


def prepare(ref: Reference, x: Tensor, squares: int, rates: bool = False) -> Prepared:
    """What the vectors ``x`` (batch, rows) make of the tile; differentiable, memory batch × rows × bins."""
    ref = ref.like(x)
    groups = [_group(ref.scaled(s), x, squares, rates, lead=k == 0) for k, s in enumerate(ref.scales)]
    first = groups[0]
    strength = torch.stack([g.strength for g in groups])
    strong = strength.abs().clamp(min=TINY)
    size = torch.tensor(ref.scales, dtype=x.dtype, device=x.device)
    scale = (strong / strong[:1]).sqrt() / size[:, None, None]
    rest = torch.zeros_like(strength[:, 0]) if squares else x.new_zeros(len(groups), len(x))
    last, growth, cubic = rest, rest, torch.zeros_like(strength)
    if first.course is not None:
        # The mean column's multiples, about the groups' middle ones.
        s, off = size[:, None, None], size[:, None, None] - 1
        second, third, fourth = first.course
        third = s**3 * (third + 4 * off * fourth)
        rest = strength.sum(1) + (s**2 * (second + 3 * off * first.course[1] + 6 * off**2 * fourth)).sum(1)
        last = (s**4 * fourth).sum(1)
        growth = (-3 * third.sum(1) / strength.sum(1).clamp(min=TINY)).clamp(-3.0, 3.0)
        # Third order above the second is rounding.
        cubic = (-third / strong).clamp(-1.0, 1.0) / strong.sqrt()
    y = [
        _behind(g.y, g.base, g.left, rest[k, :, None], last[k, :, None], g.ended, g.left * growth[k, :, None], g.arched)
        for k, g in enumerate(groups)
    ]
    sign = torch.sign(strength)
    return Prepared(
        torch.stack(y), first.z, scale, sign, sign * cubic,
        torch.stack([g.y_rate for g in groups]) if rates else None, first.z_rate,  # type: ignore[misc]
    )  # fmt: skip


def _group(ref: Reference, x: Tensor, squares: int, rates: bool, *, lead: bool) -> Group:
    dtype = x.dtype
    f, h = shares(x, ref)
    g, distance, owner = ref.g.to(dtype), ref.distance.to(dtype), ref.owner
    lengths, width = ref.lengths.to(dtype), ref.grid.width.to(dtype)
    size = len(lengths)
    member = torch.nn.functional.one_hot(owner, size).to(dtype)
    kinds = torch.cat([member * g[:, None], member * (g * distance)[:, None], member], -1)
    conduct, moment, n = (f @ kinds).split(size, -1)
    ramp, n_ramp = (h @ torch.cat([member * g[:, None], member], -1)).split(size, -1)
    centre = torch.where(conduct > 0, moment / conduct.clamp(min=1e-30), 0.5 * lengths)

    def points(mean: Tensor, slope: Tensor) -> Tensor:
        return torch.stack([mean - ROOT3 * slope, mean + ROOT3 * slope], 2).flatten(1, 2)

    # How many pulses end in each bin, from one bin's middle to the next one's; all that is left ends in the last.
    before = torch.cat([n[:, :1], n[:, :-1]], 1)
    after = torch.cat([n[:, 1:], -n[:, -1:]], 1)
    ended = (before - after) / 2
    on = (x > 0).to(dtype)
    started = on @ member
    # To the adjoint, what idle cells store on the bit line is one more charge of the pulses' ends.
    ends = (ref.end_drop + (1 - ref.share) * ref.node) * ended / width[:, None]
    ends = torch.cat([ends[:, :1] + ref.start_drop * started[:, None], ends[:, 1:]], 1)
    # The pulses' own charge is a current too, at which the rate is taken.
    middle = (ref.e_const + ref.e_gain * ref.g.mean()).to(dtype)
    extra = ended.sum(2) * (middle[1:] + middle[:-1]) / 2 / width
    mid, both, pair = points(conduct, ramp), centre.repeat_interleave(2, 1), points(n, n_ramp).clamp(min=0.0)
    solved = solve_ladder(ref, mid, both, pair)
    at = solve_fields(ref, solved, ends.repeat_interleave(2, 1), extra.repeat_interleave(2, 1), squares > 0)
    y_mean, y_slope = _line(at.y)
    tilt = (at.tilt * 1.0).unflatten(1, (-1, 2)).mean(2)
    force = at.rate.unflatten(1, (-1, 2)).mean(2)
    force = torch.cat([force[:, 1:2], force[:, 1:]], 1) if force.shape[1] > 1 else force
    knots = force @ ref.times.to(dtype).T
    knots, begin = knots[:, :-1], knots[:, -1:]
    const, gain = knots * ref.e_const.to(dtype), knots * ref.e_gain.to(dtype)
    step_const, step_gain = const[:, 1:] - const[:, :-1], gain[:, 1:] - gain[:, :-1]
    bend_const, bend_gain = force * ref.c_const.to(dtype), force * ref.c_gain.to(dtype)
    drop = at.drop.unflatten(1, (-1, 2)).mean(2)
    lift = at.clamp.unflatten(1, (-1, 2)).mean(2) - ref.circuit.v_read_v
    each = (ref.end_drop + ref.end_square * drop) * drop + ref.end_clamp * lift[..., None]
    first = (ref.start_drop + ref.start_square * drop[:, 0]) * drop[:, 0]
    pulses = (force[..., None] * (ended * each)).sum((1, 2)) + (begin * started * first).sum(1)
    pulses = pulses + begin[:, 0] * (ref.s_const * on.sum(1) + ref.s_gain * (on @ g))
    pulses = pulses + const[:, 0] * on.sum(1) + (step_const * n.sum(2) + bend_const * n_ramp.sum(2)).sum(1)
    pulses = pulses + gain[:, 0] * (on @ g) + (step_gain * conduct.sum(2) + bend_gain * ramp.sum(2)).sum(1)
    pulses = pulses + _stored(ref, n, drop, lift, force)
    # The force is the rate's slope at the pulses' own current; their answer is the rate's rise up to there.
    bend = at.bend.unflatten(1, (-1, 2)).mean(2)
    bend = torch.cat([bend[:, 1:2], bend[:, 1:]], 1) if bend.shape[1] > 1 else bend
    pulses = pulses - 0.5 * (bend * extra * extra * width).sum(1)
    rest = ref.conversion.offset + ref.conversion.guard * idle_answer(ref)
    # The ideal product is left out here and added to every row's weight: its rounding would be the mean column's.
    ideal = ref.conversion.ideal * ref.circuit.v_read_v

    def by_bin(answer: Tensor, scale: float) -> Tensor:
        beside = answer - ideal * scale * mid.sum(-1)
        return beside.unflatten(1, (-1, 2)).mean(2) * width

    answer = by_bin(at.answer, 1.0)
    still = answer
    answer = answer.sum(1) + pulses + rest
    flat = width[:, None] * ((y_mean - ideal) - centre * tilt) + step_gain[..., None]
    curve = width[:, None] * y_slope / 2 + bend_gain[..., None]
    by_f, by_h, by_p = flat[..., owner], curve[..., owner], (width[:, None] * tilt)[..., owner]
    weight = by_f + distance * by_p
    y = (f * weight + h * by_h).sum(1) + on * (gain[:, :1] + begin * ref.s_gain)
    base = (answer - (y * g).sum(1))[:, None]
    y = y + ideal * x
    # The longest code belongs to the last bin.
    tops = torch.cat([ref.grid.edges[1:-1], 2 * ref.grid.edges[-1:]])
    inside = ((x[:, None, :] >= ref.grid.edges[:-1, None]) & (x[:, None, :] < tops[:, None])) if rates else None
    slope = None if inside is None else inside / width[:, None].to(dtype)
    y_rate = None if slope is None else ideal + (slope * (weight + (2 * f - 1) * by_h)).sum(1)
    force = (force * ended.sum(2)).sum(1, keepdim=True)
    none = torch.zeros_like(base)
    if at.z is None:
        empty = x.new_zeros(0, len(x))
        z_rate = torch.zeros_like(x) if rates else None
        return Group(y, base, none, force, none, x.new_zeros(0, *x.shape), empty, None, y_rate, z_rate)
    z_mean, z_slope = (width[:, None] * q for q in _line(at.z))
    assert at.z_sign is not None
    assert at.own is not None
    sign_mean, sign_slope = (width[:, None] * q for q in _line(at.z_sign))
    own_mean, own_slope = (width[:, None] * q for q in _line(at.own))
    # What the squares leave is the same for all columns on average, if their departures are independent row by row.
    ratio = ref.ratio()
    spare = ((own_mean * conduct + own_slope * ramp / 2) * ratio).sum(2)
    busy = n.sum(2)
    left = arched = torch.zeros_like(spare[:, 0])
    zs, strengths = [], []
    z_rate = torch.zeros_like(x)
    spans = parts(len(width), squares)
    for a, b in spans:
        each_f, each_h = z_mean[:, a:b], z_slope[:, a:b] / 2
        by_f, by_h = each_f[..., owner], each_h[..., owner]
        z = (f[:, a:b] * by_f + h[:, a:b] * by_h).sum(1)
        size_z = (z * g).sum(1)
        signed = (sign_mean * conduct + sign_slope * ramp / 2)[:, a:b].sum((1, 2))
        some = size_z > 0
        # The form may be weaker than its probe where its parts differ in sign: that goes into the scale.
        scale = torch.where(some, signed.abs().clamp(min=1e-30), torch.zeros_like(signed)).sqrt()
        scale = scale / torch.where(some, size_z, torch.ones_like(size_z))
        sign = torch.where(signed >= 0, 1.0, -1.0).to(dtype) * some
        before = torch.cumsum(each_f, 1) - each_f
        square = each_f * each_f * (conduct + ramp)[:, a:b] + 2 * each_f * before * conduct[:, a:b]
        here = spare[:, a:b].sum(1) - sign * scale * scale * (square * ratio).sum((1, 2))
        left = left + here
        rows_on = (busy * width * busy)[:, a:b].sum(1) / (busy * width)[:, a:b].sum(1).clamp(min=1e-30)
        arched = arched + here * rows_on / x.shape[1]
        zs.append(z * scale[:, None])
        strengths.append(signed * some)
        if slope is not None:
            z_rate = z_rate + (slope[:, a:b] * (by_f + (2 * f[:, a:b] - 1) * by_h)).sum(1) * scale[:, None]
    def multiple(e: float) -> Tensor:
        current = solve_ladder(ref, mid * (1 + e), both, pair).current
        return by_bin(convert(ref, current)[0], 1 + e)

    course = _course(ref.reach, spans, multiple, still) if lead and ref.reach > 0 else None
    kept = z_rate if rates else None
    columns = y, base, left[:, None], force, arched[:, None]
    return Group(*columns, torch.stack(zs), torch.stack(strengths), course, y_rate, kept)


def _course(h: float, spans: list[tuple[int, int]], multiple: Callable[[float], Tensor],
            still: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Coefficients of e², e³ and e⁴ of each part's answer, (squares, batch) each, for 1 + e times the mean column.

    ``multiple(e)``, (batch, bins), is that answer; ``still`` its value at 0.
    """
    up, down, more, less = (multiple(e) for e in (h / 2, -h / 2, h, -h))
    wide, narrow = more + less - 2 * still, up + down - 2 * still
    found = (
        (16 * narrow - wide) / (6 * h**2), ((more - less) - 2 * (up - down)) / (1.5 * h**3), (wide - 4 * narrow) / (1.5 * h**4)
    )  # fmt: skip
    return tuple(torch.stack([c[:, a:b].sum(1) for a, b in spans]) for c in found)  # type: ignore[return-value]


def _behind(y: Tensor, *columns: Tensor) -> Tensor:
    return torch.cat([y, *columns, y.new_zeros(len(y), EXTRA - len(columns))], 1)


def parts(bins: int, squares: int) -> list[tuple[int, int]]:
    """The window's parts of which each gets its own square: half of what bends lies in the first fifth of the window."""
    cuts = [round(bins * k) for k in SHARES.get(squares, [k / squares for k in range(1, squares)])]
    return [(a, b) for a, b in zip([0, *cuts], [*cuts, bins], strict=True) if b > a]


def _stored(ref: Reference, n: Tensor, drop: Tensor, lift: Tensor, force: Tensor) -> Tensor:
    """What wire and idle cells store as the bit line's voltage moves; none is left, but the rate changes meanwhile."""
    if not ref.circuit.effects.pulse:
        return torch.zeros_like(force[:, 0])
    lengths = ref.lengths.to(n.dtype)
    rest = 0.0 if ref.conversion.clamp is None else float(ref.conversion.clamp.pieces[0, 0]) - ref.circuit.v_read_v
    volts = lift[..., None] - (1 - ref.share) * drop
    edge = torch.full_like(volts[:, :1], rest)
    moves = torch.cat([volts, edge], 1) - torch.cat([edge, volts], 1)
    none = torch.zeros_like(n[:, :1])
    busy = torch.cat([n[:, :1], (n[:, 1:] + n[:, :-1]) / 2, none], 1)
    weight = torch.cat([force[:, :1], (force[:, 1:] + force[:, :-1]) / 2, force[:, -1:]], 1)
    return (weight[..., None] * moves * (ref.line * lengths + ref.node * (lengths - busy))).sum((1, 2))


def idle_answer(ref: Reference) -> float:
    """Answer per LSB of a line on which nothing conducts."""
    rate = ref.conversion.rate
    return ref.idle_ua if rate is None else float(rate.at(torch.tensor([ref.idle_ua], dtype=torch.float64))[0])
