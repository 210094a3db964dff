"""Runs that are killed end like runs that are not, and the program that counts them tells others apart."""

from __future__ import annotations

import random
import signal

import pytest

import kills
import tables
from semiseg.engine.training.outcome import differences, outcome

MOMENTS = [(4, False), (7, False), (2, True), (4, False), (9, True), (13, False), (24, True), (18, False)]
"""Calls that the disk sees from the start of a process, and whether a file is half there: before the run has a recipe,
before its first save, and in the middle of saves with networks and without."""


@pytest.mark.parametrize("method", ["cac", "mean_teacher"])
def test_killed_runs_end_bit_for_bit_like_others(folder_root, tmp_path, method):
    straight = kills.small(method, folder_root(), tmp_path / "straight").replace(steps=12, eval_every=4, save_every="1")
    process = kills.start(kills.train_thin, straight)
    process.join()
    assert process.exitcode == 0
    killed = straight.replace(out=tmp_path / "killed")
    for calls, torn in MOMENTS:
        begun = (tmp_path / "killed/recipe.json").exists()
        process = kills.start(kills.train_and_die, killed.replace(resume=begun), calls, torn)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    newest = max((tmp_path / "killed/checkpoints").glob("state-*.pt"), key=lambda path: int(path.stem[6:]))
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-1000] + bytes([whole[-1000] ^ 8]) + whole[-999:])
    process = kills.start(kills.train_thin, killed.replace(resume=True))
    process.join()
    assert process.exitcode == 0
    assert differences(*(outcome(recipe.runtime.out) for recipe in (straight, killed))) == []


def test_runs_are_killed_until_they_are_done(folder_root, tmp_path):
    recipe = kills.small("supervised", folder_root(), tmp_path / "run").replace(steps=6, eval_every=3)
    counts = kills.kill_until_done(recipe, random.Random(1), seconds=1.0)
    assert counts.total() > 0
    assert (tmp_path / "run/report.html").is_file()


def test_kills_of_all_rows_are_counted(tmp_path):
    path = tmp_path / "kills.csv"
    assert kills.recorded(path) == 0
    for number in (3, 4):
        tables.append([{"kills": number}], path)
    assert kills.recorded(path) == 7
