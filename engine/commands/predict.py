"""`semiseg predict`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from .. import api, console
from ..protocol import ProtocolName
from ..recipe import LayoutName, Pictures
from .options import Flat, Judging, Positional, Running, emit


def predict(
    checkpoint: Positional[Path],
    images: Positional[Path],
    /,
    *,
    layout: LayoutName | None = None,
    out: Path | None = None,
    protocol: ProtocolName | None = None,
    files: Pictures = Pictures(),
    judging: Flat[Judging] = Judging(),
    running: Flat[Running] = Running(),
) -> None:
    """Segment a folder of images: index masks, coloured masks and overlays.

    Exits with 3 where some of the files cannot be read; they are listed, and all others are done.

    Args:
        checkpoint: A run's folder (its best checkpoint), a checkpoint file, or a published file of CAC, CPS, UniMatch
            or UniMatch V2; also as --init FILE.
        images: A folder of images, or one image.
        layout: Of a published file: the data set whose colours and protocol are taken (default: by its number of
            classes: 21 voc, 19 cityscapes, else folder).
        out: Folder for masks/, colours/ and overlays/ (default: predictions/ beside the checkpoint's run).
        protocol: How images are put before the network (default: the recipe's).
        files: How pictures are read (default: as in the training).
        judging: How the network looks at images.
        running: Where the network computes, and what is printed.
    """
    with console.listening() as listener:
        done = api.predict(
            checkpoint,
            images,
            out,
            layout=layout,
            protocol=protocol,
            files=asdict(files),
            device=running.device,
            precision=running.precision,
            on_event=listener,
            **judging.settings(),
        )
    folder = done.out
    console.say(f"{done.images} images: {folder}/masks, {folder}/colours, {folder}/overlays")
    for reason in done.failed.values():
        print(f"semiseg: {reason}", file=sys.stderr)
    if running.json:
        emit({"out": str(folder), "images": done.images, "failed": [str(path) for path in done.failed]})
    if done.failed:
        sys.exit(3)
