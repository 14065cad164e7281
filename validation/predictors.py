"""What is compared: a held-out record's truth with the model, the ideal MAC and the reference's own floor.

Quantities of a record: `current` and `charge` are what the ADC sees, that is the mirror's where the record
has a mirror and the line's otherwise; beside the mirror's, `line_current` and `line_charge`; `phase` is the
count before truncation. Predictors:

- `model`: the card, at the record's own wire scale, width, position and clamp.
- `ideal`: V·ΣG·x·T. For mirror and phase it goes through an ideal read-out: a straight line through the
  card's static idle point and its static point at the record's mean ideal current (`nominal_readout`).
- `ideal_affine`: the ideal after its best affine correction on this very record, line by line.
- `model_affine`: the card after the same correction: both have two numbers a line from the very vectors that score them.
- `floor`: the same vectors from a tighter run of the reference's simulator, where the set has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.errors import ReferenceSetError
from aimcard.models.lut import lookup
from aimcard.models.modes import Mode, get_mode
from aimcard.models.tile import Response, ideal_charge, ideal_current
from aimcard.models.topology import Tile
from aimcard.validation.scores import affine, affine_fit, later_slots, pair_difference

QUANTITIES = ("current", "charge", "phase", "line_current", "line_charge")
PREDICTORS = ("model", "model_affine", "ideal", "ideal_affine", "floor")

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """One quantity of one record: (vectors, lines) or (vectors, lines, slots).

    predicted: `model`, `model_affine`, `ideal`, `ideal_affine`, each of truth's shape. floor: a tighter run of truth's
    vectors `floor_vectors` (n,), or None.
    """

    truth: np.ndarray
    predicted: Values
    floor: np.ndarray | None = None
    floor_vectors: np.ndarray | None = None

    def pair(self) -> Comparison:
        """The same for line 0 minus line 1; the ideal is corrected anew, on the difference itself."""
        floor = None if self.floor is None else pair_difference(self.floor)
        model, ideal = (pair_difference(self.predicted[name]) for name in ("model", "ideal"))
        return comparison(pair_difference(self.truth), model, ideal, floor, self.floor_vectors)


def comparison(
    truth: np.ndarray,
    model: np.ndarray,
    ideal: np.ndarray,
    floor: np.ndarray | None = None,
    floor_vectors: np.ndarray | None = None,
) -> Comparison:
    """A Comparison with ideal and model affine-corrected; of a current, fitted to the slots that are scored.

    Two numbers fitted to two vectors or fewer say nothing: the affine-corrected charge and phase are NaN
    there.
    """
    predicted = {"model": model, "ideal": ideal}
    for name in ("model", "ideal"):
        slope, offset = affine_fit(later_slots(predicted[name]), later_slots(truth))
        corrected = affine(predicted[name], slope, offset)
        if truth.ndim == 2 and len(truth) <= 2:
            corrected = np.full_like(corrected, np.nan)
        predicted[f"{name}_affine"] = corrected
    return Comparison(truth, predicted, floor, floor_vectors)


def compare(record: Record, model: Tile, reference: ReferenceSet) -> dict[str, Comparison]:
    """All quantities that the record has, by name in the order of QUANTITIES.

    Raises ReferenceSetError if the record does not fit the card's window or wire, or its floor does not fit
    it.
    """
    mode = get_mode(str(reference.meta["mode"]), model.code_max)
    check_record(record, model, mode)
    truth = truth_of(record, mode, model.guard_slots)
    predicted = model_of(record, model, mode)
    ideal = ideal_of(record, model, mode)
    floors = floor_of(record, reference)
    found = {}
    for name in QUANTITIES:
        if name in truth:
            floor, rows = floors.get(name, (None, None))
            found[name] = comparison(truth[name], predicted[name], ideal[name], floor, rows)
    return found


def slot_weights_s(slot_edge_s: np.ndarray, mode: Mode | None, guard: int) -> np.ndarray:
    """Each slot's length times the weight of its PWM phase [s], (slots,): what a charge is summed with."""
    length_s = np.diff(slot_edge_s)
    if mode is None or len(mode.phases) == 1:
        return length_s
    weight = [np.full(b - a, p.weight) for p, (a, b) in zip(mode.phases, mode.windows(guard), strict=True)]
    return length_s * np.concatenate(weight)


