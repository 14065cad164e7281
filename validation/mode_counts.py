"""What a tile's counts are worth in a PWM mode: their error against the ideal product, as they come and linearised.

A tile of normal weights answers normal vectors of either sign by its card: a tied column in one reading, a gated pair in four,
two lines in two sign phases. Half of the vectors calibrate, the others are judged, in
three steps, each after a scale and an offset a column. *As they come*: the weighted counts. *Look-up table*: one
polynomial a PWM phase bends each line's count, the same for all lines of the tile, as one digital table would. *And a code
curve*: the product is that of bent codes, one curve a phase for all rows. A ring that runs slower per ampere at the
window's start, when more rows are on, weighs a pulse's first slots less than its last; all rows share that, so a
table in the drivers, or a network trained with it, takes it away. What then remains is the wire, what a count cannot know
of the current's course, and truncation: fractions that a phase's end drops or carries.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from aimcard.models.adc import PHASE_RULES, residue_sigma
from aimcard.models.card import Card
from aimcard.models.errors import InputError, OutsideDomainWarning
from aimcard.models.modes import Mode
from aimcard.models.tied_tile import TiedTile
from aimcard.models.topology import Tile, tile_of
from aimcard.validation.typical import normal_codes, normal_pairs

#: Degrees of the polynomials that stand for the counts' table and the codes' curve.
COUNT_DEGREE, CODE_DEGREE = 2, 3


@dataclass(frozen=True)
class TileInputs:
    """What a tile is asked: plus_s, minus_s (columns, rows) [S]; codes (vectors, rows), of either sign."""

    plus_s: np.ndarray
    minus_s: np.ndarray
    codes: np.ndarray


def drawn_inputs(card: Card, columns: int, vectors: int, seed: int = 3, signed: bool = True) -> TileInputs:
    """Normal weights, clipped at three sigma over the card's conductances; normal codes, without a sign the negative ones 0."""
    rng = np.random.default_rng(seed)
    rows, full = int(card.meta["rows"]), int(card.meta["code_max"])
    lo, hi = card.domain["conductance_s"].lo, card.domain["conductance_s"].hi
    plus, minus = normal_pairs(rng, columns, rows, lo, hi)
    return TileInputs(plus, minus, normal_codes(rng, vectors, rows, full, signed=signed))


@dataclass(frozen=True)
class TileAnswers:
    """A tile's answers, (vectors, columns, readings, phases): of each column's readings, whose ``sign`` (readings,) adds them up:
    one of a tied column; of a gated pair one a line, and where codes have both signs one a line and sign phase.

    shown: what the digital side sees, counts; or charges [C] where a card has no counts. exact: the same before
    truncation. ideal: the ideal product [code · S], (vectors, columns). powers: its parts from the first, second, ... power
    of the pulse's share of its phase, (vectors, columns, phases, CODE_DEGREE). rule: the ring's between phases.
    """

    mode: Mode
    rule: str
    quantity: str
    sign: np.ndarray
    shown: np.ndarray
    exact: np.ndarray
    ideal: np.ndarray
    powers: np.ndarray

    def product(self, parts: np.ndarray) -> np.ndarray:
        """Σ weight · sign · part over phases and readings, (vectors, columns)."""
        return np.einsum("vcsp,s,p->vc", parts, self.sign, np.array(self.mode.weights, dtype=float))


def sign_phases(codes: np.ndarray) -> tuple[np.ndarray, ...]:
    """What a gated tile is driven with: the magnitudes of the positive codes, then, if there are any, of the negative ones."""
    return (np.maximum(codes, 0), np.maximum(-codes, 0)) if (codes < 0).any() else (codes,)


