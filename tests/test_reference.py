"""The reference set's contract: every kind comes back, damage and wrong physics are named."""

import math
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from aimcard.data.kinds import KIND_ATTRIBUTES, KINDS, ROLES
from aimcard.data.reference import REFERENCE_FORM, Record, ReferenceSet
from aimcard.models.card import Card
from aimcard.models.errors import CardError, ReferenceSetError
from aimcard.models.h5 import read_tree, write_tree

DOCS = Path(__file__).resolve().parents[1] / "docs" / "reference-set.md"
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
OPTIONAL = [
    (kind, name) for kind, specs in KINDS.items() for name, spec in specs.items() if not spec.required
]
REQUIRED = [(kind, name) for kind, specs in KINDS.items() for name, spec in specs.items() if spec.required]


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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_set().write(tmp_path / "set.h5")
    return tmp_path / "set.h5"


def refusal(path: Path, **options) -> str:
    with pytest.raises(ReferenceSetError) as caught:
        ReferenceSet.read(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 250
    return message.removeprefix(f"{path}: ")


def test_every_kind_comes_back(path):
    made, back = make_set(), ReferenceSet.read(path)
    assert back == made
    assert back.content_hash == made.content_hash
    assert back.meta == made.meta
    assert list(back.records) == list(made.records)
    for name, record in made.records.items():
        twin = back[name]
        assert (twin.kind, twin.role, twin.attrs, twin.deck_hash) == (
            record.kind,
            record.role,
            record.attrs,
            record.deck_hash,
        )
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
    with pytest.raises(
        CardError, match=r"set\.h5: format: expected 'aimcard-resistive-card' \(a model card\), got"
    ):
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


def spoiled(kind: str, name: str, change) -> Record:
    arrays = make_arrays(kind)
    # Without its pairs a line is gated, and codes have no sign.
    arrays.pop("conductance_minus_s", None)
    arrays[name] = change(arrays[name].copy())
    return Record("r", kind, "fit", make_record(kind).attrs, arrays)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: spoiled("column", "conductance_s", lambda a: -a),
            "records/r/conductance_s: expected at least 0, got -",
        ),
        (lambda: spoiled("column", "codes", lambda a: a - 8), "records/r/codes: expected at least 0, got -"),
        (lambda: spoiled("column", "codes", lambda a: a[:, :5]), "records/r/codes: expected rows = 6"),
        (
            lambda: spoiled("cell_pulse", "current_a", lambda a: a[:, :6]),
            "records/r/slot_edge_s: expected 7 edges of 6",
        ),
        (
            lambda: spoiled("column", "slot_edge_s", lambda a: a[::-1]),
            "records/r/slot_edge_s: expected strictly incr",
        ),
        (lambda: spoiled("column", "count", lambda a: a + 0.5), "records/r/count: expected whole numbers"),
        (lambda: spoiled("edge", "rise_v", lambda a: a[:, :2]), "records/r/rise_v: expected t = 5"),
        (
            lambda: spoiled("cell_dc", "current_a", lambda a: a[:0]),
            "records/r/current_a: expected at least one number",
        ),
        (
            lambda: spoiled("cell_dc", "current_a", lambda a: a * math.inf),
            "records/r/current_a: expected finite",
        ),
        (
            lambda: spoiled("cell_dc", "current_a", lambda a: a.astype(object)),
            "records/r/current_a: expected numbers",
        ),
        (
            lambda: make_record("column", clamp="otta"),
            "records/column@clamp: expected one of ideal, ota; got 'otta'",
        ),
        (lambda: make_record("column", wire_scale=0), "records/column@wire_scale: expected a number above 0"),
        (
            lambda: make_record("column", wire_scale="1x"),
            "records/column@wire_scale: expected a number, got '1x'",
        ),
        (
            lambda: make_record("column", note=[1, 2]),
            "records/column@note: expected a text, a number or a truth",
        ),
        (lambda: make_record("column", note=math.nan), "records/column@note: expected a finite number"),
        (lambda: make_record("column", role="heldout"), "records/column@role: expected one of fit, held_out"),
        (lambda: make_record("edge", name="a/b"), "records: expected a name of letters"),
        (lambda: Record("r", "colum", "fit", {}, {}), "records/r@kind: expected one of cell_dc, "),
        (
            lambda: Record("r", "edge", "fit", {}, make_arrays("edge") | {"rise": np.zeros(2)}),
            "records/r/rise: unexpected in a record of kind edge; did you mean 'rise_v'?",
        ),
    ],
)
def test_wrong_records_are_refused_when_made(make, expected):
    with pytest.raises(ReferenceSetError) as caught:
        make()
    assert str(caught.value).startswith(expected)


