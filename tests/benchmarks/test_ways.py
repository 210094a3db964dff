"""All ways between the published one and ours train alike: the same weights, batches and losses."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

import ways as ways_module
from published_way import published
from semiseg.engine.data import prepare_data
from semiseg.engine.models import build_network
from semiseg.engine.models.encoders.efficientnet_lite import DepthwiseConv2d, SameConv2d
from semiseg.kernels.precision import allow_tf32, precision_kept
from ways import PILLOW, Training, Way, voc_recipe, waterfall

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("method", "backbone"),
    [("cac", "resnet18"), ("cutmix_cps", "resnet18"), ("cutmix_seg", "efficientnet_lite0"), ("unimatch", "resnet18")],
)
def test_ways_that_see_the_same_batches_have_the_same_losses(voc_root, method, backbone):
    recipe = voc_recipe(method, voc_root(), "cpu", 1, backbone=backbone, crop=32, batch=2).replace(head_width=16)
    data = prepare_data(recipe)
    found = {}
    for name, way in waterfall(CPU, "fp32", compiled=False).items():
        training = Training(way, recipe, data, CPU, print)
        for module in training.method.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        steps = enumerate(itertools.islice(training.batches, 2))
        found[name] = [float(training.step(batch, number)["loss"]) for number, batch in steps]
        training.close()
    own, *others = found.values()
    assert len(others) == 5
    for losses in others:
        assert losses == pytest.approx(others[0], rel=2e-3)
        assert losses[0] == pytest.approx(others[0][0], rel=1e-5)
    assert own[0] != pytest.approx(others[0][0], rel=1e-5)  # of other windows


@pytest.mark.parametrize("tf32", [False, True])
def test_the_published_way_multiplies_as_torch_does_whatever_another_way_has_set(voc_root, tf32):
    """On a GPU TensorFloat32 in convolutions, and in no product of matrices; of the flags a CPU shows as much."""
    recipe = voc_recipe("supervised", voc_root(), "cpu", 1, backbone="resnet18", crop=32, batch=2).replace(
        head_width=16
    )
    training = Training(Way("host"), recipe, prepare_data(recipe), CPU, print)
    with precision_kept():
        allow_tf32(tf32)
        training.step(next(training.batches), 0)
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.conv.fp32_precision) == (True, "tf32")
    training.close()


def test_the_published_way_has_the_depthwise_convolutions_of_torch():
    network = published(build_network("cac", "efficientnet_lite0", 3, head_width=16))
    assert not any(isinstance(module, DepthwiseConv2d) for module in network.modules())
    assert sum(type(module) is SameConv2d and module.groups > 1 for module in network.modules()) == 16


@pytest.mark.parametrize(("device", "dali"), [(CPU, True), (CUDA, True), (CUDA, False)])
def test_each_row_adds_one_technique_and_the_last_is_ours(monkeypatch, device, dali):
    monkeypatch.setattr(ways_module, "installed", lambda: dali)
    ways = list(waterfall(device, "bf16", compiled=True).values())
    for before, after in itertools.pairwise(ways):
        changed = [name for name in Way.__dataclass_fields__ if getattr(before, name) != getattr(after, name)]
        assert len(changed) == 1
    assert ways[1].backend == ("dali" if device == CUDA and dali else "host")
    precision = "tf32" if device == CUDA else "fp32"
    assert ways[0] == Way(PILLOW, precision=precision)
    ours = Way("resident", "fused", "lean", channels_last=True, precision="bf16", graph=device == CUDA, compile=True)
    assert ways[-1] == ours


def test_a_processor_without_bf16_and_without_compilation_has_fewer_rows():
    ways = list(waterfall(CPU, "fp32", compiled=False).values())
    assert ways[-1] == Way("resident", "fused", "lean", channels_last=True)
    assert replace(ways[-1], channels_last=False) == ways[-2]
