"""A reference set's content: wrong records and sets are refused, selection, merging, the documentation."""

import math
from pathlib import Path

import numpy as np
import pytest

from aimcard.data.kinds import KINDS, ROLES
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.errors import ReferenceSetError
from made_set import META, make_arrays, make_record, make_set, refusal

DOCS = Path(__file__).resolve().parents[1] / "docs" / "reference-set.md"


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
