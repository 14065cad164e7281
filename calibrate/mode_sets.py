"""Held-out columns in one PWM mode, without a fit: what a card of another mode is judged on.

``python -m aimcard.calibrate.mode_sets split bitwise --out folder`` writes ``folder/<mode>.reference.h5`` each.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from aimcard.calibrate.columns import CODE_MAX, VARIANTS, Column, draw_codes, pair_conductances
from aimcard.calibrate.plan import Options
from aimcard.calibrate.simulate import simulate
from aimcard.data.reference import ReferenceSet
from aimcard.models.errors import AimcardError, InputError
from aimcard.models.modes import get_mode, mode_names


def mode_columns(vectors: int, lines: int = 2, seed: int = 1, clamps: tuple[str, ...] = ("ideal", "ota")) -> list[Column]:
    """Gaussian vectors on the lines of the first held-out pair of ``plan``, with each clamp; InputError below 1."""
    for name, value in (("vectors", vectors), ("lines", lines)):
        if value < 1:
            raise InputError(f"{name}: expected 1 or more; got {value}")
    w_um, g_max_s, position = VARIANTS[0]
    g = pair_conductances(np.random.default_rng([seed, 29, 0]), g_max_s)[:lines]
    codes = draw_codes(np.random.default_rng([seed, 31]), "gaussian", vectors, g.shape[1])
    return [
        Column(f"{clamp}-gaussian-1x-0", "held_out", "gaussian", clamp, g, codes, w_um, position, column="held0")
        for clamp in clamps
    ]


def simulate_mode(
    mode: str, vectors: int = 4, lines: int = 2, jobs: int | None = None, clamps: tuple[str, ...] = ("ideal", "ota")
) -> ReferenceSet:
    """The reference set of ``mode_columns`` in a mode; cells and read-out are those of any set. Raises as ``simulate``."""
    get_mode(mode, CODE_MAX)
    return simulate(Options(mode=mode, jobs=jobs), columns=mode_columns(vectors, lines, clamps=clamps))


def _main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m aimcard.calibrate.mode_sets", description=__doc__)
    parser.add_argument("modes", nargs="+", help=f"of {', '.join(mode_names())}")
    parser.add_argument("--out", type=Path, default=Path(), help="existing folder for the sets")
    parser.add_argument("--vectors", type=int, default=4)
    parser.add_argument("--lines", type=int, default=2)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--clamps", nargs="+", default=["ideal", "ota"], choices=["ideal", "ota"])
    given = parser.parse_args(arguments)
    try:
        for mode in given.modes:
            reference = simulate_mode(mode, given.vectors, given.lines, given.jobs, tuple(given.clamps))
            path = given.out / f"{mode}.reference.h5"
            reference.write(path, compact=True)
            print(f"reference set: {path}", file=sys.stderr)
    except AimcardError as error:
        print(f"aimcard: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
