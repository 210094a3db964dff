"""Encoders: images to maps at known strides. A new one is a row here, and a file with its module."""

from functools import partial

from .encoder import Encoder
from .pretrained import torchvision_weights
from .resnet import BasicBlock, Bottleneck, ResNet

ENCODERS: dict[str, Encoder] = {
    name: Encoder(
        build=partial(ResNet, block, blocks),
        channels=(64 * block.expansion, 512 * block.expansion),
        strides=(4, 16),
        multiple=16,
        weights=partial(torchvision_weights, name),
    )
    for name, block, blocks in (
        ("resnet18", BasicBlock, (2, 2, 2, 2)),
        ("resnet34", BasicBlock, (3, 4, 6, 3)),
        ("resnet50", Bottleneck, (3, 4, 6, 3)),
        ("resnet101", Bottleneck, (3, 4, 23, 3)),
    )
}

__all__ = ["ENCODERS", "Encoder"]
