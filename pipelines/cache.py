"""Where prepared data sets are kept."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from .errors import UsageError


def cache_root() -> Path:
    """`$SEMISEG_CACHE`, or `semiseg` in the user's cache folder. Raises UsageError for a user without a home."""
    own = os.environ.get("SEMISEG_CACHE")
    try:
        return Path(own or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / ("" if own else "semiseg")
    except RuntimeError:
        raise UsageError("the cache: this user has no home folder; set SEMISEG_CACHE to a folder of its own") from None


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write beside the target and rename, so that no reader and no other process ever sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{uuid.uuid4().hex}")  # not tempfile's, which nobody else could read
        try:
            with partial.open("xb") as file:
                file.write(content)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot write to the cache {path.parent} ({reason}): set SEMISEG_CACHE elsewhere") from None
