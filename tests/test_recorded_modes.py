"""The cards that ship, fitted in conventional PWM, against the ngspice columns of every other mode that ship with them."""

import numpy as np
import pytest

from aimcard.calibrate.mode_sets import RECORDED, mode_columns
from aimcard.data import shipped_card, shipped_reference
from aimcard.data.reference import ReferenceSet
from aimcard.models.card import Card
from aimcard.netlists.technology import get_technology
from aimcard.validation.modes import predicted

#: 1 − R² of the charge into an ideal clamp, of the weighted phase, and of this less each line's mean error: as measured,
#: and a half more.
GATED = {
    "split": (1.4e-4, 1.0e-3, 5e-6), "split_lsb_first": (2.7e-4, 5e-4, 4e-5), "three_digit": (8e-4, 9e-3, 3e-5),
    "bitwise": (1e-2, 3.5e-3, 2e-3), "end_aligned_halves": (5e-6, 1.6e-6, 3e-7), "staggered": (8e-7, 3.5e-5, 8e-7),
}  # fmt: skip
TIED = {
    "split": (4.8e-7, 8e-5, 1.5e-5), "split_lsb_first": (4.8e-7, 3.9e-5, 1.5e-5), "three_digit": (8e-7, 2.4e-4, 8e-5),
    "bitwise": (7.6e-6, 6e-3, 1.3e-3), "end_aligned_halves": (3e-8, 5.6e-7, 2.6e-7), "staggered": (3.6e-8, 6e-7, 1.9e-7),
}  # fmt: skip

FIGURES = {
    "freepdk45_gated": GATED, "freepdk45_tied": TIED,
    "sky130_gated": {"split": (9.5e-6, 1.1e-4, 8.6e-5)}, "sky130_tied": {"split": (2.2e-7, 6e-6, 2.7e-6)},
}  # fmt: skip
EACH = pytest.mark.parametrize(("name", "mode"), [(name, mode) for name, modes in FIGURES.items() for mode in modes])


def recorded(name: str, mode: str) -> ReferenceSet:
    return ReferenceSet.read(shipped_reference(f"{name}_{mode}"))


@EACH
def test_a_card_in_other_modes(name, mode):
    p = predicted(Card.read(shipped_card(name)), recorded(name, mode))
    charge, phase, less_offset = FIGURES[name][mode]
    assert p.charge is not None
    assert p.phase is not None
    assert p.after_offset is not None
    assert p.charge < charge
    assert p.phase < phase
    assert p.after_offset < less_offset
    assert p.fitted_in == "conventional"


@EACH
def test_sets_hold_the_columns_that_the_command_simulates(name, mode):
    """Widths, conductances, codes and ends are those of ``mode_sets``, whose width was once a share of its range."""
    reference, (lines, vectors) = recorded(name, mode), RECORDED[mode]
    technology, topology = name.split("_")
    columns = {c.name: c for c in mode_columns(vectors, lines, topology=topology, technology=technology)}
    lo, hi = get_technology(technology).w_select_range_um
    assert reference.meta["mode"] == mode
    for record in reference.select(kind="column"):
        c = columns[record.name]
        assert record.attrs["w_select_um"] == c.w_select_um
        assert lo <= c.w_select_um <= hi
        np.testing.assert_array_equal(record["conductance_s"], c.conductance_s)
        np.testing.assert_array_equal(record["codes"], c.codes)


@pytest.mark.parametrize("name", ["sky130_gated", "sky130_tied"])
def test_split_of_sky130_beats_the_affine_ideal_product(name):
    """In every quantity, with the card as it is: docs/modes.md."""
    p = predicted(Card.read(shipped_card(name)), recorded(name, "split"))
    for quantity, error in p.one_minus_r2.items():
        assert error is not None
        assert error < 0.2 * (p.ideal_affine[quantity] or 0.0)
