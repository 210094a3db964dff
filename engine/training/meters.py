"""What a run measures of itself: losses, images a second, data wait, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import torch

from ...pipelines.batch import Batch
from ...pipelines.datasets.dataset import IGNORE
from ...pipelines.memory import GIB
from ..distributed import average, gathered
from ..memory import forget_peak, peak_bytes
from ..processes import rank, world_size
from ..recipe import Recipe
from .nvml import Gpu

IGNORED = "ignored_crops_pct"
"""Percentage of the labelled crops since the last log line in which no pixel has a label."""
SKIPPED = "skipped_steps_pct"
"""Percentage of the steps since the last log line that changed nothing, as their gradients overflowed, in fp16."""


class Mark(Protocol):
    """A place in the work of a device, as torch.cuda.Event."""

    def record(self) -> None:
        """Behind all that was asked for up to now."""

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds from when the device passed this one until it passed the other."""


class HostMark:
    """For the CPU, which is done when a call returns."""

    def __init__(self, clock: Callable[[], float]):
        self.clock = clock

    def record(self) -> None:
        self.at = self.clock()

    def elapsed_time(self, end: HostMark) -> float:
        return 1000 * (end.at - self.at)


class Meters:
    """Losses, summed on the device and read once a log line: means over all processes. Time and memory, of this one,
    from when they are made."""

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        clock: Callable[[], float] = time.perf_counter,
        mark: Callable[[], Mark] | None = None,
        fastest_step: float | None = None,
    ):
        """fastest_step: the seconds that a step's products would take at the device's peak, where that is known."""
        self.recipe, self.device, self.clock, self.fastest_step = recipe, device, clock, fastest_step
        on_gpu = device.type == "cuda"
        self.mark = mark or (partial(torch.cuda.Event, enable_timing=True) if on_gpu else partial(HostMark, clock))
        self.gpu = Gpu(device)
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._steps = 0
        self._all_waited = self._all_seconds = 0.0
        self._waits: list[tuple[Mark, Mark]] = []
        self._all_steps = self._evaluations = 0
        self._evaluating = 0.0
        self._since = self.clock()
        self._spent = 0.0
        self._first = True
        self._earlier_peak = 0
        with suppress(OSError):
            forget_peak(device)

    def waited(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches. Data wait is the time that the device, done with one step, has not got the next one's batch:
        not what the host waits while the device still works. The first batch's does not count."""
        while True:
            done = self._marked()
            try:
                batch = next(batches)
            except StopIteration:
                return
            if self._first:
                self._first = False
                self._since = self.clock()
            else:
                self._waits.append((done, self._marked()))
            yield batch

    def _marked(self) -> Mark:
        mark = self.mark()
        mark.record()
        return mark

    @contextmanager
    def aside(self) -> Iterator[Callable[[], None]]:
        """What is done inside is no training. Gives what is to be called when an evaluation is done, which counts for
        the time left: before the save that follows, so that a run that goes on from there knows of it."""
        self._pause()
        began = self.clock()

        def evaluated() -> None:
            self._evaluations += 1
            self._evaluating += self.clock() - began

        yield evaluated
        self._since = self.clock()

    def _pause(self) -> None:
        """What follows, until `_since` is set anew, does not count."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._spent += self.clock() - self._since

    def _seconds_left(self, step: int) -> float:
        """Of steps and evaluations, those of this step among them, by what they have taken so far; evaluations take
        none before the first."""
        steps, every = self.recipe.steps, self.recipe.steps_between_evaluations()
        evaluations = -(-steps // every) - (step - 1) // every
        an_evaluation = self._evaluating / max(self._evaluations, 1)
        return (steps - step) * self._all_seconds / self._all_steps + evaluations * an_evaluation

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        for name, loss in losses.items():
            self._add(name, loss)
        self._steps += 1

    def look_at(self, target: torch.Tensor) -> None:
        """The step's labels (B, S, S): a crop of which all are ignored teaches nothing."""
        self._add(IGNORED, 100 * (target == IGNORE).flatten(1).all(1).float().mean())

    def count_skipped(self, skipped: torch.Tensor) -> None:
        """() bool: whether the step changed nothing."""
        self._add(SKIPPED, 100 * skipped.float())

    def _add(self, name: str, value: torch.Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._counts[name] = self._counts.get(name, 0) + 1

    def loss(self) -> float:
        """The sum of the losses since the last log line, read from the device; 0 after no step."""
        return float(average(self._sums["loss"])) if self._sums else 0.0

    def state_dict(self) -> dict[str, Any]:
        """The losses since the last log line, of each process, for a run that goes on between two of them; and the
        steps, seconds and seconds of data wait of all lines, what evaluations took, and the peak of memory."""
        return {
            "sums": {name: gathered(total[None]) for name, total in self._sums.items()},
            "counts": self._counts,
            "totals": (self._all_steps, self._all_seconds, self._all_waited),
            "evaluations": (self._evaluations, self._evaluating),
            "peak": (self.device.type, self._peak()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """A process takes its own sums, so that the next line is that of a run that never stopped, to the last bit;
        with another number of processes than before, their means."""
        sums = {name: total.to(self.device) for name, total in state["sums"].items()}
        self._sums = {
            name: total[rank()] if len(total) == world_size() else total.mean() for name, total in sums.items()
        }
        self._counts = dict(state["counts"])
        self._all_steps, self._all_seconds, self._all_waited = state["totals"]
        self._evaluations, self._evaluating = state.get("evaluations", (0, 0.0))
        kind, peak = state.get("peak", ("", 0))
        self._earlier_peak = peak if kind == self.device.type else 0

    def read(self, step: int, lr: float) -> dict[str, Any]:
        """The log line of the steps since the last one."""
        losses = {name: float(average(total)) / self._counts[name] for name, total in self._sums.items()}
        shares = {name: losses.pop(name) for name in (IGNORED, SKIPPED) if name in losses}
        self._pause()
        seconds, self._spent = self._spent, 0.0
        waited = sum(done.elapsed_time(ready) for done, ready in self._waits) / 1000
        self._all_seconds += seconds
        self._all_waited += waited
        self._all_steps += self._steps
        images = self._steps * self.recipe.images_a_step
        line = {"step": step, "loss": losses.pop("loss")}
        line |= {f"loss/{name}": loss for name, loss in losses.items()}
        line |= {
            "lr": lr,
            "images_per_s": images / seconds,
            "compute_images_per_s": images / max(seconds - waited, 1e-9),
            "data_wait_pct": 100 * waited / seconds,
            "memory_gib": self.memory_gib,
            "eta_s": self._seconds_left(step),
        }
        if self.fastest_step:
            line["mfu_pct"] = 100 * self._steps * self.fastest_step / seconds
        line |= shares | self.gpu.read()
        self._sums, self._counts, self._steps, self._waits = {}, {}, 0, []
        self._since = self.clock()
        return line

    @property
    def images_per_s(self) -> float:
        return self._all_steps * self.recipe.images_a_step / max(self._all_seconds, 1e-9)

    @property
    def data_wait_pct(self) -> float:
        return 100 * self._all_waited / max(self._all_seconds, 1e-9)

    @property
    def memory_gib(self) -> float:
        """Peak memory of the run: of the GPU, or of this process where there is none."""
        return self._peak() / GIB

    def _peak(self) -> int:
        return max(self._earlier_peak, peak_bytes(self.device))


def describe(line: dict[str, Any], steps: int) -> str:
    """The log line of a run of so many steps in words."""
    losses = "  ".join(f"{name.removeprefix('loss/')} {v:.4f}" for name, v in line.items() if name.startswith("loss"))
    eta = timedelta(seconds=round(line["eta_s"]))
    mfu = f"  MFU {line['mfu_pct']:.0f} %" if "mfu_pct" in line else ""
    gpu = f"  gpu {line['gpu_pct']:.0f} %" if "gpu_pct" in line else ""
    skipped = f"  steps skipped {line[SKIPPED]:.0f} %" if line.get(SKIPPED) else ""
    return (
        f"step {line['step']}/{steps}  {losses}  lr {line['lr']:.2e}  images/s {line['images_per_s']:.1f} "
        f"(compute {line['compute_images_per_s']:.1f})  data wait {line['data_wait_pct']:.0f} %  "
        f"memory {line['memory_gib']:.1f} GiB{mfu}{gpu}{skipped}  ETA {eta}"
    )
