"""`semiseg export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...pipelines.datasets.layouts import LAYOUTS
from .. import api, console
from ..evaluation.formats import FormatName
from ..flags import Told
from ..protocol import PROTOCOLS
from .options import Flat, Judging, Positional, emit


def export(
    checkpoint: Positional[Path],
    /,
    *,
    layout: Told[Literal[tuple(LAYOUTS)] | None] = None,  # type: ignore[valid-type]
    out: Told[Path | None] = None,
    size: Told[tuple[int, int] | None] = None,
    format: FormatName = "pt2",
    protocol: Told[Literal[tuple(PROTOCOLS)] | None] = None,  # type: ignore[valid-type]
    judging: Flat[Judging] = Judging(),
    json: bool = False,
) -> None:
    """Write one file, the network as a program, that runs without semiseg.

    For images of one size it gives what predict gives. Exits with 1 if it does not, and leaves no file.

    Args:
        checkpoint: A run's folder (its best checkpoint), a checkpoint file, or a published file of CAC, CPS, UniMatch,
            UniMatch V2 or U2PL.
        layout: Of a published file: the data set whose colours and protocol are taken (default: by its number of
            classes: 21 voc, 19 cityscapes, else folder).
        out: The file (default: beside the checkpoint's run, with the checkpoint's name).
        size: Height and width of the images, in pixels (default: the crop, or the recipe's windows).
        format: pt2 is read by torch.export.load; onnx by onnxruntime and others, and needs the extra onnx.
        protocol: How images are put before the network (default: the recipe's).
        judging: How the network looks at images.
        json: Print one JSON document.
    """
    with console.listening() as listener:
        made = api.export(
            checkpoint,
            out,
            size=size,
            format=format,
            layout=layout,
            protocol=protocol,
            on_event=listener,
            **judging.settings(),
        )
    height, width = made.size
    console.say(f"{made.path}: (1, {height}, {width}, 3) uint8 RGB -> (1, {height}, {width}) uint8, {made.protocol}")
    console.say(
        f"check: {100 * made.differing:.4f} % of the pixels differ from predict, "
        f"{made.seen} of {len(made.classes)} classes met"
    )
    if json:
        emit(made.to_dict())
