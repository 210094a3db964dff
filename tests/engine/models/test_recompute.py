"""Blocks that are computed twice change nothing but the memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from semiseg.engine.models import build_network
from semiseg.engine.models.recompute import recompute
from semiseg.pipelines.errors import UsageError

NETWORKS = [("cac", "resnet18"), ("cps", "resnet50"), ("unimatch", "efficientnet_lite0"), ("dpt", "dinov2_small")]
EVA = "timm:eva02_tiny_patch14_224"  # whose blocks are told positions by keywords


def pair(decoder: str, backbone: str):
    torch.manual_seed(0)
    plain = build_network(decoder, backbone, 5, head_width=16).double().train()
    twice = copy.deepcopy(plain)
    recompute(twice)
    return plain, twice


def trained(network, x):
    """Logits and gradients of two calls, as methods make them: one backward pass after both."""
    torch.manual_seed(1)
    first, second = network(x), network(x.flip(-1))
    (first.square().mean() + second.abs().mean()).backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return [first.detach(), second.detach(), *gradients, *network.buffers()]


@pytest.mark.parametrize(("decoder", "backbone"), [*NETWORKS, ("dpt", EVA)])
def test_outputs_gradients_and_running_statistics_stay_to_the_bit(decoder, backbone):
    if backbone == EVA:
        pytest.importorskip("timm")
    side = 56 if decoder == "dpt" else 48
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    plain, twice = (trained(network, x) for network in pair(decoder, backbone))
    assert len(plain) == len(twice)
    assert all(torch.equal(one, other) for one, other in zip(plain, twice, strict=True))


def test_blocks_that_drop_draw_the_same_numbers_again():
    plain, twice = pair("cac", "resnet18")
    for network in (plain, twice):
        for block in network.backbone.layer4:
            block.relu = nn.Sequential(nn.ReLU(), nn.Dropout(0.5))
    x = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    assert all(torch.equal(one, other) for one, other in zip(trained(plain, x), trained(twice, x), strict=True))


@pytest.mark.parametrize(("decoder", "backbone"), [("cps", "resnet50"), ("dpt", EVA)])
def test_what_blocks_hold_inside_is_not_kept(decoder, backbone):
    """Bytes that autograd packs, without the parameters."""

    def kept(network) -> int:
        own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
        storages = {}

        def pack(tensor):
            if tensor.untyped_storage().data_ptr() not in own:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network.backbone(torch.randn(2, 3, 56, 56, dtype=torch.float64))
        return sum(storage.nbytes() for storage in storages.values())

    if backbone == EVA:
        pytest.importorskip("timm")
    plain, twice = (kept(network) for network in pair(decoder, backbone))
    assert twice < plain / 2


def test_a_call_without_gradients_runs_once():
    network = pair("cac", "resnet18")[1]
    calls = []
    network.backbone.layer1[0].conv1.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        network(torch.randn(2, 3, 48, 48, dtype=torch.float64))
    assert calls == [1]


def test_a_backbone_without_blocks_is_refused():
    network = build_network("cac", "resnet18", 3, head_width=16)
    network.backbone = nn.Conv2d(3, 8, 3)
    with pytest.raises(UsageError, match=r"--recompute: the backbone resnet18 .* leave it out"):
        recompute(network)


class Merging(nn.Module):
    """As a block of HRNet: takes maps in a list, and puts others into it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, maps):
        for place, one in enumerate(maps):
            maps[place] = self.conv(one).relu()
        return maps


class Backbone(nn.Module):
    def __init__(self, block: nn.Module):
        super().__init__()
        self.blocks = nn.ModuleList([block])

    def forward(self, x):
        return self.blocks[0]([x, x.flip(-1)])


def test_a_block_that_takes_a_list_is_computed_once():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    gradients = []
    for wrapped in (False, True):
        network = build_network("cac", "resnet18", 3, head_width=16)
        torch.manual_seed(1)
        network.backbone = Backbone(Merging().double())
        if wrapped:
            recompute(network)
        first, second = network.backbone(x)
        (first.square().sum() + second.sum()).backward()
        gradients.append(network.backbone.blocks[0].conv.weight.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_a_block_that_changes_its_input_is_refused():
    network = build_network("cac", "resnet18", 3, head_width=16)
    block = network.backbone.layer1[1]
    block.conv1 = nn.Sequential(nn.ReLU(inplace=True), block.conv1)
    recompute(network)
    with pytest.raises(UsageError, match=r"--recompute: a BasicBlock of the backbone changes what it is given, .*off"):
        network(torch.randn(2, 3, 48, 48))
