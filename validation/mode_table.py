"""One table, PWM mode by column topology: what the counts are worth, how well the card knows them, energy and TOPS/W.

Every row comes from a card that was fitted to simulated circuits: R² and ε_MAC of its counts against the ideal product
(validation/mode_counts.py), 1 − R² of the card against recorded ngspice columns in that mode, where a set has them
(validation/modes.py), energy of a product (validation/energy.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aimcard.data.reference import ReferenceSet
from aimcard.data.shipped import mode_references
from aimcard.models.adc import PHASE_RULES
from aimcard.models.card import Card
from aimcard.models.card_text import rows_of_text
from aimcard.models.errors import CardError, InputError
from aimcard.models.modes import Mode, get_mode, mode_names
from aimcard.models.topology import tile_of
from aimcard.validation.energy import PAPER_TOPS_PER_W, EnergyStudy, energy_study
from aimcard.validation.mode_counts import CODE_DEGREE, COUNT_DEGREE, CountError, count_error
from aimcard.validation.mode_noise import product_noise
from aimcard.validation.modes import Prediction, predicted, prediction_table

#: ε_MAC of the tile-circuit paper (arXiv 2506.00004) [%], another technology, cell and read-out: to stand beside.
PAPER_EPS_PERCENT = {"conventional": 0.62, "split": 2.62}
HEAD = (
    "topology", "mode", "ring", "window [ns]", "R2", "1-R2", "ε_MAC %", "count table", "+ code curve", "residue", "after curve",
    "truncation, % of σ", "noise, % of σ", "card: charge 1-R2", "phase 1-R2", "less offset", "nJ", "TOPS/W",
)  # fmt: skip


@dataclass(frozen=True)
class ModeRow:
    """One mode of one card under one rule of the ring. tile: the card's topology, and what tells it from others of the table;
    ``card`` None: no recorded set; ``energy`` None: no energy model; noise: σ of the product's noise [% of σ_MAC], None: no
    noise tables."""

    tile: str
    counts: CountError
    t_lsb_s: float
    phases: int
    card: Prediction | None = None
    energy: EnergyStudy | None = None
    noise: float | None = None

    @property
    def window_s(self) -> float:
        """Length of the window [s]."""
        return self.counts.window_slots * self.t_lsb_s

    def texts(self) -> tuple[str, ...]:
        """Texts of the table's row, in the order of its headings; what is missing is a dash."""
        c = self.counts
        seen = (None,) * 3 if self.card is None else (self.card.charge, self.card.phase, self.card.after_offset)
        spent = None if self.energy is None else self.energy.energy
        counts, ring = c.quantity == "counts", c.rule if self.phases > 1 else "-"
        paid = (None, None) if spent is None else (1e9 * spent.total_j, spent.tops_per_w)
        return (
            self.tile, c.mode, ring if counts else "no counts: charge", f"{1e9 * self.window_s:g}",
            f"{1 - c.plain.one_minus_r2:.5f}", f"{c.plain.one_minus_r2:.2g}",
            *(f"{s.eps:.2f}" for s in (c.plain, c.table, c.curve)),
            *(f"{s.residue_share:.0%}" if counts else "-" for s in (c.plain, c.curve)),
            f"{c.truncation:.2g}" if counts else "-", *(_shown(v) for v in (self.noise, *seen)),
            *(_shown(v, ".3g") for v in paid),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """All figures by name; card, energy and noise are None where they are missing."""
        card = None if self.card is None else self.card.to_json()
        energy = None if self.energy is None else self.energy.to_json()
        return self.counts.to_json() | {
            "tile": self.tile, "window_s": self.window_s, "noise": self.noise, "card": card, "energy": energy
        }  # fmt: skip


@dataclass(frozen=True)
class ModeTable:
    """Rows, notes on what is missing, and whether inputs have both signs. ``str``: the table with its contract; ``to_json``: the
    document."""

    rows: tuple[ModeRow, ...]
    notes: tuple[str, ...] = ()
    signed: bool = True

    @property
    def readings(self) -> dict[str, int]:
        """Readings of one product by topology: of the same inputs, a gated pair's in each sign phase, or a tied column's."""
        return {r.counts.topology: r.counts.readings for r in self.rows}

    @property
    def contract(self) -> tuple[str, ...]:
        """What the columns count, line by line."""
        c = self.rows[0].counts
        readings = ", ".join(f"{t}: {n} reading{'s' * (n > 1)} a product" for t, n in self.readings.items())
        energies = {r.tile: r.energy for r in reversed(self.rows) if r.energy is not None}
        return (
            "R2, ε_MAC (RMSE over the largest ideal product): normal weights over the card's conductances, normal codes, σ a "
            f"third of full scale{'' if self.signed else ', the negative ones zero'}; {c.columns} columns, scale and offset of "
            f"each from {c.vectors} vectors, judged on {c.vectors} others; {readings}",
            f"count table: ε_MAC after one polynomial (degree {COUNT_DEGREE}) a phase of each line's count, the same for the "
            f"whole tile; + code curve: against codes bent by one curve (degree {CODE_DEGREE}) a phase, the same for all rows",
            "residue: share of the error's variance that vanishes without truncation, as counted and after the code curve; "
            "truncation: RMSE in % of σ_MAC",
            "noise: σ of one product read again and again in % of σ_MAC: circuit, clock, PCM, truncation apart (aimcard noise)",
            "card: 1-R2 of the card against recorded ngspice lines in this mode, medians over lines (charge: ideal clamp; "
            "phase: weighted counts before truncation, and less each line's mean error)",
            *(f"energy, {name} {study.mode}: {study.energy.contract}" for name, study in energies.items()),
            "paper (arXiv 2506.00004, another technology, cell and read-out): "
            + "; ".join(f"{m} ε_MAC {PAPER_EPS_PERCENT[m]} %, {PAPER_TOPS_PER_W[m]:g} TOPS/W" for m in PAPER_EPS_PERCENT),
        )  # fmt: skip

    def __str__(self) -> str:
        notes = [f"note: {note}" for note in self.notes]
        found = {(r.tile, r.counts.mode): r.card for r in self.rows if r.card is not None}
        details = ["", prediction_table(found.items())] if found else []
        return "\n".join([*rows_of_text([HEAD, *(r.texts() for r in self.rows)]), *self.contract, *notes, *details])

    def to_json(self) -> dict[str, Any]:
        """Rows, the paper's figures, what is compared, and notes on what is missing."""
        paper = {m: {"eps_mac_percent": PAPER_EPS_PERCENT[m], "tops_per_w": PAPER_TOPS_PER_W[m]} for m in PAPER_EPS_PERCENT}
        return {
            "rows": [r.to_json() for r in self.rows], "paper": paper, "contract": list(self.contract), "notes": list(self.notes),
            "signed": self.signed,
        }  # fmt: skip

    def json_text(self) -> str:
        """The document of ``to_json`` as text."""
        return json.dumps(self.to_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def mode_table(
    cards: Sequence[Card], references: Sequence[ReferenceSet] = (), modes: Sequence[str] = (), vectors: int = 48,
    signed: bool = True,
) -> ModeTable:  # fmt: skip
    """Rows of every card in ``modes`` (none: all registered), under each rule of the ring.

    signed: inputs of either sign, which take a gated pair two sign phases; False: of one sign. references: recorded sets beside
    the shipped ones; one of a topology, technology or mirror that no card has is an InputError.
    """
    rows: list[ModeRow] = []
    notes: list[str] = []
    for r in references:
        if not any(_is_of(card, r) for card in cards):
            wanted = " or ".join(dict.fromkeys(_tile_text(card.meta) for card in cards))
            raise InputError(f"{r.source}: expected a set of {wanted}, a card's; got {_tile_text(r.meta)}")
    for label, card in zip(labels(cards), cards, strict=True):
        tile = tile_of(card)
        known = mode_references(card) | {str(r.meta["mode"]): r for r in references if _is_of(card, r)}
        for name in modes or mode_names():
            mode = get_mode(name, tile.code_max)
            seen = predicted(card, known[name]) if name in known else None
            energy = _energy(card, mode, notes, signed)
            for rule in PHASE_RULES if tile.has_readout and len(mode.phases) > 1 else PHASE_RULES[:1]:
                error = count_error(card, mode, rule, vectors=vectors, signed=signed)
                noise = _noise(card, error, mode, notes, signed)
                rows.append(ModeRow(label, error, tile.t_lsb_s, len(mode.phases), seen, energy, noise))
    return ModeTable(tuple(rows), tuple(dict.fromkeys(notes)), signed)


def labels(cards: Sequence[Card]) -> list[str]:
    """Each card's topology; of several with the same one the technology, and of the same technology the mirror too."""
    shown = ("topology", "technology", "mirror_ratio")
    texts = [[f"{c.meta[key]:g}:1" if key == "mirror_ratio" else str(c.meta[key]) for key in shown] for c in cards]
    depth = next((k for k in (1, 2) if len({tuple(t[:k]) for t in texts}) == len(texts)), len(shown))
    return [" ".join(t[:depth]) for t in texts]


def _is_of(card: Card, r: ReferenceSet) -> bool:
    """Whether a set is of the card's tile; one without a word on its mirror is of any."""
    return all(r.meta.get(key, card.meta[key]) == card.meta[key] for key in ("topology", "technology", "mirror_ratio"))


def _tile_text(meta: Mapping[str, Any]) -> str:
    mirror = f", mirror {meta['mirror_ratio']:g}:1" if "mirror_ratio" in meta else ""
    return f"topology {meta['topology']}, technology {meta['technology']}{mirror}"


def _energy(card: Card, mode: Mode, notes: list[str], signed: bool) -> EnergyStudy | None:
    try:
        return energy_study(card, mode, signed=signed)
    except CardError as error:
        notes.append(f"no energy: {error}")
        return None


def _noise(card: Card, counts: CountError, mode: Mode, notes: list[str], signed: bool) -> float | None:
    if counts.quantity != "counts":
        return None
    try:
        return 100 * product_noise(card, mode, counts.rule, signed) / counts.sigma
    except CardError as error:
        notes.append(f"no noise: {error}")
        return None


def _shown(value: float | None, form: str = ".2g") -> str:
    return "-" if value is None else format(value, form)
