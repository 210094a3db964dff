"""The run's folder: log, refusals."""

from __future__ import annotations

import errno
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from semiseg.engine.disk import whole
from semiseg.engine.run import Run, create_new
from semiseg.engine.training.trainer import Trainer
from semiseg.pipelines.errors import UsageError


def test_the_log_forgets_steps_that_were_run_again(tmp_path):
    run = Run.create(tmp_path / "run", {"name": "x"})
    for step, loss in [(1, 1.0), (2, 0.9), (3, 0.8), (2, 0.7), (3, float("nan"))]:
        run.write({"step": step, "loss": loss})
    with (run.folder / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    run.close()
    assert [(line["step"], line["loss"]) for line in Run.open(run.folder).log] == [
        (1, 1.0),
        (2, 0.7),
        (3, None),
    ]


def test_a_folder_with_a_run_is_refused_and_left_alone(tmp_path):
    run = Run.create(tmp_path / "run", {"name": "first"})
    (run.checkpoints / "last.safetensors").write_text("")
    with pytest.raises(UsageError, match="already holds a run"):
        Run.create(tmp_path / "run", {"name": "second"})
    assert Run.open(tmp_path / "run").recipe == {"name": "first"}


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


@pytest.mark.parametrize("name", ["tensorboard", "matplotlib"])
def test_a_package_that_is_needed_later_is_missed_at_once(monkeypatch, tmp_path, tiny, voc_root, name):
    monkeypatch.setitem(sys.modules, name, None)
    recipe = tiny("supervised", data=voc_root())
    with pytest.raises(UsageError, match=rf"^{name}: .*pip install {name}"):
        Trainer(recipe)
    assert not recipe.runtime.out.exists()
