"""Networks, methods, the training step, evaluation, checkpoints, reports and the command line."""

from importlib.util import find_spec

NEEDED = ("torchvision", "cv2", "PIL", "tyro", "rich", "safetensors", "matplotlib", "tensorboard")

if missing := [name for name in NEEDED if find_spec(name) is None]:
    raise ImportError(f"semiseg.engine needs {', '.join(missing)}: run  pip install 'semiseg[train]'")
