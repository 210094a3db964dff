"""Trains the runs of a comparison, each in a process of its own: one a core, or one a GPU."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from ...pipelines.cores import cores
from ...pipelines.documents import opened
from ...pipelines.errors import UsageError
from ..child import MODULE
from ..events import Event, Listener, note, notes_to, silent
from ..run import log_line
from ..training.signals import ENDING, Stopped, ending
from .entries import Entry

PROGRAM = (*MODULE, "semiseg.recipes.command")
"""Takes the words of `semiseg`."""
FAULT, STOPPED = 2, (75, 130)
"""Exit codes of the command line: what a user can mend, and what goes on with --resume."""
IN_A_ROW = 2
"""Runs that break down one after the other on a GPU where others do not: it is given up."""
LOOK = 0.2
"""Seconds between two looks at the processes."""
TAIL = 1 << 16
"""Bytes that hold the last line of a log."""


class RunFailed(Exception):
    """A run ended by what no user can mend; the message says how, in one line."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run at a time is trained."""

    threads: int
    gpu: str | None = None
    """As CUDA_VISIBLE_DEVICES names it; None where none is set aside."""

    @property
    def environment(self) -> dict[str, str]:
        own = {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu}
        return os.environ | own | {"OMP_NUM_THREADS": str(self.threads)}

    def __str__(self) -> str:
        return f"{self.threads} cores" if self.gpu is None else f"GPU {self.gpu}"


@dataclass(slots=True)
class Worker:
    """A process that trains one run."""

    entry: Entry
    place: Place
    process: subprocess.Popen


def places(device: str, device_kind: str, jobs: int, runs: int) -> list[Place]:
    """As many as `jobs`, at most one a run; 0 is one a GPU, or one a core where there is none or --device is cpu. They
    share the cores, with no more threads each than OMP_NUM_THREADS where it is set, and take the GPUs in turns unless
    --device names one.

    device: as --device says it; device_kind: cpu or cuda, what that comes down to here.
    """
    gpus: list[str] = []
    usual, named = cores(), ":" in device
    if device_kind == "cuda":
        said = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = said.split(",") if said else [str(number) for number in range(torch.cuda.device_count())]
        usual = 1 if named else len(gpus)
    many = max(min(jobs or usual, runs), 1)
    most = os.environ.get("OMP_NUM_THREADS", "")
    threads = max(min(cores() // many, int(most) if most.isdecimal() else cores()), 1)
    return [Place(threads, gpus[number % len(gpus)] if gpus and not named else None) for number in range(many)]


def train_all(
    entries: Sequence[Entry],
    places: Sequence[Place],
    lock: int,
    on_finished: Callable[[Entry], None],
    on_event: Listener = silent,
) -> None:
    """Trains those that are not finished, begun ones from their last save.

    lock: the number of an open file, which is kept until the last process has ended. on_finished: is told of each run
    when it is; progress counts the steps of all.
    A run that breaks down, or ends early by a fault of its own, is told of, and the others go on; in the end RunFailed
    is raised. What keeps a run from its first step, as UsageError, and a signal, as Stopped, ends it at once. Whatever
    ends it stops the processes, all saved.
    """
    waiting = [entry for entry in entries if not entry.run.finished]
    free = list(places)
    working: list[Worker] = []
    failed: list[str] = []
    in_a_row = {id(place): 0 for place in places}
    with ending(notes_to(on_event)) as signals:
        try:
            while waiting or working:
                while waiting and free:
                    working.append(_started(waiting.pop(0), free.pop(0), lock))
                time.sleep(LOOK)
                ended, end = [worker for worker in working if worker.process.poll() is not None], None
                for worker in ended:
                    working.remove(worker)
                    in_a_row[id(worker.place)] += 1
                    try:
                        _require_success(worker)
                    except RunFailed as error:
                        failed.append(str(error))
                        note(failed[-1], on_event)
                    except (UsageError, Stopped) as error:
                        end = error
                    else:
                        in_a_row[id(worker.place)] = 0
                        on_finished(worker.entry)
                    suspect = worker.place.gpu and in_a_row[id(worker.place)] >= IN_A_ROW
                    if not suspect or not (free or working):
                        free.append(worker.place)
                    else:
                        note(f"{IN_A_ROW} runs in a row broke down on {worker.place}: it is left out", on_event)
                if signals:
                    end = Stopped(signals[0], "stopped, all saved; the same command goes on")
                if end:
                    raise end
                on_event(_progress(entries))
        finally:
            for worker in working:
                worker.process.terminate()
            for worker in working:
                worker.process.wait()
    if failed:
        others = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
        raise RunFailed(f"{failed[0]}{others}; the same command tries again")


def log_of(entry: Entry) -> Path:
    """What a run has printed."""
    return entry.folder.with_name(f"{entry.folder.name}.log")


def _started(entry: Entry, place: Place, lock: int) -> Worker:
    words = [*PROGRAM, *entry.command]
    if not entry.recipe.runtime.threads:
        words += ["--threads", str(place.threads)]
    if entry.begun:
        words.append("--resume")
    # In a session of its own, so that Ctrl-C reaches this process alone, which passes it on, once.
    with log_of(entry).open("ab") as log:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=place.environment,
            pass_fds=(lock,),
            start_new_session=True,
        )
    return Worker(entry, place, process)


def _require_success(worker: Worker) -> None:
    code, entry = worker.process.returncode, worker.entry
    if code == 0 and entry.run.finished:
        return
    lines = log_of(entry).read_text(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing").removeprefix("semiseg: ")
    if code == FAULT and not _steps_done(entry):
        raise UsageError(f"{entry}: {last} (all it said: {log_of(entry)})")
    if code in STOPPED:
        raise Stopped(ENDING[0] if code == STOPPED[1] else ENDING[1], f"{entry}: {last}; the same command goes on")
    how = f"was ended by signal {-code} (9 may be for want of memory: fewer --jobs)" if code < 0 else f"failed: {last}"
    raise RunFailed(f"{entry} {how}; all it said: {log_of(entry)}")


def _progress(entries: Sequence[Entry]) -> Event:
    done = sum(entry.recipe.steps if entry.run.finished else _steps_done(entry) for entry in entries)
    return Event("progress", "training", done, sum(entry.recipe.steps for entry in entries))


def _steps_done(entry: Entry) -> int:
    """By the last line of a run's log that is whole."""
    try:
        with opened(entry.folder / "log.jsonl") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - TAIL, 0))
            lines = file.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        with suppress(ValueError, RecursionError):
            return log_line(line)["step"]
    return 0
