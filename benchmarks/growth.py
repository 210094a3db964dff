"""What grows while a run trains: memory, descriptors, threads.

    python benchmarks/growth.py [--method cac] [--backend host] [--steps 5000] [--results FILE]

A small run that saves and evaluates over and over is looked at with each log line. Of the memory the slope is told: the
median of those between all pairs of moments, to which a single jump of the allocator is nothing; of descriptors and
threads how many more there are at least in the second half than in the first. The first quarter, in which caches fill,
does not count. Exits with 1 where something grows.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from rich.console import Console

import command
import measurement
import rowfile
import small_run
from semiseg.engine.events import Event
from semiseg.engine.recipe import Recipe

MOST = 1024
"""Bytes a step: a window of 32 pixels in the square that is kept is three times that."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What this process holds after a step."""

    step: int
    memory: int
    """Resident bytes."""
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Growth:
    """Of a run."""

    memory_mib: float
    """At the end."""
    bytes_a_step: float
    descriptors: int
    threads: int


def main(method: str = "cac", backend: str = "host", steps: int = 5000, results: Path | None = None) -> int:
    """Train a small run and tell what grows.

    Args:
        method: of the run.
        backend: which reads its images.
        steps: of the run.
        results: CSV file that a row is appended to.
    """
    rowfile.appendable(results)
    with tempfile.TemporaryDirectory() as folder:
        small_run.draw(Path(folder) / "data")
        recipe = small_run.small(method, Path(folder) / "data", Path(folder) / "run", backend=backend)
        every = max(steps // 100, 1)
        found = growth(
            watched(recipe.replace(steps=steps, log_every=every, eval_every=5 * every, save_every=f"{every}"))
        )
    row = {"date": measurement.now(), **measurement.machine(torch.device("cpu"))}
    row |= {"method": method, "backend": backend, "steps": steps, "memory_mib": round(found.memory_mib, 1)}
    row |= {"bytes_a_step": round(found.bytes_a_step)}
    row |= {"more_descriptors": found.descriptors, "more_threads": found.threads}
    Console().print(row)
    if results:
        rowfile.append([row], results)
    return int(found.bytes_a_step > MOST or found.descriptors > 0 or found.threads > 0)


def watched(recipe: Recipe) -> list[Moment]:
    """Trains, and looks at this process with each log line."""
    moments: list[Moment] = []

    def look(event: Event) -> None:
        if event.kind == "log":
            moments.append(moment(event.done))

    small_run.train_thin(recipe, look)
    return moments


def moment(step: int) -> Moment:
    """Now, after a step."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    descriptors, threads = (len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task"))
    return Moment(step, pages * os.sysconf("SC_PAGE_SIZE"), descriptors, threads)


def growth(moments: Sequence[Moment]) -> Growth:
    """Over at least 8 moments."""
    settled = moments[len(moments) // 4 :]
    first, second = settled[: len(settled) // 2], settled[len(settled) // 2 :]
    slopes = [(b.memory - a.memory) / (b.step - a.step) for a, b in itertools.combinations(settled, 2)]
    return Growth(
        memory_mib=moments[-1].memory / 2**20,
        bytes_a_step=median(slopes),
        descriptors=min(one.descriptors for one in second) - min(one.descriptors for one in first),
        threads=min(one.threads for one in second) - min(one.threads for one in first),
    )


if __name__ == "__main__":
    command.run(main)
