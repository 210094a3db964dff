"""What processes are told to exchange in a step is what they exchange."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules._functions import SyncBatchNorm

from exchange import CLASSES, STATISTICS, Exchange, Recorder, by_kind, exchanges, on_gpus, taken
from semiseg.engine.distributed import synchronised
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.build import build_method
from ways import voc_recipe

CROP, SHARE = 64, 2


def recipe(processes: int) -> Recipe:
    """CAC, which exchanges something of every kind."""
    small = voc_recipe("cac", Path(), "cpu", 1, backbone="resnet18", crop=CROP, batch=SHARE * processes)
    return small.replace(head_width=8)


@pytest.fixture
def alone():
    """In a group of one process."""
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


def test_two_processes_exchange_what_was_told():
    told = exchanges(recipe(2), 2)
    found = taken(recipe(2), 2, rounds=1)
    assert found.exchanges == told
    assert [len(times) for times in found.seconds] == [1] * len(told)
    assert min(map(min, [*found.seconds, *found.reductions.values()])) > 0


def test_a_step_of_cac_exchanges_gradients_statistics_and_negatives():
    """By hand; its network sees labelled images and either view by themselves."""
    method = build_method(recipe(2), CLASSES)
    channels = [module.num_features for module in method.modules() if isinstance(module, nn.BatchNorm2d)]
    positions = 2 * SHARE * (CROP // 8) ** 2
    found = by_kind(exchanges(recipe(2), 2))
    assert found.pop("gradients") == [
        Exchange("gradients", "all_reduce", 4 * sum(parameter.numel() for parameter in method.parameters()))
    ]
    assert found.pop("negatives") == [
        Exchange("negatives", "all_gather", size) for size in (positions * 128 * 4, positions * 8)
    ]
    assert found.pop("normalisers") == 3 * [Exchange("normalisers", "all_reduce", 8)]
    assert found.pop("signals") == [Exchange("signals", "all_reduce", 16)]
    sums = Counter(4 * width for own in channels for width in (own, own + 1) for _ in range(3 * 2))
    assert Counter(one.bytes for one in found.pop(STATISTICS)) == sums
    assert found == {}


def test_more_processes_hand_over_the_same_each():
    assert exchanges(recipe(16), 16) == exchanges(recipe(2), 2)
    assert exchanges(recipe(1), 1) == []


def test_no_collective_is_missed(alone):
    with Recorder() as recorder:
        dist.all_reduce(torch.zeros(3))
        dist.broadcast(torch.zeros(5, dtype=torch.int64), 0)
    assert recorder.exchanges == [Exchange("others", "all_reduce", 12), Exchange("others", "broadcast", 40)]


def test_a_gpu_exchanges_what_torchs_own_layer_does(alone, monkeypatch):
    """Its arithmetic, which CPUs do not have, is left out. Of two layers one learns."""
    empty = torch.empty(0)
    monkeypatch.setattr(torch, "batch_norm_stats", lambda x, eps: (x.mean((0, 2, 3)), x.mean((0, 2, 3))))
    monkeypatch.setattr(torch, "batch_norm_gather_stats_with_counts", lambda x, mean, *_: (mean[0], mean[0]))
    monkeypatch.setattr(torch, "batch_norm_elemt", lambda x, *_: x.clone())
    monkeypatch.setattr(
        torch, "batch_norm_backward_reduce", lambda grad, x, mean, *_: (mean.clone(), mean.clone(), empty, empty)
    )
    monkeypatch.setattr(torch, "batch_norm_backward_elemt", lambda grad, *_: grad.clone())
    found = {}
    for name, layer in (("gpu", layer_of_torch), ("cpu", layer_of_ours)):
        with Recorder() as recorder:
            with torch.no_grad():
                layer(torch.rand(2, 5, 4, 4))
            layer(torch.rand(2, 7, 4, 4, requires_grad=True)).sum().backward()
        found[name] = [(one.operation, one.bytes) for one in (on_gpus if name == "cpu" else list)(recorder.exchanges)]
    assert found["cpu"] == found["gpu"] == [("all_gather", 44), ("all_gather", 60), ("all_reduce", 56)]


def layer_of_torch(x: torch.Tensor) -> torch.Tensor:
    scale, shift = torch.ones(x.shape[1]), torch.zeros(x.shape[1])
    return SyncBatchNorm.apply(x, scale, shift, None, None, 1e-5, 0.1, dist.group.WORLD, 1)


def layer_of_ours(x: torch.Tensor) -> torch.Tensor:
    return synchronised(nn.Sequential(nn.BatchNorm2d(x.shape[1]))).train()(x)
