"""`semiseg predict`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from ...pipelines.datasets.files import PREDICTED
from ...pipelines.datasets.layouts import LAYOUTS
from .. import api, console
from ..evaluation.confidence import UNKNOWN
from ..flags import Told
from ..protocol import PROTOCOLS
from ..recipe import ReadingOptions
from .options import Flat, Judging, Positional, Running, emit

HANDFUL = 5
"""Images among which nobody needs a hint."""
NAMED = 3
"""Images that are worth labelling next and named at the end."""


def predict(
    checkpoint: Positional[Path],
    images: Positional[Path],
    /,
    *,
    layout: Told[Literal[tuple(LAYOUTS)] | None] = None,  # type: ignore[valid-type]
    out: Told[Path | None] = None,
    protocol: Told[Literal[tuple(PROTOCOLS)] | None] = None,  # type: ignore[valid-type]
    write: tuple[Literal[PREDICTED], ...] = PREDICTED,  # type: ignore[valid-type]
    files: ReadingOptions = ReadingOptions(),
    judging: Flat[Judging] = Judging(),
    running: Flat[Running] = Running(),
) -> None:
    """Segment a folder of images: masks, coloured masks, overlays, and which images it is least sure of.

    These are listed in confidence.csv, and the first ones shown in review.html. They are worth labelling next, by a
    heuristic: a network can be sure and wrong. Exits with 3 where some files cannot be read or are too large for the
    memory; they are listed, and all others are done.

    Args:
        checkpoint: A run's folder (its best checkpoint), a checkpoint file, or a published file of CAC, CPS, UniMatch,
            UniMatch V2 or U2PL.
        images: A folder of images, or one image.
        layout: Of a published file: the data set whose colours and protocol are taken (default: by its number of
            classes: 21 voc, 19 cityscapes, else folder).
        out: Folder for masks/, colours/, overlays/, confidence.csv and review.html (default: predictions/ beside
            the checkpoint's run).
        protocol: How images are put before the network (default: the recipe's).
        write: Pictures that are written for each image; without any name none is, and the list and the page alone
            tell of them.
        files: How pictures are read (default: as in the training).
        judging: How the network looks at images.
        running: Where the network computes, and what is printed.
    """
    try:
        with console.listening() as listener:
            done = api.predict(
                checkpoint,
                images,
                out,
                layout=layout,
                protocol=protocol,
                files=asdict(files),
                write=write,
                device=running.device,
                precision=running.precision,
                on_event=listener,
                **judging.settings(),
            )
    except KeyboardInterrupt:
        said = "interrupted; what was written stays, and the same command makes all of it"
        raise api.Stopped(signal.SIGINT, said) from None
    for line in _told(done, write):
        console.say(line)
    for reason in done.failed.values():
        print(f"semiseg: {reason}", file=sys.stderr)
    if running.json:
        emit(done.to_dict())
    if done.failed:
        sys.exit(3)


def _told(done: api.Predictions, write: Collection[str]) -> Iterator[str]:
    """Where the pictures are, and which images are worth labelling next."""
    written = ", ".join(f"{done.out}/{kind}" for kind in PREDICTED if kind in write) or done.out
    yield f"{done.images} image{'' if done.images == 1 else 's'}: {written}"
    bare = [one.image for one in done.confidences if one.mask in ("", UNKNOWN)]
    if done.images > HANDFUL and bare:
        yield f"worth labelling next: {', '.join(bare[:NAMED])}; look at {done.page}, all are in {done.table}"
