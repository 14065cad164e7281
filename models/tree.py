"""A document as groups, attributes and arrays: what the files hold, its hash, strict reading."""

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from typing import TypeVar

import attrs
import numpy as np

from aimcard.models.errors import AimcardError

Value = str | bool | int | float
T = TypeVar("T", str, bool, int, float)
Data = np.ndarray | str | tuple[str, ...]


@attrs.frozen
class Form:
    """One kind of file: its name in the file, what a person calls it, and the error its reader raises.

    `unbounded` names the attributes that may be infinite (a parameter without a bound); nothing may be NaN.
    """

    name: str
    noun: str
    schema_version: int
    error: type[AimcardError]
    unbounded: frozenset[str] = frozenset()

    def fail(self, path: object, field: str, message: str) -> AimcardError:
        """The one-line error that names the file and the field."""
        return self.error(" ".join(f"{path}: {field}: {message}".split()))


@attrs.define
class Field:
    """One dataset: float64, int64 or bool array, one text, or a row of texts.

    `single` stores floats in 32 bits and `compress` packs them (lossless); neither takes part in the hash.
    """

    data: Data
    attrs: dict[str, Value] = attrs.field(factory=dict)
    single: bool = False
    compress: bool = False


@attrs.define
class Tree:
    """A whole document: the attributes of each group by path (the root is ""), and the datasets by path."""

    groups: dict[str, dict[str, Value]] = attrs.field(factory=lambda: {"": {}})
    fields: dict[str, Field] = attrs.field(factory=dict)

    def group(self, path: str, **values: Value) -> None:
        """Add a group with its parents, or add attributes to one."""
        if path not in self.groups:
            self.group(path.rpartition("/")[0])
            self.groups[path] = {}
        self.groups[path].update(values)

    def array(self, path: str, data: object, unit: str, long_name: str, **values: Value) -> Field:
        """Add a numeric dataset with its unit and long name."""
        array = canonical_array(np.asarray(data))
        field = Field(array, {"units": unit, "long_name": long_name, **values})
        self._add(path, field)
        return field

    def text(self, path: str, data: str | Sequence[str], long_name: str) -> None:
        """Add one text, or a row of texts."""
        self._add(path, Field(data if isinstance(data, str) else tuple(data), {"long_name": long_name}))

    def _add(self, path: str, field: Field) -> None:
        self.group(path.rpartition("/")[0])
        self.fields[path] = field

    def children(self, path: str) -> list[str]:
        """Names of the groups and datasets directly in a group, in the order in which they were made."""
        prefix = f"{path}/" if path else ""
        inside = [p for p in (*self.groups, *self.fields) if p and p.startswith(prefix) and p != path]
        return [p[len(prefix) :] for p in inside if "/" not in p[len(prefix) :]]

    def manifest(self) -> dict[str, str]:
        """sha256 of each dataset (`path`), attribute (`path@name`) and group (`path/`), by sorted name."""
        entries: dict[str, str] = {}
        for path, values in self.groups.items():
            entries[f"{path}/"] = _sha256(b"group")
            entries |= {f"{path}@{name}": _sha256(_value_bytes(value)) for name, value in values.items()}
        for path, field in self.fields.items():
            entries[path] = _sha256(*_data_bytes(field.data))
            entries |= {f"{path}@{name}": _sha256(_value_bytes(value)) for name, value in field.attrs.items()}
        return dict(sorted(entries.items()))

    def content_hash(self) -> str:
        """sha256 over the manifest: equal for equal names, types, shapes and values, however stored."""
        return _sha256(manifest_text(self.manifest()).encode())


def manifest_text(manifest: dict[str, str]) -> str:
    """The manifest as text, one `sha256 name` a line."""
    return "".join(f"{digest} {name}\n" for name, digest in manifest.items())


def canonical_array(array: np.ndarray) -> np.ndarray:
    """Floats to float64, integers to int64, booleans as they are, all read-only; anything else unchanged."""
    kinds = {"f": np.float64, "i": np.int64, "u": np.int64, "b": np.bool_}
    if array.dtype.kind not in kinds:
        return array
    copy = np.array(array, dtype=kinds[array.dtype.kind], order="C")
    copy.setflags(write=False)
    return copy


def check_tree(tree: Tree, form: Form, path: object) -> None:
    """Refuse NaN, infinite numbers, and anything but texts, numbers and truth values."""
    for where, values in tree.groups.items():
        for name, value in values.items():
            _check_value(form, path, f"{where}@{name}" if where else name, name, value)
    for where, field in tree.fields.items():
        for name, value in field.attrs.items():
            _check_value(form, path, f"{where}@{name}", name, value)
        if not isinstance(field.data, np.ndarray):
            continue
        if field.data.dtype.kind not in "fib":
            raise form.fail(path, where, f"expected numbers or text, got {field.data.dtype}")
        if field.data.dtype.kind == "f" and not np.isfinite(field.data).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(field.data))[0])
            at = f" at index {list(index)}" if index else ""
            raise form.fail(path, where, f"expected finite numbers, got {field.data[index]}{at}")


