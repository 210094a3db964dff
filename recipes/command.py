"""Where `semiseg` starts: above the engine, which cannot be imported where packages that it needs are missing."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

from semiseg.pipelines.errors import MissingPackages

EXTENSIONS = "semiseg.extensions"
"""Entry points of other packages: modules that add methods, encoders and layouts, loaded with every command."""


def main() -> None:
    """Entry point of `semiseg`. Exits as `semiseg.engine.commands.main` does, and with 2, after one line that says what
    to install, where packages are missing."""
    try:
        for extension in entry_points(group=EXTENSIONS):
            extension.load()
        from semiseg.engine.commands.main import main as run
    except MissingPackages as error:
        print(f"semiseg: {error}", file=sys.stderr)
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
