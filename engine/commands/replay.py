"""`semiseg replay`."""

from __future__ import annotations

import sys
from pathlib import Path

from ...pipelines.errors import some_of
from .. import console
from ..flags import Told
from ..training.replay import Repeat, Replay
from ..training.replay import replay as replay_run
from .options import Positional, emit

SHOWN = 8
"""Ids of a stream that are told."""


def replay(
    run: Positional[Path], /, *, data: Told[Path | None] = None, device: Told[str | None] = None, json: bool = False
) -> None:
    """Find the step at which a run stopped being finite, and the operation.

    The steps after the newest save are made again until a loss, a gradient or a weight is not finite; then that very
    step in the run's precision, in float32 and in float64. Writes nothing into the run's folder. Exits with 1 where
    such a step is found, with 0 where all are finite.

    Args:
        run: The run's folder.
        data: Root of the data set (default: the run's).
        device: auto, cpu, cuda or cuda:N (default: the run's).
        json: Print one JSON document.
    """
    with console.listening() as listener:
        found = replay_run(run, listener, data=data, device=device)
    if json:
        emit(found.to_dict())
    else:
        show(run, found)
    if found.what:
        sys.exit(1)


def show(run: Path, found: Replay) -> None:
    """In lines and a table."""
    if found.what is None:
        console.say(f"{run}: everything is finite from the save at step {found.save} to step {found.last}")
        return
    console.say(f"{run}: not finite at step {found.last}, after the save of step {found.save}: {found.what}")
    for number, ids in enumerate(found.images):
        kind = "unlabelled" if number else "labelled"
        console.say(f"{kind} images of the step: {some_of(ids, SHOWN)}")
    columns = ["precision", "loss", "first that is not finite", "gradients that are not"]
    console.table(f"step {found.last} again", columns, [row(one) for one in found.repeats])
    console.say(advice(found))


def row(repeat: Repeat) -> list[str]:
    """A row of the table."""
    loss = f"{repeat.losses['loss']:.6g}" if repeat.losses else ""
    gradients = f"{len(repeat.gradients)}, {repeat.gradients[0]} first" if repeat.gradients else "0"
    return [repeat.precision, loss, repeat.problem or repeat.first or "none", "" if repeat.problem else gradients]


def advice(found: Replay) -> str:
    """What follows from it."""
    own, *_ = found.repeats
    if own.finite:
        return "losses and gradients are finite, the update of the weights is not: train again with a lower --lr"
    if found.cure == "fp32":
        return "fp32 has it finite: train again with --precision fp32"
    if found.cure:
        return f"only {found.cure} has it finite, which does not train: the values are too large; lower --lr"
    return "no precision has it finite: lower --lr, and look at the images with `semiseg show`"
