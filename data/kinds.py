"""The kinds of record in a reference set: which arrays, dimensions, units and attributes each has."""

import difflib

import attrs
import numpy as np

from aimcard.models.errors import ReferenceSetError


@attrs.frozen
class ArraySpec:
    """One array of a kind. `dims` are names: equal names in a record have equal sizes, and edges = slots + 1.

    `low` is the least value allowed; `increasing` asks for strictly increasing values; `single` may be stored
    in 32 bits.
    """

    dims: tuple[str, ...]
    unit: str
    long_name: str
    kind: str = "f"
    required: bool = True
    low: float | None = None
    increasing: bool = False
    single: bool = False


def _spec(dims: str, unit: str, long_name: str, **options: object) -> ArraySpec:
    return ArraySpec(tuple(dims.split()), unit, long_name, **options)  # type: ignore[arg-type]


def _slots(long_name: str, dims: str, **options: object) -> ArraySpec:
    return _spec(dims, "A", f"{long_name}, mean over each slot", single=True, **options)


_CONDUCTANCE = {"unit": "S", "long_name": "PCM conductance at the read voltage", "low": 0.0}
_EDGES = _spec("edges", "s", "slot edges, from the start of the window", increasing=True)
_TIME = _spec("t", "s", "time", increasing=True)
_WIDTH = _spec("n", "um", "drawn width of the select transistor", low=0.0)

