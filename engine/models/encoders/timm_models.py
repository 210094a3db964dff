"""`timm:NAME`: models of timm (PyTorch Image Models), by timm's names: those that give maps at several strides, and
vision transformers, DINOv3's for one, that give the tokens of their layers."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache, partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ....pipelines.errors import UsageError
from .encoder import Encoder, State

PREFIX = "timm:"
LOW, OUTPUT_STRIDE = 4, 16
PROBES = (65, 94)  # sides that no stride divides
TAKEN = 4
"""Layers of a vision transformer, as many as `dpt` takes maps."""


@cache
def encoder(name: str) -> Encoder:
    """The row of timm's model `name`: its map at stride 4, or the next coarser one, and its coarsest one, at stride 16
    where the model can be dilated; of a model whose maps have one stride, a vision transformer, those of four layers.

    Raises UsageError without timm, for a name that timm does not know, and for a model whose maps are of no use here.
    """
    timm = _timm(name)
    options = _options(timm, name)
    with torch.device("meta"):
        info = timm.create_model(name, features_only=True, **options).feature_info
    channels, strides = info.channels(), info.reduction()
    if len(set(strides)) == 1:
        width, stride = channels[0], strides[0]
        return _row(timm, name, partial(TimmTokens, name, _free(timm, name)), (width,) * TAKEN, (stride,) * TAKEN)
    low = next((place for place, stride in enumerate(strides) if stride >= LOW), len(strides) - 1)
    if strides[low] >= strides[-1]:
        raise UsageError(
            f"{PREFIX}{name}: it has no map of stride {LOW} or coarser before its last; pass another model"
        )
    chosen = (low, len(strides) - 1)
    channels, strides = tuple(channels[place] for place in chosen), tuple(strides[place] for place in chosen)
    options = {"features_only": True, "out_indices": tuple(info.out_indices[place] for place in chosen), **options}
    return _row(timm, name, partial(TimmFeatures, name, options), channels, strides)


def _row(
    timm: ModuleType, name: str, build: Callable[[], nn.Module], channels: tuple[int, ...], strides: tuple[int, ...]
) -> Encoder:
    config = timm.models.get_pretrained_cfg(name)
    return Encoder(
        build=build,
        channels=channels,
        strides=strides,
        multiple=_multiple(name, build, channels, strides),
        weights=partial(_weights, name),
        adapt=partial(_adapt, name, build),
        mean=tuple(config.mean),
        std=tuple(config.std),
    )


class TimmFeatures(nn.Module):
    """Maps (B, 3, H, W) to the maps that `options` of `timm.create_model` ask for."""

    def __init__(self, name: str, options: dict[str, Any]):
        super().__init__()
        self.model = _timm(name).create_model(name, pretrained=False, **options)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(x))


class TimmTokens(nn.Module):
    """Maps (B, 3, H, W) to four maps (B, D, H/P, W/P) of a vision transformer of patches of P pixels: the tokens of the
    layers at each quarter of its depth, with its last normalisation, where it has one of tokens: models that normalise
    what they have pooled, such as EVA-02, give them as they are."""

    def __init__(self, name: str, options: dict[str, Any]):
        super().__init__()
        model = _timm(name).create_model(name, pretrained=False, num_classes=0, **options)
        depth = len(model.feature_info)
        self.taken = [depth * quarter // TAKEN - 1 for quarter in range(1, TAKEN + 1)]
        model.prune_intermediate_layers(self.taken, prune_norm=False, prune_head=True)
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.model.forward_intermediates(
            x, indices=self.taken, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return tuple(maps)


def _timm(name: str) -> ModuleType:
    """timm, where it is installed and knows the model."""
    try:
        # Without the hub's client it says so on every import.
        logging.getLogger("timm").setLevel(logging.ERROR)
        import timm
    except ImportError as error:
        raise UsageError(f"{PREFIX}{name}: timm is not installed; pip install -e '.[timm]' in the clone") from error
    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        near = get_close_matches(model, timm.list_models(), 3)
        hint = f"; did you mean {', '.join(PREFIX + each for each in near)}?" if near else ""
        raise UsageError(f"{PREFIX}{name}: timm {timm.__version__} has no model {model!r}{hint}")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(model)]
    if tag and tag not in tags:
        raise UsageError(
            f"{PREFIX}{name}: timm {timm.__version__} has no weights {tag!r} of {model}, but "
            f"{', '.join(tags) or 'none'}"
        )
    return timm


def _options(timm: ModuleType, name: str) -> dict[str, Any]:
    """What makes a model that gives maps, at stride 16 at most where it can be dilated."""
    reason = None
    for options in ({"output_stride": OUTPUT_STRIDE}, {}):
        try:
            with torch.device("meta"):
                timm.create_model(name, features_only=True, **options)
            return options
        except Exception as error:  # Models refuse in as many ways as there are authors.
            reason = error
    raise UsageError(f"{PREFIX}{name}: timm makes no maps of it ({_line(reason)}); pass another model")


def _free(timm: ModuleType, name: str) -> dict[str, Any]:
    """What makes a vision transformer that takes images of other sizes than it was trained on, where it has to be asked
    for."""
    options = {"dynamic_img_size": True}
    try:
        with torch.device("meta"):
            timm.create_model(name, **options)
    except Exception:  # it knows no such option, and may take them anyway
        return {}
    return options


def _multiple(name: str, build: Callable[[], nn.Module], channels: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """What the sides of images must be multiples of for maps whose sides round up."""
    for multiple in (1, max(strides)):
        height, width = PROBES if multiple == 1 else (2 * multiple, 3 * multiple)
        try:
            with torch.device("meta"):
                maps = build().eval()(torch.empty(1, 3, height, width))
        except Exception as error:
            reason = f"it does not take images of any size ({_line(error)})"
            continue
        got = [tuple(each.shape[1:]) for each in maps]
        sizes = [(c, -(-height // stride), -(-width // stride)) for c, stride in zip(channels, strides, strict=True)]
        if got == sizes:
            return multiple
        reason = f"of {height}x{width} pixels it makes maps of {got} instead of {sizes} channels, rows and columns"
    raise UsageError(f"{PREFIX}{name}: {reason}; pass another model")


def _weights(name: str) -> tuple[State, str]:
    """timm's own weights, strictly loaded by timm, from its cache or downloaded into it."""
    timm = _timm(name)
    config = timm.models.get_pretrained_cfg(name)
    full = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # The client of the hub has exceptions of its own.
        raise UsageError(
            f"weights imagenet: no usable weights of timm's {full} ({_line(error)}); pass --weights none or "
            f"--weights FILE, the file of {config.hf_hub_id or config.url or 'another program'}"
        ) from error
    return model.state_dict(), f"timm's {full} (licence: {config.license or 'not stated'})"


def _adapt(name: str, build: Callable[[], nn.Module], state: State) -> State:
    """Where timm cuts a model into maps it joins names with an underscore instead of a dot, and gives them a prefix."""
    with torch.device("meta"):
        own = build().state_dict()
        whole = _timm(name).create_model(name).state_dict()
    known = {plain: value for key, value in state.items() if (plain := key.replace(".", "_"))}
    adapted = {}
    for key in own:
        plain = re.sub(r"^(model\.)+", "", key).replace(".", "_")
        if plain in known:
            adapted[key] = known[plain]
    return adapted | {key: value for key, value in state.items() if key not in whole}


def _line(error: object) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
