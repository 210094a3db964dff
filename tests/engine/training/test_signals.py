"""Signals: the first is heard between two steps, the second ends the process, whatever it waits for."""

from __future__ import annotations

import os
import pty
import signal
import threading
import time

import pytest

from semiseg.engine.training.signals import ENDING, ending

pytestmark = pytest.mark.usefixtures("terminal_minded")


@pytest.mark.parametrize("number", ENDING)
def test_the_first_signal_is_noted_and_all_is_then_as_before(number):
    before = {one: signal.getsignal(one) for one in ENDING}
    said = []
    with ending(said.append) as signals:
        assert signals == []
        signal.raise_signal(number)
        assert signals == [number]
    assert said == ["stopping after this step; a second signal stops at once"]
    assert {one: signal.getsignal(one) for one in ENDING} == before


@pytest.mark.parametrize("number", [one for one in ENDING if one != signal.SIGHUP])
def test_the_second_signal_ends_a_process_that_waits(number):
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        lock = threading.Lock()
        lock.acquire()
        with ending(lambda line: os.write(told, b".")):
            os.write(told, b".")
            lock.acquire()  # as for a disk that does not answer
        os._exit(0)
    for _ in range(2):
        os.read(ready, 1)
        os.kill(child, number)
    _, status = os.waitpid(child, 0)
    assert (os.WIFSIGNALED(status), os.WTERMSIG(status)) == (True, number)
    os.close(ready)
    os.close(told)


@pytest.mark.parametrize("piped", [False, True])
def test_a_terminal_that_is_closed_is_heard_once_and_what_is_printed_then_is_lost(piped):
    """The system tells a program of it, and its shell once more; a pipe's reader, `tee`, ends with the terminal."""
    child, terminal = pty.fork()
    if child == 0:
        try:
            os.write(1, b"ready")
            if piped:
                reader, writer = os.pipe()
                os.dup2(writer, 1)
                os.close(reader)
            with ending(lambda line: os.write(1, line.encode())) as signals:
                while not signals:
                    time.sleep(0.01)
                signal.raise_signal(signal.SIGHUP)
                os.write(1, b"a line")
                os.write(2, b"another")
                os._exit(7 if signals == [signal.SIGHUP] else 1)
        finally:
            os._exit(1)
    assert b"ready" in os.read(terminal, 100)
    time.sleep(0.2)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert (os.WIFEXITED(status), os.WEXITSTATUS(status)) == (True, 7)


def test_a_hangup_that_somebody_sends_leaves_the_terminal():
    child, terminal = pty.fork()
    if child == 0:
        try:
            with ending(lambda line: os.write(1, line.encode())):
                signal.raise_signal(signal.SIGHUP)
        finally:
            os._exit(0)
    assert b"stopping after this step" in os.read(terminal, 100)
    os.close(terminal)
    os.waitpid(child, 0)


def test_a_process_without_outputs_hears_signals():
    child = os.fork()
    if child == 0:
        try:
            os.closerange(1, 3)
            with ending(lambda line: None) as signals:
                signal.raise_signal(signal.SIGHUP)
                os._exit(7 if signals == [signal.SIGHUP] else 1)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert (os.WIFEXITED(status), os.WEXITSTATUS(status)) == (True, 7)


def test_of_several_processes_one_that_fails_is_not_ended_before_it_has_said_why():
    """torchrun ends the others as soon as one is gone; the next run finds all as it was."""
    before = {one: signal.getsignal(one) for one in ENDING}
    said = []
    with pytest.raises(RuntimeError, match="closed by peer"), ending(said.append, patient=True):
        raise RuntimeError("Connection closed by peer")
    signal.raise_signal(signal.SIGTERM)
    assert said == []
    assert {one: signal.getsignal(one) for one in ENDING if one != signal.SIGTERM} == {
        one: handler for one, handler in before.items() if one != signal.SIGTERM
    }
    with ending(said.append, patient=True) as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals == [signal.SIGTERM]
    assert said == ["stopping after this step"]
    assert {one: signal.getsignal(one) for one in ENDING} == before


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending(print) as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals == []
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_have_no_signals():
    heard = []

    def work() -> None:
        with ending(heard.append) as signals:
            heard.append(list(signals))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [[]]
