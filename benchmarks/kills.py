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
import math
import multiprocessing
import multiprocessing.connection
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import command
import measurement
import rowfile
from semiseg.engine.api import load_recipe, train
from semiseg.engine.events import Listener, silent
from semiseg.engine.models import ENCODERS, Encoder
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.outcome import differences, outcome
from semiseg.pipelines.errors import UsageError

METHODS = [
    "supervised",
    "cac",
    "cps",
    "cutmix_cps",
    "mean_teacher",
    "cutmix_seg",
    "fixmatch",
    "unimatch",
    "unimatch_v2",
]
BACKENDS = ["host", "dali", "resident"]
MOST = 40
"""Kills after which a run is left alone."""
CALLS = 25
"""Calls, from the start of a process, among which one is chosen."""

PATIENCE = 5
"""Seconds that a process has to end by itself where another has died."""

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    ["kills", "torch._dynamo", "tensorboard.summary.writer.record_writer", "matplotlib.figure"]
)


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


def draw(root: Path) -> None:
    """A folder data set: twelve images of noise, six of them with masks, of which two are for validation."""
    noise = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(12):
        Image.fromarray(noise.integers(0, 255, (40, 48, 3), np.uint8)).save(root / f"images/{number:02d}.png")
        if number < 6:
            blocks = noise.integers(0, 3, (5, 6), np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(blocks).save(root / f"masks/{number:02d}.png")
    (root / "classes.txt").write_text("one\ntwo\nthree\n")
    (root / "val.txt").write_text("04\n05\n")


def small(method: str, data: Path, out: Path, processes: int = 1, backend: str = "host") -> Recipe:
    """A run of a few seconds."""
    network = "unimatch" if method.startswith("unimatch") else "cac"
    return load_recipe(f"{method}_folder").replace(
        backbone="thin",
        network=network,
        head_width=8,
        weights="none",
        crop=32,
        batch=2 * processes,
        steps=60,
        eval_every=20,
        save_every="2",
        log_every=3,
        data=data,
        out=out,
        device="cpu",
        precision="fp32",
        backend=backend,
        threads=1,
    )


class Thin(nn.Module):
    """An encoder of next to no work."""

    def __init__(self):
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.high = nn.Sequential(nn.Conv2d(8, 16, 3, 4, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.low(x)
        return low, self.high(low)


def train_thin(recipe: Recipe, on_event: Listener = silent) -> None:
    """Trains a recipe that may name the encoder."""
    torch.set_num_threads(1)
    ENCODERS["thin"] = Encoder(build=Thin, channels=(8, 16), strides=(4, 16), multiple=1, weights=dict)
    train(recipe, on_event)


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


class Started:
    """The processes of one run."""

    def __init__(self, members: list[multiprocessing.Process]):
        self.members = members

    def join(self, seconds: float | None = None) -> None:
        """Waits for the end of all, or so long. Where one has died, the others are ended, as torchrun does."""
        until = time.monotonic() + (math.inf if seconds is None else seconds)
        while any(member.is_alive() for member in self.members) and time.monotonic() < until:
            multiprocessing.connection.wait(
                [member.sentinel for member in self.members if member.is_alive()],
                None if until == math.inf else max(until - time.monotonic(), 0),
            )
            if any(member.exitcode for member in self.members):
                for member in self.members:
                    member.terminate()
                    member.join(PATIENCE)
                    member.kill()
                    member.join()

    def kill(self, number: int | None = None) -> None:
        """One of them, or all."""
        for member in self.members if number is None else [self.members[number]]:
            member.kill()

    @property
    def exitcode(self) -> int:
        """Of a process that was killed, of the first that failed, or 0."""
        codes = [member.exitcode for member in self.members]
        return -signal.SIGKILL if -signal.SIGKILL in codes else next(filter(None, codes), 0)


def start(target: Callable, *arguments: Any, count: int = 1) -> Started:
    """In so many processes of its own, which have their libraries loaded already, and find each other as those that
    torchrun starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    members = []
    for rank in range(count):
        world = meeting | {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment = dict(os.environ) | (world | {"LOCAL_WORLD_SIZE": str(count)} if count > 1 else {})
        members.append(context.Process(target=run, args=(environment, target, *arguments)))
        members[-1].start()
    return Started(members)


def run(environment: dict[str, str], target: Callable, *arguments: Any) -> None:
    """In the environment that there is now, and not in that of when the libraries were loaded."""
    os.environ.update(environment)
    try:
        target(*arguments)
    except UsageError as error:  # where another process of the run is gone, for one
        sys.exit(f"{error}")


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
