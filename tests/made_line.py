"""A line of the fast equations at the values where the fits start."""

from typing import Any

import numpy as np
import torch

from aimcard.calibrate.parameters import SPECS
from aimcard.models.line import LineDrive, LineParameters, ideal_clamp, slot_currents
from aimcard.models.pulse import Edges
from aimcard.models.tile import line_parameters

V, W, T = 0.2, 0.5, 1e-9
EDGES = Edges(40e-12, 38e-12, 25e-12, 22e-12)
NO_EDGES = Edges(0.0, 0.0, 0.0, 0.0)
# Shapes and widths are divided by, all else may vanish.
KEPT = ("dw_", "v_leak", "v_gate", "g_small", "c_node", "r_on")


def t(x: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(x), dtype=torch.float64)


def values(**changes: float) -> dict[str, Any]:
    """Start values of the fits, changed."""
    start = {name: spec.start for name, spec in SPECS.items()}
    return start | {"r_return_ohm": start["r_bit_ohm"]} | changes


def ideal_values(**changes: float) -> dict[str, Any]:
    """No resistance but the PCM's, no leakage, no wire, nothing from the edges."""
    off = {name: v if name.startswith(KEPT) else 0.0 for name, v in values().items()}
    return off | {"r_on_ohm": 1e-9} | changes


def line_of(v: dict[str, Any], segments: int = 64, **options: Any) -> LineParameters:
    return line_parameters(v, w_ref_um=W, v_read_v=V, vdd_v=1.0, segments=segments, **options)


def current(v: dict[str, Any], g: Any, x: Any, slots: int = 20, edges: Edges = EDGES, t_lsb_s: float = T, **options: Any):
    """Slot currents of a line with an ideal clamp."""
    g = g if isinstance(g, torch.Tensor) else t(g)
    drive = LineDrive(g, torch.as_tensor(x), slots, t_lsb_s, W, edges)
    return slot_currents(line_of(v, **options), drive, ideal_clamp(V))[0]


def draw(seed: int = 0, rows: int = 24, code_max: int = 15) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.1e-6, 25e-6, rows), rng.integers(0, code_max + 1, rows)
