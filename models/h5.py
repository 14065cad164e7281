"""Documents in HDF5: written whole or not at all, equal bytes for equal content, and read with suspicion.

A file is 512 bytes of text, which HDF5 calls a user block and skips, and an HDF5 image. The text holds the
sha256 of the image, so that no changed byte goes unseen. In the image the dataset `manifest` holds the sha256
of every field, which tells the field that changed, and the root attribute `content_hash` the sha256 of the
manifest.
"""

import contextlib
import hashlib
import io
import os
import re
import secrets
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5f, h5g, h5p  # pyright: ignore[reportAttributeAccessIssue]

from aimcard.models.tree import Field, Form, Tree, Value, canonical_array, check_tree, manifest_text

USER_BLOCK = 512
LARGEST_DATASET_BYTES = 2**34
MANIFEST = "manifest"
CONTENT_HASH = "content_hash"
# What HDF5's own dimension scales leave on a dataset: object references, no content.
SCALE_ATTRIBUTES = frozenset({"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS"})
# What h5py raises on a damaged file, by trial.
DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all: a temporary file in the same folder, fsync, rename.

    Raises OSError; the temporary file is gone then.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        # os.open, not tempfile: the file gets the user's usual permissions.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a folder cannot be synchronised on every file system
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_tree(path: str | Path, form: Form, tree: Tree) -> str:
    """Write a document and return its content hash. `format` and `schema_version` are added to the root.

    Raises the form's error if the content is not storable or the file cannot be written; an older file then
    stays.
    """
    document = sealed_tree(form, tree)
    check_tree(document, form, path)
    image = _image(document)
    head = f"{form.name} sha256={hashlib.sha256(image).hexdigest()} bytes={len(image)}\n"
    try:
        write_bytes(path, head.encode().ljust(USER_BLOCK, b"\0") + image)
    except OSError as error:
        raise form.fail(path, "file", f"cannot be written: {error.strerror or error}") from error
    return document.content_hash()


def sealed_tree(form: Form, tree: Tree) -> Tree:
    """The tree with `format` and `schema_version` at its root, as it is hashed and stored."""
    root = {"format": form.name, "schema_version": form.schema_version} | tree.groups[""]
    return Tree({**tree.groups, "": root}, tree.fields)


