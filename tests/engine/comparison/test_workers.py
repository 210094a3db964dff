"""The processes that train a comparison's runs. A stand-in takes the place of training, and does what its run's method
says."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from semiseg.engine.comparison import workers
from semiseg.engine.comparison.workers import Place, RunFailed, log_of, places, train_all
from semiseg.engine.training.signals import Stopped
from semiseg.pipelines.errors import UsageError

STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
what, folder, *more = sys.argv[1:]
folder = Path(folder)
folder.mkdir(exist_ok=True)
said = {"words": more, "threads": os.environ["OMP_NUM_THREADS"], "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}
with (folder / "said.jsonl").open("a") as file:
    file.write(json.dumps(said) + "\\n")
(folder / "recipe.json").write_text("{}")
def stop(number, frame):
    print("semiseg: stopped after step 7")
    (folder / "stopped").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
if what == "refused":
    print("some words\\nsemiseg: --lr: must be above 0")
    sys.exit(2)
(folder / "log.jsonl").write_text('{"step": 7}\\n{"st')
if what == "waits" and "--resume" not in more:
    time.sleep(60)
elif what == "faulty":
    print("some words\\nsemiseg: --lr: the loss is not finite any more")
    sys.exit(2)
elif what == "broken":
    raise RuntimeError("no such thing")
elif what == "depends":
    time.sleep(0.3)
    if os.environ["CUDA_VISIBLE_DEVICES"] == "broken":
        sys.exit(1)
elif what == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
elif what == "stopped":
    os.kill(os.getpid(), signal.SIGTERM)
(folder / "result.json").write_text("{}")
"""


@pytest.fixture
def entries(planned, tmp_path, monkeypatch):
    """`entries("fine", "broken")`: runs of which each does what it is called."""
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    monkeypatch.setattr(workers, "PROGRAM", (sys.executable, str(program)))
    monkeypatch.setattr(workers, "LOOK", 0.02)

    def build(*kinds, **changes):
        comparison = planned(["supervised_folder"], seeds=len(kinds), **changes)
        comparison.out.mkdir(exist_ok=True)
        return [
            dataclasses.replace(entry, method=kind, command=(kind, str(entry.folder)))
            for entry, kind in zip(comparison.entries, kinds)
        ]

    return build


@pytest.fixture
def lock(tmp_path):
    with (tmp_path / "lock").open("w") as file:
        yield file.fileno()


def said(entry) -> list[dict]:
    return [json.loads(line) for line in (entry.folder / "said.jsonl").read_text().splitlines()]


def until(holds, seconds=20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_runs_that_are_not_finished_are_trained_and_each_is_told_of(entries, lock):
    runs = entries("fine", "fine", "fine")
    runs[1].folder.mkdir()
    (runs[1].folder / "result.json").write_text("{}")
    finished, told = [], []
    train_all(runs, [Place(2), Place(2)], lock, finished.append, told.append)
    assert sorted(entry.seed for entry in finished) == [0, 2]
    assert all(entry.run.finished for entry in runs)
    assert not (runs[1].folder / "said.jsonl").exists()
    assert [(one["words"], one["threads"]) for one in said(runs[0])] == [(["--threads", "2"], "2")]
    assert (told[-1].kind, told[-1].done, told[-1].total) == ("progress", 60, 60)


def test_threads_that_were_asked_for_are_kept(entries, lock):
    (run,) = entries("fine", threads=5)
    train_all([run], [Place(2)], lock, lambda entry: None)
    assert said(run)[0]["words"] == []


def test_every_place_has_its_gpu(entries, lock):
    runs = entries("fine", "fine")
    train_all(runs, [Place(1, "3"), Place(1, "GPU-abc")], lock, lambda entry: None)
    assert {one["gpu"] for run in runs for one in said(run)} == {"3", "GPU-abc"}


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("refused", UsageError, "seed 0: --lr: must be above 0 (all it said: "),
        ("stopped", Stopped, "stopped after step 7; the same command goes on"),
    ],
)
def test_what_a_user_can_mend_ends_the_others_and_is_told_in_one_line(entries, lock, kind, error, words):
    failing, waiting, never = entries(kind, "waits", "fine")
    with pytest.raises(error) as caught:
        # The one that waits starts first, so that it is at work when the other fails.
        train_all([waiting, failing, never], [Place(1), Place(1)], lock, lambda entry: None)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not never.folder.exists()
    assert not waiting.run.finished
    assert log_of(failing).exists()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("broken", "failed: RuntimeError: no such thing; all it said: "),
        ("killed", "was ended by signal 9 "),
        ("faulty", "failed: --lr: the loss is not finite any more; all it said: "),
    ],
)
def test_the_others_go_on_where_a_run_breaks_down(entries, lock, kind, words):
    runs, told, finished = entries(kind, "fine", kind, "fine"), [], []
    with pytest.raises(RunFailed) as caught:
        train_all(runs, [Place(1)], lock, finished.append, told.append)
    assert words in str(caught.value)
    assert str(caught.value).endswith(" (1 more failed); the same command tries again")
    assert finished == [runs[1], runs[3]]
    notes = [event.text for event in told if event.kind == "note"]
    assert [words in note for note in notes] == [True, True]
    assert log_of(runs[2]).exists()


