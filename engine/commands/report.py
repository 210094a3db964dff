"""`semiseg report`."""

from __future__ import annotations

from pathlib import Path

from .. import console
from ..report import write_report
from .options import Positional


def report(run: Positional[Path], /) -> None:
    """Write a run's report.html again.

    Args:
        run: The run's folder.
    """
    console.say(f"report: {write_report(run)}")
