"""The verdict on what holds a run up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import quick

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "quick.py"


@pytest.mark.parametrize(
    ("seconds", "bound", "flag"),
    [
        ({"input": 2.0, "step": 1.0, "evaluated_image": 0.01}, "decode", "--backend"),
        ({"input": 0.1, "step": 1.0, "evaluated_image": 0.01}, "compute", "--precision bf16"),
        ({"input": 0.1, "step": 1.0, "evaluated_image": 10.0}, "evaluation", "--eval-every"),
        ({"input": 0.1, "step": 1.0, "launch": 0.95, "evaluated_image": 0.01}, "launch", "--batch"),
        ({"input": 0.1, "step": 1.0, "launch": 0.2, "evaluated_image": 0.01}, "compute", "--crop"),
    ],
)
def test_the_longest_part_is_named_with_a_flag(seconds, bound, flag):
    found = quick.verdict(seconds, steps=1000, validation=100, device="cpu")
    assert found.bound == bound
    assert flag in found.advice


def test_wrong_input_is_one_line():
    done = subprocess.run([sys.executable, str(PROGRAM), "--recipe", "cac_vox"], capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_run_is_measured_in_parts(monkeypatch, capsys, tmp_path, voc_root):
    monkeypatch.setattr(quick, "SECONDS", 0.0)
    recipe = quick.load_recipe("supervised_voc").replace(
        **{"backbone": "resnet18", "head_width": 16, "weights": "none", "crop": 32, "batch": 2, "threads": 1},
        **{"split": "draw:1/2@0", "backend": "host", "steps": 3},
    )
    monkeypatch.setattr(quick, "load_recipe", lambda name: recipe)
    quick.main("supervised_voc", voc_root(), "cpu", json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["bound"] in ("decode", "compute", "evaluation")
    assert document["settings"]["precision"] in ("fp32", "bf16")
    assert (document["settings"]["crop"], document["settings"]["backend"]) == (32, "HostBackend")
    assert document["environment"]["memory_gib"] > 0
    assert set(document["seconds"]) == {"input", "step", "evaluated_image"}
    assert all(value > 0 for value in document["seconds"].values())
