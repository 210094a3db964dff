"""Steps that are made another way are told apart from those that are wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import few
from semiseg.engine.device import Precision
from semiseg.engine.models import ENCODERS, Network
from semiseg.engine.training import check
from semiseg.engine.training.check import Subject

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def small() -> Subject:
    return Subject(network="cps", backbone="resnet18", head_width=16)


@pytest.fixture
def compiled_by(monkeypatch):
    """`compiled_by(change)`: what stands in for the compiler, which takes minutes."""
    return lambda change: monkeypatch.setattr(Network, "compile", change)


def in_another_order(network: Network) -> None:
    """Images from the last to the first: the same sums, rounded otherwise."""
    encode = network.encode
    network.encode = lambda x: tuple(maps.flip(0) for maps in encode(x.flip(0)))


@pytest.mark.parametrize(("precision", "backbone"), [("fp32", "resnet18"), ("bf16", "resnet18"), ("fp16", "few")])
def test_steps_that_round_otherwise_are_right(small, compiled_by, monkeypatch, precision, backbone):
    """In fp16 by few weights: products of it take minutes on a processor."""
    monkeypatch.setitem(ENCODERS, "few", few.ENCODER)
    compiled_by(in_another_order)
    (result,) = check.check(replace(small, backbone=backbone), Precision(precision, CPU), ["compiled"])
    assert (result.operator, result.dtype) == (f"compiled cps {backbone}", precision)
    assert result.problem is None
    assert 0 < result.error <= result.allowed
    assert result.seconds > 0


def test_no_dropout_is_taken_for_an_error(small, compiled_by):
    """Of whole channels, in the network u2pl."""
    compiled_by(in_another_order)
    (result,) = check.check(replace(small, network="u2pl"), Precision("fp32", CPU), ["compiled"])
    assert result.problem is None
    assert result.allowed < 0.01


def scaled(share: float, of: str):
    def change(network: Network) -> None:
        parameter = dict(network.named_parameters())[of]
        parameter.register_hook(lambda gradient: share * gradient)

    return change


def drifting(network: Network) -> None:
    network.backbone.bn1.momentum *= 1.01


def nan(network: Network) -> None:
    network.classifier.register_forward_hook(lambda module, inputs, logits: logits * torch.nan)


def failing(network: Network) -> None:
    raise RuntimeError("C++ compile error\n  no compiler")


@pytest.mark.parametrize(
    ("precision", "change", "says"),
    [
        ("fp32", scaled(1.01, "classifier.weight"), "momentum of network.classifier.weight is 0.01 from the same"),
        ("fp32", scaled(1.01, "backbone.layer1.0.conv1.weight"), "momentum of network.backbone.layer1.0.conv1.weight"),
        ("bf16", scaled(0.0, "backbone.layer1.0.conv1.weight"), "momentum of network.backbone.layer1.0.conv1.weight"),
        ("fp32", drifting, "network.backbone.bn1.running_mean"),
        ("fp32", nan, "is inf from the same in float64"),
        ("fp32", failing, "RuntimeError: C++ compile error no compiler"),
    ],
)
def test_a_step_that_is_another_one_is_reported(small, compiled_by, precision, change, says):
    compiled_by(change)
    (result,) = check.check(small, Precision(precision, CPU), ["compiled"])
    assert says in result.problem


def test_only_a_gpu_captures(small, capsys):
    flags = ["--device", "cpu", "--precision", "fp32", "--way", "captured"]
    flags += ["--network", "cps", "--backbone", "resnet18", "--head-width", "16", "--json"]
    assert check.main(flags) == 1
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert row["problem"] == "--graph on: only a GPU has them; leave it out"


def test_a_device_that_is_not_there_is_one_line(capsys):
    flags = ["--device", "cuda:99", "--network", "cps", "--backbone", "resnet18", "--head-width", "16"]
    assert check.main(flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cuda" in line


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("way", check.WAYS)
def test_every_way_is_right_on_a_gpu(small, way, precision):
    (result,) = check.check(small, Precision(precision, torch.device("cuda", 0)), [way])
    assert result.problem is None