KINDS: dict[str, dict[str, ArraySpec]] = {
    "cell_dc": {
        "conductance_s": _spec("n", **_CONDUCTANCE),
        "v_bit_v": _spec("n", "V", "bit-line voltage at the cell"),
        "v_return_v": _spec("n", "V", "return-line voltage at the cell"),
        "v_gate_v": _spec("n", "V", "word-line voltage"),
        "w_select_um": _WIDTH,
        "current_a": _spec("n", "A", "current from the bit line into the cell"),
        "gate_current_a": _spec("n", "A", "current from the word line into the cell", required=False),
    },
    "cell_pulse": {
        "conductance_s": _spec("n", **_CONDUCTANCE),
        "code": _spec("n", "1", "pulse length in LSB", kind="i", low=0),
        "position": _spec(
            "n", "1", "column's position along the word line, 0 at the driver, 1 at the far end"
        ),
        "w_select_um": _WIDTH,
        "v_bit_v": _spec("n", "V", "bit-line voltage at the cell"),
        "v_return_v": _spec("n", "V", "return-line voltage at the cell"),
        "current_a": _slots("current from the bit line into the cell", "n slots"),
        "slot_edge_s": _EDGES,
    },
    "edge": {
        "time_s": _TIME,
        "position": _spec(
            "p", "1", "column's position along the word line, 0 at the driver, 1 at the far end"
        ),
        "rise_v": _spec("p t", "V", "word-line voltage at a rising edge", single=True),
        "fall_v": _spec("p t", "V", "word-line voltage at a falling edge", single=True),
    },
    "source_edge": {
        "position": _spec(
            "p", "1", "column's position along the source lines, 0 at the driver, 1 at the far end"
        ),
        "down_start_delay_s": _spec("p", "s", "equal-area delay of the edge down from the common mode"),
        "down_end_delay_s": _spec("p", "s", "equal-area delay of the edge back up to the common mode"),
        "up_start_delay_s": _spec("p", "s", "equal-area delay of the edge up from the common mode"),
        "up_end_delay_s": _spec("p", "s", "equal-area delay of the edge back down to the common mode"),
        "down_gain": _spec("p", "1", "share of the read voltage on a line that is down", required=False, low=0.0),
        "up_gain": _spec("p", "1", "share of the read voltage on a line that is up", required=False, low=0.0),
        "time_s": _spec("t", "s", "time, from the ideal edge and one common delay", required=False, increasing=True),
        **{
            f"{line}_{when}_level": _spec(
                "p t", "1", f"share of its swing that the {line} line has made at its pulse's {when}", required=False, single=True
            )
            for line in ("down", "up")
            for when in ("start", "end")
        },
    },
    "column": {
        "conductance_s": _spec("lines rows", **_CONDUCTANCE),
        # A pair's second cell, in a tied column: its codes have a sign.
        "conductance_minus_s": _spec("lines rows", required=False, **_CONDUCTANCE),
        "codes": _spec("vectors rows", "1", "pulse length in LSB", kind="i", low=0),
        "slot_edge_s": _EDGES,
        "current_a": _slots("line current", "vectors lines slots"),
        "mirror_a": _slots("mirror current", "vectors lines slots", required=False),
        "phase_count": _spec("vectors lines", "1", "ADC's phase: count before truncation", required=False),
        "count": _spec("vectors lines", "1", "ADC's count", kind="i", required=False),
        "oscillator_charge_c": _spec(
            "vectors lines", "C", "charge that the oscillator takes from its supply over the window", required=False
        ),
        "vdd_charge_c": _spec(
            "vectors lines", "C", "charge that regulator and mirror take from V_DD over the window", required=False
        ),
        "rail_charge_c": _spec(
            "vectors lines rails", "C", "charge that each rail of the source lines delivers over the window", required=False
        ),
        "phase_counts": _spec(
            "vectors lines phases", "1", "phase gained in each PWM phase, unweighted", required=False
        ),
        "counts": _spec("vectors lines phases", "1", "count of each PWM phase", kind="i", required=False),
        "free_phase_counts": _spec(
            "vectors lines phases", "1", "the same of an oscillator that runs on between phases", required=False
        ),
        "free_counts": _spec(
            "vectors lines phases", "1", "its counts, the gate closing and opening", kind="i", required=False
        ),
        "waveform_time_s": _spec("t", "s", "time of the waveforms", required=False, increasing=True),
        "waveform_a": _spec("lines t", "A", "line current of one vector", required=False, single=True),
        "mirror_waveform_a": _spec(
            "lines t", "A", "mirror current of one vector", required=False, single=True
        ),
    },
    "readout_dc": {
        "current_a": _spec("n", "A", "line current", increasing=True),
        "v_clamp_v": _spec("n", "V", "bit-line voltage that the regulator holds"),
        "mirror_a": _spec("n", "A", "mirror current"),
        "regulator_a": _spec("n", "A", "regulator's current from V_DD, bleed included", required=False),
        "supply_a": _spec("n", "A", "current of regulator, mirror, OTA and references from V_DD", required=False),
    },
    "readout_step": {
        "time_s": _TIME,
        "from_a": _spec("n", "A", "line current before the step"),
        "to_a": _spec("n", "A", "line current after the step"),
        "v_clamp_v": _spec("n t", "V", "bit-line voltage", single=True),
        "mirror_a": _spec("n t", "A", "mirror current", single=True),
    },
    "loop_gain": {
        "current_a": _spec("n", "A", "line current"),
        "frequency_hz": _spec("f", "Hz", "frequency", low=0.0, increasing=True),
        "gain_db": _spec("n f", "dB", "loop gain"),
        "phase_deg": _spec("n f", "deg", "phase of the loop gain"),
        "phase_margin_deg": _spec("n", "deg", "phase margin"),
    },
    "oscillator": {
        "current_a": _spec("n", "A", "line current, the mirror between them included", increasing=True),
        "count_rate_hz": _spec("n", "Hz", "counted edges per second, all counted phases together", low=0.0),
        "mirror_a": _spec("n", "A", "mirror current", required=False),
        "supply_a": _spec("n", "A", "current from the oscillator's supply", required=False),
    },
    "driver_supply": {
        "code": _spec("n", "1", "pulse length in LSB", kind="i", low=0),
        "window_s": _spec("n", "s", "time over which the charge is counted", low=0.0),
        "rest_a": _spec("n", "A", "current from V_DD before the pulse"),
        "charge_c": _spec("n", "C", "charge that one word line's driver takes from V_DD"),
        "rail_c": _spec(
            "n rails", "C", "charge that each rail delivers to a row's source lines beside the cells' current", required=False
        ),
    },
    "split_check": {
        "split_phase_count": _spec(
            "vectors", "1", "phase with the oscillator driven by the recorded current"
        ),
        "full_phase_count": _spec("vectors", "1", "phase of the whole read-out simulated at once"),
    },
}

