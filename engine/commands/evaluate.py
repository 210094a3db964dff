"""`semiseg evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .. import api, console
from ..evaluation.inference import Part
from ..evaluation.scores import percent
from ..flags import Told
from ..protocol import PROTOCOLS, Absent
from .options import Flat, Judging, Positional, Running, Source, either, emit

COLUMNS = {"iou": "IoU %", "class_precision": "precision %", "recall": "recall %", "dice": "Dice %"}
"""Of the table, by the keys of the document."""
FIRST = tyro.conf.create_mutex_group(required=False, title="class 0")


def evaluate(
    checkpoint: Positional[Path],
    /,
    *,
    source: Flat[Source] = Source(),
    part: Part = "val",
    protocol: Told[tuple[Literal[tuple(PROTOCOLS)], ...] | None] = None,  # type: ignore[valid-type]
    judging: Flat[Judging] = Judging(),
    absent: Told[Absent | None] = None,
    background: Told[Annotated[bool, FIRST]] = False,
    no_background: Annotated[bool, FIRST] = False,
    batch: int | None = None,
    out: Told[Path | None] = None,
    running: Flat[Running] = Running(),
) -> None:
    """Score a checkpoint on images with masks: mIoU, IoU, precision, recall and Dice of each class, pixel accuracy.

    Args:
        checkpoint: A run's folder (its best checkpoint), a checkpoint file, or a published file of CAC, CPS, UniMatch,
            UniMatch V2 or U2PL.
        source: Which data set.
        part: Its images for validation (without a list those that the training held out, and of other data all with
            masks that did not teach the run), those that a list or folder for testing names, or all that have masks.
        protocol: One or several, from one pass over the data (default: the recipe's).
        judging: How the network looks at images.
        absent: Scores of a class that neither truth nor prediction holds: zero, or skip it (default: the protocol's).
        background: Class 0 counts in the means (default: as the recipe has it).
        no_background: Class 0 does not count in the means.
        batch: Images or windows evaluated together.
        out: Folder for scores.csv (a row a class), images.csv (a row an image, the worst first) and confusion.csv; of
            several protocols, for a folder of each.
        running: Where the network computes, and what is printed.
    """
    with console.listening() as listener:
        shown = api.evaluate(
            checkpoint,
            source.data,
            layout=source.layout,
            files=asdict(source.files),
            part=part,
            protocol=protocol,
            out=out,
            device=running.device,
            precision=running.precision,
            on_event=listener,
            absent=absent,
            background=either(background, no_background),
            batch=batch,
            **judging.settings(),
        )
    for scores in shown.get("protocols", {shown["protocol"]: shown}).values():
        rows = [[name, *(percent(scores[key][name]) for key in COLUMNS)] for name in scores["classes"]]
        title = f"{checkpoint}: {scores['protocol']}, {scores['images']} images"
        console.table(title, ["class", *COLUMNS.values()], rows)
        means = f"mIoU {percent(scores['miou'])} %, mean Dice {percent(scores['mdice'])} %"
        console.say(f"{means}, pixel accuracy {percent(scores['pixel_accuracy'])} %")
    if out:
        console.say(f"tables: {out}")
    if running.json:
        emit(shown)
