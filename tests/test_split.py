"""The read-out cut at the mirror's input against column, regulator, mirror and ring in one deck."""

import numpy as np
import pytest

from aimcard.calibrate.split import split_check
from aimcard.data.reference import Record
from aimcard.models.errors import InputError
from aimcard.netlists.column import Pulses
from aimcard.netlists.column_decks import ColumnBench
from aimcard.netlists.readout import default_readout
from aimcard.netlists.technology import get_technology

TECHNOLOGY = get_technology("freepdk45")
BENCH = ColumnBench(TECHNOLOGY, "nom", 27.0, default_readout(TECHNOLOGY))


def check(record: Record) -> None:
    assert record.kind == "split_check"
    whole, charge = record["full_phase_count"], record["extra_full_mirror_c"]
    # At equal time steps only the cut is left: the ring's first kicks onto the bias node, 10 aC or 0.01 count once.
    np.testing.assert_allclose(record["extra_same_step_phase_count"], whole, atol=0.05)
    np.testing.assert_allclose(record["extra_same_step_mirror_c"], charge, rtol=0, atol=15e-18)
    # The flow of the reference sets adds the error of the columns' own settings to that.
    np.testing.assert_allclose(record["split_phase_count"], whole, atol=0.1)
    np.testing.assert_allclose(record["extra_split_mirror_c"], charge, rtol=100e-6, atol=15e-18)


def test_a_short_column_may_be_cut(tmp_path):
    record = split_check(BENCH, Pulses(code_max=7, guard=4), rows=16, jobs=1, cache_dir=tmp_path)
    assert record["full_phase_count"][0] > 10
    check(record)


@pytest.mark.slow
def test_a_whole_column_may_be_cut(tmp_path):
    """512 rows, codes to 31: minutes of CPU."""
    record = split_check(BENCH, cache_dir=tmp_path)
    assert record["full_phase_count"][0] > 200
    check(record)


@pytest.mark.parametrize("name", ["rows", "vectors"])
def test_nothing_to_simulate_is_said(name):
    with pytest.raises(InputError, match=f"^{name}: expected 1 or more; got 0"):
        split_check(BENCH, **{name: 0})
