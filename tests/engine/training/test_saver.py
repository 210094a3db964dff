"""Saving beside the training: what is copied when, what a full disk does, how many stay."""

from __future__ import annotations

import errno
import os
import threading

import pytest
import torch

from semiseg.engine.disk import DiskFull
from semiseg.engine.training import saver as saver_module
from semiseg.engine.training.saver import Saver, host_copy
from semiseg.engine.training.state import load_save

CPU = torch.device("cpu")
NEVER = (float("inf"), float("inf"))


def full(*args) -> None:
    raise DiskFull(f"--out: cannot write x ({os.strerror(errno.ENOSPC)})")


def test_a_copy_does_not_follow_what_was_copied():
    momentum = torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    state = {"method": {"w": torch.zeros(3)}, "groups": [{"params": [0], "momentum": momentum}], "steps": (1, None)}
    copied = host_copy(state)
    state["method"]["w"] += 1
    momentum += 1
    assert copied["method"]["w"].tolist() == [0, 0, 0]
    assert not copied["groups"][0]["momentum"].any()
    assert copied["groups"][0]["momentum"].is_contiguous(memory_format=torch.channels_last)
    assert (copied["groups"][0]["params"], copied["steps"]) == ([0], (1, None))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_is_copied_from_a_gpu_is_that_of_the_step(tmp_path):
    """The next step is on its way before the copy is read."""
    weights = torch.zeros(1 << 24, device="cuda")
    saver = Saver(tmp_path, weights.device, NEVER)
    for step in range(1, 4):
        weights += 1
        saver.save(step, {"w": weights, "steps_done": step})
        weights += 100
        weights -= 100
    saver.flush()
    saver.close()
    for save in load_save(tmp_path, pytest.fail)[0]:
        state = torch.load(tmp_path / save.state, weights_only=True)
        assert (state["w"] == state["steps_done"]).all()
        assert not state["w"].is_cuda


def test_the_run_goes_on_while_a_save_is_written_and_waits_before_the_next(tmp_path, monkeypatch):
    may_write, write_save = threading.Event(), saver_module.write_save

    def slow(*args):
        assert may_write.wait(10)
        return write_save(*args)

    monkeypatch.setattr(saver_module, "write_save", slow)
    saver = Saver(tmp_path, CPU, NEVER)
    weights = torch.zeros(3)
    saver.save(1, {"w": weights})
    weights += 1  # the next step
    assert not list(tmp_path.iterdir())
    threading.Timer(0.05, may_write.set).start()
    saver.save(2, {"w": weights})
    first = torch.load(tmp_path / "state-1.pt")
    saver.flush()
    assert (first["w"].tolist(), torch.load(tmp_path / "state-2.pt")["w"].tolist()) == ([0] * 3, [1] * 3)
    saver.close()


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_saves_stay_as_are_asked_for(tmp_path, keep):
    saver = Saver(tmp_path, CPU, NEVER, keep=keep)
    for step in range(1, 6):
        saver.save(step, step)
    saver.close()
    assert sorted(path.stem for path in tmp_path.glob("*.pt")) == [f"state-{step}" for step in range(6 - keep, 6)]
    saves, state = load_save(tmp_path, pytest.fail)
    assert (len(saves), state) == (keep, 5)
    saver = Saver(tmp_path, CPU, NEVER, saves, keep=1)  # a run that goes on may ask for fewer
    saver.save(6, 6)
    saver.close()
    assert [path.stem for path in tmp_path.glob("*.pt")] == ["state-6"]


def test_two_saves_stay_also_after_going_on(tmp_path):
    saver = Saver(tmp_path, CPU, NEVER)
    for step in (1, 2, 3):
        saver.save(step, step)
    saver.close()
    assert sorted(path.stem for path in tmp_path.glob("*.pt")) == ["state-2", "state-3"]
    saves, state = load_save(tmp_path, pytest.fail)
    assert state == 3
    saver = Saver(tmp_path, CPU, NEVER, saves)
    saver.save(3, 3)  # again the one that is there
    saver.save(10, 10)
    saver.close()
    assert sorted(path.stem for path in tmp_path.glob("*.pt")) == ["state-10", "state-3"]
    assert load_save(tmp_path, pytest.fail)[1] == 10


def test_what_the_disk_does_not_take_is_told_and_comes_with_the_next_save(tmp_path, monkeypatch):
    """The best network must not be lost where its save was."""
    said = []
    saver = Saver(tmp_path, CPU, NEVER, say=said.append)
    saver.save(1, 1)
    saver.flush()
    with monkeypatch.context() as patch:
        patch.setattr(saver_module, "write_save", full)
        saver.save(2, 2, {"best.safetensors": lambda path: path.write_text("best of 2")})
        saver.wait()
    assert said == [f"warning: step 2 is not saved, training goes on: --out: cannot write x ({os.strerror(28)})"]
    assert load_save(tmp_path, pytest.fail)[1] == 1
    assert not (tmp_path / "best.safetensors").exists()
    saver.save(3, 3)
    saver.close()
    saves, state = load_save(tmp_path, pytest.fail)
    assert (state, (tmp_path / "best.safetensors").read_text()) == (3, "best of 2")
    assert set(saves[-1].networks) == {"best.safetensors"}
    assert len(said) == 1


def test_what_the_disk_does_not_take_at_last_is_an_error(tmp_path, monkeypatch):
    saver = Saver(tmp_path, CPU, NEVER)
    monkeypatch.setattr(saver_module, "write_save", full)
    saver.save(1, 1)
    with pytest.raises(DiskFull, match="No space left"):
        saver.flush()
    saver.close()


def test_a_fault_of_the_writing_thread_reaches_the_run(tmp_path):
    saver = Saver(tmp_path, CPU, NEVER)
    saver.save(1, 1, {"best.safetensors": lambda path: {}["a fault"]})
    with pytest.raises(KeyError, match="a fault"):
        saver.wait()


def test_a_save_is_due_after_minutes_or_steps(tmp_path):
    now = [100.0]
    timed = Saver(tmp_path, CPU, (60, float("inf")), clock=lambda: now[0])
    counted = Saver(tmp_path, CPU, (float("inf"), 3), clock=lambda: now[0])
    assert [counted.due(step) for step in (1, 2, 3)] == [False, False, True]
    assert not timed.due(1000)
    now[0] += 60
    assert timed.due(1000)
    timed.save(1000, 1000)
    assert not timed.due(1001)
    for saver in (timed, counted):
        saver.close()
    saves, _ = load_save(tmp_path, pytest.fail)
    after = Saver(tmp_path, CPU, (float("inf"), 3), saves)
    assert [after.due(step) for step in (1002, 1003)] == [False, True]
    after.close()