def truth_of(record: Record, mode: Mode | None = None, guard: int = 0) -> Values:
    """The record's quantities; a charge is the exact sum of its slot means times the slots' lengths and weights."""
    length_s = slot_weights_s(record["slot_edge_s"], mode, guard)
    line = record["current_a"]
    if "mirror_a" not in record:
        found = {"current": line, "charge": line @ length_s}
    else:
        seen = record["mirror_a"]
        found = {
            "current": seen,
            "charge": seen @ length_s,
            "line_current": line,
            "line_charge": line @ length_s,
        }
    if "phase_count" in record:
        found["phase"] = record["phase_count"]
    return found


def model_of(record: Record, model: Tile, mode: Mode) -> Values:
    """What the card's model says of the record's conductances and codes."""
    a = record.attrs
    # A pair of a tied column is two cells of one line.
    own: dict[str, Any] = {"conductance_minus_s": record["conductance_minus_s"]} if "conductance_minus_s" in record else {}
    own |= {"read_out": str(a["read_out"])} if "read_out" in a else {}
    response = model.respond(
        record["conductance_s"], record["codes"], **own, clamp=str(a["clamp"]), wire_scale=float(a["wire_scale"]),
        w_select_um=float(a["w_select_um"]), position=float(a["position"]), mode=mode,
    )  # fmt: skip
    length_s = slot_weights_s(response.slot_edge_s, mode, model.guard_slots)
    line = {"current": response.current_a, "charge": response.charge_c}
    if response.mirror_a is None or response.phase_count is None:
        return line
    seen = {"current": response.mirror_a, "charge": response.mirror_a @ length_s} if "mirror_a" in record else line
    return {
        **seen,
        "line_current": line["current"],
        "line_charge": line["charge"],
        "phase": response.phase_count + _subtracted(response, mode),
    }


def _subtracted(response: Response, mode: Mode) -> np.ndarray:
    """Counts (lines,) that the tile has taken off already; a record's phase is the oscillator's own."""
    if response.bias_counts is None:
        return np.zeros(response.current_a.shape[1])
    return response.bias_counts @ np.array(mode.weights)


def net_conductance(record: Record) -> np.ndarray:
    """What a product is meant to weigh its codes with [S], (lines, rows): G, or G+ minus G− in a tied column."""
    g = record["conductance_s"]
    return g - record["conductance_minus_s"] if "conductance_minus_s" in record else g


def ideal_of(record: Record, model: Tile, mode: Mode) -> Values:
    """The ideal MAC in each quantity's unit."""
    g, codes, edge_s = net_conductance(record), record["codes"], record["slot_edge_s"]
    current = ideal_current(g, codes, model.v_read_v, len(edge_s) - 1, mode, model.guard_slots)
    charge = ideal_charge(g, codes, model.v_read_v, model.t_lsb_s)
    line = {"current": current, "charge": charge}
    if record.attrs["clamp"] == "ideal":
        return line
    window_s = float(slot_weights_s(edge_s, mode, model.guard_slots).sum())
    nominal = nominal_readout(model, float(current.mean()))
    seen = line
    if "mirror_a" in record:
        seen = {
            "current": nominal.idle_a + nominal.gain * current,
            "charge": nominal.idle_a * window_s + nominal.gain * charge,
        }
    phase = nominal.idle_hz * window_s + nominal.count_per_c * charge
    return {**seen, "line_current": current, "line_charge": charge, "phase": phase}


