"""Products in the types of their own tensors, whatever autocast is told: counts need more digits than half precision has."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch

DEVICES = ("cpu", "cuda")


def without_autocast(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with autocast off while it runs, forward or backward."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        active = [device for device in DEVICES if torch.is_autocast_enabled(device)]
        with contextlib.ExitStack() as stack:
            for device in active:
                stack.enter_context(torch.autocast(device, enabled=False))
            return function(*args, **options)

    return run
