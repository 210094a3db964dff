"""An interrupted run is tried beside a straight one, and what does not go on as it was is found."""

from __future__ import annotations

import signal
import tempfile

import pytest
import torch

from semiseg.engine.run import Run
from semiseg.engine.training import interruption
from semiseg.engine.training.interruption import verify_resume
from semiseg.engine.training.signals import Stopped
from semiseg.engine.training.step import Step
from semiseg.pipelines.errors import UsageError


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


def test_resuming_is_found_exact_and_nothing_is_left(tiny, voc_root, places):
    recipe = tiny("cac", data=voc_root(), steps=500)
    said = []
    verdict = verify_resume(recipe, 5, said.append)
    assert verdict.equal, verdict.different
    assert (verdict.steps, len(verdict.interrupted)) == (5, 3)
    assert verdict.compared > 100
    assert str(verdict).startswith("resume: equal: 5 steps, interrupted after ")
    notes = [event.text for event in said if event.kind == "note"]
    # Networks of random weights are sure of nothing.
    assert [note for note in notes if not note.startswith("warning: pseudo-labels: nothing is sure")] == [
        f"interrupted after step {step}" for step in verdict.interrupted
    ]
    assert not list(places.glob("semiseg-*"))
    assert not recipe.runtime.out.exists()


def test_the_whole_schedule_is_that_of_the_run_in_short(tiny, voc_root, places, monkeypatch):
    seen = []
    monkeypatch.setattr(interruption, "outcome", lambda out: seen.append(Run(out).recipe) or {})
    verify_resume(tiny("supervised", data=voc_root(), steps=500, warm_up=100), 10)
    assert [(recipe.steps, recipe.warm_up) for recipe in seen] == [(10, 2), (10, 2)]


def test_what_is_forgotten_is_named(tiny, voc_root, places, monkeypatch):
    """An optimizer that begins anew with each resume."""
    monkeypatch.setattr(Step, "load_state_dict", lambda self, state: None)
    verdict = verify_resume(tiny("supervised", data=voc_root()), 4)
    assert not verdict.equal
    assert "step/optimizer/state/0/momentum_buffer" in verdict.different
    assert "last/classifier.weight" in verdict.different
    assert "random/cpu" not in verdict.different
    assert "values differ: " in str(verdict)
    assert "more" in str(verdict)


def test_a_signal_ends_it(tiny, voc_root, places):
    def stop(event):
        if event.text == "straight" and event.done == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped, match="before the verdict"):
        verify_resume(tiny("supervised", data=voc_root()), 4, stop)
    assert not list(places.glob("semiseg-*"))


def test_what_cannot_be_exact_is_refused(tiny, voc_root, monkeypatch):
    recipe = tiny("supervised", data=voc_root())
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(UsageError, match="leave torchrun out"):
            verify_resume(recipe, 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="with --deterministic alone"):
        verify_resume(recipe.replace(device="cuda"), 4)
    with pytest.raises(UsageError, match="--verify-resume: must be at least 4 steps, is 3"):
        verify_resume(recipe, 3)
