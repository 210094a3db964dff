"""The run's folder: log, refusals."""

from __future__ import annotations

import pytest

from semiseg.engine.run import Run
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
