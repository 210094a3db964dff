"""State dicts: read from files without running what is in them, freed of wrapping, compared with what is wanted."""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...pipelines.errors import UsageError, some_of

WRAPPERS = ("model_ema", "teacher_state", "state_dict", "model", "model_state")
"""Where programs keep the state dict beside epoch, optimizer and the like. CAC: `state_dict`; CPS, UniMatch: `model`;
UniMatch V2: `model_ema`, its teacher, which it evaluates, and the student as `model` beside it; U2PL likewise:
`teacher_state` and `model_state`."""

EXPORTED = (".pt2", ".onnx")
"""What `export` writes."""
NAMED = 6
"""Keys that a complaint names."""

# CAC's files keep their best score as a numpy number. These rebuild numbers and run nothing.
NUMPY_NUMBER: list[Any] = [
    (np.float64().__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64().__reduce__()[0], "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
]


def read_state_dict(path: Path) -> dict[str, Any]:
    """The state dict of a `.safetensors` or torch file, on the CPU, as `unwrapped` returns it.

    Only tensors and plain values are read, never objects. Raises UsageError for any other file.
    """
    if path.suffix in EXPORTED:
        raise UsageError(f"{path}: is an export, of which no weights are read; pass the run that it was made of")
    try:
        if path.exists() and not path.is_file():
            raise OSError("no file")  # a pipe would never end
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            _require_whole(path)
            with torch.serialization.safe_globals(NUMPY_NUMBER), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged file fails in as many ways as there are formats.
        raise UsageError(
            f"{path}: not a readable weights file ({_reason(error)}); "
            "pass .safetensors or a torch file that holds tensors only"
        ) from error
    try:
        return unwrapped(state)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _require_whole(path: Path) -> None:
    """Raises BadZipFile where bytes of a torch file are not those that were written: torch itself does not look at the
    checksums of the archive, and would read other weights."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"bad checksum of {damaged}: damaged, or saved without checksums")


def unwrapped(state: Any) -> dict[str, Any]:
    """A state dict without its wrapping and without the prefix `module.` of data-parallel training.

    Raises UsageError where there are no tensors.
    """
    for key in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not any(torch.is_tensor(value) for value in state.values()):
        raise UsageError(
            f"no tensors in it, nor under {' or '.join(f'`{key}`' for key in WRAPPERS)}; pass a state dict"
        )
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def is_counter(name: str) -> bool:
    """Whether the entry counts batches, which matters to no computation here (the momentum is fixed)."""
    return name.endswith("num_batches_tracked")


def require_fit(given: Mapping[str, Any], wanted: Mapping[str, Tensor], what: str) -> None:
    """Raises UsageError that begins with `what` and names the keys, unless both hold the same names and shapes."""
    faults = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": [name for name in wanted if name in given and not _alike(given[name], wanted[name])],
    }
    if any(faults.values()):
        raise UsageError(
            f"{what}: " + "; ".join(f"{some_of(names, NAMED)} {fault}" for fault, names in faults.items() if names)
        )


def _alike(given: Any, wanted: Tensor) -> bool:
    return torch.is_tensor(given) and given.shape == wanted.shape and given.is_floating_point()


def _reason(error: Exception) -> str:
    text = str(error).strip()
    if "Unsupported global" in text:  # Torch's own message advises to load the file without the check.
        return f"it holds objects: {text.partition('GLOBAL ')[2].partition(' ')[0]}"
    if isinstance(error, (UnpicklingError, KeyError, IndexError, EOFError)):
        return "not a torch file of tensors"
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
