"""Signals that end a run between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; schedulers and service managers; SLURM, as a warning before it takes a node away."""


class Stopped(Exception):
    """A signal ended the run between two steps, all saved. The message says how to go on."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


@contextmanager
def at_once() -> Iterator[None]:
    """While nothing is there to be saved, a scheduler's signal raises Stopped where it comes, as Ctrl-C raises
    KeyboardInterrupt. In other threads than the main one it does not."""

    def stop(number: int, frame: object) -> None:
        raise Stopped(number, "stopped before the first step; the same command begins again, or goes on")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in ENDING if number != signal.SIGINT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ending(say: Callable[[str], None], *, patient: bool = False) -> Iterator[list[int]]:
    """The signals so far. Once one has come, the next has its effect in the system: it ends the process at once,
    whatever that waits for. In other threads than the main one, which signals do not reach, there are none.

    patient: further signals change nothing. torchrun passes on what its processes have had from the terminal already,
    and ends those that take too long by itself.
    """
    signals: list[int] = []

    def stop(number: int, frame: object) -> None:
        signals.append(number)
        if patient:
            if len(signals) == 1:
                say("stopping after this step")
            return
        for one in ENDING:
            signal.signal(one, signal.SIG_DFL)
        say("stopping after this step; once more to stop at once")

    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.signal(number, stop) for number in ENDING}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
