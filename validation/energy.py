"""Energy of a tile's product from a card, and how well the card's supplies agree with recorded transients."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.card import Card
from aimcard.models.card_text import rows_of_text
from aimcard.models.energy import PARTS, EnergyParameters, TileEnergy, line_energy, tile_energy
from aimcard.models.errors import OutsideDomainWarning
from aimcard.models.modes import Mode, get_mode
from aimcard.models.tied_energy import tied_charges
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel
from aimcard.models.topology import tile_of
from aimcard.validation.typical import normal_codes, normal_pairs

#: The tile-circuit paper's own figures (arXiv 2506.00004), another technology and cell: to stand beside, not to match.
PAPER_TOPS_PER_W = {"conventional": 26.0, "split": 106.0}


@dataclass(frozen=True)
class EnergyStudy:
    """Energy of one product of a tile with drawn weights and inputs; ``text`` for people, ``to_json`` for programs."""

    mode: str
    topology: str
    phases: tuple[TileEnergy, ...]

    @property
    def energy(self) -> TileEnergy:
        """All PWM phases together."""
        first = self.phases[0]
        parts = {name: sum(e.parts_j[name] for e in self.phases) for name in PARTS}
        return replace(first, parts_j=parts, window_s=sum(e.window_s for e in self.phases),
                       linear_excess_j=sum(e.linear_excess_j for e in self.phases))  # fmt: skip

    def row(self) -> tuple[str, ...]:
        """Texts of the table's row: mode, topology, window [ns], each part and the sum [nJ], TOPS/W, the paper's TOPS/W."""
        e = self.energy
        parts = (f"{1e9 * e.parts_j[name]:.3g}" for name in PARTS)
        paper = PAPER_TOPS_PER_W.get(self.mode)
        return (self.mode, self.topology, f"{e.window_s * 1e9:g}", *parts, f"{1e9 * e.total_j:.3g}",
                f"{e.tops_per_w:.3g}", "-" if paper is None else f"{paper:g}")  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Energies [J] by part and phase, TOPS/W, and what they are counted over."""
        e = self.energy
        return {"mode": self.mode, "topology": self.topology, "parts_j": e.parts_j, "total_j": e.total_j,
                "tops_per_w": e.tops_per_w, "operations": e.operations, "window_s": e.window_s,
                "sign_phases": e.sign_phases, "density": e.density, "contract": e.contract,
                "phases": [{"window_s": part.window_s, "parts_j": part.parts_j} for part in self.phases]}  # fmt: skip


def energy_table(studies: list[EnergyStudy]) -> str:
    """Rows of studies under one heading, and the contract of the first."""
    head = ("mode", "topology", "window [ns]", *(f"{p} [nJ]" for p in PARTS), "total [nJ]", "TOPS/W", "paper")
    return "\n".join([*rows_of_text([head, *(s.row() for s in studies)]), studies[0].energy.contract])


def energy_study(
    card: Card, mode: str | Mode | None = None, *, pairs: int = 4, vectors: int = 4, columns: int = 512, seed: int = 1,
    signed: bool = True,
) -> EnergyStudy:  # fmt: skip
    """Energy of a product of normal weights (clipped at three sigma) and normal inputs, σ a third of full scale.

    ``pairs`` of lines and ``vectors`` are drawn and stand for all; signed inputs take two sign phases in `gated`, one in `tied`,
    whose pairs share a line; signed False: negative inputs are zero, and one sign phase does. mode: a PWM mode (None: the
    card's). Raises CardError if the card has no energy model.
    """
    p, model = EnergyParameters.of(card), tile_of(card)
    pwm = get_mode(str(card.meta["mode"]) if mode is None else mode, model.code_max)
    rng = np.random.default_rng(seed)
    rows, full = int(card.meta["rows"]), model.code_max
    lo, hi = card.domain["conductance_s"].lo, card.domain["conductance_s"].hi
    g = np.concatenate(normal_pairs(rng, pairs, rows, lo, hi))
    inputs = normal_codes(rng, vectors, rows, full, signed=signed)
    phases: list[TileEnergy] = []
    density = float((inputs != 0).mean())
    if isinstance(model, TiedTile):
        for c in tied_charges(model, g[:pairs], g[pairs:], inputs, pwm):
            phases.append(tile_energy(p, c.line_c, c.mirror_c, c.oscillator_c, c.pulses, c.on_s, rows=rows, columns=columns,
                                      sign_phases=1, window_s=c.window_s, density=density, rail_charge_c=c.rail_c))  # fmt: skip
        return EnergyStudy(pwm.name, str(card.meta["topology"]), tuple(phases))
    codes = np.concatenate([np.maximum(inputs, 0), np.maximum(-inputs, 0)][: 2 if signed else 1])
    with warnings.catch_warnings():
        # Drawn lines may peak beyond the validated current for a slot; the sums hardly notice.
        warnings.simplefilter("ignore", OutsideDomainWarning)
        out = model.respond(g, codes, mode=pwm)
    assert out.mirror_a is not None
    assert out.oscillator_a is not None
    t = model.t_lsb_s
    widths = [stop - start for start, stop in pwm.pulses(codes, np.arange(rows))]
    for (first, beyond), width in zip(pwm.windows(model.guard_slots), widths, strict=True):
        line, mirror, oscillator = (
            a[..., first:beyond].sum(-1) * t for a in (out.current_a, out.mirror_a, out.oscillator_a)
        )  # fmt: skip
        phases.append(tile_energy(p, line, mirror, oscillator, (width > 0).sum(-1), width.sum(-1) * t, rows=rows, columns=columns,
                                  sign_phases=2 if signed else 1, window_s=(beyond - first) * t, density=density))  # fmt: skip
    return EnergyStudy(pwm.name, str(card.meta["topology"]), tuple(phases))


