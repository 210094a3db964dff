"""Networks, methods, the training step, evaluation, checkpoints, reports and the command line.

`from semiseg.engine import load_recipe, train, evaluate, predict, export, load_network`: see `semiseg.engine.api`.
"""

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..pipelines.errors import MissingPackages

NEEDED = ("torchvision", "cv2", "PIL", "tyro", "rich", "safetensors", "matplotlib", "tensorboard")

if missing := [name for name in NEEDED if find_spec(name) is None]:
    raise MissingPackages(f"semiseg.engine needs {', '.join(missing)}: run `pip install -e '.[train]'` in its clone")

# Threads of torch on the CPU wait for each other hundreds of times a step, by default awake for milliseconds. Where
# others share the cores, that keeps the thread that is waited for from its core, and a step takes up to a hundred times
# as long (benchmarks/LOG.md). Now they sleep after some microseconds. Read when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

if TYPE_CHECKING:
    from .api import (
        Checkpoint,
        Event,
        Export,
        ExportError,
        Predictions,
        Recipe,
        Result,
        Segmentation,
        Segmenter,
        Stopped,
        UsageError,
        evaluate,
        export,
        load_network,
        load_recipe,
        predict,
        train,
    )

__all__ = [
    "Checkpoint",
    "Event",
    "Export",
    "ExportError",
    "Predictions",
    "Recipe",
    "Result",
    "Segmentation",
    "Segmenter",
    "Stopped",
    "UsageError",
    "evaluate",
    "export",
    "load_network",
    "load_recipe",
    "predict",
    "train",
]


def __getattr__(name: str) -> Any:
    """What the api has, loaded when some of it is asked for: it needs all the rest."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)
