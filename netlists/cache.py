"""Results of finished decks on disk: one file a deck, named by its hash, checked by its own checksum."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path

import numpy as np

from aimcard.models.errors import InputError
from aimcard.netlists.waveforms import Waveforms

_MAGIC = "aimcard-result-1"


def default_cache_dir() -> Path:
    """$AIMCARD_CACHE, else $XDG_CACHE_HOME/aimcard, else ~/.cache/aimcard."""
    if own := os.environ.get("AIMCARD_CACHE"):
        return Path(own).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home and Path(home).is_absolute() else Path.home() / ".cache") / "aimcard"


class ResultCache:
    """Waveforms by deck hash.

    A file is one line `aimcard-result-1 <deck hash> <sha256 of the rest>` and a numpy archive without
    pickles. The line names the deck, so a copied or renamed file is not taken for another deck's result.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        """Use `folder` (None: `default_cache_dir()`), made if needed; `InputError` if it is not writable."""
        self.folder = default_cache_dir() if folder is None else Path(folder).expanduser().absolute()
        try:
            (self.folder / "results").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder / "results"):
                pass
        except OSError as error:
            raise InputError(
                f"cache folder {self.folder}: expected a folder that can be written ({error.strerror}); "
                "set AIMCARD_CACHE to one"
            ) from None

    def path(self, deck_hash: str) -> Path:
        """The file that holds, or would hold, a deck's result."""
        return self.folder / "results" / f"{deck_hash}.waves"

    def load(self, deck_hash: str) -> Waveforms | None:
        """The stored result; None if there is none or its file is damaged (the deck is then run again)."""
        try:
            head, _, body = self.path(deck_hash).read_bytes().partition(b"\n")
        except OSError:
            return None
        if head != _head(deck_hash, body):
            return None
        with np.load(io.BytesIO(body), allow_pickle=False) as stored:
            return Waveforms(
                names=tuple(str(name) for name in stored["names"]),
                scale_name=str(stored["scale_name"]),
                scale=stored["scale"],
                values=stored["values"],
                deck_hash=deck_hash,
                simulator=str(stored["simulator"]),
            )

    def store(self, waves: Waveforms) -> None:
        """Write a result; whoever reads sees all of it or nothing."""
        archive = io.BytesIO()
        np.savez(
            archive,
            names=np.array(waves.names, dtype=np.str_),
            scale_name=np.array(waves.scale_name),
            scale=waves.scale,
            values=waves.values,
            simulator=np.array(waves.simulator),
        )
        body = archive.getvalue()
        target = self.path(waves.deck_hash)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".writing-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_head(waves.deck_hash, body) + b"\n" + body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _head(deck_hash: str, body: bytes) -> bytes:
    return f"{_MAGIC} {deck_hash} {hashlib.sha256(body).hexdigest()}".encode()
