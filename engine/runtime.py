"""Where and how a run is executed, not what it trains: the part of a recipe that may differ when a run goes on."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..pipelines.backends import BACKENDS
from ..pipelines.errors import UsageError, fault_unless
from .device import PrecisionName
from .flags import Told

YEAR = 365 * 24 * 60
"""Minutes."""


@dataclass(kw_only=True, slots=True)
class Runtime:
    """Where things are, how the run is executed and what it shows. A run that goes on (`resume`) may set it anew.

    Most fields change results by rounding at most. Four may change more: `grouped` draws other dropout masks,
    `eval_every` decides at which steps the best network may be chosen, `patience` after which the run ends, and
    `on_nan` whether one that is not finite goes on."""

    data: Path | None = None
    """Root of the data set. shapes is drawn into the cache by itself."""
    lists: Told[Path | None] = None
    """Folder with your copies of the published lists, searched for the named split (default: $SEMISEG_LISTS)."""
    eval_every: Told[int | None] = None
    """Steps between evaluations (default: a twentieth of the run, at least 50); the last step is evaluated anyway."""
    patience: Told[int | None] = None
    """End the run after so many evaluations without a new best one (default: train all steps). Learning rates fall over
    all --steps, whenever it ends."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    backend: Literal["auto", *BACKENDS] = "auto"  # type: ignore[valid-type]
    """Input pipeline; auto: resident (files are decoded once, into the cache, and on a GPU kept in its memory) where
    the data set is packed already or small; else dali with a GPU (or what its check leaves: dali_whole, which decodes
    whole images to cut windows from, or host), and host without one."""
    threads: int = 0
    """Threads of the input pipeline, and of what prepares the data for it (0: one a core)."""
    precision: PrecisionName = "auto"
    """Precision of matrix products and convolutions; auto: bf16 on a GPU that has it, and on a processor whose
    convolutions it makes faster (one is timed), else fp32."""
    channels_last: bool = True
    """Memory format of networks and images."""
    compile: bool = False
    """Compile the networks (minutes at the start, faster steps), where that comes to the same: it is checked once on a
    device, which takes minutes more."""
    grouped: bool = False
    """Labelled and unlabelled images go through a network in one call, with batch statistics of their own. Fewer,
    larger products; other random numbers of dropout."""
    graph: Literal["auto", "on", "off"] = "auto"
    """Launch each step on a GPU as one CUDA graph. auto: where it can be, and comes to the same; on: or stop."""
    recompute: Literal["auto", "on", "off"] = "auto"
    """Compute what the backbones' blocks hold a second time for the gradients, instead of keeping it: less memory, up
    to a third more arithmetic. auto: where a step would not fit otherwise."""
    memory_budget: Told[float | None] = None
    """GiB that training and evaluation may take, as forecast before the first step; a run that needs more stops with
    what would fit (default: what is free decides about --recompute, and stops nothing)."""

    deterministic: bool = False
    """The same bits in every run on one GPU, at more arithmetic; on a CPU they are anyway."""

    out: Told[Path | None] = None
    """The run's folder (default: runs/<recipe>-<time>)."""
    resume: bool = False
    """Go on with the run in --out; without --out, with the newest unfinished one of the recipe in runs/."""
    save_every: str = "5m"
    """Save the state for --resume every so many minutes (5m) or steps (500), with each evaluation and at a
    signal."""
    requeue: bool = False
    """SLURM: after a signal, once all is saved, ask for the job to be started again; it then goes on in --out."""
    keep: int = 2
    """Saves that stay, each as large as networks, optimizer and banks; where the newest is damaged, the one before
    takes its place."""
    log_every: int = 10
    """Steps between log lines."""
    on_nan: Literal["stop", "ignore"] = "stop"
    """If a loss, a weight or a validation mIoU is not finite, end the run and keep earlier checkpoints (stop), or go on
    (ignore). Checked with each log line and before each checkpoint, as checking takes time."""
    timeout: float = 10.0
    """Minutes that one of several processes may hang before the run ends, saying where each is."""
    profile: bool = False
    """Write a trace of steps 6 to 10 into the run's folder, and print what took longest in them."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from fault_unless(self.log_every >= 1, "--log-every", "must be at least 1", self.log_every)
        yield from fault_unless(self.keep >= 1, "--keep", "must be at least 1", self.keep)
        yield from fault_unless(self.threads >= 0, "--threads", "must not be negative", self.threads)
        every = self.eval_every
        yield from fault_unless(every is None or every >= 1, "--eval-every", "must be at least 1", every)
        patience = self.patience
        yield from fault_unless(patience is None or patience >= 1, "--patience", "must be at least 1", patience)
        rule = f"must be more than 0 minutes, and at most the {YEAR} of a year"
        yield from fault_unless(0 < self.timeout <= YEAR, "--timeout", rule, self.timeout)
        budget = self.memory_budget
        yield from fault_unless(budget is None or budget > 0, "--memory-budget", "must be more than 0 GiB", budget)
        if self.grouped and self.recompute == "on":
            yield "--recompute on: not with --grouped, whose groups the second pass does not see; leave out one of them"
        if self.compile and self.recompute == "on":
            yield "--recompute on: not with --compile, which chooses itself what it keeps; leave out one of them"
        try:
            self.cadence()
        except UsageError as error:
            yield str(error)

    def cadence(self) -> tuple[float, float]:
        """Seconds and steps after either of which the state is saved. Raises UsageError for what is neither."""
        said = re.fullmatch(r"(\d*\.?\d+)m|(\d+)", str(self.save_every))
        if said is None or not float(said[1] or said[2]):
            raise UsageError(f"--save-every: must be minutes (5m) or steps (500), is {self.save_every}")
        return (60 * float(said[1]), math.inf) if said[1] else (math.inf, int(said[2]))


RUNTIME = frozenset(field.name for field in dataclasses.fields(Runtime))
