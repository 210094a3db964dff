"""Signals that end a run between two steps."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ...pipelines.progress import Say

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Ctrl-C; schedulers and service managers; SLURM, as a warning before it takes a node away; a terminal that is closed,
unless `nohup` has said not to mind."""
_before: dict[int, Any] = {}
"""What SIGTERM did before a run of several processes that failed."""


class Stopped(Exception):
    """A signal ended the run between two steps, all saved. The message says how to go on."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


@contextmanager
def at_once() -> Iterator[None]:
    """While nothing is there to be saved, a scheduler's signal raises Stopped where it comes, as Ctrl-C raises
    KeyboardInterrupt. In other threads than the main one it does not."""
    outputs = _open_outputs()

    def stop(number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            _silence(outputs)
        raise Stopped(number, "stopped before the first step; the same command begins again, or goes on")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in _handled() if number != signal.SIGINT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ending(say: Say, *, patient: bool = False) -> Iterator[list[int]]:
    """The signals so far. Once one has come, the next has its effect in the system: it ends the process at once,
    whatever that waits for, but for a second SIGHUP. In other threads than the main one, which signals do not reach,
    there are none.

    patient: further signals change nothing. torchrun passes on what its processes have had from the terminal already,
    and ends those that take too long by itself. Where an error leaves, SIGTERM changes nothing from then on, until the
    next run: torchrun sends it as soon as one process is gone, and this one has yet to say why it ends.
    """
    signals: list[int] = []
    handled, outputs = _handled(), _open_outputs()

    def stop(number: int, frame: object) -> None:
        signals.append(number)
        if number == signal.SIGHUP:
            _silence(outputs)
        if patient:
            if len(signals) == 1:
                say("stopping after this step")
            return
        for one in handled:
            # Of a terminal that is closed both the system and the shell tell.
            again = signal.SIG_IGN if one == number == signal.SIGHUP else signal.SIG_DFL
            signal.signal(one, again)
        say("stopping after this step; a second signal stops at once")

    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.signal(number, stop) for number in handled} | _before
    _before.clear()
    try:
        yield signals
    except BaseException:
        if patient:
            _before[signal.SIGTERM] = before.pop(signal.SIGTERM)
            signal.signal(signal.SIGTERM, lambda number, frame: None)  # not SIG_IGN, which programs inherit
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handled() -> list[signal.Signals]:
    """Those of ENDING that end a run of this process."""
    return [one for one in ENDING if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]


def _open_outputs() -> list[int]:
    """Which of standard output and error end at a terminal, or at a program that may end with it."""
    found = []
    for number in (1, 2):
        with suppress(OSError):  # one that was closed from the start
            if os.isatty(number) or stat.S_ISFIFO(os.fstat(number).st_mode):
                found.append(number)
    return found


def _silence(outputs: list[int]) -> None:
    """Where the terminal is closed, what is still printed goes nowhere; it would fail."""
    try:
        os.close(os.open("/dev/tty", os.O_WRONLY | os.O_NOCTTY))
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in outputs:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