def read_tree(path: str | Path, form: Form, *, sealed: bool = True) -> Tree:
    """Read a document and check its form, schema version, numbers and hashes.

    `sealed=False` accepts a file without hashes, written by another program; what hashes it has are then not
    looked at. Every failure is the form's error, one line with the file and the field.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise form.fail(path, "file", f"expected a {form.noun}, cannot read it: {error.strerror or error}") from error
    try:
        file = h5py.File(io.BytesIO(data), "r")
    except DAMAGE as error:
        raise form.fail(path, "file", f"expected a {form.noun} in HDF5, {_what_came(data, error)}") from error
    with file:
        _check_form(file, form, path)
        tree = Tree()
        _load(file, "", tree, form, path)
    manifest, content_hash = tree.fields.pop(MANIFEST, None), tree.groups[""].pop(CONTENT_HASH, None)
    check_tree(tree, form, path)
    if sealed:
        _check_manifest(tree, form, path, manifest, content_hash)
        if (wrong := _user_block_fault(data, form)) is not None:
            raise form.fail(path, "file", wrong)
    return tree


def _image(tree: Tree) -> bytes:
    """The HDF5 file in memory: no time stamps, creation order kept, metadata with check sums."""
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_core(1 << 20, False)
    # 1.8, not "latest": older h5py reads it too.
    access.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_V18)
    file_id = h5f.create(b"image.h5", h5f.ACC_TRUNC, fcpl=_plain(h5p.FILE_CREATE), fapl=access)
    with h5py.File(file_id) as file:
        for path, values in tree.groups.items():
            group = h5py.Group(h5g.create(file.id, path.encode(), gcpl=_plain(h5p.GROUP_CREATE))) if path else file
            _set_attributes(group, values)
        for path, field in tree.fields.items():
            _set_attributes(_create_dataset(file, path, field), field.attrs)
        manifest = manifest_text(tree.manifest())
        _create_dataset(file, MANIFEST, Field(manifest, compress=True))
        _set_attributes(file, {CONTENT_HASH: tree.content_hash()})
        file.flush()
        return file_id.get_file_image()


def _plain(kind: Any) -> Any:
    plist = h5p.create(kind)
    # h5py has no keyword for a group's time stamps; without this, the bytes depend on the clock.
    plist.set_obj_track_times(False)
    order = h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED
    plist.set_link_creation_order(order)
    plist.set_attr_creation_order(order)
    return plist


def _create_dataset(file: h5py.File, path: str, field: Field) -> h5py.Dataset:
    data = field.data
    if isinstance(data, np.ndarray):
        array = data.astype(np.float32) if field.single and data.dtype.kind == "f" else data
    else:
        array = _fixed_text(data)
    packed = {"compression": "gzip", "compression_opts": 9, "shuffle": True} if field.compress and array.ndim else {}
    return file.create_dataset(path, data=array, track_times=False, track_order=True, **packed)


def _set_attributes(item: h5py.Group | h5py.Dataset, values: dict[str, Value]) -> None:
    for name, value in values.items():
        item.attrs.create(name, _fixed_text(value) if isinstance(value, str) else np.asarray(value))


def _fixed_text(text: str | tuple[str, ...]) -> np.ndarray:
    """Text as UTF-8 of fixed length: HDF5 keeps texts of variable length in a heap without check sums."""
    encoded = text.encode() if isinstance(text, str) else [part.encode() for part in text]
    longest = len(encoded) if isinstance(encoded, bytes) else max((len(part) for part in encoded), default=0)
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(longest, 1)))


def _what_came(data: bytes, error: BaseException) -> str:
    promised = re.match(rb"\S+ sha256=[0-9a-f]{64} bytes=(\d+)\n", data[:USER_BLOCK])
    if promised and len(data) < int(promised[1]) + USER_BLOCK:
        return f"got a truncated file: {len(data)} of {int(promised[1]) + USER_BLOCK} bytes; write it again"
    if not data:
        return "got an empty file"
    if b"\x89HDF\r\n\x1a\n" not in data[: 2 * USER_BLOCK]:
        return "got a file that is not HDF5, or is truncated" if promised else "got a file that is not HDF5"
    return f"got a damaged file ({_short(error)})"


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    # HDF5 puts the cause in brackets, behind what it was doing.
    cause = re.search(r"\((.*)\)", text)
    return f"HDF5: {cause[1] if cause else text or type(error).__name__}"[:100]


def _check_form(file: h5py.File, form: Form, path: object) -> None:
    values = _load_attributes(file, "", form, path)
    if values.get("format") != form.name:
        came = f"{values['format']!r}" if "format" in values else "no such attribute"
        raise form.fail(path, "format", f"expected {form.name!r} (a {form.noun}), got {came}")
    version = values.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise form.fail(path, "schema_version", f"expected an integer from 1 to {form.schema_version}, got {version!r}")
    if version > form.schema_version:
        known = form.schema_version
        raise form.fail(path, "schema_version", f"expected at most {known}, got the newer {version}; update aimcard")


def _load(group: h5py.Group, path: str, tree: Tree, form: Form, source: object) -> None:
    tree.groups[path] = _load_attributes(group, path, form, source)
    if path.count("/") > 8:
        raise form.fail(source, path, "expected groups at most 8 deep; is there a link in a circle?")
    try:
        names = list(group)
    except DAMAGE as error:
        raise form.fail(source, path or "/", f"cannot be read ({_short(error)})") from error
    for name in names:
        where = f"{path}/{name}" if path else name
        try:
            # A soft or external link may point into another file, whose content no hash here covers.
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise form.fail(source, where, "expected a group or a dataset, got a link")
            item = group[name]
            if isinstance(item, h5py.Dataset):
                tree.fields[where] = Field(_load_data(item, form, where, source))
        except DAMAGE as error:
            raise form.fail(source, where, f"cannot be read ({_short(error)})") from error
        if isinstance(item, h5py.Group):
            _load(item, where, tree, form, source)
        elif isinstance(item, h5py.Dataset):
            tree.fields[where].attrs = _load_attributes(item, where, form, source)
        else:
            raise form.fail(source, where, "expected a group or a dataset, got a named type")


def _load_data(item: h5py.Dataset, form: Form, where: str, source: object) -> np.ndarray | str | tuple[str, ...]:
    if item.shape is None:
        raise form.fail(source, where, "expected data, got an empty dataset")
    if item.is_virtual or item.external:
        raise form.fail(source, where, "expected the data in this file, got a link to another file")
    if item.size * item.dtype.itemsize > LARGEST_DATASET_BYTES:
        raise form.fail(source, where, f"expected at most {LARGEST_DATASET_BYTES >> 30} GiB, got shape {item.shape}")
    if h5py.check_string_dtype(item.dtype) is None:
        if item.dtype.kind not in "fiub":
            raise form.fail(source, where, f"expected numbers or text, got {item.dtype}")
        return canonical_array(item[()])
    if item.ndim > 1:
        raise form.fail(source, where, f"expected one text or a row of texts, got shape {item.shape}")
    texts = item[()]
    return _text(texts) if item.ndim == 0 else tuple(_text(text) for text in texts)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _load_attributes(item: h5py.Group | h5py.Dataset, where: str, form: Form, source: object) -> dict[str, Value]:
    values: dict[str, Value] = {}
    name = "(attributes)"
    try:
        for name in list(item.attrs):
            if name in SCALE_ATTRIBUTES:
                continue
            value: Any = item.attrs[name]
            if isinstance(value, np.ndarray) and value.size == 1:
                value = value.reshape(())[()]
            plain: Any = value.item() if isinstance(value, np.generic) else value
            values[name] = _text(plain) if isinstance(plain, bytes) else plain
    except DAMAGE as error:
        field = f"{where}@{name}" if where else name
        raise form.fail(source, field, f"cannot be read ({_short(error)})") from error
    return values


def _check_manifest(tree: Tree, form: Form, path: object, manifest: Field | None, content_hash: object) -> None:
    if manifest is None or not isinstance(manifest.data, str):
        raise form.fail(path, MANIFEST, "missing (the hashes of all fields); a file from another program is sealed first")
    if not isinstance(content_hash, str):
        raise form.fail(path, CONTENT_HASH, "missing (an attribute)")
    if hashlib.sha256(manifest.data.encode()).hexdigest() != content_hash:
        raise form.fail(
            path,
            MANIFEST,
            f"its sha256 is not the file's {CONTENT_HASH}; a byte of one of the two was changed",
        )
    listed = {name: digest for digest, _, name in (line.partition(" ") for line in manifest.data.splitlines())}
    found = tree.manifest()
    changed = [name for name in listed | found if listed.get(name) != found.get(name)]
    # The field itself first, then what hangs on it.
    for name in sorted(changed, key=lambda name: ("@" in name, name)):
        field = name.rstrip("/").removeprefix("@") or "/"
        if name not in found:
            raise form.fail(path, field, "missing; it was there when the file was written")
        if name not in listed:
            raise form.fail(path, field, "unexpected; it was not there when the file was written")
        raise form.fail(path, field, "changed since the file was written (its sha256 does not match)")


def _user_block_fault(data: bytes, form: Form) -> str | None:
    """What is wrong with the text before the HDF5 image, or None. A repacked file may have no such text."""
    if data.startswith(b"\x89HDF\r\n\x1a\n"):
        return None
    image = data[USER_BLOCK:]
    head = f"{form.name} sha256={hashlib.sha256(image).hexdigest()} bytes={len(image)}\n"
    if data[:USER_BLOCK] != head.encode().ljust(USER_BLOCK, b"\0"):
        return "a byte was changed since the file was written (the sha256 in its first line does not match)"
    return None
