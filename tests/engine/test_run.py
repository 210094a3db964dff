"""The run's folder: log, refusals; what is written down of the machine."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from semiseg.engine.catalogue import load_recipe
from semiseg.engine.disk import DiskFull
from semiseg.engine.events import Event
from semiseg.engine.run import Notes, Run
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


@pytest.mark.parametrize("name", ["tensorboard", "matplotlib"])
def test_a_package_that_is_needed_later_is_missed_at_once(monkeypatch, tmp_path, tiny, voc_root, name):
    monkeypatch.setitem(sys.modules, name, None)
    recipe = tiny("supervised", data=voc_root())
    with pytest.raises(UsageError, match=rf"^{name}: .*pip install {name}"):
        Trainer(recipe)
    assert not recipe.runtime.out.exists()


@pytest.mark.parametrize("inside", ["", "runs/mine"])
def test_a_folder_that_is_a_file_is_told(tmp_path, inside):
    (tmp_path / "taken").touch()
    with pytest.raises(UsageError, match=r"^--out: .*taken is a file; choose a folder$"):
        Run.check(tmp_path / "taken" / inside)


def test_what_was_noted_before_and_after_there_is_a_run_is_kept_once(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    told: list[Event] = []
    notes = Notes(told.append)
    events = [
        Event("note", "data: two\nlines"),
        Event("note", "step 1/3  val mIoU 40.00 %", values={"val/miou": 0.4}),
        Event("log", "step 1/3  loss 1.0", values={"loss": 1.0}),
    ]
    for event in events:
        notes(event)
    run = Run(tmp_path / "run")
    assert run.notes == []
    notes.keep_in(run)
    with monkeypatch.context() as full:
        full.setattr(Run, "write_notes", lambda *_: raising())
        notes(Event("note", "warning: data: few"))
    notes(Event("note", "data: two lines"))
    assert run.notes == ["data: two lines", "warning: data: few"]
    assert told[:3] == events


def raising():
    raise DiskFull("no room")