def supply_errors(card: Card, reference: ReferenceSet) -> list[tuple[str, str, float, float]]:
    """Record, part, median and worst relative error of the card's energy against recorded supplies.

    Columns whose record has them; ``read-out`` is all that regulator, mirror, OTA and references take beside the cells.
    """
    p, model, mode = EnergyParameters.of(card), tile_of(card), str(reference.meta["mode"])
    found = []
    for r in reference.select(kind="column"):
        if r.attrs["clamp"] != "ota" or not {"oscillator_charge_c", "vdd_charge_c"} & set(r.arrays):
            continue
        errors = _tied_errors(p, model, r, mode) if isinstance(model, TiedTile) else _errors(p, model, r, mode)
        for part, error in errors.items():
            found.append((r.name, part, float(np.median(np.abs(error))), float(np.abs(error).max())))
    return found


def _errors(p: EnergyParameters, model: TileModel, r: Record, mode: str) -> dict[str, np.ndarray]:
    out = model.respond(r["conductance_s"], r["codes"], wire_scale=float(r.attrs["wire_scale"]),
                        w_select_um=float(r.attrs["w_select_um"]), position=float(r.attrs["position"]), mode=mode)  # fmt: skip
    assert out.mirror_a is not None
    assert out.oscillator_a is not None
    t = model.t_lsb_s
    window = len(r["slot_edge_s"][1:]) * t
    energy = line_energy(p, out.current_a.sum(-1) * t, out.mirror_a.sum(-1) * t, out.oscillator_a.sum(-1) * t, window)
    line = r["current_a"].sum(-1) * t * p.vdd_v
    return _against(r, energy, p, line, line)


def _tied_errors(p: EnergyParameters, model: TiedTile, r: Record, mode: str) -> dict[str, np.ndarray]:
    turned = slice(None, None, -1) if r.attrs.get("read_out", "south") == "north" else slice(None)
    plus, minus = (r[name][:, turned] for name in ("conductance_s", "conductance_minus_s"))
    phases = tied_charges(
        model, plus, minus, r["codes"][:, turned], get_mode(mode, model.code_max), wire_scale=float(r.attrs["wire_scale"]),
        w_select_um=float(r.attrs["w_select_um"]), position=float(r.attrs["position"]),
    )  # fmt: skip
    line_c, mirror_c, oscillator_c, rail_c = (
        np.sum([getattr(c, name) for c in phases], axis=0) for name in ("line_c", "mirror_c", "oscillator_c", "rail_c")
    )
    energy = line_energy(p, line_c, mirror_c, oscillator_c, sum(c.window_s for c in phases), rail_c)
    line = r["current_a"].sum(-1) * model.t_lsb_s * p.vdd_v
    array = line + p.rail_energy(r["rail_charge_c"]) if "rail_charge_c" in r else None
    return _against(r, energy, p, line, array)


def _against(
    r: Record, energy: dict[str, np.ndarray], p: EnergyParameters, line_j: np.ndarray, array_j: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Relative errors of the parts that a record holds. line_j: what the line's own current takes from V_DD; array_j: that and
    the rails' energy, None where they were not recorded."""
    truth = {} if array_j is None else {"array": array_j}
    if "oscillator_charge_c" in r:
        truth["oscillator"] = r["oscillator_charge_c"] * p.vdd_v
    if "vdd_charge_c" in r:
        truth["read-out"] = r["vdd_charge_c"] * p.vdd_v - line_j
    return {part: energy[part] / truth[part] - 1 for part in truth}
