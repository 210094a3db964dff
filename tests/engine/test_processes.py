"""Whole runs under torchrun, on the CPU: they go on with another number of processes, and end together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from few import ENCODER
from semiseg.engine import processes
from semiseg.engine.api import train
from semiseg.engine.catalogue import load_recipe
from semiseg.engine.checkpoint import load_network
from semiseg.engine.models import ENCODERS
from semiseg.engine.processes import Watchdog
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.outcome import differences, outcome
from semiseg.engine.training.signals import Stopped

PROGRAM = Path(__file__).with_name("together.py")
AGAIN = Path(__file__).with_name("again.py")
STEPS = 4
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """A folder with the prepared data set, and the small backbone."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMISEG_CACHE", str(folder / "cache"))
        patch.setitem(ENCODERS, "few", ENCODER)
        yield folder


def recipe(out: Path, **changes) -> Recipe:
    """FixMatch without dropout, on the embedded data set."""
    small = {"network": "cps", "backbone": "few", "head_width": 8, "weights": "none", "batch": 4, "crop": 32}
    small |= {"steps": STEPS, "eval_every": STEPS, "log_every": 1, "threads": 1}
    small |= {"device": "cpu", "precision": "fp32", "backend": "host", "out": out}
    built = load_recipe("fixmatch_shapes").replace(**small | changes)
    return built.replace(method=replace(built.method, threshold=0.2))


def torchrun(*arguments: str | Path) -> subprocess.CompletedProcess:
    """Two processes of a program."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def together(
    recipe: Recipe, *options: str, trouble: str | None = None, ranks: Sequence[Sequence[int]] = ((1,),)
) -> tuple[int, list[str], float]:
    """Trains by two processes, of which some get into trouble before the third step, in each try others: exit code,
    lines of standard error, and seconds from the trouble to the end."""
    task = {"recipe": recipe.to_dict(), "trouble": trouble, "step": 2, "ranks": ranks}
    file = recipe.runtime.out.with_suffix(".json")
    file.write_text(json.dumps(task))
    done = torchrun(*options, PROGRAM, file)
    began = re.search(r"trouble at ([\d.]+)", done.stderr)
    return done.returncode, done.stderr.splitlines(), time.time() - float(began[1]) if began else 0.0


def stopping_at(step: int):
    """A listener that stops the run after that step."""

    def listen(event):
        if event.kind == "log" and event.done == step:
            signal.raise_signal(signal.SIGTERM)

    return listen


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def whole(place) -> Path:
    """An uninterrupted run of one process."""
    return train(recipe(place / "whole")).out


def assert_same_run(out: Path, whole: Path) -> None:
    assert losses(out) == pytest.approx(losses(whole), rel=1e-4)
    ours, one = (load_network(folder / "checkpoints/last.safetensors") for folder in (out, whole))
    assert ours.header.miou == pytest.approx(one.header.miou, abs=1e-3)
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(ours.network.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_a_run_of_two_processes_goes_on_with_one(place, whole):
    """The signal reaches the second process alone: both stop after the same step, and the first one saves."""
    begun = recipe(place / "two")
    code, lines, _ = together(begun, trouble="is stopped")
    assert code == 1
    assert [line for line in lines if line.startswith("semiseg:")] == [
        f"semiseg: stopped after step 3; go on by `semiseg train {begun.runtime.out} --resume`"
    ]
    result = train(begun.replace(resume=True))
    assert_same_run(result.out, whole)


def test_a_run_of_one_process_goes_on_with_two(place, whole):
    begun = recipe(place / "one")
    with pytest.raises(Stopped):
        train(begun, stopping_at(2))
    code, lines, _ = together(begun.replace(resume=True))
    assert code == 0, lines
    assert (begun.runtime.out / "result.json").is_file()
    assert_same_run(begun.runtime.out, whole)


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ("raises", r"\[rank1\]: ArithmeticError: seven is not a number"),
        (
            "hangs",
            r"semiseg: --timeout: nothing went on for 0.05 minutes: process 0 is in \w+ \(distributed.py:\d+\), ",
        ),
    ],
)
def test_the_first_failure_is_the_last_word_and_ends_all(place, trouble, says):
    code, lines, seconds = together(recipe(place / trouble, timeout=0.05), trouble=trouble)
    assert code == 1
    assert seconds < 30
    ours = [line for line in lines if re.match(r"semiseg:|\[rank\d\]|\w*(Error|Exception):", line)]
    assert re.match(says, ours[-1]), lines
    assert not [line for line in ours if line.startswith("[rank0]")]


def test_a_run_whose_processes_are_killed_starts_anew_and_ends_bit_for_bit_like_others(place):
    """One of them, then both, at moments that nobody chose."""
    straight, killed = (recipe(place / name, steps=10, save_every="2", log_every=3) for name in ("straight", "killed"))
    assert together(straight)[0] == 0
    code, lines, _ = together(killed, "--max-restarts", "3", trouble="is killed", ranks=((1,), (0, 1)))
    assert code == 0, lines
    # The second time, one of the two may be dead before the other one comes to its trouble.
    assert sum(line.count("trouble at ") for line in lines) in (2, 3)
    assert any(line.startswith("semiseg: process 0 of 2: another one has ended without a word") for line in lines)
    assert differences(*(outcome(one.runtime.out) for one in (straight, killed))) == []


def test_processes_train_again_also_after_runs_that_failed(place, whole):
    """One that each refuses, and one that the first refuses while the other one waits for its turn: the first to do so
    says why, the other one has nothing to add."""
    folder = place / "again"
    folder.mkdir()
    runs = {name: recipe(folder / name) for name in ("first", "last")}
    refused = recipe(folder / "refused", crop=0), recipe(folder / "refused", split="gone.txt", timeout=3.0)
    tried = [runs["first"], *refused, runs["last"]]
    (folder / "recipes.json").write_text(json.dumps([one.to_dict() for one in tried]))
    done = torchrun(AGAIN, folder)
    assert done.returncode == 0, done.stderr
    ended = [json.loads((folder / f"ended-{rank}.json").read_text()) for rank in (0, 1)]
    assert [sorted(of_both) for of_both in zip(*ended, strict=True)] == [
        ["first", "first"],
        ["SystemExit", "UsageError"],
        ["SystemExit", "UsageError"],
        ["last", "last"],
    ]
    for run in runs.values():
        assert_same_run(run.runtime.out, whole)


def test_what_cannot_be_shared_is_refused_in_one_line(place):
    refused = recipe(place / "refused", batch=3)
    code, lines, _ = together(refused)
    assert code == 1
    assert [line for line in lines if line.startswith("semiseg:")] == [
        "semiseg: --batch: 3 images cannot be shared by 2 processes; use 2 or 4"
    ]
    assert not refused.runtime.out.exists()


@pytest.mark.parametrize(("failed", "ended"), [("0", []), ("1", [1])])
def test_the_process_that_failed_first_is_not_ended_before_it_has_said_why(monkeypatch, failed, ended):
    """By its own watchdog, which looks at any time; that of another process ends it."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(processes, "EVERY", 0.01)
    monkeypatch.setattr(processes, "GRACE", 0.01)
    exits = []
    store = torch.distributed.TCPStore("127.0.0.1", 0, 1, True)
    watchdog = Watchdog(store, 60.0)

    def leave(code):
        exits.append(code)
        watchdog.ended.set()

    monkeypatch.setattr(os, "_exit", leave)
    store.set("failed", failed)
    watchdog.start()
    watchdog.join(0.5)
    watchdog.ended.set()
    watchdog.join()
    assert exits == ended
