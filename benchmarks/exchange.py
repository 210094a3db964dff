"""What the processes of a run exchange in a training step: told without a second process, and taken between real ones.

A step on tensors that hold nothing, in a group of which only this process exists, tells it. Real processes take steps,
and write down what they exchange and how long each exchange takes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import small_run
from semiseg.engine.device import Precision
from semiseg.engine.distributed import AllReduce, average_gradients, gathered, total
from semiseg.engine.processes import all_reduce_max, is_main, joined, world_size
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.build import build_method
from semiseg.engine.training.forecast import example
from semiseg.engine.training.step import Step
from semiseg.pipelines.lane import mapped

CLASSES = 21
PRECISION = Precision("fp32", torch.device("cpu"))
"""What is exchanged has at least single precision, whatever a step multiplies in."""
SIZES = [4 * 8**power for power in range(9)]
"""Bytes of the all-reduces that a link is known by: a number, to the gradients of a large network."""

STATISTICS = "batch statistics"
KINDS = {
    average_gradients.__code__: "gradients",
    AllReduce.forward.__code__: STATISTICS,
    AllReduce.backward.__code__: STATISTICS,
    gathered.__code__: "negatives",
    total.__code__: "normalisers",
    all_reduce_max.__code__: "signals",
}
"""What a function exchanges. `gathered` has other rows in methods that mix the images of all processes; by
`all_reduce_max` the trainer learns, on the hosts and behind every step, that a signal has reached one process."""
OPERATIONS = {"allreduce_": ("all_reduce", 0), "allgather_": ("all_gather", 1), "broadcast_": ("broadcast", 0)}
"""By torch's names, and which argument holds what a process hands over."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One collective, as each process calls it."""

    kind: str
    operation: str
    bytes: int
    """That a process hands over."""


class Recorder(TorchDispatchMode):
    """Writes down the collectives that are called inside, in their order. timed: and how long each takes from when all
    processes have come to it, so that no wait for another one's arithmetic counts."""

    def __init__(self, timed: bool = False):
        super().__init__()
        self.timed = timed
        self.exchanges: list[Exchange] = []
        self.seconds: list[float] = []

    def __torch_dispatch__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function.namespace != "c10d":
            return function(*args, **(kwargs or {}))
        operation, place = OPERATIONS[function.overloadpacket.__name__]
        callers = (frame.f_code for frame, _ in traceback.walk_stack(sys._getframe()))
        kind = next((KINDS[code] for code in callers if code in KINDS), "others")
        self.exchanges.append(Exchange(kind, operation, sum(tensor.nbytes for tensor in tree_leaves(args[place]))))
        if not self.timed:
            return function(*args, **(kwargs or {}))
        dist.barrier()
        began = time.perf_counter()
        result, work = function(*args, **(kwargs or {}))
        work.wait()
        self.seconds.append(time.perf_counter() - began)
        return result, work


def exchanges(recipe: Recipe, processes: int) -> list[Exchange]:
    """All collectives of a late step of the recipe, whose batch so many processes share, in their order on CPUs; none
    for one process."""
    if processes == 1:
        return []
    recorder = Recorder()
    dist.init_process_group("fake", rank=0, world_size=processes, store=FakeStore())
    try:
        with torch.device("meta"):
            method = build_method(recipe, CLASSES, processes).train()
        batch = example(share(recipe, processes))
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            step = Step(recipe, method.to_empty(device="cpu"), PRECISION)
            batch = mapped(batch, Tensor, mode.from_tensor)
            with recorder:
                step(batch, recipe.steps - 1)
        with recorder:
            all_reduce_max(0, 0)
    finally:
        dist.destroy_process_group()
    return recorder.exchanges


def share(recipe: Recipe, processes: int) -> Recipe:
    """With the batch of one of so many."""
    return recipe.replace(batch=recipe.batch // processes)


def on_gpus(recorded: Sequence[Exchange]) -> list[Exchange]:
    """The same on GPUs, in another order. There a normalisation is torch's SyncBatchNorm: forward it gathers mean,
    deviation and count in one call, backward it adds up both sums in one. Ours on CPUs adds up sums and count, then
    squares, and backward the same in reverse."""
    others = [one for one in recorded if one.kind != STATISTICS]
    sizes = [one.bytes for one in recorded if one.kind == STATISTICS]
    layers = [
        Exchange(STATISTICS, "all_gather", first + second)
        if first > second
        else Exchange(STATISTICS, "all_reduce", first + second - torch.float32.itemsize)
        for first, second in zip(sizes[::2], sizes[1::2], strict=True)
    ]
    return layers + others


def by_kind(recorded: Sequence[Exchange]) -> dict[str, list[Exchange]]:
    return {kind: [one for one in recorded if one.kind == kind] for kind in dict.fromkeys(one.kind for one in recorded)}


@dataclass(frozen=True, slots=True)
class Taken:
    """Of steps that real processes took."""

    exchanges: list[Exchange]
    """Of each step."""
    seconds: list[list[float]]
    """That each exchange took, in each step."""
    reductions: dict[int, list[float]]
    """Seconds of all-reduces by their bytes."""


def taken(recipe: Recipe, processes: int, rounds: int) -> Taken:
    """What so many processes on CPUs exchange in `rounds` late steps of the recipe, and then in all-reduces. Raises
    RuntimeError where one fails."""
    with tempfile.TemporaryDirectory() as folder:
        started = small_run.start(take_steps, recipe, rounds, Path(folder), count=processes)
        started.join()
        if started.exitcode:
            raise RuntimeError(f"one of {processes} processes ended with {started.exitcode}")
        said = json.loads((Path(folder) / "taken.json").read_text())
    return Taken([Exchange(**one) for one in said["exchanges"]], said["seconds"], dict(zip(SIZES, said["reductions"])))


def take_steps(recipe: Recipe, rounds: int, folder: Path) -> None:
    """One of several processes takes steps, and the first writes down what was exchanged. What is done for the first
    time is slower, and does not count."""
    torch.set_num_threads(1)
    with joined(10):
        torch.manual_seed(recipe.seed)
        step = Step(recipe, build_method(recipe, CLASSES, world_size()).train(), PRECISION)
        batch = example(share(recipe, world_size()))
        steps, reductions = ([Recorder(timed=True) for _ in range(1 + rounds)] for _ in range(2))
        for recorder in steps:
            with recorder:
                step(batch, recipe.steps - 1)
                all_reduce_max(0, 0)
        for recorder in reductions:
            for size in SIZES:
                numbers = torch.zeros(size // torch.float32.itemsize)
                with recorder:
                    dist.all_reduce(numbers)
        if is_main():
            said = {"exchanges": [asdict(one) for one in steps[-1].exchanges]}
            for name, recorders in (("seconds", steps), ("reductions", reductions)):
                said[name] = list(zip(*(recorder.seconds for recorder in recorders[1:]), strict=True))
            (folder / "taken.json").write_text(json.dumps(said))
