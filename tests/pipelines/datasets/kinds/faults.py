"""The kinds whose result is not the defined one, as JSON: `python -m kinds.faults [PATTERN]`."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import KINDS, make
from .judge import apart, judged

MEGABYTES = 4096


def faults(pattern: str) -> Iterator[tuple[str, list[str]]]:
    """Names, and what is wrong."""
    for name, kind in KINDS.items():
        if not re.search(pattern, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            root = make(home, name)
            outcome = apart(lambda root=root, kind=kind, home=home: judged(kind, root, home / "cache"))
        wrong = [outcome.end] if outcome.end else outcome.value
        if outcome.megabytes > MEGABYTES:
            wrong = [*wrong, f"needs {outcome.megabytes} MB"]
        if wrong:
            yield name, wrong


if __name__ == "__main__":
    print(json.dumps(dict(faults(sys.argv[1] if len(sys.argv) > 1 else "")), indent=1))
