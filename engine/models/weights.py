"""Pretrained weights for the backbone: its encoder's own, or a file the user brings."""

from pathlib import Path

import torch
from torch import Tensor

from ...pipelines.errors import UsageError
from .decoders import DECODERS
from .encoders import encoder_of
from .network import Network
from .state_dict import is_counter, read_state_dict, require_fit


def load_backbone(network: Network, weights: str | Path) -> str | None:
    """Fill the network's backbone from `weights`, in place. Returns where they came from in a few words, None for none.

    "none" leaves the random initialisation. "imagenet" is what the encoder's row finds: torchvision's IMAGENET1K_V1
    and DINOv2's files from torch hub's cache or downloaded into it, those of packages of the Python index, timm's own.
    Anything else is a file: `.safetensors`, or a torch file of tensors, bare or under "state_dict" or "model", with or
    without the prefix "module."; names are those of the published files, and what belongs to classification is skipped.
    Raises UsageError when the weights cannot be had or do not fit exactly.
    """
    if str(weights) == "none":
        return None
    if str(weights) == "imagenet":
        state, source = _imagenet(network)
    else:
        state, source = _read(Path(weights).expanduser()), str(weights)
    _fill(network, state, source)
    return source


def _imagenet(network: Network) -> tuple[dict[str, Tensor], str]:
    if _deep(network):
        raise UsageError(
            f"weights imagenet: torchvision has no deep-stem {network.backbone_name}, which the {network.decoder_name} "
            f"network needs; pass --weights FILE, --weights none or {_networks(deep_stem=False)}"
        )
    return encoder_of(network.backbone_name).weights()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UsageError(f"weights {path}: no such file; pass `imagenet`, `none` or an existing file")
    return {name: value for name, value in read_state_dict(path).items() if torch.is_tensor(value)}


def _fill(network: Network, state: dict[str, Tensor], source: str) -> None:
    encoder = encoder_of(network.backbone_name)
    if encoder.forms:
        _check_stem(network, state, source)
    try:
        given = _uncounted(encoder.adapt(state))
    except UsageError as error:
        raise UsageError(f"weights {source}: {error}") from None
    own = _uncounted(network.backbone.state_dict())
    require_fit(given, own, f"weights {source}: not the weights of {network.backbone_name}")
    network.backbone.load_state_dict(given, strict=False)


def _check_stem(network: Network, state: dict[str, Tensor], source: str) -> None:
    deep = _deep(network)
    if deep and "conv1.weight" in state:
        raise UsageError(
            f"weights {source}: it has a 7x7 stem, but the {network.decoder_name} network needs a deep-stem file "
            f"(conv1.0, conv1.3, conv1.6); pass one, or {_networks(deep_stem=False)}"
        )
    if not deep and "conv1.0.weight" in state:
        raise UsageError(
            f"weights {source}: it has a deep stem, but the {network.decoder_name} network needs a file with a 7x7 "
            f"stem; pass one, or {_networks(deep_stem=True)}"
        )


def _deep(network: Network) -> bool:
    return encoder_of(network.backbone_name).forms and DECODERS[network.decoder_name].deep_stem


def _uncounted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same without the counters of batches."""
    return {name: value for name, value in state.items() if not is_counter(name)}


def _networks(deep_stem: bool) -> str:
    """The networks with that stem, as arguments to pass."""
    with_aspp = {name: decoder for name, decoder in DECODERS.items() if decoder.aspp is not None}
    return " or ".join(f"--network {name}" for name, decoder in with_aspp.items() if decoder.deep_stem == deep_stem)
