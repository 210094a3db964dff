"""Whether the result of a kind is the one that is defined, found by the library: doctor, preparation, what training
and prediction see."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from semiseg.pipelines.datasets import find_dataset, prepare, resolve_split, seen
from semiseg.pipelines.datasets.doctor import diagnose
from semiseg.pipelines.datasets.manifest import Manifest
from semiseg.pipelines.decode import COLOUR, read
from semiseg.pipelines.errors import UsageError

from .kind import Kind

LONGEST_LINE = 2000
"""Characters; a name of a file may take some of them."""


class Outcome(NamedTuple):
    """What became of a function that ran in a process of its own."""

    value: Any
    """None where there is none: see `end`."""
    end: str
    """How the process ended, where it did not end well: nothing, a signal, out of time, a traceback."""
    megabytes: int
    """Most that was resident."""


def apart(function: Callable[[], Any], seconds: float = 60, gigabytes: float = 4) -> Outcome:
    """Runs a function in a fork of this process, within limits; its value goes through JSON."""
    begun = time.monotonic()
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        _answer(function, theirs, gigabytes)
    os.close(theirs)
    answer, late = b"", False
    while not late:
        late = not select.select([ours], [], [], max(0, begun + seconds - time.monotonic()))[0]
        part = b"" if late else os.read(ours, 2**16)
        if not part:
            break
        answer += part
    if late:
        os.kill(child, signal.SIGKILL)
    os.close(ours)
    _, status, used = os.wait4(child, 0)
    end = f"still runs after {seconds:.0f} s" if late else ""
    if os.WIFSIGNALED(status) and not late:
        end = f"died of signal {os.WTERMSIG(status)}"
    value = json.loads(answer) if answer and not end else {}
    return Outcome(value.get("value"), end or value.get("trace", ""), used.ru_maxrss // 1024)


def _answer(function: Callable[[], Any], pipe: int, gigabytes: float) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 2**30),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer = {"value": function()}
    except BaseException:
        answer = {"trace": traceback.format_exc()}
    with os.fdopen(pipe, "w") as file:
        json.dump(answer, file)
    os._exit(0)


def judged(kind: Kind, root: Path, cache: Path) -> list[str]:
    """What is not as defined."""
    arguments = {"layout": "folder", "root": root, **kind.options}
    report = diagnose(arguments, threads=1)
    lines = list(report.lines())
    try:
        dataset = find_dataset(**arguments)
        resolve_split("all", dataset)
        manifest = prepare(dataset, cache=cache, threads=1)
        refused = manifest.doubts[0] if manifest.doubts else None
    except UsageError as error:
        refused = str(error)
    if report.ok != (refused is None):
        return [f"doctor says {'ready' if report.ok else 'not ready'}, preparation: {refused or 'ready'}"]
    if refused is not None:
        faults = [] if kind.refused else ["refused"]
        faults += [] if (kind.refused or "").lower() in refused.lower() else [f"does not say {kind.refused!r}"]
        faults += [] if "\n" not in refused and len(refused) < LONGEST_LINE else ["is no line"]
        return [f"{'; '.join(faults)}: {refused[:400]}"] if faults else []
    if kind.refused:
        return [f"is used, should say {kind.refused!r}; notes: {' | '.join((*dataset.notes, *manifest.notes))}"]
    return [*_as_used(kind, manifest), *(["doctor prints a line of many"] if any("\n" in one for one in lines) else [])]


def _as_used(kind: Kind, manifest: Manifest) -> Iterator[str]:
    dataset = manifest.dataset
    notes = " | ".join((*dataset.notes, *manifest.notes))
    if kind.noted and kind.noted not in notes:
        yield f"no note says {kind.noted!r}: {notes}"
    for name, ids in (("train", kind.train), ("val", kind.val)):
        found = [sample.id for sample in getattr(dataset, name)]
        if ids is not None and found != sorted(ids):
            yield f"{name} is {found}, should be {sorted(ids)}"
    if kind.classes is not None and dataset.classes != tuple(kind.classes):
        yield f"the classes are {dataset.classes}, should be {kind.classes}"
    samples = {sample.id: sample for sample in (*dataset.train, *dataset.val, *dataset.extra)}
    if kind.id not in samples:
        yield f"{kind.id!r} is not there"
        return
    picture, mask = seen(manifest, kind.id)
    if kind.picture is not None:
        if picture.shape != kind.picture.shape:
            yield f"the picture is {picture.shape}, should be {kind.picture.shape}"
        elif (distance := np.abs(picture.astype(float) - kind.picture).mean()) > kind.within:
            yield f"the picture is {distance:.2f} levels away on average"
    if kind.mask is not None and not (mask is not None and np.array_equal(mask, kind.mask)):
        yield f"the mask differs: {None if mask is None else np.unique(mask).tolist()}"
    if kind.picture is not None and kind.mask is None and mask is not None:
        yield "there is a mask"
    source = samples[kind.id].image
    predicted = read(source, COLOUR, reading=dataset.reading)
    if not manifest.survey.stored and not np.array_equal(predicted, picture):
        yield "prediction sees other pixels"
