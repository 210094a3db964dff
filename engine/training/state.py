"""The state that a run goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...pipelines.errors import UsageError
from ..disk import whole


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes the file whole or not at all."""
    with whole(path) as draft:
        torch.save(state, draft)


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU. Raises UsageError where it is missing or damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"--resume: {path} does not exist; start the run without --resume") from None
    except Exception as error:
        raise UsageError(f"--resume: {path} is damaged ({type(error).__name__}); start a new run") from error
