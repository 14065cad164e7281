"""PWM modes: how a code becomes pulses on its word line, phase by phase, and how the phases' counts become one number.

A mode is a row of phases. In each phase a row carries at most one pulse, from ``start`` to ``stop`` in whole LSB slots
of that phase; after its longest pulse a phase has guard slots, in which tails decay while the counter still runs. The
number that a vector gives is Σ weight · count over the phases. Pulses may depend on the row's index (start- and
end-aligned rows, staggered groups). Modes see magnitudes: in a gated column inputs of either sign are two vectors, in a
tied one the sign chooses the polarity of the source lines while the same pulse runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from aimcard.models.checks import did_you_mean
from aimcard.models.errors import InputError

#: Integer arrays of numpy or torch alike.
Slots = Any
#: (codes, rows) to (start, stop), each of the broadcast shape; written with operators that numpy and torch share.
PulseRule = Callable[[Slots, Slots], tuple[Slots, Slots]]
#: Largest code of the default seven-bit magnitude.
CODE_MAX = 127
#: Slots after each phase's longest pulse, unless a set or card says otherwise.
GUARD_SLOTS = 4
# Rows on which a mode is tried when it is built: row-dependent modes repeat with a small period.
_TRIED_ROWS = 64


@dataclass(frozen=True)
class Phase:
    """One phase of a mode.

    weight: what one LSB of pulse counts for. slots: the longest extent, guard excluded; a pulse lies in 0 … slots.
    pulse: codes and row indices to the pulse's start and stop in slots of the phase; equal where there is none.
    start: slot of the window at which the phase begins; None: right after the guard of the phase before.
    """

    weight: int
    slots: int
    pulse: PulseRule
    start: int | None = None


@dataclass(frozen=True)
class Mode:
    """A PWM mode for codes from −code_max to code_max (magnitudes up to code_max).

    >>> mode = get_mode("split")
    >>> mode.window_slots(guard=4), [phase.weight for phase in mode.phases]
    (30, [8, 1])
    """

    name: str
    code_max: int
    phases: tuple[Phase, ...]
    summary: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle: those of this module by name, as their builders' functions cannot be; yours as far as its functions can."""
        if self.name in SHIPPED:
            return get_mode, (self.name, self.code_max)
        return Mode, (self.name, self.code_max, self.phases, self.summary)

    @property
    def weights(self) -> tuple[int, ...]:
        """What a count of each phase weighs."""
        return tuple(phase.weight for phase in self.phases)

    def pulses(self, codes: Slots, rows: Slots) -> list[tuple[Slots, Slots]]:
        """Per phase (start, stop) in slots of that phase; codes (..., rows), rows (rows,) are row indices.

        Integer arrays of numpy or torch; the sign of a code is left out. Shapes (..., rows).
        """
        magnitude = abs(codes)
        return [phase.pulse(magnitude, rows) for phase in self.phases]

    def starts(self, guard: int) -> tuple[int, ...]:
        """First slot of each phase in the window. InputError if a phase begins before the guard of the one before ends."""
        starts, free = [], 0
        for k, phase in enumerate(self.phases):
            begin = free if phase.start is None else phase.start
            if begin < free:
                raise InputError(
                    f"mode {self.name}: phase {k} overlaps the one before: expected a start of {free} slots or later "
                    f"(guard {guard}), got {begin}"
                )
            starts.append(begin)
            free = begin + phase.slots + guard
        return tuple(starts)

    def windows(self, guard: int) -> tuple[tuple[int, int], ...]:
        """Slots (first, beyond) in which each phase counts: from its start to the start of the next, guard included."""
        starts = self.starts(guard)
        return tuple(zip(starts, (*starts[1:], self.window_slots(guard)), strict=True))

    def window_slots(self, guard: int) -> int:
        """Slots of the whole window, the last phase's guard included."""
        return self.starts(guard)[-1] + self.phases[-1].slots + guard

    def window_pulses(self, codes: Slots, rows: Slots, guard: int) -> list[tuple[Slots, Slots]]:
        """``pulses`` in slots of the window."""
        return [
            (start + first, stop + first)
            for (start, stop), first in zip(self.pulses(codes, rows), self.starts(guard), strict=True)
        ]

    def ideal_value(self, codes: Slots, rows: Slots = 0) -> Slots:
        """Σ weight · width: what a perfect line and counter make of each code, sign included. Equals ``codes``."""
        sign = 2 * (codes >= 0) - 1
        return sign * sum(
            phase.weight * (stop - start) for phase, (start, stop) in zip(self.phases, self.pulses(codes, rows), strict=True)
        )


