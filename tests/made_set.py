"""A reference set with one record of every kind, and what reading a file of it says when it is refused."""

from pathlib import Path

import numpy as np
import pytest

from aimcard.data.kinds import KINDS
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.errors import ReferenceSetError

SIZES = {"phases": 2, "n": 3, "p": 2, "t": 5, "f": 4, "lines": 2, "rows": 6, "vectors": 4, "slots": 7, "edges": 8, "rails": 3}
META = {
    "technology": "freepdk45",
    "corner": "nom",
    "temperature_c": 27.0,
    "vdd_v": 1.0,
    "v_read_v": 0.2,
    "t_lsb_s": 1e-9,
    "code_max": 7,
    "mode": "conventional",
    "topology": "gated",
    "simulator": "ngspice-39",
}
COLUMN = {
    "clamp": "ideal",
    "distribution": "gaussian",
    "wire_scale": 1.0,
    "r_bit_ohm": 0.15,
    "r_return_ohm": 0.15,
    "w_select_um": 0.4,
    "position": 0.5,
}


def make_arrays(kind: str, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, spec in KINDS[kind].items():
        shape = [SIZES[dim] for dim in spec.dims]
        integers = np.arange(np.prod(shape)).reshape(shape) % 8
        values = integers if spec.kind == "i" else 1e-6 * rng.random(shape)
        arrays[name] = np.cumsum(values + 1e-9) if spec.increasing else values
    return arrays


def make_record(kind: str, name: str | None = None, role: str = "fit", seed: int = 0, **attrs) -> Record:
    own = COLUMN if kind == "column" else {"v_read_v": 0.2} if kind == "cell_pulse" else {}
    return Record(name or kind, kind, role, {**own, **attrs}, make_arrays(kind, seed), "ab" * 32)


def make_set(**meta) -> ReferenceSet:
    return ReferenceSet(META | meta, [make_record(kind) for kind in KINDS])


def refusal(path: Path, **options) -> str:
    with pytest.raises(ReferenceSetError) as caught:
        ReferenceSet.read(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 250
    return message.removeprefix(f"{path}: ")
