"""Checkpoints: the evaluated network as safetensors with its recipe inside, and the state a run goes on from."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..pipelines.errors import UsageError
from .models import Network, build_network
from .recipe import Recipe

FORMAT = "semiseg 1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network and what is needed to use it."""

    network: Network
    recipe: Recipe
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    step: int
    miou: float


def save_network(
    path: Path, network: Network, recipe: Recipe, classes: tuple[str, ...], palette, *, step: int, miou: float
) -> None:
    """Writes the file whole or not at all."""
    metadata = {
        "format": FORMAT,
        "recipe": json.dumps(recipe.to_dict()),
        "classes": json.dumps(classes),
        "palette": json.dumps(palette),
        "step": str(step),
        "miou": repr(miou),
    }
    draft = path.with_suffix(".part")
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, draft, metadata
    )
    os.replace(draft, path)


def load_network(path: Path) -> Checkpoint:
    """The network of a checkpoint file or of a run's folder (its best one), on the CPU, in evaluation mode."""
    path = find(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UsageError(
                    f"{path}: not a checkpoint of semiseg; pass a run's folder or checkpoints/best.safetensors"
                )
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path}: damaged or no safetensors file ({error}); pass another checkpoint") from None
    recipe = Recipe.from_dict(json.loads(metadata["recipe"]))
    classes = tuple(json.loads(metadata["classes"]))
    projector = any(name.startswith("projector") for name in state)
    network = build_network(
        recipe.network, recipe.backbone, len(classes), head_width=recipe.head_width, projector=projector
    )
    network.load_state_dict(state)
    palette = tuple(tuple(colour) for colour in json.loads(metadata["palette"]))
    return Checkpoint(network.eval(), recipe, classes, palette, int(metadata["step"]), float(metadata["miou"]))


def find(path: Path) -> Path:
    """The checkpoint that a path means: a file, or a run's best."""
    if path.is_file():
        return path
    for name in ("best", "last"):
        candidate = path / "checkpoints" / f"{name}.safetensors"
        if candidate.is_file():
            return candidate
    raise UsageError(f"{path}: neither a checkpoint nor the folder of a run that has saved one; pass either")


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes the file whole or not at all."""
    draft = path.with_suffix(".part")
    torch.save(state, draft)
    os.replace(draft, path)


def load_state(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"--resume: {path} does not exist; start the run without --resume") from None
    except Exception as error:
        raise UsageError(f"--resume: {path} is damaged ({type(error).__name__}); start a new run") from error
