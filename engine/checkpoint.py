"""Checkpoints: the evaluated network as safetensors with its recipe inside, the state a run goes on from, and the
files of the published programs, which stand in for the first."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..pipelines.datasets import cityscapes, voc
from ..pipelines.datasets.dataset import Colour
from ..pipelines.datasets.files import voc_colours
from ..pipelines.errors import UsageError
from .catalogue import load_recipe
from .models import Network, build_network, from_published, read_state_dict
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


def load_network(path: Path, layout: str | None = None) -> Checkpoint:
    """The network of a checkpoint file or of a run's folder (its best one), on the CPU, in evaluation mode.

    A published file (see `from_published`) is taken for a run of its program on `layout`; without one, on VOC where it
    holds VOC's number of classes, on Cityscapes where it holds theirs, else on a folder.
    Raises UsageError for a file that is neither.
    """
    path = find(path)
    if path.suffix != ".safetensors":
        return _load_published(path, layout)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                return _load_published(path, layout)
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


def _load_published(path: Path, layout: str | None) -> Checkpoint:
    state = read_state_dict(path)
    try:
        network = from_published(state).float()
    except UsageError as error:
        raise UsageError(f"{path}: not a checkpoint of semiseg and {error}") from None
    if layout is None:
        layout = {len(voc.CLASSES): "voc", len(cityscapes.CLASSES): "cityscapes"}.get(network.num_classes, "folder")
    # The recipe says at which scale and by which protocol its program evaluates.
    recipe = load_recipe(f"{network.architecture}_{layout}")
    recipe = replace(
        recipe,
        evaluation=recipe.as_published().evaluation,
        network=network.architecture,
        backbone=network.backbone_name,
        head_width=network.head_width,
    )
    classes, palette = _legend(layout, network.num_classes)
    return Checkpoint(network, recipe, classes, palette, step=0, miou=math.nan)


def _legend(layout: str, count: int) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
    """Names and colours of the classes, as far as their number and the layout tell."""
    if layout == "cityscapes" and count == len(cityscapes.CLASSES):
        return cityscapes.CLASSES, cityscapes.PALETTE
    known = layout == "voc" and count == len(voc.CLASSES)
    return voc.CLASSES if known else tuple(f"class {index}" for index in range(count)), voc_colours(count)


def find(path: Path) -> Path:
    """The checkpoint that a path means: a file, or a run's best."""
    if path.is_file():
        return path
    for name in ("best", "last"):
        candidate = path / "checkpoints" / f"{name}.safetensors"
        if candidate.is_file():
            return candidate
    raise UsageError(f"{path}: neither a checkpoint nor the folder of a run that has saved one; pass either")