@dataclass(frozen=True)
class NominalReadout:
    """Mirror current (gain, idle_a) and count rate (count_per_c, idle_hz) as lines over the line current."""

    gain: float
    idle_a: float
    count_per_c: float
    idle_hz: float


def nominal_readout(model: Tile, mean_current_a: float) -> NominalReadout:
    """The chord of the card's static curves from no line current to the mean one.

    Idle current and rate (the bleed) are part of it, since hardware subtracts them digitally. Where currents have both
    signs the mean says nothing, and the chord goes to half of full scale.
    """
    signed = float(model.tables["adc"][0][0]) < 0
    mean = mean_current_a if mean_current_a > 0 and not signed else float(model.tables["adc"][0][-1]) / 2
    ends = torch.tensor([0.0, mean], dtype=torch.float64)
    (idle_a, mean_a), (idle_hz, mean_hz) = (lookup(*model.tables[name], ends).tolist() for name in ("mirror", "adc"))
    return NominalReadout((mean_a - idle_a) / mean, idle_a, (mean_hz - idle_hz) / mean, idle_hz)


def floor_of(record: Record, reference: ReferenceSet) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each quantity of the record's floor run, with the vectors that it repeats; empty without one."""
    runs = reference.select(kind="column", role="floor", of=record.name)
    if not runs:
        return {}
    run = runs[0]
    if not np.array_equal(run["conductance_s"], record["conductance_s"]):
        raise ReferenceSetError(f"{reference.source}: records/{run.name}/conductance_s: expected those of {record.name}")
    number = {row.tobytes(): k for k, row in reversed(list(enumerate(record["codes"])))}
    rows = [number.get(row.tobytes()) for row in run["codes"]]
    if None in rows:
        raise ReferenceSetError(
            f"{reference.source}: records/{run.name}/codes: expected vectors of {record.name}, "
            f"got another one at [{rows.index(None)}]"
        )
    vectors = np.array(rows, dtype=np.int64)
    mode = get_mode(str(reference.meta["mode"]), int(reference.meta["code_max"]))
    found = truth_of(run, mode, int(reference.meta.get("guard_slots", 0)))
    return {name: (values, vectors) for name, values in found.items()}


def gaussian_twin(record: Record, records: Mapping[str, Record]) -> Record | None:
    """The record of the same column, clamp, wire and width that was driven with Gaussian inputs, or None.

    The same column has the same conductances.
    """
    keys = ("clamp", "wire_scale", "w_select_um", "position")
    for other in records.values():
        if other.kind != "column" or other.role == "floor" or other.attrs["distribution"] != "gaussian":
            continue
        if any(other.attrs[key] != record.attrs[key] for key in keys) or other is record:
            continue
        if np.array_equal(net_conductance(other), net_conductance(record)):
            return other
    return None


def check_record(record: Record, model: Tile, mode: Mode) -> None:
    """Raises ReferenceSetError if the record's slots or wire are not the card's."""
    where = f"records/{record.name}"
    slots = mode.window_slots(model.guard_slots)
    edges = np.arange(slots + 1) * model.t_lsb_s
    got = record["slot_edge_s"]
    if got.shape != edges.shape or not np.allclose(got, edges, rtol=0, atol=1e-3 * model.t_lsb_s):
        raise ReferenceSetError(
            f"{where}/slot_edge_s: expected the card's {slots} slots of {model.t_lsb_s:g} s from 0, "
            f"got {len(got) - 1} from {got[0]:g} to {got[-1]:g} s"
        )
    for key in ("r_bit_ohm", "r_return_ohm"):
        expected = float(model.card.meta[key])
        if not np.isclose(float(record.attrs[key]), expected, rtol=1e-6, atol=1e-9):
            raise ReferenceSetError(
                f"{where}@{key}: expected the card's {expected:g} ohm per cell before scaling, "
                f"got {record.attrs[key]:g}; put the ratio into wire_scale"
            )
