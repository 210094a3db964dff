"""Where `semiseg` starts: above the engine, which cannot be imported where packages that it needs are missing."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

from semiseg.pipelines.errors import MissingPackages

EXTENSIONS = "semiseg.extensions"
"""Entry points of other packages: modules that add methods, encoders and layouts, loaded with every command."""


def main() -> None:
    """Entry point of `semiseg`. Exits as `semiseg.engine.commands.main` does, and with 2, after one line that says what
    to install or to mend, where packages are missing or an extension fails."""
    for extension in entry_points(group=EXTENSIONS):
        try:
            extension.load()
        except Exception as error:
            told = f"the extension {extension.name} ({extension.value}) cannot be loaded ({error})"
            print(f"semiseg: {told}; mend it, or uninstall its package", file=sys.stderr)
            sys.exit(2)
    try:
        from semiseg.engine.commands.main import main as run
    except MissingPackages as error:
        print(f"semiseg: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # importing takes seconds
        print("semiseg: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
