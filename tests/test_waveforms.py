"""Slot means and crossings against their definitions; raw files that ngspice wrote, whole and damaged."""

from __future__ import annotations

import itertools
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest

from aimcard.models.errors import InputError, SimulationError
from aimcard.netlists.rawfile import read_raw
from aimcard.netlists.waveforms import Waveforms


def waveform(time_s: np.ndarray, value: np.ndarray) -> Waveforms:
    return Waveforms(("v(x)", "v(y)"), "time", time_s, np.stack((value, -value)), "none", "none")


def test_slot_means_are_exact_for_straight_lines() -> None:
    rng = np.random.default_rng(1)
    corners = np.concatenate(([0.0], np.sort(rng.uniform(0, 10, 30)), [10.0]))
    values = rng.normal(size=corners.size)
    edges = np.sort(rng.uniform(0, 10, 17))
    # The same polygon with every slot edge added as a point: there plain trapezoids are the integral.
    fine = np.unique(np.concatenate((corners, edges)))
    polygon = np.interp(fine, corners, values)
    truth = [
        np.trapezoid(polygon[(fine >= a) & (fine <= b)], fine[(fine >= a) & (fine <= b)]) / (b - a)
        for a, b in itertools.pairwise(edges)
    ]
    np.testing.assert_allclose(
        waveform(corners, values).slot_means("v(x)", edges), truth, rtol=1e-12, atol=1e-13
    )


def test_slot_mean_inside_one_step_of_a_ramp() -> None:
    ramp = waveform(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    np.testing.assert_allclose(
        ramp.slot_means("v(x)", [0.0, 0.25, 0.5, 1.0]), [0.125, 0.375, 0.75], rtol=1e-14
    )


@pytest.mark.parametrize("edges", [[0.0], [0.0, 0.0], [0.5, 0.2], [0.0, 1.1], [-0.1, 1.0], [0.0, math.nan]])
def test_slot_edges_outside_the_window_are_refused(edges: list[float]) -> None:
    with pytest.raises(InputError, match="edges_s"):
        waveform(np.array([0.0, 1.0]), np.array([0.0, 1.0])).slot_means("v(x)", edges)


def test_crossings_of_a_sampled_sine() -> None:
    time_s = np.linspace(0, 3, 3001)
    sine = waveform(time_s, np.sin(2 * np.pi * time_s + 0.3))
    offset = 0.3 / (2 * np.pi)
    np.testing.assert_allclose(sine.crossings("v(x)", 0.0), np.arange(1, 4) - offset, atol=1e-6)
    np.testing.assert_allclose(sine.crossings("v(x)", 0.0, "fall"), np.arange(3) + 0.5 - offset, atol=1e-6)
    assert sine.crossings("v(x)", 0.0, "both").size == 6
    assert sine.crossings("v(x)", 2.0).size == 0


def test_unknown_signal_lists_what_is_there() -> None:
    waves = waveform(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    with pytest.raises(InputError, match=r"v\(x\), v\(y\); got 'v\(z\)'"):
        _ = waves["v(z)"]
    assert "V(X)" in waves
    assert np.array_equal(waves["V(X)"], waves["v(x)"])


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw file that ngspice wrote itself."""
    (tmp_path / "deck.cir").write_text("* title\nV1 a 0 1\nR1 a b 1k\nC1 b 0 1p\n.tran 1n 10n\n.end\n")
    subprocess.run(
        ["ngspice", "-b", "-r", "out.raw", "deck.cir"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    return tmp_path / "out.raw"


def test_raw_file_truncated_anywhere_is_refused(raw: Path) -> None:
    content = raw.read_bytes()
    assert read_raw(raw).names == ("time", "v(a)", "v(b)", "i(v1)")
    for cut in (0, 20, 150, content.index(b"Binary:") + 8, len(content) - 1):
        raw.write_bytes(content[:cut])
        with pytest.raises(SimulationError, match=r"out\.raw"):
            read_raw(raw)


def test_raw_file_with_two_plots_is_refused(raw: Path) -> None:
    raw.write_bytes(raw.read_bytes() * 2)
    with pytest.raises(SimulationError, match="several plots"):
        read_raw(raw)
