"""Networks, methods, the training step, evaluation, checkpoints, reports and the command line.

`from semiseg.engine import load_recipe, train, evaluate, predict, export, load_network`: see `semiseg.engine.api`.
"""

from importlib.util import find_spec

NEEDED = ("torchvision", "cv2", "PIL", "tyro", "rich", "safetensors", "matplotlib", "tensorboard")

if missing := [name for name in NEEDED if find_spec(name) is None]:
    raise ImportError(f"semiseg.engine needs {', '.join(missing)}: run  pip install -e '.[train]'  in its clone")

__all__ = ["evaluate", "export", "load_network", "load_recipe", "predict", "train"]


def __getattr__(name: str):
    """The functions of the api, loaded when one is asked for: they need all the rest."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)