#: From the largest code to the phases for it.
Build = Callable[[int], tuple[Phase, ...]]
_BUILDS: dict[str, tuple[Build, str]] = {}


def register_mode(name: str, build: Build, summary: str = "") -> Mode:
    """Add a mode; ``build(code_max)`` makes its phases. Returns it at the default code_max of 127.

    InputError if the name is taken, or if the mode is not sound: pulses outside their phase, negative widths,
    phases that overlap or leave less than GUARD_SLOTS between them, Σ weight · width ≠ code.
    """
    if name in _BUILDS:
        raise InputError(f"mode: the name {name!r} is already registered; choose another name")
    mode = build_mode(name, build, summary)
    _BUILDS[name] = (build, summary)
    return mode


def build_mode(name: str, build: Build, summary: str = "", code_max: int = CODE_MAX) -> Mode:
    """A mode without registering it, checked as ``register_mode`` checks."""
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"mode: expected a name of letters, digits and underscores; got {name!r}")
    if code_max < 1:
        raise InputError(f"mode {name}: expected a code_max of 1 or more; got {code_max}")
    phases = build(code_max)
    if not isinstance(phases, Iterable):
        raise InputError(f"mode {name}: expected phases from its build({code_max}); got {phases!r}")
    mode = Mode(name, code_max, tuple(phases), summary)
    _check(mode)
    return mode


def mode_names() -> tuple[str, ...]:
    """Names of all registered modes."""
    return tuple(_BUILDS)


@lru_cache(maxsize=256)
def _built(name: str, build: Build, summary: str, code_max: int) -> Mode:
    return build_mode(name, build, summary, code_max)


def get_mode(name: str | Mode, code_max: int = CODE_MAX) -> Mode:
    """The registered mode ``name`` for codes up to ``code_max``; a Mode passes. InputError lists the choices."""
    if isinstance(name, Mode):
        return name
    if name not in _BUILDS:
        raise InputError(f"mode: expected one of {', '.join(_BUILDS)}; got {name!r}{did_you_mean(name, _BUILDS)}")
    return _built(name, *_BUILDS[name], code_max)


