"""Held-out columns in one PWM mode, without a fit: what a card of another mode is judged on.

``python -m aimcard.calibrate.mode_sets split bitwise --out folder`` writes a set for each mode; without modes it
writes all that ship with aimcard, ``<technology>_<topology>_<mode>.reference.h5``; a ``--mirror-ratio`` of your own is in the
name too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import numpy as np

from aimcard.calibrate.columns import CODE_MAX, VARIANTS, Column, draw_codes, pair_conductances
from aimcard.calibrate.plan import Options
from aimcard.calibrate.simulate import simulate
from aimcard.calibrate.tied_columns import tied_held_out_columns
from aimcard.data.reference import Record, ReferenceSet
from aimcard.models.console import Arguments, number, output_folder, run_module
from aimcard.models.errors import InputError
from aimcard.models.modes import get_mode, mode_names
from aimcard.models.topology import TOPOLOGIES
from aimcard.netlists.readout import check_mirror_ratio

#: Lines and vectors of the sets that ship. A window of 150 slots takes as long as five of split's.
RECORDED = {
    "split": (2, 4), "split_lsb_first": (2, 4), "bitwise": (2, 4), "three_digit": (2, 4), "end_aligned_halves": (1, 4),
    "staggered": (1, 4),
}  # fmt: skip
CLAMPS = ("ideal", "ota")
# Pictures of one vector: what a recorded set of another mode leaves out.
_PICTURES = ("waveform_time_s", "waveform_a", "mirror_waveform_a")


def mode_columns(
    vectors: int, lines: int = 2, seed: int = 1, clamps: tuple[str, ...] = CLAMPS, topology: str = "gated",
    technology: str = "freepdk45",
) -> list[Column]:  # fmt: skip
    """Gaussian vectors on the lines of the first held-out pair of ``plan``, with each clamp; InputError below 1.

    In a tied tile a line is a pair of cells in every row, and lines are read in turns at their south and north end.
    """
    for name, value in (("vectors", vectors), ("lines", lines)):
        if value < 1:
            raise InputError(f"{name}: expected 1 or more; got {value}")
    lo, hi = Options(topology=topology, technology=technology).w_range_um
    if topology == "tied":
        inputs: dict[str, tuple[str, ...]] = dict.fromkeys(CLAMPS, ("gaussian",))
        found = tied_held_out_columns(lines, vectors, seed, inputs, (), (lo, hi))
        return [c for c in found if c.clamp in clamps]
    share, g_max_s, position = VARIANTS[0]
    g = pair_conductances(np.random.default_rng([seed, 29, 0]), g_max_s)[:lines]
    codes = draw_codes(np.random.default_rng([seed, 31]), "gaussian", vectors, g.shape[1])
    w_um = round(lo + share * (hi - lo), 6)
    return [
        Column(f"{clamp}-gaussian-1x-0", "held_out", "gaussian", clamp, g, codes, w_um, position, column="held0")
        for clamp in clamps
    ]


def simulate_mode(
    mode: str, vectors: int = 4, lines: int = 2, jobs: int | None = None, clamps: tuple[str, ...] = CLAMPS,
    topology: str = "gated", technology: str = "freepdk45", mirror_ratio: float | None = None,
) -> ReferenceSet:  # fmt: skip
    """The reference set of ``mode_columns`` in a mode: columns only, without waveforms. Raises as ``simulate``."""
    get_mode(mode, CODE_MAX)
    options = Options(mode=mode, jobs=jobs, topology=topology, technology=technology, mirror_ratio=mirror_ratio)
    columns = mode_columns(vectors, lines, clamps=clamps, topology=topology, technology=technology)
    whole = simulate(options, columns=columns)
    return ReferenceSet(whole.meta, [_without_pictures(r) for r in whole.select(kind="column")])


def _without_pictures(r: Record) -> Record:
    arrays = {name: a for name, a in r.arrays.items() if name not in _PICTURES}
    return attrs.evolve(r, arrays=arrays, attrs={k: v for k, v in r.attrs.items() if k != "waveform_vector"})


def _main(arguments: list[str]) -> None:
    parser = Arguments(modes=True, prog="python -m aimcard.calibrate.mode_sets", description=__doc__)
    parser.add_argument("modes", nargs="*", help=f"of {', '.join(mode_names())} (default: the shipped sets')")
    parser.add_argument("--out", type=Path, default=Path(), help="existing folder for the sets")
    parser.add_argument("--topology", default="gated", choices=TOPOLOGIES)
    parser.add_argument("--technology", default="freepdk45")
    parser.add_argument("--mirror-ratio", type=number, help="line current over the oscillator's (default: the technology's)")
    parser.add_argument("--vectors", type=int, help="input vectors a line (default: as in the shipped sets, else 4)")
    parser.add_argument("--lines", type=int, help="lines (default: as in the shipped sets, else 2)")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--clamps", nargs="+", default=list(CLAMPS), choices=CLAMPS)
    given = parser.read(arguments)
    # Before any of them takes its minutes.
    asked = [get_mode(mode).name for mode in given.modes or RECORDED]
    ratio = None if given.mirror_ratio is None else check_mirror_ratio(given.mirror_ratio)
    tile = f"{given.technology}_{given.topology}" + ("" if ratio is None else f"_mirror{ratio}")
    output_folder("--out", given.out)
    for mode in asked:
        lines, vectors = RECORDED.get(mode, (2, 4))
        reference = simulate_mode(
            mode, given.vectors or vectors, given.lines or lines, given.jobs, tuple(given.clamps), given.topology,
            given.technology, ratio,
        )  # fmt: skip
        path = given.out / f"{tile}_{mode}.reference.h5"
        given.out.mkdir(parents=True, exist_ok=True)
        reference.write(path, compact=True)
        print(f"reference set: {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_module(_main, sys.argv[1:]))
