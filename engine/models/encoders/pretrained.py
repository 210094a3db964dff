"""Where pretrained weights of encoders come from."""

import contextlib
import http.client
import io
import pickle
import sys
from pathlib import Path

import torch
from torch import Tensor

from ....pipelines.errors import UsageError


def torchvision_weights(name: str, version: str = "IMAGENET1K_V1") -> tuple[dict[str, Tensor], str]:
    """The state dict of torchvision's network `name` and its file's name, from torch hub's cache or downloaded into it.

    Raises UsageError without a usable file, saying what to download and whereto.
    """
    # Imported here: slow, and needed for nothing else.
    from torchvision.models import get_model_weights

    weights = get_model_weights(name)[version]
    file, folder = weights.url.rsplit("/", 1)[1], Path(torch.hub.get_dir()) / "checkpoints"
    try:
        # torch announces the download on stdout, which belongs to the program's result.
        with contextlib.redirect_stdout(io.StringIO()):
            state = weights.get_state_dict(
                check_hash=True, progress=sys.stderr.isatty(), map_location="cpu", weights_only=True
            )
    except (OSError, http.client.HTTPException, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"weights imagenet: no usable {file} ({reason}); download {weights.url} into {folder}, or pass "
            "`weights=none` or `weights=FILE`"
        ) from error
    return state, file
