"""A reference set's file: every kind comes back, no damage goes unseen."""

import math
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from aimcard.data.kinds import KIND_ATTRIBUTES, KINDS
from aimcard.data.reference import REFERENCE_FORM, Record, ReferenceSet
from aimcard.models.card import Card
from aimcard.models.errors import CardError, ReferenceSetError
from aimcard.models.h5 import read_tree, write_tree
from made_set import COLUMN, META, make_arrays, make_record, make_set, refusal

OPTIONAL = [(kind, name) for kind, specs in KINDS.items() for name, spec in specs.items() if not spec.required]
REQUIRED = [(kind, name) for kind, specs in KINDS.items() for name, spec in specs.items() if spec.required]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_set().write(tmp_path / "set.h5")
    return tmp_path / "set.h5"


def test_every_kind_comes_back(path):
    made, back = make_set(), ReferenceSet.read(path)
    assert back == made
    assert back.content_hash == made.content_hash
    assert back.meta == made.meta
    assert list(back.records) == list(made.records)
    for name, record in made.records.items():
        twin = back[name]
        assert (twin.kind, twin.role, twin.attrs, twin.deck_hash) == (record.kind, record.role, record.attrs, record.deck_hash)
        assert twin.sizes == record.sizes
        for array in record.arrays:
            np.testing.assert_array_equal(twin[array], record[array])
            assert twin[array].dtype == record[array].dtype
    assert pickle.loads(pickle.dumps(back)) == made