def test_wrong_sets_are_refused_when_made():
    for meta, expected in [
        (
            {"code_max": 6},
            "reference set: records/column/codes: expected codes from 0 to code_max = 6, got 7",
        ),
        ({"t_lsb_s": 0.0}, "reference set: t_lsb_s: expected a number above 0"),
        ({"corner": 3}, "reference set: corner: expected a text, got 3"),
        ({"format": "mine"}, "reference set: format: expected another name"),
    ]:
        with pytest.raises(ReferenceSetError) as caught:
            make_set(**meta)
        assert str(caught.value).startswith(expected)
    with pytest.raises(ReferenceSetError, match="records/edge: expected each name once"):
        ReferenceSet(META, [make_record("edge"), make_record("edge")])


def test_codes_above_the_range_are_refused_in_a_file_too(path):
    tree = read_tree(path, REFERENCE_FORM)
    tree.groups[""]["code_max"] = 3
    write_tree(path, REFERENCE_FORM, tree)
    assert refusal(path).startswith("records/column/codes: expected codes from 0 to code_max = 3, got 7")


def test_extra_arrays_travel_along(tmp_path):
    arrays = make_arrays("edge") | {"extra_delay_s": np.arange(3.0)}
    ReferenceSet(META, [Record("e", "edge", "check", {}, arrays)]).write(tmp_path / "x.h5")
    assert ReferenceSet.read(tmp_path / "x.h5")["e"]["extra_delay_s"].tolist() == [0, 1, 2]


def test_select_by_kind_role_and_attributes():
    records = [
        make_record("column", f"c{i}", ROLES[i % 2], wire_scale=scale, clamp=clamp)
        for i, (scale, clamp) in enumerate([(1.0, "ideal"), (1, "ota"), (3.0, "ota"), (10.0, "ideal")])
    ]
    made = ReferenceSet(META, [*records, make_record("edge")])

    def names(**wanted):
        return [record.name for record in made.select(**wanted)]

    assert names(kind="column") == ["c0", "c1", "c2", "c3"]
    assert names(kind="column", role="fit") == ["c0", "c2"]
    assert names(wire_scale=1) == ["c0", "c1"]
    assert names(wire_scale=(3, 10.0), clamp="ota") == ["c2"]
    assert names(clamp="tied") == []
    assert len(names()) == 5
    with pytest.raises(ReferenceSetError, match=r"records/edges: missing \(did you mean 'edge'"):
        made["edges"]
    with pytest.raises(ReferenceSetError, match=r"records/edge/fall: missing; this record has time_s"):
        made["edge"]["fall"]


def test_merge_joins_what_fits_together():
    first = ReferenceSet(META | {"note": "a"}, [make_record("edge"), make_record("column", "c0")])
    second = ReferenceSet(
        META | {"simulator": "bench"}, [make_record("column", "c0"), make_record("column", "c1", seed=1)]
    )
    both = first.merge(second)
    assert list(both.records) == ["edge", "c0", "c1"]
    assert both.meta["simulator"] == "ngspice-39; bench"
    assert both.merge(second).meta == both.meta
    assert both.merge(both) == both
    with pytest.raises(ReferenceSetError, match=r"temperature_c: expected 27\.0 as in reference set, got 85"):
        first.merge(ReferenceSet(META | {"temperature_c": 85}, []))
    with pytest.raises(ReferenceSetError, match="records/c0: differs from the one in"):
        first.merge(ReferenceSet(META, [make_record("column", "c0", seed=2)]))


def test_the_summary_counts(path):
    lines = str(ReferenceSet.read(path)).splitlines()
    assert "freepdk45" in lines[1]
    column = next(line for line in lines if "column" in line).split()
    assert column == ["column", "fit", "1", "1", "4"]


def test_the_documentation_is_true(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = DOCS.read_text()
    table = text.split("<!-- kinds -->")[1].split("<!-- end of kinds -->")[0]
    rows, kind = {}, ""
    for line in table.strip().splitlines()[2:]:
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        kind = cells[0] or kind
        rows[kind, cells[1]] = cells[2:]
    assert set(rows) == {(kind, name) for kind, specs in KINDS.items() for name in specs}
    for (kind, name), (dims, unit, note) in rows.items():
        spec = KINDS[kind][name]
        assert (dims, unit) == (", ".join(spec.dims), spec.unit)
        assert ("optional" in note) == (not spec.required)
        assert ("32 bits" in note) == spec.single
    scope: dict = {}
    for block in text.split("```python\n")[1:]:
        exec(compile(block.split("```")[0], "docs/reference-set.md", "exec"), scope)
    printed = capsys.readouterr().out
    assert "my28nm" in printed
    assert "col0 2 " in printed
    mine = ReferenceSet.read(tmp_path / "mine.h5")["col0"]
    # Slot means add up to the charge of each vector's pulses.
    charge = mine["current_a"][:, 0].sum(-1) * 1e-9
    np.testing.assert_allclose(charge, 0.2e-9 * mine["codes"] @ mine["conductance_s"][0], rtol=1e-12)
    assert "sealed" in refusal(tmp_path / "raw.h5")
    assert ReferenceSet.read(tmp_path / "sealed.h5")["osc"]["count_rate_hz"][2] == 1.8e9
