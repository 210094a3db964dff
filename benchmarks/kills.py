"""Kills small runs with SIGKILL, over and over, goes on with --resume, and compares what they end with to the end of
the same run that nobody killed.

    python benchmarks/kills.py [--kills 1000] [--processes 2] [--results FILE]

Half of the kills come at a random time; the others at a random one of the calls with which files are made safe and take
their places, half of these behind a file of which only the first half reached the disk. Of several processes, which
share their batches as under torchrun, one is killed, or all are. Each run that is done adds a row to the results, so a
program that is stopped goes on where it was.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import command
import measurement
import rowfile
from semiseg.engine.methods import METHODS
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.outcome import differences, outcome
from small_run import draw, small, start, train_thin

BACKENDS = ["host", "dali", "resident"]
MOST = 40
"""Kills after which a run is left alone."""
CALLS = 25
"""Calls, from the start of a process, among which one is chosen."""


def main(kills: int = 1000, seed: int = 0, processes: int = 1, results: Path = rowfile.RESULTS / "kills.csv") -> int:
    """Kills runs of so many processes until so many kills of such runs stand in the results."""
    kinds = list(itertools.product(BACKENDS, METHODS))
    expected: dict[tuple[str, str], tuple[dict[str, Any], float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        draw(home / "data")
        number = len(rowfile.rows_of(results))
        while recorded(results, processes) < kills:
            kind = backend, method = kinds[number % len(kinds)]
            recipe = small(method, home / "data", home / f"{number}", processes, backend)
            if kind not in expected:
                began = time.perf_counter()
                undisturbed = recipe.replace(out=home / backend / method)
                start(train_thin, undisturbed, count=processes).join()
                expected[kind] = outcome(undisturbed.runtime.out), time.perf_counter() - began
            end, seconds = expected[kind]
            counts = kill_until_done(recipe, random.Random(f"{seed} {number}"), seconds, processes)
            wrong = differences(outcome(recipe.runtime.out), end)
            row = {"date": measurement.now(), **measurement.machine(torch.device("cpu"))}
            row |= {"method": method, "backend": backend, "processes": processes}
            row |= {"steps": recipe.steps, "kills": counts.total()}
            row |= {kind: counts[kind] for kind in ("timed", "placed", "torn")} | {"different": " ".join(wrong)}
            rowfile.append([row], results)
            number += 1
            shutil.rmtree(recipe.runtime.out)
            wrong = f"{len(wrong)} differences {' '.join(wrong)}"
            print(f"{method}, {backend}: {dict(counts)}, {wrong}; {recorded(results, processes)} in all")
    return int(any(row["different"] for row in rowfile.rows_of(results)))


def recorded(path: Path, processes: int = 1) -> int:
    """Kills so far, of runs of so many processes."""
    return sum(int(row["kills"]) for row in rowfile.rows_of(path) if int(row["processes"]) == processes)


def kill_until_done(recipe: Recipe, random_numbers: random.Random, seconds: float, processes: int = 1) -> Counter[str]:
    """Trains to the end with a kill in each try, and returns how many there were of each kind. seconds: how long the
    run takes that nobody kills. Raises RuntimeError where a try ends otherwise."""
    counts: Counter[str] = Counter()
    while not (recipe.runtime.out / "result.json").exists():
        begun = (recipe.runtime.out / "recipe.json").exists()
        going_on = recipe.replace(resume=begun)
        kind = random_numbers.choice(("timed", "timed", "placed", "torn")) if counts.total() < MOST else "none"
        if kind in ("timed", "none"):
            started = start(train_thin, going_on, count=processes)
            started.join(random_numbers.uniform(0, seconds / 2) if kind == "timed" else None)
            started.kill(random_numbers.choice([*range(processes), None]))
        else:
            started = start(train_and_die, going_on, random_numbers.randrange(CALLS), kind == "torn", count=processes)
        started.join()
        if started.exitcode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"after {dict(counts)} kills the run ended with {started.exitcode}")
        counts[kind] += started.exitcode != 0
    return counts


def train_and_die(recipe: Recipe, calls: int, torn: bool) -> None:
    """Trains, and kills itself in place of one of the calls of os.fsync and os.replace. torn: where it is the fsync of
    a new file, only half of that has reached the disk."""

    def dying(function: Callable) -> Callable:
        def call(*arguments: Any) -> None:
            nonlocal calls
            if calls == 0:
                if torn and function is fsync:
                    halve(f"/proc/self/fd/{arguments[0]}")
                os.kill(os.getpid(), signal.SIGKILL)
            calls -= 1
            function(*arguments)

        return call

    fsync, os.fsync, os.replace = os.fsync, dying(os.fsync), dying(os.replace)
    train_thin(recipe)


def halve(path: str) -> None:
    """Cuts a file that is being made."""
    if os.readlink(path).endswith((".part", ".new")):
        os.truncate(path, os.stat(path).st_size // 2)


if __name__ == "__main__":
    command.run(main)