def test_equal_sets_make_equal_bytes_and_storage_does_not_change_the_hash(path, tmp_path):
    make_set().write(tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes()
    digest = make_set().write(tmp_path / "compact.h5", compact=True)
    compact = ReferenceSet.read(tmp_path / "compact.h5")
    assert compact.content_hash == digest == make_set().rounded().content_hash
    assert compact.write(tmp_path / "plain.h5") == digest
    assert make_set(corner="ff").content_hash != make_set().content_hash


def test_compact_rounds_currents_only_and_is_smaller(tmp_path):
    rng = np.random.default_rng(3)
    arrays = make_arrays("column") | {
        "codes": rng.integers(0, 8, (40, 512)),
        "conductance_s": 25e-6 * rng.random((2, 512)),
        "current_a": 1e-4 * rng.random((40, 2, 7)),
    }
    for name in [n for n in arrays if n in ("conductance_minus_s", "mirror_a") or "count" in n or n.endswith("charge_c")]:
        del arrays[name]
    made = ReferenceSet(META, [Record("c", "column", "fit", COLUMN, arrays)])
    made.write(tmp_path / "plain.h5")
    made.write(tmp_path / "compact.h5", compact=True)
    assert (tmp_path / "compact.h5").stat().st_size < 0.4 * (tmp_path / "plain.h5").stat().st_size
    back = ReferenceSet.read(tmp_path / "compact.h5")["c"]
    assert back["current_a"].dtype == np.float64
    np.testing.assert_allclose(back["current_a"], arrays["current_a"], rtol=2**-24)
    assert not np.array_equal(back["current_a"], arrays["current_a"])
    for name in ("codes", "conductance_s", "slot_edge_s"):
        np.testing.assert_array_equal(back[name], arrays[name])


@pytest.mark.parametrize(("kind", "name"), REQUIRED)
def test_a_missing_array_is_named(kind, name, path):
    with h5py.File(path, "r+") as f:
        del f[f"records/{kind}/{name}"]
    assert refusal(path).startswith(f"records/{kind}/{name}: missing")
    assert refusal(path, sealed=False).startswith(f"records/{kind}/{name}: missing")


@pytest.mark.parametrize(("kind", "name"), OPTIONAL)
def test_an_optional_array_may_be_absent_but_not_removed(kind, name, path):
    with h5py.File(path, "r+") as f:
        del f[f"records/{kind}/{name}"]
    assert refusal(path).startswith(f"records/{kind}/{name}: missing; it was there")
    if name != "waveform_time_s":
        assert name not in ReferenceSet.read(path, sealed=False)[kind]
    else:
        assert "waveform_time_s: missing" in refusal(path, sealed=False)


@pytest.mark.parametrize(("kind", "name"), REQUIRED + OPTIONAL)
def test_a_damaged_array_is_named(kind, name, tmp_path):
    path = tmp_path / "set.h5"
    ReferenceSet(META, [make_record(kind)]).write(path)
    where = f"records/{kind}/{name}"
    whole = path.read_bytes()

    def damage(change, **options):
        with h5py.File(path, "r+") as f:
            change(f[f"records/{kind}"])
        message = refusal(path, **options)
        path.write_bytes(whole)
        return message

    def replace(group, data, unit):
        del group[name]
        group[name] = data
        group[name].attrs["units"] = unit

    with h5py.File(path) as f:
        offset = f[where].id.get_offset()
    spec = KINDS[kind][name]
    good = make_arrays(kind)[name]
    block = bytearray(whole)
    block[offset] ^= 1
    path.write_bytes(block)
    assert refusal(path).startswith(f"{where}: changed since the file was written")
    path.write_bytes(whole)
    if spec.kind == "f":
        message = damage(lambda g: g[name].__setitem__((0,) * good.ndim, math.nan))
        assert message.startswith(f"{where}: expected finite numbers, got nan at index")
    else:
        message = damage(lambda g: replace(g, good + 0.5, spec.unit), sealed=False)
        assert message.startswith(f"{where}: expected int64, got float64")
    message = damage(lambda g: replace(g, good[None], spec.unit), sealed=False)
    assert message.startswith(f"{where}: expected {good.ndim} dimension")
    message = damage(lambda g: replace(g, good, "furlong"), sealed=False)
    assert message.startswith(f"{where}@units: expected {spec.unit!r}, got 'furlong'")
    message = damage(lambda g: replace(g, "text", spec.unit), sealed=False)
    assert message.startswith(f"{where}: expected")
    message = damage(lambda g: g[name].attrs.__delitem__("units"), sealed=False)
    assert message.startswith(f"{where}@units: missing")


def test_each_missing_attribute_is_named(path):
    whole = path.read_bytes()
    wanted = [("/", key) for key in (*META, "format", "schema_version")]
    wanted += [(f"records/{kind}", key) for kind, keys in KIND_ATTRIBUTES.items() for key in keys]
    wanted += [(f"records/{kind}", key) for kind in KINDS for key in ("kind", "role")]
    for item, key in wanted:
        with h5py.File(path, "r+") as f:
            del f[item].attrs[key]
        for sealed in (True, False):
            message = refusal(path, sealed=sealed)
            assert message.startswith(f"{item}@{key}: missing" if item != "/" else f"{key}: "), message
        path.write_bytes(whole)


def test_truncated_foreign_newer_and_other_files(path, tmp_path):
    whole = path.read_bytes()
    for length in (0, 1, 511, 512, 700, len(whole) // 3, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert refusal(path).startswith("file: expected a reference set")
        assert refusal(path, sealed=False).startswith("file: expected a reference set")
    path.write_bytes(whole)
    with pytest.raises(CardError, match=r"set\.h5: format: expected 'aimcard-resistive-card' \(a model card\), got"):
        Card.read(path)
    with h5py.File(path, "r+") as f:
        f.attrs["schema_version"] = 2
    assert refusal(path).startswith("schema_version: expected at most 1, got the newer 2")
    with pytest.raises(ReferenceSetError, match="nowhere"):
        ReferenceSet.read(tmp_path / "nowhere.h5")


def test_no_changed_byte_of_a_compact_set_goes_unseen(path):
    made = make_set()
    made.write(path, compact=True)
    whole = path.read_bytes()
    rng = np.random.default_rng(11)
    for place in rng.choice(len(whole), 150, replace=False):
        block = bytearray(whole)
        block[place] ^= int(rng.integers(1, 256))
        path.write_bytes(block)
        refusal(path)


def test_codes_above_the_range_are_refused_in_a_file_too(path):
    tree = read_tree(path, REFERENCE_FORM)
    tree.groups[""]["code_max"] = 3
    write_tree(path, REFERENCE_FORM, tree)
    assert refusal(path).startswith("records/column/codes: expected codes from 0 to code_max = 3, got 7")


def test_extra_arrays_travel_along(tmp_path):
    arrays = make_arrays("edge") | {"extra_delay_s": np.arange(3.0)}
    ReferenceSet(META, [Record("e", "edge", "check", {}, arrays)]).write(tmp_path / "x.h5")
    assert ReferenceSet.read(tmp_path / "x.h5")["e"]["extra_delay_s"].tolist() == [0, 1, 2]


def test_the_summary_counts(path):
    lines = str(ReferenceSet.read(path)).splitlines()
    assert "freepdk45" in lines[1]
    column = next(line for line in lines if "column" in line).split()
    assert column == ["column", "fit", "1", "1", "4"]
