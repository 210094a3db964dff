"""Runs that are killed end like runs that are not, and the program that counts them tells others apart."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
import torch

import kills
import rowfile
import small_run
from semiseg.engine.training.outcome import differences, outcome

MOMENTS = [(4, False), (7, False), (2, True), (4, False), (9, True), (13, False), (24, True), (18, False)]
"""Calls that the disk sees from the start of a process, and whether a file is half there: before the run has a recipe,
before its first save, and in the middle of saves with networks and without."""


def until_saved(started: small_run.Started, run: Path, step: int) -> None:
    """Waits for a save of this step or a later one, as this process may be late, or for the end of the run."""

    def newest() -> int:
        return max((int(path.stem.removeprefix("state-")) for path in run.glob("checkpoints/state-*.json")), default=0)

    while newest() < step and any(member.is_alive() for member in started.members):
        started.join(0.01)


@pytest.mark.parametrize("method", ["cac", "mean_teacher"])
def test_killed_runs_end_bit_for_bit_like_others(folder_root, tmp_path, method):
    straight = small_run.small(method, folder_root(), tmp_path / "straight")
    straight = straight.replace(steps=12, eval_every=4, save_every="1")
    process = small_run.start(small_run.train_thin, straight)
    process.join()
    assert process.exitcode == 0
    killed = straight.replace(out=tmp_path / "killed")
    for calls, torn in MOMENTS:
        begun = (tmp_path / "killed/recipe.json").exists()
        process = small_run.start(kills.train_and_die, killed.replace(resume=begun), calls, torn)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    newest = max((tmp_path / "killed/checkpoints").glob("state-*.pt"), key=lambda path: int(path.stem[6:]))
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-1000] + bytes([whole[-1000] ^ 8]) + whole[-999:])
    process = small_run.start(small_run.train_thin, killed.replace(resume=True))
    process.join()
    assert process.exitcode == 0
    assert differences(*(outcome(recipe.runtime.out) for recipe in (straight, killed))) == []


KINDS = [pytest.param(method, kills.BACKENDS[turn % 3], id=method) for turn, method in enumerate(kills.METHODS)]


@pytest.mark.parametrize(("method", "backend"), KINDS)
def test_every_method_goes_on_where_it_was_killed(folder_root, tmp_path, method, backend):
    """Each with one of the backends, at a call and at a time."""
    data = folder_root()
    straight, killed = (
        small_run.small(method, data, tmp_path / name, backend=backend).replace(steps=12, eval_every=6, save_every="1")
        for name in ("straight", "killed")
    )
    small_run.start(small_run.train_thin, straight).join()
    small_run.start(kills.train_and_die, killed, 21, True).join()
    process = small_run.start(small_run.train_thin, killed.replace(resume=True))
    until_saved(process, tmp_path / "killed", 5)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process = small_run.start(small_run.train_thin, killed.replace(resume=True))
    process.join()
    assert process.exitcode == 0
    assert differences(*(outcome(recipe.runtime.out) for recipe in (straight, killed))) == []


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_killed_runs_of_two_processes_end_bit_for_bit_like_others(folder_root, tmp_path):
    """At calls of the one that writes, and at a time when the one that does not, or both, are killed."""
    data = folder_root()
    straight, killed = (
        small_run.small("cac", data, tmp_path / name, 2).replace(steps=12, eval_every=4, save_every="1")
        for name in ("straight", "killed")
    )
    started = small_run.start(small_run.train_thin, straight, count=2)
    started.join()
    assert started.exitcode == 0
    for calls, torn in MOMENTS[2:5]:
        begun = (tmp_path / "killed/recipe.json").exists()
        started = small_run.start(kills.train_and_die, killed.replace(resume=begun), calls, torn, count=2)
        started.join()
        assert started.exitcode == -signal.SIGKILL
    for which, save in ((1, 2), (None, 5)):
        started = small_run.start(small_run.train_thin, killed.replace(resume=True), count=2)
        until_saved(started, tmp_path / "killed", save)
        started.kill(which)
        started.join()
        assert started.exitcode == -signal.SIGKILL
    started = small_run.start(small_run.train_thin, killed.replace(resume=True), count=2)
    started.join()
    assert started.exitcode == 0
    assert differences(*(outcome(recipe.runtime.out) for recipe in (straight, killed))) == []


def test_runs_are_killed_until_they_are_done(folder_root, tmp_path):
    recipe = small_run.small("supervised", folder_root(), tmp_path / "run").replace(steps=6, eval_every=3)
    counts = kills.kill_until_done(recipe, random.Random(1), seconds=1.0)
    assert counts.total() > 0
    assert (tmp_path / "run/report.html").is_file()


def test_kills_of_all_rows_are_counted(tmp_path):
    path = tmp_path / "kills.csv"
    assert kills.recorded(path) == 0
    for number in (3, 4):
        rowfile.append([{"processes": 1, "kills": number}, {"processes": 2, "kills": 1}], path)
    assert (kills.recorded(path), kills.recorded(path, 2)) == (7, 2)
