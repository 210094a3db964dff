"""What a run has come to, so that two runs can be compared bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..run import Run
from .state import load_save

MEASURED = (
    "images_per_s", "compute_images_per_s", "data_wait_pct", "memory_gib", "mfu_pct", "eta_s",
    "gpu_pct", "gpu_watt", "gpu_mhz",
)  # fmt: skip
"""What of a log line no two runs have in common."""
ANEW = ("seconds", "totals", "evaluations", "peak", "param_groups")
"""What of a save's state a run that goes on finds anew: its times, its memory, and options that are the recipe's and
the step's."""
RESULT = ("best", "best_step", "last", "iou", "steps")
"""What of a result does not tell of times and folders."""


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run which has ended has come to, by names, but for times: networks with their scores, what its newest
    save holds, the log, the result where it has one. Raises UsageError where no save is whole."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "checkpoints").glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["header"])
            found |= {f"{path.stem}/{key}": file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        found[f"{path.stem}/score"] = header["step"], header["miou"]
    warnings: list[str] = []
    saves, state = load_save(folder / "checkpoints", warnings.append)
    found |= {"saves": [save.step for save in saves], "warnings": warnings}
    found |= _flat(state) if state else {}
    for line in Run.open(folder).log:
        kind = "loss" if "loss" in line else "val"
        found[f"log/{kind}/{line['step']}"] = {key: value for key, value in line.items() if key not in MEASURED}
    if (folder / "result.json").exists():
        result = json.loads((folder / "result.json").read_text())
        found["result"] = {name: result[name] for name in RESULT}
    return found


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """What nested dictionaries hold, by paths; of empty ones themselves."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if key not in ANEW:
            found |= _flat(inner, f"{name}/{key}" if name else str(key))
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of what is not the same in two outcomes, bit for bit."""

    def same(a: Any, b: Any) -> bool:
        return _bits(a) == _bits(b) if torch.is_tensor(a) and torch.is_tensor(b) else a == b

    names = [*one, *(name for name in other if name not in one)]
    return [name for name in names if name not in one or name not in other or not same(one[name], other[name])]


def _bits(tensor: torch.Tensor) -> tuple[Any, ...]:
    """By which NaN equals itself, and 0 not -0."""
    return tensor.dtype, tensor.shape, tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
