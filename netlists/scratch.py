"""The folder in which a batch of decks works, removed at its end, or by the next batch after a kill."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "aimcard-"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder in the system's temporary folder; what killed batches left there is removed first."""
    _sweep(Path(tempfile.gettempdir()))
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name,
        (Path(name) / "lock").open("w") as lock,
    ):
        # The kernel drops the lock with its process, however that ends: an unlocked folder is abandoned.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(name)


def _sweep(parent: Path, older_than_s: float = 60.0) -> None:
    for path in parent.glob(f"{_PREFIX}*/lock"):
        # A young folder may be between its creation and its lock. Another user's folder is not ours to judge.
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > older_than_s:
                with path.open("r+") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path.parent, ignore_errors=True)
