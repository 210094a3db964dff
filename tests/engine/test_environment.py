"""What is written down of the machine, the versions and the commit."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import torch

from semiseg.engine.environment import commit_of, environment

GPU = ("gpu", "gpus", "gpu_memory_gib", "compute_capability", "driver", "cudnn")


def test_a_stranger_learns_all_of_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # and left alone, as by a run on the CPU
    found = json.loads(json.dumps(environment()))
    assert found["command"] == sys.argv
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["platform"].startswith(os.uname().sysname)
    assert found["processor"]
    assert found["instructions"]
    assert 1 <= found["cores"] <= os.cpu_count()
    assert found["threads"] == torch.get_num_threads()
    assert 0.1 < found["memory_gib"] <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 + 0.1
    assert found["packages"].items() >= {"semiseg": version("semiseg"), "torch": version("torch")}.items()
    assert found["commit"] == commit_of(Path(inspect.getfile(environment)))  # of the library, not of this test
    assert [found[name] for name in GPU] == 6 * [None]


def test_a_gpu_is_described_with_its_driver(monkeypatch):
    device = SimpleNamespace(name="NVIDIA X", total_memory=80 * 2**30, major=9, minor=0)
    for name, value in [("is_initialized", True), ("current_device", 0), ("device_count", 2)]:
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    nvml = SimpleNamespace(nvmlInit=lambda: None, nvmlSystemGetDriverVersion=lambda: "595.1", NVMLError=OSError)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = environment()
    assert [found[name] for name in GPU] == ["NVIDIA X", 2, 80.0, "9.0", "595.1", 91900]


def test_the_commit_is_that_of_the_file_and_of_no_project_around_it(tmp_path):
    def git(*words: str) -> None:
        person = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", tmp_path, *person, *words], check=True, capture_output=True)

    ours, others = tmp_path / "ours.py", tmp_path / "installed.py"
    ours.write_text("1")
    assert commit_of(ours) is None
    git("init", "-q")
    git("add", "ours.py")
    git("commit", "-qm", "first")
    others.write_text("2")
    commit = commit_of(ours)
    assert len(commit) == 40
    assert commit_of(others) is None
    ours.write_text("3")
    assert commit_of(ours) == f"{commit}-dirty"
