"""`semiseg bench`: which benchmarks it starts, and how it ends."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from semiseg.engine.child import PYTHON


@pytest.fixture
def started(monkeypatch):
    """Programs that `bench` starts, by name, and their arguments, instead of starting them."""
    commands = []

    def run(command):
        assert command[: len(PYTHON)] == [*PYTHON]
        program, *arguments = command[len(PYTHON) :]
        commands.append([Path(program).name, *arguments])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def kernels_of(command):
    """The kernels that pytest is started for, and its flags."""
    assert command[:3] == ["-m", "pytest", "-q"]
    files = [argument for argument in command if argument.endswith(".py")]
    assert all(Path(file).is_file() for file in files)
    return [Path(file).stem for file in files], command[3 + len(files) :]


def test_all_of_them_on_the_embedded_data_set(semiseg, started):
    assert semiseg("bench")[0] == 0
    loader, kernels = started
    assert loader == ["bench_loader.py"]
    names, flags = kernels_of(kernels)
    assert {"bench_cutmix", "bench_directional_contrast"} <= set(names)
    assert not {"bench_loader", "bench_step", "bench_save", "bench_waterfall"} & set(names)
    assert flags == ["--sizes", "default"]


def test_all_of_them_on_photographs(semiseg, started, tmp_path):
    assert semiseg("bench", "--data", tmp_path, "--sizes", "all")[0] == 0
    loader, step, kernels = started
    assert loader == ["bench_loader.py", "--data", str(tmp_path)]
    assert step == ["bench_step.py", "--data", str(tmp_path)]
    assert kernels_of(kernels)[1] == ["--sizes", "all"]


def test_of_tiny_sizes_the_kernels_alone(semiseg, started):
    assert semiseg("bench", "--sizes", "tiny")[0] == 0
    (kernels,) = started
    assert kernels_of(kernels)[1] == ["--sizes", "tiny"]


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (["--quick", "--recipe", "cac_voc --crop 96", "--json"], "quick.py"),
        (["compare", "one.json", "two.json"], "compare.py"),
        (["loader", "--rounds", "2"], "bench_loader.py"),
        (["step", "--data", "VOC", "--compile"], "bench_step.py"),
        (["waterfall", "--help"], "bench_waterfall.py"),
        (["save", "--crop", "64"], "bench_save.py"),
    ],
)
def test_one_of_them_takes_flags_of_its_own(semiseg, started, words, program):
    assert semiseg("bench", *words)[0] == 0
    assert started == [[program, *words[1:]]]


def test_one_kernel(semiseg, started):
    assert semiseg("bench", "cutmix", "--sizes", "tiny", "--compiled")[0] == 0
    (command,) = started
    assert kernels_of(command) == (["bench_cutmix"], ["--sizes", "tiny", "--compiled"])


@pytest.mark.parametrize("ended", [1, 2])
def test_it_ends_as_the_benchmark_does(semiseg, monkeypatch, tmp_path, ended):
    """Which has said what there is to say."""
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, ended))
    for words in (["step", "--data", tmp_path], ["compare", "one.json", "two.json"], ["--data", tmp_path]):
        code, _, told = semiseg("bench", *words)
        assert (code, told) == (ended, "")


def test_something_unknown_is_one_line(refused, started):
    assert "cutmix" in refused("bench", "cutmux")
    assert "--crop" in refused("bench", "--crop", "64")
    assert not started
