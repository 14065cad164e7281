"""Statistics of an existing card: mismatch and noise from ngspice, and how well they predict whole lines of other chips."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from aimcard.calibrate.chips import IDLE_RATE_HZ, VECTORS, population_line, simulate_lines
from aimcard.calibrate.mismatch import (
    CELL_WIDTHS_UM,
    LEAST_CHIPS,
    RATE_CURRENTS_A,
    cell_spread,
    readout_numbers,
    readout_spread,
    simulate_cells,
    simulate_readouts,
)
from aimcard.calibrate.noise import noise_tables
from aimcard.calibrate.tied_chips import TIED_VECTORS, simulate_tied_lines, tied_population_line
from aimcard.calibrate.tied_mismatch import (
    simulate_tied_cells,
    simulate_tied_readouts,
    tied_cell_spread,
    tied_readout_numbers,
    tied_readout_spread,
)
from aimcard.calibrate.tied_noise import tied_noise_tables
from aimcard.models.card import Card, Spread, Table
from aimcard.models.errors import CardError, InputError
from aimcard.models.lut import lookup
from aimcard.models.topology import Tile, tile_of
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.mismatch import mismatched
from aimcard.netlists.ngspice import simulator_version
from aimcard.netlists.readout import default_readout
from aimcard.netlists.technology import get_technology
from aimcard.validation.population import PopulationResult, compare_populations, draw_population, draw_tied_population

#: Chips of the judgement are numbered from here on, so none of them is one that the spreads were taken from.
HELD_OUT_SEED = 1000
DRAWN_CHIPS = 10_000
#: Of the nominal ring's idle rate: no chip's is lower, three σ and more away.
SLOWEST = 0.45


@dataclass(frozen=True)
class Population:
    """chips: read-outs that the spreads come from; held_out_chips: others that judge them, 0 for none; a_vt_v_um: Pelgrom
    constant [V·µm], None for the technology's; rows: of the judged line; vectors: how many of VECTORS, or of a tied column's
    TIED_VECTORS, it is driven with (fewer vectors are more chips in the same time; with all of them the first is judged trimmed,
    too)."""

    chips: int = 60
    held_out_chips: int = 0
    a_vt_v_um: float | None = None
    seed: int = 1
    rows: int = 64
    vectors: int = len(VECTORS)
    jobs: int | None = None

    def __post_init__(self) -> None:
        least = (("chips", self.chips, LEAST_CHIPS), ("held-out chips", self.held_out_chips, 0), ("seed", self.seed, 0),
                 ("rows", self.rows, 1))  # fmt: skip
        for name, value, at_least in least:
            if value < at_least:
                raise InputError(f"{name}: expected {at_least} or more; got {value}")
        if not 1 <= self.vectors <= len(VECTORS):
            both = f"{', '.join(VECTORS)}; of a tied card {', '.join(TIED_VECTORS)}"
            raise InputError(f"vectors: expected 1 to {len(VECTORS)} ({both}); got {self.vectors}")
        if 0 < self.held_out_chips < 8:
            raise InputError(f"held-out chips: expected 0, or 8 or more to compare populations; got {self.held_out_chips}")


def bench_of(card: Card) -> ColumnBench:
    """The circuits of a card, at its supply and with its mirror.

    Raises TechnologyError if its technology or corner is not known here, InputError for a supply or mirror that none has.
    """
    meta = card.meta
    technology = get_technology(str(meta["technology"])).at_supply(float(meta["vdd_v"]))
    readout = default_readout(technology, float(meta["mirror_ratio"]))
    return ColumnBench(technology, str(meta["corner"]), float(meta["temperature_c"]), readout, float(meta["v_read_v"]))


def estimate(options: Population) -> str:
    """Decks and minutes, as measured on one core of a 2-core machine."""
    rings = (options.chips + 1) * len(RATE_CURRENTS_A)
    lines = (options.held_out_chips + 1) * options.vectors if options.held_out_chips else 0
    minutes = (0.35 * rings + (8 + 0.02 * options.rows) * lines) / 60
    return (
        f"{options.chips} read-outs, {rings} rings, {lines} whole lines in ngspice: about {minutes:.0f} min of CPU the first "
        "time; finished decks are kept, so it can be interrupted"
    )


def add_statistics(
    card: Card, options: Population, *, cache_dir: str | Path | None = None, progress: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Card, PopulationResult | None]:  # fmt: skip
    """The card with spreads and noise tables, and its judgement if ``options.held_out_chips`` asks for one.

    What the card had of these is replaced; everything else stays. Raises CardError if the card has no read-out, and as
    ``run_many``.
    """
    model = tile_of(card)
    if not model.has_readout:
        raise CardError(f"{card.source}: tables/adc: missing (statistics need a card with a read-out)")
    bench = bench_of(card)
    a_vt = mismatched(bench.technology, options.seed, a_vt_v_um=options.a_vt_v_um).a_vt_v_um
    assert a_vt is not None
    simulator_version()
    say(estimate(options))
    tables, noise_hashes = circuit_noise(card, bench, model, cache_dir)
    spreads, left, mismatch_hashes = mismatch_spreads(card, bench, model, options, a_vt, cache_dir, progress)
    say(
        f"what the departures leave of the chips' curves, rms: clamp {left['clamp'] * 1e6:.2g} uV, "
        f"mirror {left['mirror'] * 1e6:.3g} ppm, rate {left['rate'] * 1e6:.3g} ppm"
    )
    hashes = "".join((*noise_hashes, *mismatch_hashes))
    made = attrs.evolve(
        card.provenance,
        reference_hashes=card.provenance.reference_hashes | {"statistics": hashlib.sha256(hashes.encode()).hexdigest()},
    )
    new = {t.name for t in tables}
    out = attrs.evolve(
        card,
        tables=(*(t for t in card.tables if t.name not in new), *tables),
        spreads=spreads,
        provenance=made,
        validation={k: v for k, v in card.validation.items() if k != "population"},
    )
    if not options.held_out_chips:
        return out, None
    result = (judge_tied if _is_tied(card) else judge)(out, bench, options, cache_dir, progress)
    return attrs.evolve(out, validation=out.validation | {"population": result.to_json()}), result


def _is_tied(card: Card) -> bool:
    return card.meta["topology"] == "tied"


def circuit_noise(
    card: Card, bench: ColumnBench, model: Tile, cache_dir: str | Path | None
) -> tuple[Sequence[Table], tuple[str, ...]]:
    """Noise tables of the card's read-out and the hashes of their decks."""
    tables_of_noise = tied_noise_tables if _is_tied(card) else noise_tables
    return tables_of_noise(bench, model.tables, cache_dir=cache_dir)


