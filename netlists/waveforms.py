"""The result of one deck: named arrays over time, a swept source or frequency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aimcard.models.errors import InputError
from aimcard.netlists.rawfile import RawPlot


@dataclass(frozen=True, eq=False, repr=False)
class Waveforms:
    """Signals of one analysis on ngspice's own, unequal grid.

    names: lower case, as ngspice names them: `v(bl)`, `i(vclamp)` (into the source's + node), `i(@m1[id])`.
    scale: time [s], swept value or frequency [Hz], shape (points,); a lone 0 for `.op`.
    values: shape (signals, points), float64, or complex128 after `.ac`.
    deck_hash: the sha256 that stands for deck, included models and simulator (the cache key).
    """

    names: tuple[str, ...]
    scale_name: str
    scale: np.ndarray
    values: np.ndarray
    deck_hash: str
    simulator: str

    @classmethod
    def from_raw(cls, raw: RawPlot, deck_hash: str, simulator: str) -> Waveforms:
        """Split a raw plot into its scale (the first variable, none for `.op`) and its signals."""
        if raw.plot.lower().startswith("operating point"):
            return cls(raw.names, "point", np.zeros(1), raw.values, deck_hash, simulator)
        # ngspice stores a frequency as a complex number whose imaginary part is zero.
        scale = np.ascontiguousarray(raw.values[0].real)
        return cls(raw.names[1:], raw.names[0], scale, raw.values[1:], deck_hash, simulator)

    def __getitem__(self, signal: str) -> np.ndarray:
        """The signal's values, shape (points,). Upper and lower case are the same, as they are to ngspice."""
        name = signal.lower()
        if name == self.scale_name:
            return self.scale
        if name not in self.names:
            known = ", ".join(self.names)
            raise InputError(f"signal: expected one of {known}; got '{signal}'; add it to `save`")
        return self.values[self.names.index(name)]

    def __contains__(self, signal: str) -> bool:
        return signal.lower() in self.names

    def __repr__(self) -> str:
        kind = "complex" if np.iscomplexobj(self.values) else "real"
        return (
            f"Waveforms({len(self.names)} {kind} signals x {self.scale.size} points over {self.scale_name} "
            f"{self.scale[0]:.4g} to {self.scale[-1]:.4g}: {', '.join(self.names)})"
        )

    @property
    def time_s(self) -> np.ndarray:
        """Time points [s], shape (points,), not equally spaced; `InputError` unless it is a `.tran`."""
        if self.scale_name != "time":
            raise InputError(
                f"time_s: expected a .tran result; this runs over '{self.scale_name}'; use `scale`"
            )
        return self.scale

    def slot_means(self, signal: str, edges_s: Sequence[float] | np.ndarray) -> np.ndarray:
        """Means of a signal over the slots between `edges_s`, shape (len(edges_s) - 1,).

        Exact for the straight lines between ngspice's points: inside a step the integral is a parabola, so
        the running integral is evaluated there and not interpolated. Edges [s] increase, inside the window.
        """
        time, value = self.time_s, self[signal]
        edges = np.asarray(edges_s, dtype=float)
        if edges.ndim != 1 or edges.size < 2 or not np.all(np.diff(edges) > 0):
            raise InputError(f"edges_s: expected two or more increasing times; got shape {edges.shape}")
        # Half a ppb of slack: a window's last edge is rounded otherwise than ngspice's last time point.
        slack = 5e-10 * (time[-1] - time[0])
        if edges[0] < time[0] - slack or edges[-1] > time[-1] + slack:
            raise InputError(
                f"edges_s: expected times from {time[0]:.6g} to {time[-1]:.6g} s; "
                f"got {edges[0]:.6g} to {edges[-1]:.6g} s"
            )
        step = np.diff(time)
        running = np.concatenate(([0.0], np.cumsum(0.5 * (value[1:] + value[:-1]) * step)))
        slope = np.divide(np.diff(value), step, out=np.zeros_like(step), where=step > 0)
        at = np.clip(np.searchsorted(time, edges, side="right") - 1, 0, time.size - 2)
        inside = edges - time[at]
        integral = running[at] + value[at] * inside + 0.5 * slope[at] * inside**2
        return np.diff(integral) / np.diff(edges)

    def crossings(
        self, signal: str, level: float, edge: Literal["rise", "fall", "both"] = "rise"
    ) -> np.ndarray:
        """Times [s] at which a signal passes `level`, interpolated linearly, shape (crossings,).

        A rise goes from below the level to the level or above it; a fall is its opposite.
        """
        if edge not in ("rise", "fall", "both"):
            raise InputError(f"edge: expected 'rise', 'fall' or 'both'; got '{edge}'")
        time, value = self.time_s, self[signal]
        above = value >= level
        rise, fall = ~above[:-1] & above[1:], above[:-1] & ~above[1:]
        at = np.flatnonzero({"rise": rise, "fall": fall, "both": rise | fall}[edge])
        fraction = (level - value[at]) / (value[at + 1] - value[at])
        return time[at] + fraction * (time[at + 1] - time[at])