def _check_value(form: Form, path: object, where: str, name: str, value: object) -> None:
    if not isinstance(value, str | bool | int | float):
        raise form.fail(path, where, f"expected a text, a number or a truth value, got {type(value).__name__}")
    if isinstance(value, str) and "\0" in value:
        raise form.fail(path, where, "expected text without NUL characters")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise form.fail(path, where, f"expected an integer of 64 bits, got {value}")
    if isinstance(value, float) and not math.isfinite(value) and (math.isnan(value) or name not in form.unbounded):
        raise form.fail(path, where, f"expected a finite number, got {value}")


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _value_bytes(value: Value) -> bytes:
    if isinstance(value, bool):
        return b"bool " + bytes([value])
    if isinstance(value, int):
        return b"int " + str(value).encode()
    if isinstance(value, float):
        return b"float " + struct.pack("<d", value)
    return b"text " + value.encode()


def _data_bytes(data: Data) -> Iterator[bytes]:
    if isinstance(data, np.ndarray):
        yield f"array {data.dtype.name} {data.shape} ".encode()
        yield data.astype(data.dtype.newbyteorder("<"), order="C").tobytes()
    elif isinstance(data, str):
        yield b"text " + data.encode()
    else:
        yield f"texts {len(data)} ".encode()
        for text in data:
            yield f"{len(text.encode())} ".encode() + text.encode()


@attrs.frozen
class TreeReader:
    """Takes fields out of a tree that came from `path`; the form's error names a missing or wrong one."""

    tree: Tree
    form: Form
    path: object

    def fail(self, field: str, message: str) -> AimcardError:
        """The form's error about a field, to raise."""
        return self.form.fail(self.path, field, message)

    def group(self, path: str) -> list[str]:
        """Children of a group that must be there."""
        if path not in self.tree.groups:
            raise self.fail(path, "missing (a group)")
        return self.tree.children(path)

    def values(self, path: str) -> dict[str, Value]:
        """All attributes of a group."""
        self.group(path)
        return dict(self.tree.groups[path])

    def value(self, path: str, name: str, kind: type[T]) -> T:
        """One attribute of a group or dataset, of the given type (an integer passes for a float)."""
        field = self.tree.fields.get(path)
        values = field.attrs if field is not None else self.tree.groups.get(path)
        where = f"{path}@{name}" if path else name
        if values is None:
            raise self.fail(path, "missing")
        if name not in values:
            raise self.fail(where, "missing (an attribute)")
        return as_kind(values[name], kind, self, where)

    def field(self, path: str) -> Field:
        """The field at a path; raises the form's error if it is missing."""
        if path not in self.tree.fields:
            raise self.fail(path, "missing (a dataset)")
        return self.tree.fields[path]

    def array(self, path: str, *, ndim: int, unit: str | None = None, kind: str = "f") -> np.ndarray:
        """A numeric dataset; `kind` is f, i or b (integers pass for floats); `unit` None accepts any."""
        field = self.field(path)
        data = field.data
        names = {"f": "float64", "i": "int64", "b": "bool"}
        if isinstance(data, np.ndarray) and kind == "f" and data.dtype.kind == "i":
            data = canonical_array(data.astype(np.float64))
        if not isinstance(data, np.ndarray) or data.dtype.kind != kind:
            got = data.dtype.name if isinstance(data, np.ndarray) else "text"
            raise self.fail(path, f"expected {names[kind]}, got {got}")
        if data.ndim != ndim:
            raise self.fail(path, f"expected {ndim} dimension{'s' * (ndim != 1)}, got shape {data.shape}")
        came = self.value(path, "units", str)
        if unit is not None and came != unit:
            raise self.fail(f"{path}@units", f"expected {unit!r}, got {came!r}")
        return data

    def text(self, path: str) -> str:
        """The text at a path; raises the form's error if it is missing or something else."""
        data = self.field(path).data
        if not isinstance(data, str):
            raise self.fail(path, "expected one text")
        return data

    def texts(self, path: str) -> tuple[str, ...]:
        """The row of texts at a path; raises the form's error if it is missing or something else."""
        data = self.field(path).data
        if not isinstance(data, tuple):
            raise self.fail(path, "expected a row of texts")
        return data


def as_kind(value: Value, kind: type[T], reader: TreeReader, where: str) -> T:
    """`value` as `kind`, or the reader's error."""
    names = {str: "a text", bool: "a truth value", int: "an integer", float: "a number"}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return kind(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise reader.fail(where, f"expected {names[kind]}, got {value!r}")
    return value
