"""Cells and random conductances for the node-by-node column."""

from dataclasses import dataclass

import numpy as np

from aimcard.models.ladder import OhmicCell

OHMIC = OhmicCell()
LEAKY = OhmicCell(leakage_a=0.8e-9)
GROUNDS = ("near", "far", "both")


@dataclass(frozen=True)
class QuadraticCell:
    """i = on·G·v·(1 - v/v0) + curvature in the return voltage: derivatives to the two nodes differ."""

    v0_v: float = 1.0
    body_per_v: float = 0.7

    def current(self, conductance_s, v_bit_v, v_return_v, on):
        v, degrade = v_bit_v - v_return_v, 1 - self.body_per_v * v_return_v
        g = np.where(on, conductance_s, 0.0)
        i = g * v * (1 - v / self.v0_v) * degrade
        slope = g * (1 - 2 * v / self.v0_v) * degrade
        return i, slope, -slope - self.body_per_v * g * v * (1 - v / self.v0_v)

    def current_per_conductance(self, conductance_s, v_bit_v, v_return_v, on):
        v = v_bit_v - v_return_v
        return np.where(on, v * (1 - v / self.v0_v) * (1 - self.body_per_v * v_return_v), 0.0)


def random_case(seed, rows=7, patterns=5, g_max=2e-3):
    """Conductances large enough for a strong IR-drop in a few rows."""
    rng = np.random.default_rng(seed)
    return rng.uniform(1e-5, g_max, rows), rng.random((patterns, rows)) < 0.6


def clamp_curve(current_a):
    """A regulator of 15 to 20 ohm that also drops with the square of its current."""
    return 0.2 - 15.0 * current_a - 4e3 * current_a**2, -15.0 - 8e3 * current_a