def mismatch_spreads(
    card: Card, bench: ColumnBench, model: Tile, options: Population, a_vt_v_um: float, cache_dir: str | Path | None,
    progress: bool,
) -> tuple[tuple[Spread, Spread], dict[str, float], tuple[str, ...]]:  # fmt: skip
    """Spreads of read-outs and cells, what the departures leave of the read-outs' curves, and the hashes of the decks."""
    technology = bench.technology
    seeds = range(options.seed, options.seed + options.chips)
    widths = np.union1d(CELL_WIDTHS_UM[technology.w_min_um <= CELL_WIDTHS_UM], model.w_ref_um)
    alone: dict[str, Any] = {"a_vt_v_um": a_vt_v_um, "cache_dir": cache_dir}
    many = alone | {"jobs": options.jobs, "progress": progress}
    law = (a_vt_v_um, technology.l_min_um, model.w_ref_um)
    if _is_tied(card):
        always_on = simulate_tied_cells(bench, options.seed, widths_um=widths, **alone)
        tied = simulate_tied_readouts(bench, seeds, **many)
        spreads = tied_readout_spread(tied), tied_cell_spread(always_on, *law)
        return spreads, tied_readout_numbers(tied)[1], always_on.deck_hashes + tied.deck_hashes
    cells = simulate_cells(bench, options.seed, widths_um=widths, **alone)
    readouts = simulate_readouts(bench, seeds, **many)
    spreads = readout_spread(readouts), cell_spread(cells, *law)
    return spreads, readout_numbers(readouts)[1], cells.deck_hashes + readouts.deck_hashes


def _held_out(options: Population, slowest_hz: float) -> tuple[range, dict[str, Any]]:
    """Chips that no spread has seen, and how they are simulated. slowest_hz: rate of the nominal ring where it is slowest."""
    first = HELD_OUT_SEED + options.seed
    idle_rate_hz = min(IDLE_RATE_HZ, SLOWEST * slowest_hz)
    how = {"a_vt_v_um": options.a_vt_v_um, "idle_rate_hz": idle_rate_hz, "jobs": options.jobs}
    return range(first, first + options.held_out_chips), how


def in_conventional(card: Card) -> Card:
    """The card in conventional PWM, in which the chips' lines are simulated: spreads know nothing of a mode."""
    return attrs.evolve(card, meta=card.meta | {"mode": "conventional"})


def judge_tied(
    card: Card, bench: ColumnBench, options: Population, cache_dir: str | Path | None = None, progress: bool = True
) -> PopulationResult:
    """Whole columns of held-out chips, thresholds drawn everywhere, against chips drawn from the card: counts with a sign, and
    what the resting column counts."""
    model = tile_of(card)
    line = tied_population_line(options.rows, options.seed, options.vectors, model.w_ref_um)
    seeds, how = _held_out(options, float(lookup(*model.tables["adc"], torch.zeros((), dtype=torch.float64))))
    spice = simulate_tied_lines(bench, line, seeds, cache_dir=cache_dir, progress=progress, **how)
    drawn, rest = draw_tied_population(
        in_conventional(card), line.conductance_s, line.codes, chips=DRAWN_CHIPS, seed=options.seed, w_select_um=line.w_select_um,
        position=line.position, progress=progress,
    )  # fmt: skip
    names, nominal = TIED_VECTORS[: options.vectors], np.asarray(spice.phase_count[0])
    return compare_populations(names, spice.phase_count[1:], drawn, nominal, beside={"at rest": (spice.rest_count[1:], rest)})


def judge(
    card: Card, bench: ColumnBench, options: Population, cache_dir: str | Path | None = None, progress: bool = True
) -> PopulationResult:
    """Whole lines of held-out chips, thresholds drawn everywhere, against chips drawn from the card."""
    model = tile_of(card)
    line = population_line(options.rows, options.seed, options.vectors, model.w_ref_um)
    seeds, how = _held_out(options, float(model.tables["adc"][1][0]))
    spice = simulate_lines(bench, line, seeds, cache_dir=cache_dir, progress=progress, **how)
    # Eight segments, for speed: on this short line they move a count by less than 0.01.
    plain = in_conventional(card)
    fast = attrs.evolve(plain, meta=plain.meta | {"segments": 8})
    drawn = draw_population(
        fast, line.conductance_s, line.codes, chips=DRAWN_CHIPS, seed=options.seed, w_select_um=line.w_select_um,
        position=line.position, progress=progress,
    )  # fmt: skip
    return compare_populations(VECTORS[: options.vectors], spice.phase_count[1:], drawn, np.asarray(spice.phase_count[0]))
