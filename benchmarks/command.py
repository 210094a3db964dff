"""How the programs of this folder talk to a shell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from semiseg.engine.commands.options import called
from semiseg.pipelines.errors import UsageError


def run(main: Callable[..., int | None]) -> None:
    """Calls `main` with the command line's values, and exits with what it returns; with 2, and a line, where a user can
    mend something."""
    try:
        sys.exit(called(main, sys.argv[1:], Path(sys.argv[0]).name))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
