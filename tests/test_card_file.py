"""A card's file: it comes back as written, equal content makes equal bytes, no damage goes unseen."""

import math
import os
import pickle
import time
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import h5py
import numpy as np
import pytest

from aimcard.data.reference import ReferenceSet
from aimcard.models.card import CARD_FORM, Card, card_tree
from aimcard.models.errors import CardError, ReferenceSetError
from aimcard.models.h5 import read_tree, write_tree
from aimcard.models.tree import TreeReader
from made_card import make_card, refusal

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_card().write(tmp_path / "card.h5")
    return tmp_path / "card.h5"


def fields_of(path: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Paths of groups and datasets, and all (path, attribute)."""
    with h5py.File(path) as f:
        items: list[str] = []
        f.visit(items.append)
        return items, [(item, name) for item in ["/", *items] for name in f[item].attrs]


class Place(NamedTuple):
    offset: int
    kind: str
    first: tuple[int, ...]


def datasets_of(path: Path) -> dict[str, Place]:
    """Where each dataset's bytes are, its type, and the index of its first number."""
    places: dict[str, Place] = {}
    with h5py.File(path) as f:

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                places[name] = Place(item.id.get_offset(), item.dtype.kind, (0,) * item.ndim)

        f.visititems(visit)
    return places


def put(path: Path, item: str, index: tuple[int, ...], value: float) -> None:
    """Change one number in place, as any HDF5 program can."""
    with h5py.File(path, "r+") as f:
        data: Any = f[item]
        data[index] = value


def test_what_is_written_comes_back(path):
    card, back = make_card(), Card.read(path)
    assert back == card
    assert back.content_hash == card.content_hash == card.write(path)
    assert back.meta == card.meta
    assert back.parameters == card.parameters
    assert back.tables == card.tables
    assert back.domain == card.domain
    assert back.decisions == card.decisions
    assert back.validation == card.validation
    assert back.fit == card.fit
    assert back.provenance == card.provenance
    assert back.correlation.tolist() == card.correlation.tolist()
    assert [type(back.meta[key]) for key in back.meta] == [type(card.meta[key]) for key in card.meta]
    assert pickle.loads(pickle.dumps(back)) == card
    assert back.values() == {"r_on_ohm": 556.0, "q_edge_c": 0.31e-15, "lag_s": 1e-9}
    assert back.parameter("lag_s").stderr is None


def test_equal_cards_make_equal_bytes_whatever_the_clock_says(path, tmp_path):
    time.sleep(1.1)  # HDF5 stamps in whole seconds
    make_card().write(tmp_path / "again.h5")
    Card.read(path).write(tmp_path / "copy.h5")
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes() == (tmp_path / "copy.h5").read_bytes()


def test_truncated_at_any_length(path):
    data = path.read_bytes()
    for length in {0, 1, 100, 512, 520, 1000, len(data) // 2, len(data) - 1, *range(0, len(data), 997)}:
        path.write_bytes(data[:length])
        message = refusal(path)
        assert message.startswith("file: expected a model card")
        if length >= 512:
            assert f"truncated file: {length} of {len(data)} bytes" in message


def test_each_missing_field_is_named(path):
    whole = path.read_bytes()
    items, attributes = fields_of(path)
    assert len(items) >= 30
    assert len(attributes) > 80
    for item in items:
        with h5py.File(path, "r+") as f:
            del f[item]
        message = refusal(path)
        assert message.startswith(item)
        assert "missing" in message
        path.write_bytes(whole)
    for item, name in attributes:
        with h5py.File(path, "r+") as f:
            del f[item].attrs[name]
        message = refusal(path)
        assert message.startswith(f"{item}@{name}: missing" if item != "/" else name), message
        path.write_bytes(whole)


def test_each_nan_is_named(path):
    whole = path.read_bytes()
    _, attributes = fields_of(path)
    floats = {item: place.first for item, place in datasets_of(path).items() if place.kind == "f"}
    with h5py.File(path) as f:
        numbers = [(i, a) for i, a in attributes if isinstance(f[i].attrs[a], np.floating)]
    assert len(floats) > 10
    assert len(numbers) > 15
    for bad in (math.nan, math.inf):
        for item, first in floats.items():
            put(path, item, first, bad)
            assert refusal(path).startswith(f"{item}: expected finite numbers, got {bad}")
            path.write_bytes(whole)
    for item, name in numbers:
        with h5py.File(path, "r+") as f:
            f[item].attrs[name] = math.nan
        assert refusal(path).startswith(f"{item}@{name}: expected a finite number, got nan")
        path.write_bytes(whole)


def test_a_changed_byte_in_each_dataset_is_named(path):
    whole = path.read_bytes()
    for item, data in datasets_of(path).items():
        block = bytearray(whole)
        block[data.offset] ^= 1
        path.write_bytes(block)
        assert refusal(path).startswith(item)
    path.write_bytes(whole)
    assert Card.read(path) == make_card()


def test_no_changed_byte_anywhere_goes_unseen(path):
    whole = path.read_bytes()
    rng = np.random.default_rng(5)
    for place in rng.choice(len(whole), 300, replace=False):
        block = bytearray(whole)
        block[place] ^= int(rng.integers(1, 256))
        path.write_bytes(block)
        refusal(path)
    path.write_bytes(whole + b"\0")
    assert refusal(path).startswith("file: a byte was changed")


def test_a_changed_value_and_an_added_field_are_named(path):
    whole = path.read_bytes()
    put(path, "parameters/r_on_ohm", (), 557.0)
    assert refusal(path).startswith("parameters/r_on_ohm: changed since the file was written")
    path.write_bytes(whole)
    with h5py.File(path, "r+") as f:
        f["meta"].attrs["rows"] = 513
    assert refusal(path).startswith("meta@rows: changed")
    path.write_bytes(whole)
    with h5py.File(path, "r+") as f:
        f["tables/other"] = np.arange(3.0)
    assert refusal(path).startswith("tables/other: unexpected")


def test_files_of_another_kind(path, tmp_path):
    with h5py.File(path, "r+") as f:
        f.attrs["schema_version"] = CARD_FORM.schema_version + 1
    assert refusal(path).startswith("schema_version: expected at most 1, got the newer 2; update aimcard")
    with h5py.File(path, "w") as f:
        f["x"] = 1.0
    assert refusal(path).startswith("format: expected 'aimcard-resistive-card' (a model card)")
    path.write_text("not a card\n")
    assert "not HDF5" in refusal(path)
    path.unlink()
    assert "No such file" in refusal(path)
    path.mkdir()
    assert "directory" in refusal(path)
    make_card().write(tmp_path / "other.h5")
    with pytest.raises(ReferenceSetError, match=r"other\.h5: format: expected 'aimcard-reference-set' \(a reference"):
        ReferenceSet.read(tmp_path / "other.h5")


def test_pickles_links_and_foreign_types_are_refused(path):
    whole = path.read_bytes()
    for make in (
        lambda f: f.__setitem__("meta/link", h5py.ExternalLink("/etc/passwd", "/x")),
        lambda f: f.__setitem__("meta/link", h5py.SoftLink("/tables")),
        lambda f: f.create_dataset("meta/link", data=np.array([1 + 2j])),
        lambda f: f.create_dataset("meta/link", data=np.void(pickle.dumps([1]))),
    ):
        with h5py.File(path, "r+") as f:
            make(f)
        assert refusal(path).startswith("meta/link: expected")
        path.write_bytes(whole)


def spoil(tree, path, **changes):
    tree.fields[path] = attrs.evolve(tree.fields[path], **changes)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda t: spoil(t, "tables/count_rate/x", data=np.zeros((3, 2))), "tables/count_rate/x: expected 1 dimension"),
        (lambda t: spoil(t, "tables/count_rate/x", data="text"), "tables/count_rate/x: expected float64, got text"),
        (lambda t: spoil(t, "tables/count_rate/y", data=np.array([True] * 3)), "tables/count_rate/y: expected float64"),
        (lambda t: spoil(t, "tables/count_rate/y", data=np.zeros(4)), "tables/count_rate: expected x and y of one"),
        (lambda t: spoil(t, "tables/count_rate/x", data=np.zeros(3)), "tables/count_rate/x: expected strictly"),
        (lambda t: spoil(t, "domain/code", data=np.zeros(3)), "domain/code: expected two numbers"),
        (lambda t: spoil(t, "domain/code", attrs={"units": "V"}), "domain/code@units: expected '1', got 'V'"),
        (lambda t: spoil(t, "correlation/matrix", data=np.eye(3)), "correlation/matrix: expected shape (2, 2)"),
        (lambda t: spoil(t, "correlation/matrix", data=2 * np.eye(2)), "correlation/matrix: expected a symmetric"),
        (lambda t: spoil(t, "validation", data="{"), "validation: expected JSON"),
        (lambda t: spoil(t, "decisions/weight/candidates", data=("a",)), "decisions/weight/scores: expected 1 scores"),
        (lambda t: t.groups["meta"].update(rows="many"), "meta@rows: expected an integer, got 'many'"),
        (lambda t: t.groups["meta"].update(rows=512.0), "meta@rows: expected an integer, got 512.0"),
        (lambda t: t.groups["meta"].pop("vdd_v"), "meta@vdd_v: missing"),
        (lambda t: t.fields.pop("tables/count_rate/y"), "tables/count_rate/y: missing"),
        (lambda t: t.fields["parameters/lag_s"].attrs.pop("min"), "parameters/lag_s@min: missing"),
        (lambda t: t.fields["parameters/lag_s"].attrs.update(min=1.0), "parameters/lag_s: expected min <= max"),
        (lambda t: t.fields["parameters/lag_s"].attrs.update(at_bound=1), "parameters/lag_s@at_bound: expected a truth"),
    ],
)
def test_a_sealed_card_of_wrong_content_is_refused_too(damage, expected, path):
    tree = card_tree(make_card())
    damage(tree)
    write_tree(path, CARD_FORM, tree)
    assert refusal(path).startswith(expected)


