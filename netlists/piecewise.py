"""Few straight lines in place of a recorded edge: every breakpoint costs a column simulation time points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import linprog

from aimcard.models.errors import InputError

# Candidate breakpoints along the edge, and samples of it per candidate: more of them gain no breakpoint.
_CANDIDATES = 160
_SAMPLES = 8
_MAX_POINTS = 20


def reduce_edge(
    time_s: np.ndarray, value: np.ndarray, *, start: float, end: float, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Breakpoints (time [s], value) of the shortest polyline within ``tolerance`` of an edge.

    time_s, value: the edge, shape (samples,), increasing times. The first and last breakpoint lie where the
    edge leaves ``start`` and reaches ``end`` to within 0.4 tolerance, and have exactly these levels.

    Breakpoints' times minimise the largest error of chords on the waveform (a bottleneck shortest path); then
    a linear program moves the inner levels off the waveform to the least largest error that keeps the area
    and the crossing of the half-way level, so that the reduced edge turns a cell on for the same time.
    Raises InputError if the edge does not settle in its record or needs more than 20 breakpoints.
    """
    outside_start = np.flatnonzero(np.abs(value - start) > 0.4 * tolerance)
    outside_end = np.flatnonzero(np.abs(value - end) > 0.4 * tolerance)
    if not outside_start.size or outside_start[0] == 0 or outside_end[-1] == value.size - 1:
        raise InputError(
            f"edge: expected a record that goes from {start:g} to {end:g} and settles; got {value[0]:.4g} to "
            f"{value[-1]:.4g}; make the LSB longer or the driver stronger"
        )
    first, last = time_s[outside_start[0] - 1], time_s[outside_end[-1] + 1]
    grid = np.linspace(first, last, _SAMPLES * _CANDIDATES + 1)
    wave = np.interp(grid, time_s, value)
    wave[0], wave[-1] = start, end
    # Candidates at equal steps along the curve: a steep edge in a long record gets its share.
    travelled = np.cumsum(np.abs(np.diff(wave, prepend=start))) / abs(end - start)
    along = np.linspace(0.0, 1.0, grid.size) + travelled
    candidates = np.interp(np.linspace(0.0, along[-1], _CANDIDATES), along, grid)
    for chord_error, chosen in _best_chords(candidates, np.interp(candidates, grid, wave)):
        # Levels off the waveform halve the error of chords at best.
        if chord_error > 2.5 * tolerance:
            continue
        knots = candidates[chosen]
        levels = _best_levels(knots, grid, wave)
        if np.abs(np.interp(time_s, knots, levels) - value).max() <= tolerance:
            return knots, levels
    raise InputError(
        f"edge: expected at most {_MAX_POINTS} straight lines to follow it within {tolerance:g}; it has more "
        f"detail; allow a larger tolerance"
    )


def _best_chords(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[float, list[int]]]:
    """For 3, 4, ... breakpoints the samples, both ends among them, whose chords err least in the worst place.

    Yields that error and the samples' indices.
    """
    n = len(x)
    error = np.full((n, n), np.inf)
    for i in range(n - 1):
        for j in range(i + 1, n):
            chord = y[i] + (y[j] - y[i]) * (x[i : j + 1] - x[i]) / (x[j] - x[i])
            error[i, j] = np.abs(chord - y[i : j + 1]).max()
    best, came = error[0].copy(), []
    for _ in range(_MAX_POINTS - 2):
        # One more chord, which ends at j, from the best place k to start it.
        through = np.maximum(best[:, None], error)
        came.append(np.argmin(through, axis=0))
        best = through.min(axis=0)
        path = [n - 1]
        for back in reversed(came):
            path.append(int(back[path[-1]]))
        yield float(best[-1]), [0, *reversed(path)]


def _best_levels(knots: np.ndarray, grid: np.ndarray, wave: np.ndarray) -> np.ndarray:
    """Levels at ``knots`` of least largest error, with the area, half-way crossing and ends of ``wave``."""
    # Hat functions of the breakpoints.
    hats = np.array([np.interp(grid, knots, row) for row in np.eye(len(knots))]).T
    rest = wave - hats[:, 0] * wave[0] - hats[:, -1] * wave[-1]
    inner, bound = hats[:, 1:-1], np.ones((grid.size, 1))
    # The half-way crossing lies between two samples, a part w of the step behind the first.
    half = (wave[0] + wave[-1]) / 2
    k = int(np.flatnonzero((wave[:-1] < half) != (wave[1:] < half))[0])
    w = (half - wave[k]) / (wave[k + 1] - wave[k])
    kept = np.array([np.trapezoid(inner, axis=0), (1 - w) * inner[k] + w * inner[k + 1]])
    found = linprog(
        c=np.eye(len(knots) - 1)[-1],
        A_ub=np.block([[inner, -bound], [-inner, -bound]]),
        b_ub=np.concatenate([rest, -rest]),
        A_eq=np.column_stack([kept, np.zeros(2)]),
        b_eq=[np.trapezoid(rest), (1 - w) * rest[k] + w * rest[k + 1]],
        bounds=(None, None),
    )
    if found.x is None:
        # Too few breakpoints to keep both; the chords stand, and miss the tolerance.
        return np.interp(knots, grid, wave)
    return np.concatenate([wave[:1], found.x[:-1], wave[-1:]])
