"""The processes that torchrun starts for one run: who this one is, how they meet, and how they end together.

One that fails says why, and the others end without a word. One that hangs is found by all: each notes where it is.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count
from pathlib import Path
from types import FrameType
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from ..pipelines.errors import UsageError

EVERY, GRACE = 0.5, 5.0
"""Seconds between two looks at the others, and until a process ends that another's failure has not ended by itself."""
LOST = ("Connection closed by peer", "Connection reset by peer", "Socket closed", "Broken pipe", "Connection refused")
"""What messages of torch say where another process is gone."""

Value = TypeVar("Value")

NUMBERS = {"WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0, "TORCHELASTIC_MAX_RESTARTS": 0}
"""What torchrun tells a process by its environment, and what each is without it."""

_watchdog: Watchdog | None = None
_runs = count()
"""All processes take part in each, so that they count alike."""


def launched() -> int:
    """How many processes torchrun has started for the run; 1 without it. Raises UsageError where one of NUMBERS is no
    number."""
    for name in NUMBERS:
        if (said := os.environ.get(name)) and not said.isdecimal():
            raise UsageError(f"torchrun: {name} is {said!r}, which is no number; start it by torchrun, or unset {name}")
    return _told("WORLD_SIZE")


def is_distributed() -> bool:
    """Whether this process has joined others."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """How many processes have joined; 1 alone."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """Which of those that torchrun has started this one is, from 0."""
    return dist.get_rank() if is_distributed() else _among("RANK")


def local_rank() -> int:
    """Which of those on this machine."""
    return _among("LOCAL_RANK")


def _among(name: str) -> int:
    """A number of this process among others; 0 where it is alone."""
    return 0 if (os.environ.get("WORLD_SIZE") or "1") == "1" else _told(name)


def _told(name: str) -> int:
    """One of NUMBERS. What is no number is refused by `launched`; here it counts as the default."""
    said = os.environ.get(name) or ""
    return int(said) if said.isdecimal() else NUMBERS[name]


def local_world() -> int:
    """How many of them are on this machine."""
    return _told("LOCAL_WORLD_SIZE") if launched() > 1 else 1


def is_main() -> bool:
    """Whether this is the process that prints and writes."""
    return rank() == 0


def reports_errors() -> bool:
    """Whether this process says why it ends: once it has joined the others any does, as all but one of them end without
    a word, and before, where all of a machine end for the same reason, the first of each machine."""
    return is_distributed() or local_rank() == 0


def restarts() -> bool:
    """Whether torchrun starts the run anew, with the same arguments, where a process fails or machines come and go."""
    return _told("TORCHELASTIC_MAX_RESTARTS") > 0


@contextmanager
def joined(minutes: float) -> Iterator[None]:
    """Inside, the processes of the run are one group: gloo for tensors on the CPU, NCCL for those on GPUs. One process
    alone stays as it is. They may be joined again, for another run, also when one has failed that all got out of.

    minutes: how long a process may get no further once `heartbeat` was called. Of those that fail the first raises what
    it raised; the others raise SystemExit, as there is nothing to add.
    """
    global _watchdog
    if launched() == 1:
        yield
        return
    if is_distributed():  # of a run that failed, which did not wait for others to end the group
        dist.destroy_process_group()
    # Ours is the first to speak where one hangs: torch's own limit comes later.
    limit = timedelta(minutes=minutes + 1)
    store, number, processes = rendezvous_store(limit)
    # It outlives the run, and torchrun's own the processes: it knows the addresses of those before.
    run = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)} {processes} {next(_runs)}"
    store = dist.PrefixStore(run, store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=processes, timeout=limit)
    _watchdog = Watchdog(dist.PrefixStore("watchdog", store), 60 * minutes)
    _watchdog.start()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not _watchdog.first():
            raise SystemExit(1) from None
        if any(words in str(error) for words in LOST):
            raise UsageError(
                f"process {number} of {processes}: another one has ended without a word; torchrun says with which exit "
                "code, and what the system killed is in its log (memory, for one)"
            ) from error
        raise
    finally:
        _watchdog.ended.set()
        _watchdog.join(GRACE)  # where Python ends while a thread is inside of torch, the process aborts
    _watchdog = None
    dist.destroy_process_group()


@cache
def rendezvous_store(limit: timedelta) -> tuple[dist.Store, int, int]:
    """The store that the processes share, for as long as they live, which of them this one is, and how many they are.
    Raises UsageError where there is nothing to meet by."""
    try:
        return next(rendezvous("env://", timeout=limit))
    except ValueError as error:
        raise UsageError(
            f"torchrun: WORLD_SIZE is {launched()}, but this process cannot find the others ({error}); start it by "
            "torchrun, or unset WORLD_SIZE"
        ) from None


class Watchdog(threading.Thread):
    """Looks after the other processes while this one works or waits.

    store: shared by all. limit: seconds without `heartbeat` after which the run has come to a halt.
    """

    def __init__(self, store: dist.Store, limit: float):
        super().__init__(name="watchdog", daemon=True)
        self.store, self.limit = store.clone(), limit
        """The store is this thread's own: a call of another one may wait in it."""
        self.turns = store
        """The main thread's."""
        self.turn = 0
        self.ended = threading.Event()
        self.main = threading.get_ident()
        self.doing, self.since = "", float("inf")

    def first(self) -> bool:
        """Whether no process has failed before; this one has then."""
        try:
            return self.store.compare_set("failed", "", str(rank())) == str(rank()).encode()
        except RuntimeError:  # the process that held the store is gone
            return True

    def run(self) -> None:
        while not self.ended.wait(EVERY):
            if self.failed(self.store):
                # Whoever waits for the other is told so by torch, mostly; not on a GPU.
                self.ended.wait(GRACE)
                os._exit(1)
            if time.monotonic() - self.since > self.limit:
                self._halt()

    def failed(self, store: dist.Store) -> bool:
        """Whether another process has, by the calling thread's store; this one, where it is the first, has yet to say
        why."""
        try:
            return store.check(["failed"]) and store.get("failed") != str(rank()).encode()
        except RuntimeError:
            return True

    def _halt(self) -> None:
        """Ends this process; the first one says where all are."""
        self.store.set(f"place {rank()}", f"process {rank()} is in {self._place()}, {self.doing}")
        time.sleep(4 * EVERY)
        if self.first():
            told = [
                self.store.get(key).decode() if self.store.check([key := f"place {number}"]) else f"{number} is silent"
                for number in range(world_size())
            ]
            print(
                f"semiseg: --timeout: nothing went on for {self.limit / 60:g} minutes: {'; '.join(told)}",
                file=sys.stderr,
                flush=True,
            )
        os._exit(1)

    def _place(self) -> str:
        """The function of this library that the main thread is in, or the innermost one where it is in none."""
        innermost = sys._current_frames()[self.main]
        frame: FrameType | None = innermost
        library = __name__.partition(".")[0]
        while frame and frame.f_globals.get("__name__", "").partition(".")[0] != library:
            frame = frame.f_back
        frame = frame or innermost
        return f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"


def heartbeat(doing: str) -> None:
    """Says how far this process is. From the first call on a halt is noticed, until `pause_watchdog`."""
    if _watchdog:
        _watchdog.doing, _watchdog.since = doing, time.monotonic()


def pause_watchdog() -> None:
    """From now on this process may take its time."""
    if _watchdog:
        _watchdog.since = float("inf")


@contextmanager
def main_first() -> Iterator[None]:
    """What follows is done by the first process, then by the first one of each other machine, then by the rest: what
    one leaves in files is found by those that come later. Raises SystemExit where one of those before has failed."""
    if not _watchdog:
        yield
        return
    _watchdog.turn += 1
    done, machine = f"turn {_watchdog.turn} of machine", os.environ.get("GROUP_RANK", "0")
    # The first process waits for nobody, that of another machine for it, and the rest for their machine's.
    before = "" if is_main() else f"{done} {0 if local_rank() == 0 else machine}"
    while before and not _watchdog.turns.check([before]):  # however long it takes
        if _watchdog.failed(_watchdog.turns):  # its turn never ends
            raise SystemExit(1)
        time.sleep(0.1)
    yield
    if local_rank() == 0:
        _watchdog.turns.set(f"{done} {machine}", "")


def broadcast_object(value: Value) -> Value:
    """What the first process has of it, on every one."""
    if not is_distributed():
        return value
    values = [value]
    dist.broadcast_object_list(values, 0)
    return values[0]


def gather_objects(value: Value) -> list[Value]:
    """What each process has of it, on every one, in the order of the processes."""
    if not is_distributed():
        return [value]
    values = [value] * world_size()
    dist.all_gather_object(values, value)
    return values


def all_reduce_max(*numbers: int) -> tuple[int, ...]:
    """The largest that a process has of each number. All wait for each other, on the host."""
    if not is_distributed():
        return numbers
    together = torch.tensor(numbers)
    dist.all_reduce(together, dist.ReduceOp.MAX)
    return tuple(together.tolist())
