"""From a checkpoint alone: scores on a data set, and predictions for a folder of images."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..kernels import pseudo_label
from ..pipelines.dataset import find_dataset
from ..pipelines.errors import UsageError
from ..pipelines.host import COLOUR, read
from . import console
from .checkpoint import Checkpoint, find, load_network
from .data import prepare_manifest
from .evaluation import Scores, evaluate, evaluating, finite, normalised, rescaled, slide, whole
from .models import Network
from .pictures import coloured, overlay
from .recipe import Evaluation, Files
from .step import LOW, resolve_device, resolve_precision, set_precision

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


def evaluate_checkpoint(
    path: Path,
    data: Path | None,
    files: Files,
    *,
    protocol: str | None,
    window: int | None,
    batch: int | None,
    device: str,
    precision: str,
) -> tuple[Scores, dict[str, Any]]:
    """Scores, and the document {"miou", "iou", "pixel_accuracy", "protocol", "images"}: shares in [0, 1].

    Raises UsageError where the class list of the data is not the checkpoint's.
    """
    checkpoint, target, autocast = _ready(path, device, precision)
    recipe = checkpoint.recipe
    files = recipe.files if files == Files() else files
    dataset = find_dataset(recipe.layout, data or recipe.data, **asdict(files))
    if len(dataset.classes) != len(checkpoint.classes):
        raise UsageError(
            f"{path}: trained on {len(checkpoint.classes)} classes, the data set {dataset.root} has "
            f"{len(dataset.classes)}; pass the data or the class list it was trained with"
        )
    manifest = prepare_manifest(dataset)
    records = [manifest.records[sample.id] for sample in dataset.val]
    evaluation = _evaluation(checkpoint, protocol, window, batch)
    with console.progress("evaluating", len(records)) as bar:
        scores = evaluate(
            checkpoint.network,
            records,
            checkpoint.classes,
            evaluation,
            crop=recipe.crop,
            device=target,
            autocast=autocast,
            on_progress=bar,
        )
    document = {
        "miou": finite(scores.miou),
        "iou": {name: finite(iou) for name, iou in scores.iou.items()},
        "pixel_accuracy": scores.pixel_accuracy,
        "protocol": evaluation.describe(recipe.crop),
        "images": len(records),
    }
    return scores, document


def predict_folder(
    path: Path,
    images: Path,
    out: Path | None,
    *,
    protocol: str | None,
    window: int | None,
    device: str,
    precision: str,
) -> tuple[Path, int]:
    """Writes masks/ (indices), colours/ and overlays/ for every image below `images`; returns folder and count."""
    checkpoint, target, autocast = _ready(path, device, precision)
    if out is None:
        file = find(path)
        out = (file.parent.parent if file.parent.name == "checkpoints" else file.parent) / "predictions"
    sources = [source for source in _images(images) if out not in source.parents]
    stems = Counter(source.with_suffix("") for source in sources)
    evaluation = _evaluation(checkpoint, protocol, window, None)
    try:
        for kind in ("masks", "colours", "overlays"):
            (out / kind).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: cannot write into {out} ({error.strerror}); choose another folder") from None
    home = images if images.is_dir() else images.parent
    with console.progress("predicting", len(sources)) as bar:
        for done, source in enumerate(sources, 1):
            image = read(source, COLOUR)
            with autocast():
                mask = segment(checkpoint.network, image, evaluation, checkpoint.recipe.crop, target)
            name = source.relative_to(home)
            # Two images that differ by their extension alone keep it.
            alone = stems[source.with_suffix("")] == 1
            name = name.with_suffix(".png") if alone else name.with_name(f"{name.name}.png")
            pictures = {
                "masks": Image.fromarray(mask),
                "colours": Image.fromarray(coloured(mask, checkpoint.palette)),
                "overlays": Image.fromarray(overlay(image, mask, checkpoint.palette)),
            }
            for kind, picture in pictures.items():
                (out / kind / name).parent.mkdir(parents=True, exist_ok=True)
                picture.save(out / kind / name)
            bar(done)
    return out, len(sources)


def segment(network: Network, image: np.ndarray, evaluation: Evaluation, crop: int, device: torch.device) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (H, W) uint8 class indices."""
    tensor = rescaled(normalised(image[None], device), evaluation.scale_of(*image.shape[:2], crop))
    with evaluating(network):
        if evaluation.protocol == "whole":
            logits = whole(network, tensor)
        else:
            logits = slide(network, tensor, evaluation.window or crop, evaluation.batch)
        label, _ = pseudo_label(logits, image.shape[:2])
        return label[0].cpu().numpy()


def _ready(path: Path, device: str, precision: str):
    target = resolve_device(device)
    precision = resolve_precision(precision, target)
    set_precision(precision, target)
    low = LOW.get(precision)
    checkpoint: Checkpoint = load_network(path)
    checkpoint.network.to(target, memory_format=torch.channels_last)
    return checkpoint, target, (lambda: torch.autocast(target.type, low)) if low else nullcontext


def _evaluation(checkpoint: Checkpoint, protocol: str | None, window: int | None, batch: int | None) -> Evaluation:
    given = {"protocol": protocol, "window": window, "batch": batch}
    evaluation = replace(checkpoint.recipe.evaluation, **{name: v for name, v in given.items() if v is not None})
    evaluation.check("--")
    return evaluation


def _images(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else []
    if not found:
        raise UsageError(
            f"{path}: no images there ({', '.join(sorted(SUFFIXES))}); pass a folder of images or one image"
        )
    return found
