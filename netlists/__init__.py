"""Circuits of a tile (PySpice) and the one adapter through which ngspice runs them."""
