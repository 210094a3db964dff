"""Configurations: baked by architecture, measured where asked for; float32 products as torch is told."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from semiseg.kernels import _triton
from semiseg.kernels._triton import Configuration

OLD, NEW, FAST = (Configuration({"SIZE": size}) for size in (1, 2, 3))


@pytest.mark.parametrize(("architecture", "expected"), [(80, OLD), (86, OLD), (90, NEW), (120, NEW)])
def test_the_newest_architecture_that_the_device_has_reached(architecture, expected, monkeypatch):
    monkeypatch.setattr(_triton, "architecture", lambda device: architecture)
    assert _triton.choose("noun", {0: FAST, 80: OLD, 90: NEW}, torch.device("cpu")) is expected


def test_the_fastest_candidate_is_found_once_where_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(_triton, "architecture", lambda device: 90)
    monkeypatch.setattr(_triton, "_tuned", {})
    timed = []

    def milliseconds(run):
        timed.append(run())
        return 1.0 / timed[-1]

    monkeypatch.setattr(_triton, "_milliseconds", milliseconds)
    arguments = ("noun", {80: OLD}, torch.device("cpu"), (7,), [NEW, FAST])
    run = {"run": lambda configuration: configuration.blocks["SIZE"]}
    assert _triton.choose(*arguments, **run) is OLD
    assert not timed
    monkeypatch.setattr(_triton, "AUTOTUNE", True)
    assert _triton.choose(*arguments, **run) is FAST
    assert _triton.choose(*arguments, **run) is FAST
    assert timed == [1, 2, 3]
    assert "noun" in capsys.readouterr().err


def test_the_device_is_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or (9, 0))
    device = torch.device("cuda", 77)
    assert [_triton.architecture(device) for _ in range(3)] == [90, 90, 90]
    assert asked == [device]


@pytest.mark.parametrize(("current", "entered"), [(0, [1]), (1, [])])
def test_the_current_device_is_changed_only_for_tensors_of_another(current, entered, monkeypatch):
    changes, launched = [], []

    class Guard:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            changes.append(self.device.index)

        def __exit__(self, *_):
            pass

    class Kernel:
        def __getitem__(self, grid):
            return lambda *arguments, **keywords: launched.append((grid, keywords["SIZE"]))

    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    monkeypatch.setattr(torch.cuda, "device", Guard)
    with FakeTensorMode():
        tensor = torch.empty(3, device="cuda:1")
    _triton.launch(Kernel(), (5,), tensor, SIZE=8)
    assert launched == [((5,), 8)]
    assert changes == entered