def test_a_place_where_all_breaks_down_is_left_out_while_there_are_others(entries, lock):
    """As a GPU that is broken: it takes no more than two of the runs."""
    runs, told, finished = entries(*["depends"] * 8), [], []
    with pytest.raises(RunFailed, match=r"\(1 more failed\)"):
        train_all(runs, [Place(1, "0"), Place(1, "broken")], lock, finished.append, told.append)
    assert len(finished) == 6
    assert "2 runs in a row broke down on GPU broken: it is left out" in [event.text for event in told]
    again = [run for run in runs if not run.run.finished]
    with pytest.raises(RunFailed, match=r"\(1 more failed\)"):  # the only one that there is
        train_all(again, [Place(1, "broken")], lock, finished.append)


def test_processors_are_not_left_out(entries, lock):
    """Where a run breaks down, the next may do well."""
    runs, told, finished = entries(*["broken"] * 4, "fine"), [], []
    with pytest.raises(RunFailed, match=r"\(3 more failed\)"):
        train_all(runs, [Place(1), Place(1)], lock, finished.append, told.append)
    assert finished == [runs[4]]
    assert not any("left out" in event.text for event in told)


def test_a_run_that_is_finished_beside_one_that_ends_all_is_told_of(entries, lock, monkeypatch):
    monkeypatch.setattr(workers, "LOOK", 3.0)  # both have ended by then
    refused, fine = entries("refused", "fine")
    finished = []
    with pytest.raises(UsageError, match="must be above 0"):
        train_all([refused, fine], [Place(1), Place(1)], lock, finished.append)
    assert finished == [fine]


def test_a_signal_stops_all_and_the_next_call_goes_on(entries, lock):
    runs, told = entries("waits", "waits", "fine"), []

    def interrupt():
        until(lambda: any(event.done == 14 for event in told))  # steps, of the whole lines of both logs
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Stopped) as caught:
        train_all(runs, [Place(1), Place(1)], lock, lambda entry: None, told.append)
    thread.join()
    assert caught.value.signal == signal.SIGINT
    assert [(run.folder / "stopped").exists() for run in runs] == [True, True, False]
    train_all(runs, [Place(1)], lock, lambda entry: None)
    assert [len(said(run)) for run in runs] == [2, 2, 1]
    assert said(runs[0])[1]["words"] == ["--threads", "1", "--resume"]
    assert all(run.run.finished for run in runs)


@pytest.mark.parametrize(
    ("device", "kind", "jobs", "runs", "gpus", "threads"),
    [
        ("auto", "cpu", 0, 100, [None] * 8, 1),
        ("auto", "cpu", 0, 3, [None] * 3, 2),
        ("auto", "cpu", 2, 100, [None] * 2, 4),
        ("auto", "cuda", 0, 100, ["4", "7"], 4),
        ("auto", "cuda", 3, 100, ["4", "7", "4"], 2),
        ("cuda", "cuda", 1, 100, ["4"], 8),
        ("cuda:1", "cuda", 0, 100, [None], 8),
        ("auto", "cpu", 0, 0, [None], 8),
    ],
)
def test_there_is_a_place_for_each_core_or_gpu_but_no_more_than_runs(
    monkeypatch, device, kind, jobs, runs, gpus, threads
):
    monkeypatch.setattr(workers, "cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = places(device, kind, jobs, runs)
    assert [place.gpu for place in found] == gpus
    assert {place.threads for place in found} == {threads}


def test_there_are_no_more_threads_than_the_environment_allows(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [place.threads for place in places("cpu", "cpu", 2, 9)] == [3, 3]
    assert [place.threads for place in places("cpu", "cpu", 4, 9)] == [2, 2, 2, 2]


def test_without_a_choice_of_gpus_all_are_taken(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [place.gpu for place in places("auto", "cuda", 0, 9)] == ["0", "1", "2"]


def test_the_log_of_a_run_stands_beside_its_folder(planned):
    (entry,) = planned(["supervised_folder"]).entries
    assert log_of(entry) == Path(f"{entry.folder}.log")
