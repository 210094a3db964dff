"""The verdict on what holds a run up."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import quick
from semiseg.engine.catalogue import load_recipe
from semiseg.engine.models import Network

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "quick.py"


@pytest.mark.parametrize(
    ("seconds", "bound", "flag"),
    [
        ({"input": 2.0, "step": 1.0, "evaluated_image": 0.01}, "decode", "--backend"),
        ({"input": 0.1, "step": 1.0, "evaluated_image": 0.01}, "compute", "--crop"),
        ({"input": 0.1, "step": 1.0, "evaluated_image": 10.0}, "evaluation", "--eval-every"),
        ({"input": 0.1, "step": 1.0, "launch": 0.95, "evaluated_image": 0.01}, "launch", "--batch"),
        ({"input": 0.1, "step": 1.0, "launch": 0.2, "evaluated_image": 0.01}, "compute", "--crop"),
    ],
)
def test_the_longest_part_is_named_with_a_flag(seconds, bound, flag):
    found = quick.verdict(seconds, steps=1000, evaluated=2000, device="cpu")
    assert found.bound == bound
    assert flag in found.advice
    assert "--precision" not in found.advice


def test_a_faster_precision_is_named():
    found = quick.verdict({"input": 0.1, "step": 1.0, "evaluated_image": 0.01}, 1000, 2000, "cpu", faster="bf16")
    assert "--precision bf16," in found.advice


def test_an_input_that_stalls_now_and_then_is_as_slow_as_it_is_on_average(monkeypatch):
    """Most calls take nothing: of those the median would tell."""
    clock = [0.0]
    calls = itertools.count(1)

    def wait():
        clock[0] += 6.0 if next(calls) % 4 == 0 else 0.01

    monkeypatch.setattr(quick.time, "perf_counter", lambda: clock[0])
    assert quick.flowing(wait, 30.0) == pytest.approx(6.03 / 4)


def test_evaluations_are_those_of_the_run(monkeypatch, voc_root):
    """Steps of a run with few evaluations take longer than these."""
    seen = {}

    def verdict(seconds, steps, evaluated, device, faster):
        seen.update(steps=steps, evaluated=evaluated)
        return quick.Verdict("compute", "")

    monkeypatch.setattr(quick, "SECONDS", 0.0)
    monkeypatch.setattr(quick, "verdict", verdict)
    small = "--backbone resnet18 --head-width 16 --weights none --crop 32 --batch 2 --threads 1 --split draw:1/2@0"
    quick.main(f"supervised_voc {small} --backend host --steps 600", voc_root(), "cpu", json=True)
    assert seen == {"steps": 600, "evaluated": 12 * 3}


@pytest.mark.parametrize(("method", "networks"), [("supervised", 1), ("mean_teacher", 2)])
def test_an_evaluation_is_that_of_all_networks_that_a_run_evaluates(monkeypatch, voc_root, method, networks):
    evaluated = []
    monkeypatch.setattr(quick, "SECONDS", 0.0)
    monkeypatch.setattr(quick, "evaluate_each", lambda network, *rest, **options: evaluated.append(network))
    small = "--backbone resnet18 --head-width 16 --weights none --crop 32 --batch 2 --threads 1 --split draw:1/2@0"
    quick.main(f"{method}_voc {small} --backend host", voc_root(), "cpu", json=True)
    assert len({id(network) for network in evaluated}) == networks


def test_networks_are_compiled_where_the_recipe_says_so(monkeypatch, voc_root):
    compiled = []
    monkeypatch.setattr(quick, "SECONDS", 0.0)
    monkeypatch.setattr(Network, "compile", lambda self: compiled.append(self))
    small = "--backbone resnet18 --head-width 16 --weights none --crop 32 --batch 2 --threads 1 --split draw:1/2@0"
    for said in ("", " --compile"):
        quick.main(f"supervised_voc {small} --backend host{said}", voc_root(), "cpu", json=True)
        assert len(compiled) == len(said.split())


@pytest.mark.parametrize(
    ("recipe", "says"),
    [("cac_vox", "cac_vox"), ("cac_shapes --crpo 3", "--crop"), ("cac_shapes '", "no name of a recipe")],
)
def test_wrong_input_is_one_line(recipe, says):
    done = subprocess.run([sys.executable, str(PROGRAM), "--recipe", recipe], capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


def test_a_run_is_measured_in_parts(monkeypatch, capsys, tmp_path, voc_root):
    monkeypatch.setattr(quick, "SECONDS", 0.0)
    recipe = load_recipe("supervised_voc").replace(
        backbone="resnet18",
        head_width=16,
        weights="none",
        crop=32,
        batch=2,
        threads=1,
        split="draw:1/2@0",
        backend="host",
        steps=3,
    )
    monkeypatch.setattr(quick, "find_recipe", lambda name: lambda: recipe)
    quick.main("supervised_voc --crop 48", voc_root(), "cpu", json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["bound"] in ("decode", "compute", "evaluation")
    assert document["settings"]["precision"] in ("fp32", "bf16")
    assert (document["settings"]["crop"], document["settings"]["backend"]) == (48, "HostBackend")
    assert document["environment"]["memory_gib"] > 0
    assert set(document["seconds"]) == {"input", "step", "evaluated_image"}
    assert all(value > 0 for value in document["seconds"].values())
