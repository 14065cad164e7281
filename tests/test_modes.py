"""PWM modes: laws that every registered mode obeys, and what a user may register."""

import itertools

import numpy as np
import pytest
import torch

from aimcard.models import modes
from aimcard.models.errors import InputError
from aimcard.models.modes import Mode, Phase, digits, get_mode, mode_names, register_mode

ROWS = np.arange(12)


@pytest.fixture
def registry(monkeypatch):
    """The registry as the test found it comes back after the test."""
    monkeypatch.setattr(modes, "_BUILDS", dict(modes._BUILDS))


@pytest.mark.parametrize("code_max", [1, 7, 13, 31, 127])
@pytest.mark.parametrize("name", mode_names())
def test_weights_times_widths_give_every_code_in_numpy_and_torch(name, code_max):
    mode = get_mode(name, code_max)
    codes = np.arange(code_max + 1)[:, None]
    np.testing.assert_array_equal(mode.ideal_value(codes, ROWS), np.broadcast_to(codes, (code_max + 1, len(ROWS))))
    ours = mode.pulses(torch.as_tensor(codes), torch.as_tensor(ROWS))
    for (start, stop), (a, b) in zip(mode.pulses(codes, ROWS), ours, strict=True):
        np.testing.assert_array_equal(start, a.numpy())
        np.testing.assert_array_equal(stop, b.numpy())


@pytest.mark.parametrize("name", mode_names())
def test_phases_follow_each_other_with_a_guard_and_fill_the_window(name):
    mode = get_mode(name)
    for guard in (1, 4):
        windows = mode.windows(guard)
        assert windows[0][0] == 0
        assert windows[-1][1] == mode.window_slots(guard)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(windows))
        codes = np.arange(128)[:, None]
        for (first, beyond), (start, stop) in zip(windows, mode.window_pulses(codes, ROWS, guard), strict=True):
            used = stop > start
            assert start[used].min() >= first
            assert stop[used].max() == beyond - guard


@pytest.mark.parametrize(
    ("name", "slots", "weights"),
    [("conventional", 127, (1,)), ("split", 22, (8, 1)), ("split_lsb_first", 22, (1, 8)),
     ("bitwise", 7, (64, 32, 16, 8, 4, 2, 1)), ("three_digit", 13, (16, 4, 1)), ("end_aligned_halves", 127, (1,)),
     ("staggered", 148, (1,))],
)  # fmt: skip
def test_windows_are_as_long_as_the_literature_says(name, slots, weights):
    mode = get_mode(name)
    assert mode.window_slots(0) == slots
    assert mode.weights == weights


@pytest.mark.parametrize("name", mode_names())
def test_a_sign_changes_no_pulse_and_the_sign_of_the_value(name):
    mode = get_mode(name)
    codes = np.arange(-127, 128)[:, None]
    np.testing.assert_array_equal(mode.ideal_value(codes, ROWS), np.broadcast_to(codes, (255, len(ROWS))))
    for (a, b), (c, d) in zip(mode.pulses(codes, ROWS), mode.pulses(-codes, ROWS), strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_halves_end_together_and_groups_start_one_after_the_other():
    codes = np.array([5, 5, 90, 90])
    ((start, stop),) = get_mode("end_aligned_halves").pulses(codes, np.arange(4))
    assert start.tolist() == [0, 122, 0, 37]
    assert stop.tolist() == [5, 127, 90, 127]
    ((start, stop),) = get_mode("staggered").pulses(codes, np.arange(4))
    assert start.tolist() == [0, 7, 14, 21]


def test_a_user_registers_a_mode_without_touching_ours(registry):
    register_mode("two_halves_first", lambda top: (
        Phase(2, top // 2, lambda codes, rows: (0 * (codes + rows), codes // 2 + 0 * rows)),
        Phase(1, 1, lambda codes, rows: (0 * (codes + rows), codes % 2 + 0 * rows)),
    ))  # fmt: skip
    mode = get_mode("two_halves_first", 31)
    assert isinstance(mode, Mode)
    assert mode.window_slots(2) == 15 + 2 + 1 + 2
    assert "two_halves_first" in mode_names()


def _rule(start, stop):
    return lambda codes, rows: (start(codes) + 0 * rows, stop(codes) + 0 * rows)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda top: (), "at least one phase"),
        (lambda top: (Phase(1, top - 1, _rule(lambda c: 0 * c, lambda c: c)),), r"inside the phase's 126 slots; got 0 to 127"),
        (lambda top: (Phase(1, top, _rule(lambda c: c, lambda c: 0 * c)),), "a width of zero or more; got 1 to 0"),
        (lambda top: (Phase(2, top, _rule(lambda c: 0 * c, lambda c: c)),), "to give the code; got 2 for code 1"),
        (lambda top: (Phase(1, top, _rule(lambda c: 0 * c, lambda c: c / 1)),), "whole slots; got"),
        (lambda top: (Phase(0, top, _rule(lambda c: 0 * c, lambda c: c)),), "a whole weight of 1 or more; got 0"),
        (lambda top: (*digits((8,))(top)[:0], *digits((8, 1))(top)[:1],
                      Phase(1, 7, _rule(lambda c: 0 * c, lambda c: c % 8), start=10)), "phase 1 overlaps the one before"),
        (lambda top: (*digits((8, 1))(top)[:1],
                      Phase(1, 7, _rule(lambda c: 0 * c, lambda c: c % 8), start=top // 8 + 1)),
         r"expected a start of 19 slots or later \(guard 4\), got 16"),
        (lambda top: ((1, top, _rule(lambda c: 0 * c, lambda c: c)),), "phase 0: expected a Phase; got \\(1, 127"),
        (lambda top: None, "expected phases from its build\\(127\\); got None"),
        (lambda top: (Phase(1, top, _rule(lambda c: 0 * c, lambda c: c), start=1.5),), "whole slot to start at.*got 1.5"),
    ],
)  # fmt: skip
def test_an_unsound_mode_is_refused_in_one_line(registry, build, message):
    with pytest.raises(InputError, match=message) as caught:
        register_mode("unsound", build)
    assert "\n" not in str(caught.value)
    assert "unsound" not in mode_names()


def test_a_taken_name_and_an_unknown_one(registry):
    with pytest.raises(InputError, match="'split' is already registered"):
        register_mode("split", digits((1,)))
    with pytest.raises(InputError, match=r"expected one of conventional, split.*did you mean 'split'"):
        get_mode("splitt")
    with pytest.raises(InputError, match="letters, digits and underscores"):
        register_mode("a mode", digits((1,)))
