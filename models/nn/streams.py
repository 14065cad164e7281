"""Seeded random streams by name: a layer's draws do not depend on what other layers draw, or in which order."""

from __future__ import annotations

import hashlib

import torch


def stream(*names: str | int) -> torch.Generator:
    """A CPU generator whose numbers depend on these names alone."""
    digest = hashlib.sha256("/".join(str(name) for name in names).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
