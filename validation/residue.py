"""Where a PWM mode's error comes from, stage by stage, and what a phase boundary does to the counter.

``python -m aimcard.validation.residue CARD --mode split`` prints both: the budget from the card's model,
over many vectors on one pair of lines, and the boundary from the simulated rings of the reference set.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aimcard.data.reference import Record, ReferenceSet
from aimcard.data.shipped import find_card, mode_references
from aimcard.models.adc import PHASE_RULES, residue_sigma, truncated
from aimcard.models.card_text import rows_of_text
from aimcard.models.checks import check_choice
from aimcard.models.console import Arguments, run_module
from aimcard.models.errors import InputError
from aimcard.models.modes import Mode, get_mode
from aimcard.models.tied_tile import TiedTile
from aimcard.models.topology import Tile, tile_of
from aimcard.validation.modes import pair_of
from aimcard.validation.predictors import net_conductance, slot_weights_s
from aimcard.validation.scores import affine, affine_fit, sigma_mac
from aimcard.validation.typical import normal_codes


def without_steps(model: Tile) -> Tile:
    """The same tile whose clamp follows at once: no turn-on, no step charges of the regulator."""
    still = copy.copy(model)
    still.values = {n: 0.0 if n.startswith(("clamp_step", "clamp_on_")) and n.endswith("_s") else v
                    for n, v in model.values.items()}  # fmt: skip
    return still


def record_of(reference: ReferenceSet) -> Record:
    """What makes a product: a held-out Gaussian pair of lines with a read-out, or a tied column. InputError without one."""
    if reference.meta["topology"] == "gated":
        return pair_of(reference)
    found = reference.select(kind="column", role="held_out", clamp="ota", distribution="gaussian", wire_scale=1.0)
    if not found:
        raise InputError(f"{reference.source}: expected a held-out Gaussian column with clamp 'ota'; there is none")
    return found[0]


def budget(model: Tile, reference: ReferenceSet, mode: Mode, vectors: int = 32, seed: int = 3) -> list[tuple[str, float]]:
    """Stage and RMSE/σ_MAC [%] of the product against the ideal one after scale and offset, up to that stage.

    Gaussian vectors on the set's first held-out pair, G+ − G− in one sign phase, or tied column, of either sign. Raises
    InputError without one, or for fewer than 4 vectors.
    """
    if vectors < 4:
        raise InputError(f"vectors: expected 4 or more, two numbers are fitted to them; got {vectors}")
    record, tied = record_of(reference), isinstance(model, TiedTile)
    g = record["conductance_s"]
    where: dict[str, Any] = {"w_select_um": float(record.attrs["w_select_um"]), "position": float(record.attrs["position"])}
    if tied:
        where |= {"conductance_minus_s": record["conductance_minus_s"], "read_out": str(record.attrs["read_out"])}
    codes = normal_codes(np.random.default_rng(seed), vectors, g.shape[1], model.code_max, signed=tied)
    ideal = (codes @ (net_conductance(record)[0] if tied else g[0] - g[1]))[:, None]
    held, free = (model.respond(g, codes, clamp="ota", mode=mode, phase_rule=rule, **where) for rule in PHASE_RULES)
    weight = slot_weights_s(held.slot_edge_s, mode, model.guard_slots)
    assert held.mirror_a is not None
    assert held.phase_count is not None
    assert held.count is not None
    assert free.count is not None
    stages = {
        "cells, wire, edges (ideal clamp)": model.respond(g, codes, mode=mode, clamp="ideal", **where).charge_c,
        "+ regulator, static": without_steps(model).respond(g, codes, clamp="ota", mode=mode, **where).charge_c,
        "+ its turn-on and steps": held.charge_c,
        "+ mirror": held.mirror_a @ weight,
        "+ oscillator": held.phase_count,
        "+ counter, ring reset in each phase": held.count,
        "+ counter, ring running on": free.count,
    }

    def error(y: np.ndarray) -> float:
        product = (y if tied else y[:, :1] - y[:, 1:]).astype(float)
        left = product - affine(ideal, *affine_fit(ideal, product))
        return float(100 * np.sqrt((left**2).sum() / (vectors - 2)) / sigma_mac(product)[0])

    return [(name, error(np.asarray(y))) for name, y in stages.items()]


def boundary(reference: ReferenceSet) -> list[tuple[str, str]]:
    """What the set's simulated rings say of the phase boundaries; InputError if the set has one phase only."""
    mode = get_mode(str(reference.meta["mode"]), int(reference.meta["code_max"]))
    guard = int(reference.meta["guard_slots"])
    records = [r for r in reference.select(kind="column", role="held_out", clamp="ota") if "phase_counts" in r]
    if not records:
        raise InputError(f"{reference.source}: expected columns with phase_counts (a mode of several phases); there are none")
    r = records[0]
    weights = np.array(mode.weights)
    held, free = r["phase_counts"], r["free_phase_counts"]
    sigma = sigma_mac((held @ weights).astype(float)).mean()
    rows = [("σ_MAC of a line, weighted counts", f"{sigma:.4g}")]
    for k, phase in enumerate(mode.phases):
        gained = held[..., k] - free[..., k]
        rows.append((
            f"phase {k} (weight {phase.weight}): counts of a reset ring less those of one running on",
            f"{gained.mean():+.3f}, spread {gained.std():.3f}",
        ))  # fmt: skip
    for rule, gains in zip(PHASE_RULES, (held, free), strict=True):
        shown = truncated(torch.as_tensor(np.array(gains)), rule).numpy()
        lost = ((shown - gains) * weights).sum(-1)
        even = residue_sigma(mode.weights, rule)
        share = f"{100 * lost.std() / sigma:.2f} % of σ_MAC (even fractions: {even:.2f}, {100 * even / sigma:.2f} %)"
        rows.append((f"truncation and residue, {rule}", f"{lost.std():.2f} weighted counts rms, {share}"))
    for name, label in (("current_a", "line"), ("mirror_a", "mirror")):
        for k, (_, beyond) in enumerate(mode.windows(guard)):
            idle = r[name][..., -1]
            left = (r[name][..., beyond - 1] - idle) / np.abs(r[name].max())
            rows.append((f"{label} current in the last guard slot of phase {k}, less the window's last",
                         f"{1e6 * left.mean():+.0f} ppm of the peak, spread {1e6 * left.std():.0f}"))  # fmt: skip
    return rows


def _main(arguments: list[str]) -> None:
    parser = Arguments(modes=True, prog="python -m aimcard.validation.residue", description=__doc__)
    parser.add_argument("card", help="file or name of a model card")
    parser.add_argument("--mode", default="split", help="mode to look at (default: split), of a shipped set of the card's")
    parser.add_argument("--against", type=Path, help="reference set in the mode to look at, instead of a shipped one")
    parser.add_argument("--vectors", type=int, default=32)
    given = parser.read(arguments)
    model = tile_of(find_card(given.card))
    if given.against is None:
        known = mode_references(model.card)
        reference = known[check_choice("--mode", given.mode, tuple(known))]
    else:
        reference = ReferenceSet.read(given.against)
    mode = get_mode(str(reference.meta["mode"]), model.code_max)
    print(f"{mode.name}: error of a product up to each stage, {given.vectors} vectors, in % of σ_MAC")
    print("\n".join(rows_of_text([(name, f"{value:.3g}") for name, value in budget(model, reference, mode, given.vectors)])))
    if len(mode.phases) > 1:
        print(f"{mode.name}: the phase boundary, simulated")
        print("\n".join(rows_of_text(boundary(reference))))


if __name__ == "__main__":
    sys.exit(run_module(_main, sys.argv[1:]))
