"""The run's folder: log, refusals; what is written down of the machine."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils import collect_env

from semiseg.engine.catalogue import load_recipe
from semiseg.engine.disk import DiskFull, whole, writing
from semiseg.engine.run import Run, commit_of, create_new, environment
from semiseg.engine.training.trainer import Trainer
from semiseg.pipelines.errors import UsageError


def test_the_log_forgets_steps_that_were_run_again(tmp_path):
    run = Run.create(tmp_path / "run", {"name": "x"}, {})
    for step, loss in [(1, 1.0), (2, 0.9), (3, 0.8), (2, 0.7), (3, float("nan"))]:
        run.write({"step": step, "loss": loss})
    with (run.folder / "log.jsonl").open("a") as file:
        file.write('7\n[]\n{"loss": 1}\n{"step": "4"}\n{"step": 4, "lo')
    run.close()
    assert [(line["step"], line["loss"]) for line in Run.open(run.folder).log] == [
        (1, 1.0),
        (2, 0.7),
        (3, None),
    ]


def test_a_line_that_a_kill_cut_short_swallows_none(tmp_path):
    run = Run.create(tmp_path / "run", {"name": "x"}, {})
    run.write({"step": 1, "loss": 1.0})
    run.close()
    path = run.folder / "log.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 2, "val": {}')
    run = Run.open(run.folder)
    for step in (2, 3):
        run.write({"step": step, "loss": 0.5})
    run.close()
    assert [line["step"] for line in run.log] == [1, 2, 3]
    assert len(path.read_text().splitlines()) == 4


def test_lines_that_there_is_no_room_for_come_with_the_next(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", {"name": "x"}, {})
    path = run.folder / "log.jsonl"
    path.symlink_to("/dev/full")
    for step in (1, 2):
        with pytest.raises(DiskFull, match=r"log.jsonl \(No space left on device\)"):
            run.write({"step": step, "loss": 0.5})
    path.unlink()
    run.write({"step": 3, "loss": 0.5})
    run.close()
    assert [line["step"] for line in run.log] == [1, 2, 3]


@pytest.mark.parametrize("gone", [".", "log.jsonl"])
def test_a_folder_that_is_gone_or_closed_is_one_line(tmp_path, gone):
    run = Run.create(tmp_path / "run", {"name": "x"}, {})
    if gone == ".":
        shutil.rmtree(run.folder)
    else:
        (run.folder / gone).mkdir()
    with pytest.raises(UsageError, match="cannot write") as error:
        run.write({"step": 1, "loss": 0.5})
    assert not isinstance(error.value, DiskFull)


def test_a_run_is_one_process_s_at_a_time(tmp_path):
    first = Run.create(tmp_path / "run", {"name": "x"}, {})
    with pytest.raises(UsageError, match="another process trains"):
        Run.open(first.folder).lock()
    first.close()
    Run.open(first.folder).lock()


@pytest.mark.parametrize("text", ['{"na', "[1]", "[" * 100_000])
@pytest.mark.parametrize("name", ["recipe.json", "split.json"])
def test_a_damaged_file_of_a_run_is_one_line(tmp_path, name, text):
    run = Run.create(tmp_path / "run", {"name": "x"}, {})
    (run.folder / name).write_text(text)
    with pytest.raises(UsageError, match=rf"{name}: missing or damaged"):
        run.read_json(name)


def test_the_newest_unfinished_run_of_a_recipe(tmp_path):
    with pytest.raises(UsageError, match=r"no unfinished run of x is in .*--out FOLDER"):
        Run.unfinished(tmp_path / "nowhere", "x")
    for age, (name, recipe) in enumerate([("d", "x"), ("c", "y"), ("b", "x"), ("a", "x")]):
        run = Run.create(tmp_path / name, {"name": recipe}, {})
        os.utime(run.folder / "recipe.json", (age, age))
    assert Run.unfinished(tmp_path, "x").folder == tmp_path / "a"
    (tmp_path / "a/result.json").touch()
    assert Run.unfinished(tmp_path, "x").folder == tmp_path / "b"
    (tmp_path / "b/recipe.json").write_text("")
    assert Run.unfinished(tmp_path, "x").folder == tmp_path / "d"


def test_a_folder_with_a_run_is_refused_and_left_alone(tmp_path):
    recipe = load_recipe("cac_voc")
    run = Run.create(tmp_path / "run", recipe.to_dict(), {})
    (run.checkpoints / "last.safetensors").write_text("")
    with pytest.raises(UsageError, match="already holds a run"):
        Run.create(tmp_path / "run", {"name": "second"}, {})
    assert Run.open(tmp_path / "run").recipe == recipe


def test_two_processes_do_not_begin_one_run(tmp_path, monkeypatch):
    """Also where the second looks before the first has written anything."""
    first = Run.create(tmp_path / "run", {"name": "first"}, {})
    monkeypatch.setattr(Run, "check", staticmethod(lambda folder: None))
    with pytest.raises(UsageError, match=r"--out: another process trains .*run"):
        Run.create(tmp_path / "run", {"name": "second"}, {})
    assert first.read_json("recipe.json") == {"name": "first"}
    first.close()


def test_curves_keep_the_losses_of_a_step_that_is_judged_again(tmp_path):
    """As after a stop between the last step and its evaluation."""
    run = Run.create(tmp_path / "run", {}, {})
    for step in (2, 4):
        run.write({"step": step, "loss": float(step)})
    run.close()
    again = Run.open(tmp_path / "run")
    again.write({"step": 4, "val/miou": 0.5})
    again.close()
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(2, 2.0), (4, 4.0)]
    assert [event.step for event in events.Scalars("val/miou")] == [4]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"recipe\.json"):
        Run.open(tmp_path)


def test_runs_that_begin_at_once_have_a_folder_each(tmp_path):
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: create_new(tmp_path / "runs/cac-1"), range(4)))
    assert sorted(path.name for path in made) == ["cac-1", "cac-1-2", "cac-1-3", "cac-1-4"]
    assert all(path.is_dir() for path in made)


def fill(path: Path, error: Exception) -> None:
    """Half a file, and then the disk is full."""
    with whole(path) as draft:
        draft.write_text("half")
        raise error


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("file write failed")])
def test_a_full_disk_is_one_line_and_keeps_what_was_there(tmp_path, error):
    path = tmp_path / "last.state.pt"
    path.write_text("before")
    with pytest.raises(UsageError, match=r"^--out: cannot write .*last.state.pt \((No space|file write).*--resume"):
        fill(path, error)
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["last.state.pt"]


def test_a_folder_that_is_gone_is_no_full_disk(tmp_path):
    """Of which torch's error says as little."""
    with pytest.raises(UsageError, match="No such file or directory") as error, writing(tmp_path / "gone/a"):
        torch.save(1, tmp_path / "gone/a")
    assert not isinstance(error.value, DiskFull)