def test_a_failed_write_leaves_the_old_card_and_nothing_else(path, monkeypatch):
    whole = path.read_bytes()

    def no_space(_file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CardError, match=r"card\.h5: file: cannot be written: No space left"):
        attrs.evolve(make_card(), tables=()).write(path)
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == ["card.h5"]
    with pytest.raises(CardError, match="cannot be written"):
        make_card().write(path.parent / "nowhere" / "card.h5")


def test_an_absent_part_is_named_with_its_nearest(path):
    card = Card.read(path)
    with pytest.raises(CardError, match=r"card\.h5: parameters/r_on: missing \(did you mean 'r_on_ohm'\?\)"):
        card.value("r_on")
    with pytest.raises(CardError, match="tables/f: missing; this card has count_rate"):
        card.table("f")


def test_the_tree_reader_names_what_it_misses(path):
    reader = TreeReader(read_tree(path, CARD_FORM), CARD_FORM, path)
    with pytest.raises(CardError, match=r"card\.h5: tables/g: missing \(a group\)"):
        reader.group("tables/g")
    with pytest.raises(CardError, match="tables/count_rate/x@units: expected 'V', got 'A'"):
        reader.array("tables/count_rate/x", ndim=1, unit="V")


def test_the_example_in_the_documentation_runs(path, monkeypatch, capsys):
    monkeypatch.chdir(path.parent)
    code = (DOCS / "card.md").read_text().split("```python\n")[1].split("```")[0]
    exec(compile(code, "docs/card.md", "exec"), {})
    assert "lag_s 1e-09 None s at its bound" in capsys.readouterr().out