def _check(mode: Mode) -> None:
    at = f"mode {mode.name}"
    if not mode.phases:
        raise InputError(f"{at}: expected at least one phase; got none")
    for k, phase in enumerate(mode.phases):
        if not isinstance(phase, Phase):
            raise InputError(f"{at}: phase {k}: expected a Phase; got {phase!r}")
        if phase.start is not None and not isinstance(phase.start, int):
            raise InputError(f"{at}: phase {k}: expected a whole slot to start at, or None; got {phase.start!r}")
        for what, value, least in (("weight", phase.weight, 1), ("slots", phase.slots, 1)):
            if not isinstance(value, int) or value < least:
                raise InputError(f"{at}: phase {k}: expected a whole {what} of {least} or more; got {value!r}")
    mode.starts(GUARD_SLOTS)
    codes, rows = np.arange(mode.code_max + 1)[:, None], np.arange(_TRIED_ROWS)
    for k, (phase, (start, stop)) in enumerate(zip(mode.phases, mode.pulses(codes, rows), strict=True)):
        start, stop = (np.broadcast_to(np.asarray(a), (len(codes), len(rows))) for a in (start, stop))
        if start.dtype.kind not in "iu" or stop.dtype.kind not in "iu":
            raise InputError(f"{at}: phase {k}: expected whole slots; got {start.dtype} and {stop.dtype}; use // and %")
        for wrong, what in (
            (stop < start, "a width of zero or more"),
            ((start < 0) | (stop > phase.slots), f"pulses inside the phase's {phase.slots} slots"),
        ):
            if wrong.any():
                code, row = (int(i) for i in np.argwhere(wrong)[0])
                raise InputError(
                    f"{at}: phase {k}: expected {what}; got {start[code, row]} to {stop[code, row]} for code {code} in row {row}"
                )
    value = np.broadcast_to(mode.ideal_value(codes, rows), (len(codes), len(rows)))
    if (value != codes).any():
        code, row = (int(i) for i in np.argwhere(value != codes)[0])
        raise InputError(
            f"{at}: expected weight · width of all phases to give the code; got {value[code, row]} for code {code} in row {row}"
        )


def _start_aligned(weight: int, slots: int, width: Callable[[Slots], Slots]) -> Phase:
    return Phase(weight, slots, lambda codes, rows: (0 * (codes + rows), width(codes) + 0 * rows))


def digits(weights: tuple[int, ...]) -> Build:
    """Phases of one digit each: ``weights`` falling, each a multiple of the next, the last 1 (in any order of phases).

    Digits that no code reaches are left out, so small ``code_max`` have fewer phases.
    """
    order = sorted(weights, reverse=True)
    above = dict(zip(order, [None, *order[:-1]], strict=True))

    def build(code_max: int) -> tuple[Phase, ...]:
        phases = []
        for w in weights:
            top = above[w]

            def width(codes: Slots, w: int = w, top: int | None = top) -> Slots:
                return (codes if top is None else codes % top) // w

            longest = code_max // w if top is None else min(code_max, top - 1) // w
            if longest:
                phases.append(_start_aligned(w, longest, width))
        return tuple(phases)

    return build


def _end_aligned_halves(code_max: int) -> tuple[Phase, ...]:
    # Odd rows end with the window's last slot: the line's current is flatter, and its peak half as high.
    def pulse(codes: Slots, rows: Slots) -> tuple[Slots, Slots]:
        start = (rows % 2) * (code_max - codes)
        return start, start + codes

    return (Phase(1, code_max, pulse),)


#: Groups of rows in the staggered mode.
STAGGER_GROUPS = 4


def _staggered(code_max: int) -> tuple[Phase, ...]:
    step = max(1, code_max // 16)

    def pulse(codes: Slots, rows: Slots) -> tuple[Slots, Slots]:
        start = (rows % STAGGER_GROUPS) * step + 0 * codes
        return start, start + codes

    return (Phase(1, code_max + (STAGGER_GROUPS - 1) * step, pulse),)


def _bits(code_max: int) -> tuple[Phase, ...]:
    return digits(tuple(2**k for k in reversed(range(code_max.bit_length()))))(code_max)


register_mode("conventional", digits((1,)), "one pulse of as many LSB as the code says")
register_mode("split", digits((8, 1)), "most significant digit (code // 8, weight 8), then code % 8")
register_mode("split_lsb_first", digits((1, 8)), "code % 8, then the most significant digit (weight 8)")
register_mode("bitwise", _bits, "one pulse of one LSB a bit, weight 2^k")
register_mode("end_aligned_halves", _end_aligned_halves, "even rows start together, odd rows end together")
register_mode("staggered", _staggered, "rows in four groups, each starting code_max/16 slots after the one before")
register_mode("three_digit", digits((16, 4, 1)), "three digits of weight 16, 4 and 1")

#: Names of the modes above.
SHIPPED = frozenset(_BUILDS)
