"""`semiseg doctor`."""

from __future__ import annotations

import sys
from pathlib import Path

from ...pipelines.datasets.doctor import diagnose
from .. import console
from ..events import progress_of
from ..flags import Told
from .options import Flat, Source, emit


def doctor(
    *, source: Flat[Source] = Source(), split: str | None = None, lists: Told[Path | None] = None, json: bool = False
) -> None:
    """Say whether a data set can be trained on, and what to mend. Writes nothing.

    Args:
        source: Which data set.
        split: The split to look at as well, as `train` takes it.
        lists: Folder with your copies of the published lists (default: $SEMISEG_LISTS).
        json: Print one JSON document.
    """
    with console.listening() as listener:
        report = diagnose(source.arguments(), split=split, lists=lists, on_progress=progress_of("looking", listener))
    if json:
        emit(report.to_dict())
    else:
        for line in report.lines():
            console.say(line)
    if not report.ok:
        sys.exit(2)
