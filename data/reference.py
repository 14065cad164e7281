"""A reference set: what was driven and what came out, from ngspice, another simulator or a measurement.

Calibration and validation read nothing else. docs/reference-set.md is the form for those who bring their own.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen

from aimcard.data.kinds import CLAMPS, EXTRA, KIND_ATTRIBUTES, KINDS, ROLES, check_arrays, spec_of
from aimcard.models.card_parts import NAME
from aimcard.models.card_text import rows_of_text
from aimcard.models.checks import did_you_mean
from aimcard.models.errors import ReferenceSetError
from aimcard.models.h5 import read_tree, sealed_tree, write_tree
from aimcard.models.tree import Form, Tree, TreeReader, Value, canonical_array

__all__ = ["KINDS", "ROLES", "Record", "ReferenceSet"]

REFERENCE_FORM = Form("aimcard-reference-set", "reference set", 1, ReferenceSetError)

# What every set says of itself; more keys are allowed.
REQUIRED_META: dict[str, type] = {
    "technology": str,
    "corner": str,
    "temperature_c": float,
    "vdd_v": float,
    "v_read_v": float,
    "t_lsb_s": float,
    "code_max": int,
    "mode": str,
    "topology": str,
    "simulator": str,
}
_OWN_ATTRIBUTES = ("kind", "role", "deck_hash")
_TYPE_NAMES = {str: "a text", float: "a number", int: "an integer"}


def _values(values: Mapping[str, Any]) -> dict[str, Value]:
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}


def _arrays(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: canonical_array(np.asarray(array)) for name, array in arrays.items()}


def _by_name(records: "Mapping[str, Record] | Iterable[Record]") -> "dict[str, Record]":
    listed = list(records.values() if isinstance(records, Mapping) else records)
    twice = [name for name, count in Counter(r.name for r in listed).items() if count > 1]
    if twice:
        raise ReferenceSetError(f"records/{twice[0]}: expected each name once, got it twice")
    return {record.name: record for record in listed}


@frozen(eq=False, repr=False)
class Record:
    """One simulation or measurement, or a sweep of equal ones.

    `kind` is a key of KINDS and says which arrays there are; `role` is "fit" (calibration may use it),
    "held_out" (validation only), "floor" (a repetition with tighter settings) or "check". Arrays are kept as
    read-only float64 or int64; `record["current_a"]` is one of them, `record.sizes` the sizes of the named
    dimensions. `deck_hash` identifies the deck, and is empty where there is none. Raises ReferenceSetError on
    what does not fit its kind.
    """

    name: str
    kind: str
    role: str
    attrs: dict[str, Value] = field(converter=_values)
    arrays: dict[str, np.ndarray] = field(converter=_arrays)
    deck_hash: str = ""
    sizes: dict[str, int] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ReferenceSetError(
                f"records: expected a name of letters, digits and _ . + -; got {self.name!r}"
            )
        where = f"records/{self.name}"
        for key, value, known in (("kind", self.kind, tuple(KINDS)), ("role", self.role, ROLES)):
            if value not in known:
                hint = did_you_mean(value, known)
                raise ReferenceSetError(
                    f"{where}@{key}: expected one of {', '.join(known)}; got {value!r}{hint}"
                )
        for key in _OWN_ATTRIBUTES:
            if key in self.attrs:
                raise ReferenceSetError(f"{where}@{key}: expected as the record's own field, got it in attrs")
        _check_values(self.attrs, KIND_ATTRIBUTES.get(self.kind, {}), where)
        if self.kind == "column":
            if self.attrs["clamp"] not in CLAMPS:
                got = f"got {self.attrs['clamp']!r}"
                raise ReferenceSetError(f"{where}@clamp: expected one of {', '.join(CLAMPS)}; {got}")
            for key in ("wire_scale", "r_bit_ohm", "r_return_ohm", "w_select_um"):
                _check_sign(self.attrs, key, where, zero=key.endswith("_ohm"))
        self.sizes.update(check_arrays(self.kind, self.arrays, where))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            known = ", ".join(self.arrays)
            raise ReferenceSetError(f"records/{self.name}/{name}: missing; this record has {known}")
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __repr__(self) -> str:
        sizes = ", ".join(f"{dim}={size}" for dim, size in self.sizes.items())
        return f"<Record {self.name}: {self.kind}, {self.role}, {sizes}>"


@frozen(eq=False, repr=False)
class ReferenceSet:
    """Records made in one technology, corner, temperature and mode.

    `meta` holds REQUIRED_META and may hold more. Two sets are equal if their content is. `source` is the file
    in error messages and no part of the content.
    """

    meta: dict[str, Value] = field(converter=_values)
    records: dict[str, Record] = field(factory=dict, converter=_by_name)
    source: str = field(default="reference set", converter=str)

    def __attrs_post_init__(self) -> None:
        try:
            self._check()
        except ReferenceSetError as error:
            raise ReferenceSetError(f"{self.source}: {error}") from None

    def _check(self) -> None:
        _check_values(self.meta, REQUIRED_META, "")
        for key in ("vdd_v", "v_read_v", "t_lsb_s", "code_max"):
            _check_sign(self.meta, key, "")
        for key in ("format", "schema_version", "content_hash"):
            if key in self.meta:
                raise ReferenceSetError(f"{key}: expected another name, the file uses this one")
        code_max = self.meta["code_max"]
        for record in self.records.values():
            for name in ("code", "codes"):
                if name in record and (np.abs(record[name]) > code_max).any():
                    highest = int(np.abs(record[name]).max())
                    where = f"records/{record.name}/{name}"
                    raise ReferenceSetError(
                        f"{where}: expected codes from 0 to code_max = {code_max}, got {highest}"
                    )

    def __getitem__(self, name: str) -> Record:
        if name not in self.records:
            raise ReferenceSetError(
                f"{self.source}: records/{name}: missing{did_you_mean(name, self.records)}"
            )
        return self.records[name]

    def __len__(self) -> int:
        return len(self.records)

    def __eq__(self, other: object) -> bool:
        return self.content_hash == other.content_hash if isinstance(other, ReferenceSet) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<ReferenceSet {self.source}: {len(self)} records>"

    def __str__(self) -> str:
        m = self.meta
        lines = [f"reference set {self.content_hash[:12]} from {m['simulator']}"]
        lines.append(
            f"{m['topology']}, {m['mode']}, {m['technology']}, {m['corner']}, {m['temperature_c']:g} degC"
        )
        lines.append(
            f"V_DD {m['vdd_v']:g} V, read {m['v_read_v']:g} V, LSB {m['t_lsb_s']:g} s, code {m['code_max']}"
        )
        rows = [("kind", "role", "records", "decks", "points or vectors")]
        for kind, role in dict.fromkeys((r.kind, r.role) for r in self.records.values()):
            found = self.select(kind=kind, role=role)
            points = sum(r.sizes.get("vectors", r.sizes.get("n", r.sizes.get("p", 0))) for r in found)
            decks = len({r.deck_hash for r in found if r.deck_hash})
            rows.append((kind, role, str(len(found)), str(decks), str(points)))
        return "\n".join(lines + rows_of_text(rows))

    @property
    def content_hash(self) -> str:
        """sha256 of the content, as the file has it (of a compact file: once read back)."""
        return sealed_tree(REFERENCE_FORM, _set_tree(self)).content_hash()

    def select(self, *, kind: str | None = None, role: str | None = None, **values: Any) -> list[Record]:
        """Records of a kind and role whose attributes have the given values (floats to 1e-9), in order.

        A tuple, list or set of values accepts each of them; a record without the attribute is left out.
        """
        found = []
        for record in self.records.values():
            has = {"kind": record.kind, "role": record.role, **record.attrs}
            wanted = {k: v for k, v in {"kind": kind, "role": role}.items() if v is not None} | values
            if all(key in has and _matches(has[key], value) for key, value in wanted.items()):
                found.append(record)
        return found

    def merge(self, other: "ReferenceSet") -> "ReferenceSet":
        """One set with the records of both; of optional meta keys this set's values stay.

        Raises ReferenceSetError if a required key differs, the simulator apart, or two records of one name
        do.
        """
        for key in REQUIRED_META:
            if key != "simulator" and self.meta[key] != other.meta[key]:
                came = f"expected {self.meta[key]!r} as in {self.source}, got {other.meta[key]!r}"
                raise ReferenceSetError(f"{other.source}: {key}: {came}")
        for name in self.records.keys() & other.records.keys():
            if _record_hash(self.records[name]) != _record_hash(other.records[name]):
                raise ReferenceSetError(
                    f"{other.source}: records/{name}: differs from the one in {self.source}; rename it"
                )
        names = [str(s.meta["simulator"]) for s in (self, other)]
        simulator = "; ".join(dict.fromkeys(part for name in names for part in name.split("; ")))
        meta = {**other.meta, **self.meta, "simulator": simulator}
        return ReferenceSet(meta, {**self.records, **other.records})

    def rounded(self) -> "ReferenceSet":
        """The set as a compact file holds it: currents and waveforms rounded to 32 bits (6e-8 relative)."""
        records = []
        for r in self.records.values():
            single = {n for n in r.arrays if (spec := spec_of(r.kind, n)) is not None and spec.single}
            arrays = {n: a.astype(np.float32) if n in single else a for n, a in r.arrays.items()}
            records.append(Record(r.name, r.kind, r.role, r.attrs, arrays, r.deck_hash))
        return ReferenceSet(self.meta, records, self.source)

    def write(self, path: str | Path, *, compact: bool = False) -> str:
        """Write the set, whole or not at all, and return the file's content hash. Equal sets, equal files.

        `compact` packs every array (gzip) and stores currents and waveforms in 32 bits; the rest stays exact.
        """
        return write_tree(path, REFERENCE_FORM, _set_tree(self.rounded() if compact else self, compact))

    @classmethod
    def read(cls, path: str | Path, *, sealed: bool = True) -> "ReferenceSet":
        """Read a set and check every field and byte; ReferenceSetError names the file and the field.

        `sealed=False` takes a file of another program, which carries no hashes; `write` adds them.
        """
        return _set_from(TreeReader(read_tree(path, REFERENCE_FORM, sealed=sealed), REFERENCE_FORM, path))


def _check_values(values: dict[str, Value], required: Mapping[str, type], where: str) -> None:
    """Required keys are there and of their type; a float that came as an integer becomes one."""
    for key, kind in required.items():
        at = f"{where}@{key}" if where else key
        if key not in values:
            raise ReferenceSetError(f"{at}: missing (an attribute)")
        if kind is float and type(values[key]) is int:
            values[key] = float(values[key])
        if type(values[key]) is not kind:
            raise ReferenceSetError(f"{at}: expected {_TYPE_NAMES[kind]}, got {values[key]!r}")
    for key, value in values.items():
        at = f"{where}@{key}" if where else key
        if not isinstance(value, str | bool | int | float):
            got = type(value).__name__
            raise ReferenceSetError(f"{at}: expected a text, a number or a truth value, got {got}")
        if isinstance(value, float) and not np.isfinite(value):
            raise ReferenceSetError(f"{at}: expected a finite number, got {value}")


def _check_sign(values: Mapping[str, Any], key: str, where: str, *, zero: bool = False) -> None:
    if values[key] < 0 or (values[key] == 0 and not zero):
        at = f"{where}@{key}" if where else key
        raise ReferenceSetError(
            f"{at}: expected a number {'of at least' if zero else 'above'} 0, got {values[key]}"
        )


def _matches(has: Value, wanted: Any) -> bool:
    if isinstance(wanted, tuple | list | set | frozenset):
        return any(_matches(has, one) for one in wanted)
    if isinstance(has, float) and isinstance(wanted, int | float):
        return bool(np.isclose(has, wanted, rtol=1e-9, atol=0.0))
    return bool(has == wanted)


def _add_record(tree: Tree, record: Record, compact: bool) -> None:
    at = f"records/{record.name}"
    tree.group(at, kind=record.kind, role=record.role, deck_hash=record.deck_hash, **record.attrs)
    for name, array in record.arrays.items():
        spec = spec_of(record.kind, name)
        if spec is None:
            field = tree.array(f"{at}/{name}", array, "as named", name)
        else:
            field = tree.array(f"{at}/{name}", array, spec.unit, spec.long_name, dims=",".join(spec.dims))
            field.single = compact and spec.single
        field.compress = compact


def _record_hash(record: Record) -> str:
    tree = Tree()
    _add_record(tree, record, compact=False)
    return tree.content_hash()


def _set_tree(reference: ReferenceSet, compact: bool = False) -> Tree:
    tree = Tree()
    tree.group("", **reference.meta)
    tree.group("records")
    for record in reference.records.values():
        _add_record(tree, record, compact)
    return tree


def _set_from(r: TreeReader) -> ReferenceSet:
    meta = {key: value for key, value in r.values("").items() if key not in ("format", "schema_version")}
    records = []
    for name in r.group("records"):
        at = f"records/{name}"
        own = {key: r.value(at, key, str) for key in ("kind", "role")}
        attributes = r.values(at)
        deck_hash = str(attributes.get("deck_hash", ""))
        others = {key: value for key, value in attributes.items() if key not in _OWN_ATTRIBUTES}
        try:
            arrays = {array: _read_array(r, own["kind"], at, array) for array in r.group(at)}
            records.append(Record(name, own["kind"], own["role"], others, arrays, deck_hash))
        except ReferenceSetError as error:
            text = str(error)
            raise (
                error if text.startswith(f"{r.path}: ") else ReferenceSetError(f"{r.path}: {text}")
            ) from None
    return ReferenceSet(meta, records, str(r.path))


def _read_array(r: TreeReader, kind: str, at: str, name: str) -> np.ndarray:
    spec = spec_of(kind, name) if kind in KINDS else None
    if spec is not None:
        return r.array(f"{at}/{name}", ndim=len(spec.dims), unit=spec.unit, kind=spec.kind)
    data = r.field(f"{at}/{name}").data
    if not isinstance(data, np.ndarray):
        raise r.fail(f"{at}/{name}", f"expected numbers, got text; only arrays named {EXTRA}* are free")
    return data
