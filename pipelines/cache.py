"""Where prepared data sets are kept."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UsageError


def cache_root() -> Path:
    """`$SEMISEG_CACHE`, or `semiseg` in the user's cache folder. Raises UsageError for a user without a home."""
    own = os.environ.get("SEMISEG_CACHE")
    try:
        return Path(own or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / ("" if own else "semiseg")
    except RuntimeError:
        raise UsageError("the cache: this user has no home folder; set SEMISEG_CACHE to a folder of its own") from None
