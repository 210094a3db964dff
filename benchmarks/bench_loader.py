"""Images a second of the loader against a DataLoader as the published programs have it.

    python benchmarks/bench_loader.py [--data VOC_ROOT] [--json] [--rounds 4] [--seconds 5] [--results FILE]

`plain` resizes whole images with Pillow and augments with torchvision, Pillow and OpenCV in two worker processes, as
the data sets of CAC do; `host`, `dali` (CPU operators) and `resident` are this project's backends with two threads.
All read files that the system has cached, keep nothing themselves but `resident` its pack, and end in normalised
float32 batches on the CPU. They take turns on the same two cores; rates are medians over the rounds, ratios medians of
the ratios within a round.
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from json import dumps
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import command
import measurement
import rowfile
from published_way import images
from published_way.images import FILL, MEAN, STD, LabeledImages, Pairs
from semiseg.engine.environment import environment
from semiseg.pipelines.backends import open_backend
from semiseg.pipelines.datasets import find_dataset, prepare, shapes
from semiseg.pipelines.datasets.manifest import Record, sizes_of
from semiseg.pipelines.errors import fault_unless, raise_faults
from semiseg.pipelines.loader import Loader
from semiseg.pipelines.plan import Planner
from semiseg.pipelines.views import Augmentation, Drawing, ViewSpec

CROP, BATCH, THREADS = 320, 8, 2
LABELED = Augmentation()
PAIRS = Augmentation(range=(0.8, 2.0), jitter=0.8, gray=0.2, blur=0.5)
WARM_UP = 16  # batches: more than any loader holds ready
CPU = torch.device("cpu")


@contextmanager
def plain(records: Sequence[Record], kind: str) -> Iterator[Iterator]:
    dataset, augmentation = (Pairs, PAIRS) if kind == "pairs" else (LabeledImages, LABELED)
    yield images.loader(dataset(records, augmentation, CROP), BATCH, THREADS)


@contextmanager
def ours(records: Sequence[Record], kind: str, backend: str) -> Iterator[Iterator]:
    pairs, everything = kind == "pairs", range(len(records))
    drawing = Drawing(
        views=ViewSpec(unlabeled="pair" if pairs else "none"),
        crop=CROP,
        batch=0 if pairs else BATCH,
        unlabeled_batch=BATCH,
        labeled=LABELED,
        unlabeled=PAIRS,
        seed=0,
        fill=FILL,
    )
    planner = Planner(sizes_of(records), everything, everything, drawing)
    opened = open_backend(backend, records, CPU, THREADS, say=partial(print, file=sys.stderr))
    loader = Loader([planner], opened, CPU, 0, sys.maxsize, mean=MEAN, std=STD)
    try:
        yield iter(loader)
    finally:
        loader.close()


LOADERS = {"plain": plain} | {name: partial(ours, backend=name) for name in ("host", "dali", "resident")}
KINDS = {"labeled": "labeled_images_per_s", "pairs": "pairs_per_s"}


def rate(loader, records: Sequence[Record], kind: str, seconds: float) -> float:
    with loader(records, kind) as batches:
        for _ in range(WARM_UP):
            next(batches)
        count, elapsed, start = 0, 0.0, time.perf_counter()
        while elapsed < seconds:
            next(batches)
            count, elapsed = count + 1, time.perf_counter() - start
    del batches
    gc.collect()  # worker processes and buffers of one loader must not disturb the next
    return count * BATCH / elapsed


def measure(records: Sequence[Record], rounds: int, seconds: float) -> dict[str, Any]:
    rates = {name: {kind: [] for kind in KINDS} for name in LOADERS}
    for number, kind, name in itertools.product(range(rounds), KINDS, LOADERS):
        rates[name][kind].append(rate(LOADERS[name], records, kind, seconds))
        print(f"round {number + 1}: {name} {kind} {rates[name][kind][-1]:.0f}/s", file=sys.stderr)
    result: dict[str, Any] = {
        name: {key: round(median(rates[name][kind]), 1) for kind, key in KINDS.items()} for name in LOADERS
    }
    result["ratio_to_plain"] = {
        name: {
            kind: round(median(own / base for own, base in zip(rates[name][kind], rates["plain"][kind])), 2)
            for kind in KINDS
        }
        for name in LOADERS
        if name != "plain"
    }
    result["rounds"] = {
        name: {k: [round(r, 1) for r in rs] for k, rs in kinds.items()} for name, kinds in rates.items()
    }
    return result


def main(
    data: Path | None = None,
    json: bool = False,
    rounds: int = 4,
    seconds: float = 5.0,
    results: Path | None = None,
) -> None:
    """Compare loaders on the training images of a VOC tree.

    Args:
        data: any root of Pascal VOC 2012 (default: the embedded data set).
        json: print one JSON document instead of a table.
        rounds: how often the loaders take turns.
        seconds: how long each is measured in a round, after a warm-up.
        results: CSV file that rows are appended to.
    """
    faults = fault_unless(rounds >= 1, "--rounds", "must be at least 1", rounds)
    raise_faults(faults + fault_unless(seconds > 0, "--seconds", "must be above 0", seconds))
    rowfile.appendable(results)
    prepared = prepare(find_dataset("voc", data or shapes.find().root)).records.values()
    records = [record for record in prepared if record.mask]
    with two_cores():
        result = measure(records, rounds, seconds)
    result["settings"] = {
        "crop": CROP,
        "batch": BATCH,
        "threads": THREADS,
        "images": len(records),
        "rounds": rounds,
        "seconds": seconds,
    }
    result["environment"] = environment()
    if json:
        print(dumps(result, indent=1))
    else:
        table(result)
    if results:
        append(result, results)


def append(result: dict[str, Any], path: Path) -> None:
    """A row for each loader and kind: medians, and the machine that they were measured on."""
    settings = {name: result["settings"][name] for name in ("crop", "batch", "images", "rounds", "seconds")}
    about = measurement.machine(CPU) | settings | {"threads": THREADS}
    rows = [
        {"date": measurement.now(), **about}
        | {"loader": name, "kind": kind, "rate": result[name][key]}
        | {"ratio_to_plain": result["ratio_to_plain"].get(name, {}).get(kind, 1.0)}
        for kind, key in KINDS.items()
        for name in LOADERS
    ]
    rowfile.append(rows, path)


def table(result: dict[str, Any]) -> None:
    table = Table("loader", "labelled images/s", "pairs/s", "labelled / plain", "pairs / plain")
    for name in LOADERS:
        ratios = result["ratio_to_plain"].get(name, dict.fromkeys(KINDS, 1.0))
        rates = [f"{result[name][key]:.0f}" for key in KINDS.values()]
        table.add_row(name, *rates, *(f"{ratios[kind]:.2f}" for kind in KINDS))
    Console().print(table)


@contextmanager
def two_cores() -> Iterator[None]:
    """Everything runs on as many cores as a loader has threads, whatever else it starts; torch takes one of them."""
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        if cores:
            os.sched_setaffinity(0, sorted(cores)[:THREADS])
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)
        if cores:
            os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    command.run(main)
