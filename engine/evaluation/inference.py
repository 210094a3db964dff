"""From a checkpoint alone, ours or a published one: scores on a data set, and predictions for a folder of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ...pipelines.datasets import find_dataset
from ...pipelines.datasets.dataset import IMAGE_SUFFIXES
from ...pipelines.decode import COLOUR, read
from ...pipelines.errors import UsageError, refuse
from ..checkpoint import Checkpoint, find, load_network, match_classes
from ..data import prepare_manifest
from ..device import Precision, resolve_device, resolve_precision
from ..disk import writing
from ..events import Event, Listener, progress_of, silent
from ..models import Network, encoder_of, evaluating
from ..pictures import coloured, overlay
from ..protocol import Protocol
from ..run import create_folder
from .protocols import full_logits
from .scores import evaluate_each, finite, normalised

HIDDEN = (".", "__MACOSX")
"""Files and folders whose names begin so are passed over."""


class Predictions(NamedTuple):
    """What `predict` has done."""

    out: Path
    """The folder of masks/, colours/ and overlays/."""
    images: int
    """Those that were predicted."""
    failed: dict[Path, str]
    """Files that could not be read, and why."""


def evaluate(
    checkpoint: Path | str,
    data: Path | str | None = None,
    *,
    layout: str | None = None,
    files: dict[str, Any] | None = None,
    protocol: Sequence[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    on_event: Listener = silent,
    **settings: Any,
) -> dict[str, Any]:
    """Scores of a checkpoint on a validation set: {"miou", "iou", "pixel_accuracy", "protocol", "images"}, shares in
    [0, 1], None where nothing was judged.

    checkpoint: as `load_network` takes it. data, layout, files: as `find_dataset` takes them (default: those of the
    training). protocol: names of PROTOCOLS; of several, all from one pass over the data, the document is the first
    one's and has all under "protocols", by name. settings: other fields of `Protocol`; what is None is as in training.
    Classes are matched by name. Raises UsageError where those of the data are others than the checkpoint's.
    """
    loaded, computing = _ready(checkpoint, layout, device, precision)
    header = loaded.header
    if not any((files or {}).values()) and layout in (None, header.layout):
        files = header.files
    dataset = find_dataset(layout or header.layout, data or header.data, **(files or {}))
    places = match_classes(header, dataset.classes, f"{checkpoint} on {dataset.root}")
    names = tuple(dict.fromkeys(protocol or [header.evaluation.name]))
    protocols = [_protocol(loaded, name=name, **settings) for name in names]
    manifest = prepare_manifest(dataset, on_event)
    records = [manifest.records[sample.id] for sample in dataset.val]
    scores = evaluate_each(
        loaded.network,
        records,
        dataset.classes,
        protocols,
        precision=computing,
        on_progress=progress_of("evaluating", on_event),
    )
    # Rows are the data set's classes and columns the network's, which may have the same in another order.
    classes = tuple(dataset.classes[place] for place in places)
    scores = [replace(one, confusion=one.confusion[list(places)], classes=classes) for one in scores]
    documents = {
        name: {
            "miou": finite(score.miou),
            "iou": {of: finite(iou) for of, iou in score.iou.items()},
            "pixel_accuracy": score.pixel_accuracy,
            "protocol": str(described),
            "images": len(records),
        }
        for name, score, described in zip(names, scores, protocols, strict=True)
    }
    return documents[names[0]] | ({"protocols": documents} if len(names) > 1 else {})


def predict(
    checkpoint: Path | str,
    images: Path | str,
    out: Path | str | None = None,
    *,
    layout: str | None = None,
    protocol: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    on_event: Listener = silent,
    **settings: Any,
) -> Predictions:
    """Writes masks/ (indices), colours/ and overlays/ for every image below `images`, or for that one image, into `out`
    (default: predictions/ beside the checkpoint's run). A file that cannot be read does not stop the others.

    checkpoint, layout: as `load_network` takes them. protocol, settings: as in `evaluate`.
    """
    loaded, computing = _ready(checkpoint, layout, device, precision)
    images, file = Path(images), find(checkpoint)
    if out is None:
        out = (file.parent.parent if file.parent.name == "checkpoints" else file.parent) / "predictions"
    out = Path(out)
    written = out.resolve()  # one folder has many spellings
    sources = [source for source in _images(images) if written not in source.resolve().parents]
    chosen = _protocol(loaded, name=protocol, **settings)
    for kind in ("masks", "colours", "overlays"):
        create_folder(out / kind)
    home = images if images.is_dir() else images.parent
    names = _names([source.relative_to(home) for source in sources])
    failed: dict[Path, str] = {}
    for done, (source, name) in enumerate(zip(sources, names, strict=True), 1):
        try:
            image = read(source, COLOUR)
        except UsageError as error:
            failed[source] = str(error)
        else:
            mask = segment(loaded.network, image, chosen, computing)
            pictures = {
                "masks": mask,
                "colours": coloured(mask, loaded.header.palette),
                "overlays": overlay(image, mask, loaded.header.palette),
            }
            for kind, picture in pictures.items():
                path = out / kind / name
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(picture).save(path)
        on_event(Event("progress", "predicting", done, len(sources)))
    return Predictions(out, len(sources) - len(failed), failed)


def segment(network: Network, image: np.ndarray, protocol: Protocol, precision: Precision) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (H, W) uint8 class indices."""
    with evaluating(network), precision.autocast():
        logits = full_logits(network, normalised(network, image[None], precision.device), protocol)
        return logits[0].argmax(0).to(torch.uint8).cpu().numpy()


def _ready(path: Path | str, layout: str | None, device: str, precision: str) -> tuple[Checkpoint, Precision]:
    computing = resolve_precision(precision, resolve_device(device))
    computing.allow_tf32()
    checkpoint = load_network(path, layout)
    checkpoint.network.to(computing.device, memory_format=torch.channels_last)
    return checkpoint, computing


def _protocol(checkpoint: Checkpoint, **settings: Any) -> Protocol:
    """The protocol of the training, but for the settings that are given. Raises UsageError for those without sense."""
    given = {name: value for name, value in settings.items() if value is not None}
    if "scale" in given:  # whoever asks for a scale wants it instead of the training's long side
        given = {"long_side": None} | given
    protocol = replace(checkpoint.header.evaluation, **given)
    encoder = encoder_of(checkpoint.header.backbone)
    refuse(protocol.faults(least=encoder.least, multiple=encoder.multiple))
    return protocol


def _names(images: Sequence[Path]) -> list[Path]:
    """A name for the pictures of each image, all different: its own as a PNG; with its extension too where it is
    shared, and everywhere where even that would give a name to two."""
    short = [image.with_suffix(".png") for image in images]
    long = [image.with_name(f"{image.name}.png") for image in images]
    shared = Counter(short)
    names = [one if shared[one] == 1 else other for one, other in zip(short, long, strict=True)]
    return names if len(set(names)) == len(names) else long


def _images(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = [p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES] if path.is_dir() else []
    # As in training: what a file manager or an editor has left there is no picture.
    found = sorted(p for p in found if not any(part.startswith(HIDDEN) for part in p.relative_to(path).parts))
    if not found:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UsageError(f"{path}: no images there ({known}); pass a folder of images or one image")
    return found
