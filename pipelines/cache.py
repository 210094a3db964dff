"""Where prepared data sets are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """`$SEMISEG_CACHE`, or `semiseg` in the user's cache folder."""
    if own := os.environ.get("SEMISEG_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "semiseg"
