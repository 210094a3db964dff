"""From a checkpoint alone, ours or a published one: scores on a data set, and predictions for a folder of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...pipelines.datasets.layouts import find_dataset
from ...pipelines.decode import COLOUR, read
from ...pipelines.errors import UsageError
from .. import console
from ..checkpoint import Checkpoint, find, load_network
from ..data import prepare_manifest
from ..device import LOW, resolve_device, resolve_precision, set_precision
from ..models import Network, evaluating
from ..pictures import coloured, overlay
from ..recipe import Evaluation, Files
from .protocols import full_logits
from .scores import Scores, evaluate_each, finite, normalised

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


def evaluate_checkpoint(
    path: Path,
    data: Path | None,
    files: Files,
    *,
    layout: str | None = None,
    protocol: Sequence[str] | None,
    device: str,
    precision: str,
    **settings: Any,
) -> tuple[Scores, dict[str, Any]]:
    """Scores, and the document {"miou", "iou", "pixel_accuracy", "protocol", "images"}: shares in [0, 1].

    `protocol` names one or several; of several, all from one pass over the data, the first one's scores are returned
    and the document has all under "protocols", by name. `settings` are other fields of `Evaluation`; what is None is
    as in the recipe. Raises UsageError where the class list of the data is not the checkpoint's.
    """
    checkpoint, target, autocast = _ready(path, layout, device, precision)
    recipe = checkpoint.recipe
    if files == Files() and layout in (None, recipe.layout):
        files = recipe.files
    dataset = find_dataset(layout or recipe.layout, data or recipe.data, **asdict(files))
    if len(dataset.classes) != len(checkpoint.classes):
        raise UsageError(
            f"{path}: trained on {len(checkpoint.classes)} classes, the data set {dataset.root} has "
            f"{len(dataset.classes)}; pass the data or the class list it was trained with"
        )
    manifest = prepare_manifest(dataset)
    records = [manifest.records[sample.id] for sample in dataset.val]
    names = tuple(dict.fromkeys(protocol or [recipe.evaluation.protocol]))
    evaluations = [_evaluation(checkpoint, protocol=name, **settings) for name in names]
    with console.progress("evaluating", len(records)) as bar:
        scores = evaluate_each(
            checkpoint.network,
            records,
            dataset.classes,
            evaluations,
            crop=recipe.crop,
            device=target,
            autocast=autocast,
            on_progress=bar,
        )
    documents = {
        name: {
            "miou": finite(score.miou),
            "iou": {of: finite(iou) for of, iou in score.iou.items()},
            "pixel_accuracy": score.pixel_accuracy,
            "protocol": evaluation.describe(recipe.crop),
            "images": len(records),
        }
        for name, score, evaluation in zip(names, scores, evaluations, strict=True)
    }
    return scores[0], documents[names[0]] | ({"protocols": documents} if len(names) > 1 else {})


def predict_folder(
    path: Path,
    images: Path,
    out: Path | None,
    *,
    layout: str | None = None,
    device: str,
    precision: str,
    **settings: Any,
) -> tuple[Path, int]:
    """Writes masks/ (indices), colours/ and overlays/ for every image below `images`; returns folder and count.

    `settings` are fields of `Evaluation`; what is None is as in the recipe.
    """
    checkpoint, target, autocast = _ready(path, layout, device, precision)
    if out is None:
        file = find(path)
        out = (file.parent.parent if file.parent.name == "checkpoints" else file.parent) / "predictions"
    sources = [source for source in _images(images) if out not in source.parents]
    stems = Counter(source.with_suffix("") for source in sources)
    evaluation = _evaluation(checkpoint, **settings)
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
    with evaluating(network):
        logits = full_logits(network, normalised(image[None], device), evaluation, crop)
        return logits[0].argmax(0).to(torch.uint8).cpu().numpy()


def _ready(path: Path, layout: str | None, device: str, precision: str):
    target = resolve_device(device)
    precision = resolve_precision(precision, target)
    set_precision(precision, target)
    low = LOW.get(precision)
    checkpoint: Checkpoint = load_network(path, layout)
    checkpoint.network.to(target, memory_format=torch.channels_last)
    return checkpoint, target, (lambda: torch.autocast(target.type, low)) if low else nullcontext


def _evaluation(checkpoint: Checkpoint, **settings: Any) -> Evaluation:
    given = {name: value for name, value in settings.items() if value is not None}
    evaluation = replace(checkpoint.recipe.evaluation, **given)
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
