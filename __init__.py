"""aimcard: analog in-memory-computing tiles, calibrated against a circuit simulation."""

__version__ = "0.1.0"