def answers(tile: Tile, inputs: TileInputs, mode: Mode, rule: str) -> TileAnswers:
    """What the card says: counts if it has a whole read-out, else charges with an ideal clamp."""
    tied = isinstance(tile, TiedTile)
    columns, codes = len(inputs.plus_s), inputs.codes
    driven = codes if tied else np.concatenate(sign_phases(codes))
    counted = tile.has_readout
    clamp = "ota" if counted else "ideal"
    options: dict[str, Any] = {"mode": mode, "clamp": clamp} | ({"phase_rule": rule} if counted else {})
    with warnings.catch_warnings():
        # Drawn lines may peak beyond the validated current for a slot.
        warnings.simplefilter("ignore", OutsideDomainWarning)
        if tied:
            out = tile.respond(inputs.plus_s, codes, conductance_minus_s=inputs.minus_s, **options)
        else:
            out = tile.respond(np.concatenate([inputs.plus_s, inputs.minus_s]), driven, **options)
    if counted:
        assert out.phase_counts is not None
        assert out.counts is not None
        exact, shown = out.phase_counts, out.counts
    else:
        windows = mode.windows(tile.guard_slots)
        exact = np.stack([out.current_a[..., a:b].sum(-1) * tile.t_lsb_s for a, b in windows], axis=-1)
        shown = exact
    sign = np.ones(1) if tied else np.outer((1.0, -1.0)[: len(driven) // len(codes)], (1.0, -1.0)).ravel()
    sides = 1 if tied else 2
    shape = (len(sign) // sides, len(codes), sides, columns, len(mode.phases))
    shown, exact = (
        np.asarray(a, dtype=float).reshape(shape).transpose(1, 3, 0, 2, 4).reshape(len(codes), columns, len(sign), -1)
        for a in (shown, exact)
    )
    g, pulses = (inputs.plus_s - inputs.minus_s).T, mode.pulses(codes, np.arange(codes.shape[1]))
    degrees = range(1, CODE_DEGREE + 1)
    powers = np.stack([
        np.stack([phase.weight * (np.sign(codes) * ((stop - start) / phase.slots) ** p) @ g for p in degrees], -1)
        for phase, (start, stop) in zip(mode.phases, pulses, strict=True)
    ], 2)  # fmt: skip
    return TileAnswers(mode, rule, "counts" if counted else "charge", sign, shown, exact, codes @ g, powers)


@dataclass(frozen=True)
class Tables:
    """The tile's tables. count: (phases, COUNT_DEGREE − 1), from the second power on, of (count − centre)/spread in units
    of the weighted count; code: (phases, CODE_DEGREE), what ``TileAnswers.powers`` are summed with."""

    centre: np.ndarray
    spread: np.ndarray
    count: np.ndarray
    code: np.ndarray

    def linear(self, a: TileAnswers, parts: np.ndarray) -> np.ndarray:
        """The product from bent counts, (vectors, columns)."""
        x = ((parts - self.centre) / self.spread)[..., None] ** np.arange(2, COUNT_DEGREE + 1)
        return a.product(parts) - np.einsum("vcspd,s,pd->vc", x, a.sign, self.count)

    def target(self, a: TileAnswers) -> np.ndarray:
        """The product of bent codes, (vectors, columns)."""
        return np.einsum("vcpd,pd->vc", a.powers, self.code)


def fit_tables(a: TileAnswers, vectors: slice, bend_codes: bool) -> Tables:
    """Least squares over these vectors and all columns; without ``bend_codes`` the ideal product is the target."""
    phases = len(a.mode.phases)
    centre, spread = a.shown[vectors].mean((0, 1, 2)), np.maximum(a.shown[vectors].std((0, 1, 2)), 1e-300)
    bent = ((a.shown[vectors] - centre) / spread)[..., None] ** np.arange(2, COUNT_DEGREE + 1)
    bent = np.einsum("vcspd,s->vcpd", bent, a.sign).reshape(-1, phases * (COUNT_DEGREE - 1))
    slots = np.array([phase.slots for phase in a.mode.phases], dtype=float)
    powers = a.powers[vectors] if bend_codes else (a.powers[vectors][..., 0] * slots).sum(-1)[..., None, None]
    powers = powers.reshape(len(bent), -1)
    features = np.concatenate([powers, bent, np.ones((len(bent), 1))], axis=1)
    # Powers that a phase of one slot cannot tell apart, or a count that is always the same, are shared out or left at zero.
    scale = np.maximum(np.abs(features).max(0), 1e-300)
    found = np.linalg.lstsq(features / scale, a.product(a.shown[vectors]).ravel(), rcond=1e-10)[0] / scale
    code = np.zeros((phases, CODE_DEGREE))
    if bend_codes:
        code[:] = found[: code.size].reshape(code.shape)
    else:
        code[:, 0] = found[0] * slots
    return Tables(centre, spread, found[powers.shape[1] : -1].reshape(phases, -1), code)


@dataclass(frozen=True)
class Score:
    """Error on vectors that calibrated nothing, RMSE over vectors and columns: eps in % of the column's largest product,
    eps_exact the same before truncation, nrmse in % of σ_MAC."""

    eps: float
    eps_exact: float
    nrmse: float

    @property
    def one_minus_r2(self) -> float:
        """1 − R² that the nrmse stands for."""
        return (self.nrmse / 100) ** 2

    @property
    def residue_share(self) -> float:
        """Share of the error's variance that vanishes without truncation."""
        return max(0.0, 1 - (self.eps_exact / self.eps) ** 2) if self.eps else 0.0

    def to_json(self) -> dict[str, float]:
        """All figures by name."""
        return asdict(self) | {"one_minus_r2": self.one_minus_r2, "residue_share": self.residue_share}


@dataclass(frozen=True)
class CountError:
    """A mode's counts (or charges: ``quantity``) against the ideal product, three ways.

    readings: of one product, as ``TileAnswers`` has them. sigma: σ_MAC of the weighted counts. truncation: RMSE that truncation
    adds to them, % of σ_MAC; expected: what evenly spread fractions give.
    """

    mode: str
    topology: str
    rule: str
    quantity: str
    readings: int
    window_slots: int
    vectors: int
    columns: int
    sigma: float
    plain: Score
    table: Score
    curve: Score
    truncation: float
    expected: float

    def to_json(self) -> dict[str, Any]:
        """All figures by name; those of the three readings in dictionaries of their own."""
        return asdict(self) | {name: getattr(self, name).to_json() for name in ("plain", "table", "curve")}


def count_error(
    card: Card, mode: Mode, rule: str = PHASE_RULES[0], *, vectors: int = 48, columns: int = 4, seed: int = 3, signed: bool = True
) -> CountError:
    """Draw a tile of ``columns`` and 2 · ``vectors``, of which the first half calibrates. signed False: inputs of one sign, for
    which a gated pair needs no second sign phase. InputError below 8 vectors."""
    if vectors < 8:
        raise InputError(f"vectors: expected 8 or more, tables are fitted to as many; got {vectors}")
    tile = tile_of(card)
    a = answers(tile, drawn_inputs(card, columns, 2 * vectors, seed, signed), mode, rule)
    fitted = slice(0, vectors)
    tables, both = (fit_tables(a, fitted, bend_codes) for bend_codes in (False, True))
    raw, exact = a.product(a.shown), a.product(a.exact)
    sigma = raw.std(0)
    even = residue_sigma(mode.weights, rule) * np.sqrt(len(a.sign)) if a.quantity == "counts" else 0.0
    lost = raw - exact
    plain = _score(raw, exact, a.ideal, vectors)
    table, curve = (_score(t.linear(a, a.shown), t.linear(a, a.exact), t.target(a), vectors) for t in (tables, both))
    return CountError(
        mode.name, str(card.meta["topology"]), rule, a.quantity, len(a.sign), mode.window_slots(tile.guard_slots), vectors,
        columns, float(sigma.mean()), plain, table, curve,
        100 * float(np.sqrt(np.mean(((lost - lost.mean(0)) / sigma) ** 2))), 100 * float(np.mean(even / sigma)),
    )  # fmt: skip


def _score(shown: np.ndarray, exact: np.ndarray, target: np.ndarray, vectors: int) -> Score:
    """Products (2 · vectors, columns) against their target, after a scale and an offset from the first half."""
    full, sigma = np.abs(target).max(0), target.std(0)

    def rms(product: np.ndarray, unit: np.ndarray) -> float:
        y, t = product[:vectors], target[:vectors]
        dy = y - y.mean(0)
        scale = (dy * (t - t.mean(0))).sum(0) / np.maximum((dy**2).sum(0), np.finfo(float).tiny)
        left = scale * (product[vectors:] - y.mean(0)) + t.mean(0) - target[vectors:]
        return 100 * float(np.sqrt(np.mean((left / unit) ** 2)))

    return Score(rms(shown, full), rms(exact, full), rms(shown, sigma))
