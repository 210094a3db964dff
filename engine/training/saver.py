"""Saves beside the training: copied between two steps, written by a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...pipelines.progress import Say, say_nothing
from ..disk import DiskFull
from .state import Save, Writer, forget, write_save


class Saver:
    """Saves a run, at most one save behind.

    A save that the disk has no room for is told, the one before stays, and the run goes on; its networks come with the
    next one.

    folder: of the checkpoints. device: of the tensors. cadence: seconds and steps, after either of which a save is due.
    saves: those that are there, the newest last, which the run goes on from. keep: how many stay; where the newest is
    damaged, its predecessor takes its place.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        cadence: tuple[float, float],
        saves: Sequence[Save] = (),
        keep: int = 2,
        say: Say = say_nothing,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.folder, self.device, self.say, self.clock = folder, device, say, clock
        self.seconds, self.steps = cadence
        self.keep = keep
        self._saves = list(saves)
        self._unsaved: dict[str, Writer] = {}
        self._thread = ThreadPoolExecutor(1, "saver")
        self._running: Future[None] | None = None
        self._last, self._began = saves[-1].step if saves else 0, clock()

    def due(self, step: int) -> bool:
        """Whether it is time for a save."""
        if self._running is not None and self._running.done():
            self.wait()
        return step - self._last >= self.steps or self.clock() - self._began >= self.seconds

    def save(self, step: int, state: Any, networks: Mapping[str, Writer] | None = None) -> None:
        """Copies the state after `step` and writes it, and networks by the names of their files, while the run goes on;
        waits until the save before is written."""
        self.wait()
        self._unsaved.update(networks or {})
        self._last, self._began = step, self.clock()
        copied = host_copy(state)
        on_gpu = self.device.type == "cuda"
        mark = torch.cuda.current_stream(self.device).record_event() if on_gpu else None
        self._running = self._thread.submit(self._write, step, copied, mark)

    def flush(self) -> None:
        """Waits until all is written. Raises UsageError where the disk did not take the last save."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def close(self) -> None:
        """As `wait`; then there are no more saves."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def wait(self) -> None:
        """Until all is written, or was told not to be. Raises UsageError where it cannot be, room or not."""
        try:
            self.flush()
        except DiskFull as error:
            self.say(f"warning: step {self._last} is not saved, training goes on: {error}")

    def _write(self, step: int, state: Any, mark: torch.cuda.Event | None) -> None:
        if mark is not None:
            mark.synchronize()
        before = self._saves[-1] if self._saves else None
        save = write_save(self.folder, step, state, self._unsaved, before)
        self._unsaved.clear()
        others = [other for other in self._saves if other.step != step]
        self._saves = forget(self.folder, [*others, save], self.keep)


def host_copy(value: Any) -> Any:
    """A copy, in the host's memory, of all tensors in dictionaries, lists and tuples. What lies on a GPU is copied in
    line with its work and not waited for: it is there when an event says so that is recorded behind it."""
    if isinstance(value, Tensor):
        if value.is_cuda:
            return torch.empty_like(value, device="cpu", pin_memory=True).copy_(value.detach(), non_blocking=True)
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: host_copy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(host_copy(item) for item in value)
    return value
