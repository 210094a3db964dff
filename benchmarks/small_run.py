"""Small runs for what trains over and over: a data set, a recipe of next to no work, and the processes of a run."""

from __future__ import annotations

import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from semiseg.engine.api import load_recipe, train
from semiseg.engine.events import Listener, silent
from semiseg.engine.models import ENCODERS, Encoder
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.errors import UsageError

PATIENCE = 5
"""Seconds that a process has to end by itself where another has died."""

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    ["small_run", "torch._dynamo", "tensorboard.summary.writer.record_writer", "matplotlib.figure"]
)


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


THIN = Encoder(build=Thin, channels=(8, 16), strides=(4, 16), multiple=1, weights=dict)


def train_thin(recipe: Recipe, on_event: Listener = silent) -> None:
    """Trains a recipe that may name the encoder."""
    torch.set_num_threads(1)
    ENCODERS["thin"] = THIN
    train(recipe, on_event)


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