@pytest.mark.parametrize("name", ["tensorboard", "matplotlib"])
def test_a_package_that_is_needed_later_is_missed_at_once(monkeypatch, tmp_path, tiny, voc_root, name):
    monkeypatch.setitem(sys.modules, name, None)
    recipe = tiny("supervised", data=voc_root())
    with pytest.raises(UsageError, match=rf"^{name}: .*pip install {name}"):
        Trainer(recipe)
    assert not recipe.runtime.out.exists()


GPU = ("gpu", "gpus", "gpu_memory_gib", "compute_capability", "driver")


def test_a_stranger_learns_all_of_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = json.loads(json.dumps(environment()))
    wanted = {"command", "python", "platform", "processor", "instructions", "cores", "threads", "memory_gib"}
    assert found.keys() == wanted | {"cuda", "cudnn", "commit", "packages", *GPU}
    assert found["memory_gib"] > 0.1
    assert found["packages"]["torch"]
    assert [found[name] for name in GPU] == 5 * [None]


def test_a_gpu_is_described_with_its_driver(monkeypatch):
    device = SimpleNamespace(name="NVIDIA X", total_memory=80 * 2**30, major=9, minor=0)
    for name, value in [("is_available", True), ("current_device", 0), ("device_count", 2)]:
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)
    monkeypatch.setattr(collect_env, "run", lambda command: (0, "| NVIDIA-SMI 1  Driver Version: 595.1 |", ""))
    found = environment()
    assert [found[name] for name in GPU] == ["NVIDIA X", 2, 80.0, "9.0", "595.1"]


def test_the_commit_is_that_of_the_file_and_of_no_project_around_it(tmp_path):
    def git(*words: str) -> None:
        person = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", tmp_path, *person, *words], check=True, capture_output=True)

    ours, others = tmp_path / "ours.py", tmp_path / "installed.py"
    ours.write_text("1")
    assert commit_of(ours) is None
    git("init", "-q")
    git("add", "ours.py")
    git("commit", "-qm", "first")
    others.write_text("2")
    commit = commit_of(ours)
    assert len(commit) == 40
    assert commit_of(others) is None
    ours.write_text("3")
    assert commit_of(ours) == f"{commit}-dirty"
