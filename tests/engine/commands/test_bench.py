"""`semiseg bench`: what it hands on to the benchmarks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from semiseg.engine.child import PYTHON


@pytest.fixture
def started(monkeypatch):
    """Arguments of the programs that `bench` starts, instead of starting them."""
    commands = []

    def run(command):
        assert command[: len(PYTHON)] == [*PYTHON]
        commands.append(command[len(PYTHON) :])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_bench_runs_the_loader_and_the_kernels(semiseg, started, tmp_path):
    assert semiseg("bench", "--data", tmp_path, "--rounds", "2")[0] == 0
    loader, step, kernels = started
    assert step[0].endswith("bench_step.py")
    assert loader[0].endswith("bench_loader.py")
    assert loader[1:] == ["--data", str(tmp_path), "--rounds", "2"]
    assert kernels[:2] == ["-m", "pytest"]
    assert kernels[-4:] == ["--sizes", "default", "--rounds", "2"]
    names = [Path(argument).stem for argument in kernels if argument.endswith(".py")]
    assert "bench_cutmix" in names
    assert "bench_directional_contrast" in names
    assert not {"bench_loader", "bench_step"} & set(names)


def test_bench_quick_takes_a_recipe_and_its_data(semiseg, started, tmp_path):
    assert semiseg("bench", "--quick", "--recipe", "cac_voc", "--data", tmp_path)[0] == 0
    assert started[0][1:] == ["--recipe", "cac_voc", "--data", str(tmp_path)]
    assert semiseg("bench", "--quick", "--json")[0] == 0
    assert started[1][1:] == ["--json"]


def test_bench_compare_takes_two_results(refused, semiseg, started):
    assert "BASE and NEW" in refused("bench", "compare", "one.json")
    assert semiseg("bench", "compare", "one.json", "two.json")[0] == 0
    assert started[0][1:] == ["one.json", "two.json"]


def test_bench_of_the_step_wants_data(refused):
    assert "--data" in refused("bench", "step")


def test_bench_of_saves_is_a_program_of_its_own(semiseg, started):
    assert semiseg("bench", "save", "--crop", "64", "--rounds", "1")[0] == 0
    (command,) = started
    assert command[0].endswith("bench_save.py")
    assert command[1:] == ["--rounds", "1", "--crop", "64"]


def test_bench_of_compiled_steps(semiseg, started, tmp_path):
    assert semiseg("bench", "step", "--data", tmp_path, "--compiled")[0] == 0
    assert started[0][1:] == ["--data", str(tmp_path), "--compile"]


@pytest.mark.parametrize("what", ["step", "waterfall"])
def test_bench_hands_on_what_is_trained_and_where_rows_go(semiseg, started, tmp_path, what):
    words = ["--method", "cps", "--crop", "160", "--steps", "10", "--json", "--results", tmp_path / "rows.csv"]
    assert semiseg("bench", what, "--data", tmp_path, *words)[0] == 0
    (command,) = started
    assert command[0].endswith(f"bench_{what}.py")
    assert command[1:] == ["--data", str(tmp_path), *map(str, words)]


def test_bench_refuses_what_the_benchmark_would_not_heed(refused, semiseg, started):
    assert "bench loader: --crop is of step, waterfall, save;" in refused("bench", "loader", "--crop", "0")
    assert "--json is of loader, step, waterfall, --quick;" in refused("bench", "cutmix", "--json")
    assert "bench all: --results is of loader, step, waterfall, save, kernels;" in refused(
        "bench", "--results", "a.csv"
    )
    assert '; or give it to the recipe: --recipe "NAME --crop ..."' in refused("bench", "--quick", "--crop", "96")
    assert "bench waterfall: --rounds is of all, loader, step, save, kernels;" in refused(
        "bench", "waterfall", "--data", ".", "--rounds", "3"
    )
    assert "bench loader: --sizes is of all, kernels;" in refused("bench", "loader", "--sizes", "tiny")
    assert "bench step: --recipe is of --quick;" in refused("bench", "step", "--data", ".", "--recipe", "cac_voc")
    assert "names of files (a.json) is of compare;" in refused("bench", "loader", "a.json")
    assert "--quick measures a run of a recipe; leave it or 'loader' out" in refused("bench", "loader", "--quick")
    assert "--data" in refused("bench", "waterfall")
    assert not started


def test_bench_ends_as_a_program_that_has_said_what_to_mend(semiseg, monkeypatch, tmp_path):
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, 2))
    code, _, told = semiseg("bench", "step", "--data", tmp_path)
    assert (code, told) == (2, "")


def test_bench_of_one_kernel(semiseg, started):
    assert semiseg("bench", "cutmix", "--sizes", "tiny", "--compiled")[0] == 0
    (kernels,) = started
    assert [Path(argument).name for argument in kernels if argument.endswith(".py")] == ["bench_cutmix.py"]
    assert kernels[-3:] == ["--sizes", "tiny", "--compiled"]


def test_bench_of_tiny_sizes_measures_no_time(semiseg, started):
    assert semiseg("bench", "--sizes", "tiny")[0] == 0
    (kernels,) = started
    assert kernels[:2] == ["-m", "pytest"]
    assert kernels[-2:] == ["--sizes", "tiny"]


def test_bench_of_something_unknown(refused):
    assert "cutmix" in refused("bench", "cutmux")