# Required and optional attributes of a kind's records; more are allowed.
KIND_ATTRIBUTES: dict[str, dict[str, type]] = {
    "column": {
        "clamp": str,
        "distribution": str,
        "wire_scale": float,
        "r_bit_ohm": float,
        "r_return_ohm": float,
        "w_select_um": float,
        "position": float,
    },
}
CLAMPS = ("ideal", "ota")
ROLES = ("fit", "held_out", "floor", "check")
# Arrays of other shapes and meanings travel under this prefix; nothing here reads them.
EXTRA = "extra_"


def spec_of(kind: str, name: str) -> ArraySpec | None:
    """The form of an array, or None if it is extra."""
    return KINDS[kind].get(name)


def check_arrays(kind: str, arrays: dict[str, np.ndarray], where: str) -> dict[str, int]:
    """Check the arrays of one record against its kind and return the sizes of its dimensions.

    Raises ReferenceSetError, which names the array after `where`.
    """
    specs = KINDS[kind]
    for name, spec in specs.items():
        if spec.required and name not in arrays:
            raise ReferenceSetError(f"{where}/{name}: missing (a record of kind {kind} has it)")
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        at = f"{where}/{name}"
        if name not in specs and not name.startswith(EXTRA):
            close = difflib.get_close_matches(name, specs, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"name it {EXTRA}{name} to carry it along"
            raise ReferenceSetError(f"{at}: unexpected in a record of kind {kind}; {hint}")
        if array.dtype.kind not in "fib":
            raise ReferenceSetError(f"{at}: expected numbers, got {array.dtype}")
        if array.size == 0:
            raise ReferenceSetError(f"{at}: expected at least one number, got shape {array.shape}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            index = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            raise ReferenceSetError(
                f"{at}: expected finite numbers, got {array[tuple(index)]} at index {index}"
            )
        if name in specs:
            _check_shape(specs[name], array, sizes, at)
            signed = name == "codes" and "conductance_minus_s" in arrays
            _check_values(attrs.evolve(specs[name], low=None) if signed else specs[name], array, at)
    if "edges" in sizes and sizes["edges"] != sizes.get("slots", sizes["edges"] - 1) + 1:
        expected = f"{sizes['slots'] + 1} edges of {sizes['slots']} slots"
        raise ReferenceSetError(f"{where}/slot_edge_s: expected {expected}, got {sizes['edges']}")
    if (
        any(name in arrays for name in ("waveform_a", "mirror_waveform_a"))
        and "waveform_time_s" not in arrays
    ):
        raise ReferenceSetError(f"{where}/waveform_time_s: missing (the waveforms' time)")
    return sizes


def _check_shape(spec: ArraySpec, array: np.ndarray, sizes: dict[str, int], at: str) -> None:
    if array.ndim != len(spec.dims):
        expected = f"{len(spec.dims)} dimension{'s' * (len(spec.dims) > 1)} ({', '.join(spec.dims)})"
        raise ReferenceSetError(f"{at}: expected {expected}, got shape {array.shape}")
    for dim, size in zip(spec.dims, array.shape, strict=True):
        if sizes.setdefault(dim, size) != size:
            raise ReferenceSetError(
                f"{at}: expected {dim} = {sizes[dim]} as in the arrays before it, got {size}"
            )


def _check_values(spec: ArraySpec, array: np.ndarray, at: str) -> None:
    if spec.kind == "i" and array.dtype.kind != "i":
        raise ReferenceSetError(f"{at}: expected whole numbers stored as integers, got {array.dtype}")
    if spec.low is not None and (array < spec.low).any():
        index = [int(i) for i in np.argwhere(array < spec.low)[0]]
        raise ReferenceSetError(
            f"{at}: expected at least {spec.low:g}, got {array[tuple(index)]:g} at index {index}"
        )
    if spec.increasing and not (np.diff(array) > 0).all():
        index = int(np.argmin(np.diff(array) > 0)) + 1
        raise ReferenceSetError(
            f"{at}: expected strictly increasing values, got {array[index]:g} at index [{index}]"
        )
