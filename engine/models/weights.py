"""Pretrained weights for the backbone: torchvision's, or a file the user brings."""

import contextlib
import http.client
import io
import pickle
import sys
from pathlib import Path

import torch
from torch import Tensor

from ...pipelines.errors import UsageError
from .network import Network
from .state_dict import is_counter, read_state_dict, require_fit


def load_backbone(network: Network, weights: str | Path) -> None:
    """Fill the network's backbone from `weights`, in place.

    "none" leaves the random initialisation. "imagenet" is torchvision's IMAGENET1K_V1, from torch hub's cache or
    downloaded into it. Anything else is a file: `.safetensors`, or a torch file of tensors, bare or under "state_dict"
    or "model", with or without the prefix "module."; names are torchvision's, and `fc.*` is skipped.
    Raises UsageError when the weights cannot be had or do not fit exactly.
    """
    if str(weights) == "none":
        return
    if str(weights) == "imagenet":
        state, source = _imagenet(network)
    else:
        source = str(weights)
        state = _read(Path(weights).expanduser())
    _fill(network, state, source)


def _imagenet(network: Network) -> tuple[dict[str, Tensor], str]:
    if network.backbone.deep_stem:
        raise UsageError(
            f"weights imagenet: torchvision has no deep-stem {network.backbone_name}, which the {network.architecture} "
            "network needs; pass `--weights FILE`, `--weights none` or `--network cac`"
        )
    # Imported here: slow, and needed for nothing else.
    from torchvision.models import get_model_weights

    weights = get_model_weights(network.backbone_name)["IMAGENET1K_V1"]
    name, folder = weights.url.rsplit("/", 1)[1], Path(torch.hub.get_dir()) / "checkpoints"
    try:
        # torch announces the download on stdout, which belongs to the program's result.
        with contextlib.redirect_stdout(io.StringIO()):
            state = weights.get_state_dict(
                check_hash=True, progress=sys.stderr.isatty(), map_location="cpu", weights_only=True
            )
    except (OSError, http.client.HTTPException, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"weights imagenet: no usable {name} ({_first_line(error)}); download {weights.url} into {folder}, or pass "
            "`--weights none` or `--weights FILE`"
        ) from error
    return state, name


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UsageError(f"weights {path}: no such file; pass `imagenet`, `none` or an existing file")
    return {name: value for name, value in read_state_dict(path).items() if torch.is_tensor(value)}


def _fill(network: Network, state: dict[str, Tensor], source: str) -> None:
    def relevant(name: str) -> bool:
        return not name.startswith("fc.") and not is_counter(name)

    given = {name: value for name, value in state.items() if relevant(name)}
    own = {name: value for name, value in network.backbone.state_dict().items() if relevant(name)}
    deep = network.backbone.deep_stem
    if deep and "conv1.weight" in given:
        raise UsageError(
            f"weights {source}: it has a 7x7 stem, but the {network.architecture} network needs a deep-stem file "
            "(conv1.0, conv1.3, conv1.6); pass one, or `--network cac`"
        )
    if not deep and "conv1.0.weight" in given:
        raise UsageError(
            f"weights {source}: it has a deep stem, but the {network.architecture} network needs a file with a 7x7 "
            "stem; pass one, or `--network cps`"
        )
    require_fit(given, own, f"weights {source}: not the weights of a {network.backbone_name} backbone")
    network.backbone.load_state_dict(given, strict=False)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
