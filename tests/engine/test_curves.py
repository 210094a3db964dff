"""What TensorBoard reads of a run: every step once, in order, whatever was interrupted."""

from __future__ import annotations

import shutil
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from semiseg.engine.curves import Curves
from semiseg.engine.run import Run


def curve(folder) -> list[tuple[int, float]]:
    """Steps and losses."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("loss")]


def test_numbers_of_a_line_are_curves(tmp_path):
    curves = Curves(tmp_path, 1)
    curves.add({"step": 1, "loss": 0.5, "val/miou": None, "note": "x", "lr": 1})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss", "lr"]
    assert curve(tmp_path) == [(1, 0.5)]


def test_steps_that_were_run_again_are_forgotten(tmp_path):
    run = Run.create(tmp_path / "run", {"name": "x"}, {})
    for step in (1, 2, 3):
        run.write({"step": step, "loss": 1.0})
    run.close()
    run = Run.open(run.folder)
    for step in (3, 4):
        run.write({"step": step, "loss": 0.5})
    run.close()
    assert curve(run.folder / "tensorboard") == [(1, 1), (2, 1), (3, 0.5), (4, 0.5)]


def test_steps_are_in_order_whatever_the_clock_does(tmp_path, monkeypatch):
    """A day back between a stop and going on, and two stops within one second."""
    for step, seconds in [(1, 2_000_000_000), (3, 1_999_900_000), (4, 1_999_900_000), (5, 1_999_900_001)]:
        monkeypatch.setattr(time, "time", lambda seconds=seconds: float(seconds))
        curves = Curves(tmp_path, step)
        for number in (step, step + 1):
            curves.add({"step": number, "loss": float(step)})
    assert len(list(tmp_path.iterdir())) == 4
    assert curve(tmp_path) == [(1, 1), (2, 1), (3, 3), (4, 4), (5, 5), (6, 5)]


def test_a_line_that_was_cut_short_costs_no_other(tmp_path):
    for step in (1, 2):
        curves = Curves(tmp_path, step)
        curves.add({"step": step, "loss": 1.0})
        if step == 1:
            curves.path.write_bytes(curves.path.read_bytes() + bytes(7))
    assert curve(tmp_path) == [(1, 1), (2, 1)]


def test_what_is_gone_is_not_written_to_for_ever(tmp_path):
    curves = Curves(tmp_path / "tensorboard", 1)
    shutil.rmtree(tmp_path / "tensorboard")
    with pytest.raises(FileNotFoundError):
        curves.add({"step": 1, "loss": 1.0})
