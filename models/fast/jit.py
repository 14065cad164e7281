"""How the passes of the compiled preparation are compiled, and the numbers that their arithmetic needs.

A Python number beside a float32 makes the result double in numba; these are float32 and known to the compiler.
"""

from __future__ import annotations

import math

import numpy as np

from aimcard.models.fast.meanfield import TINY as _TINY

#: Input vectors that go side by side, in one value of ``lanes``.
LANES = 16

#: Of a function that makes arrays.
WHOLE = {"fastmath": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}
#: Of a pass that is compiled by itself, on arrays of its caller: counting references to all that its arguments hold would take
#: longer than many a pass.
PASS = {**WHOLE, "_nrt": False}
#: Of a step that becomes part of the pass that calls it.
STEP = {**PASS, "inline": "always"}

ZERO, ONE, TWO, THREE, FOUR, SIX, SIXTEEN = (np.float32(n) for n in (0, 1, 2, 3, 4, 6, 16))
HALF, THIRD, QUARTER, SIXTH, SIXTEENTH = (np.float32(1 / n) for n in (2, 3, 4, 6, 16))
ROOT3 = np.float32(math.sqrt(3.0))
#: Largest number in a byte of z.
BYTE = np.float32(127)
#: Strength of a square, and conductance [µS], below which there is nothing to divide by.
TINY = np.float32(_TINY)
