"""From a checkpoint alone, ours or a published one: scores on a data set, and predictions for a folder of images."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ...pipelines.datasets import find_dataset
from ...pipelines.datasets.dataset import IMAGE_SUFFIXES
from ...pipelines.datasets.files import PREDICTED, check_name, find_pictures
from ...pipelines.datasets.pairs import masks_among
from ...pipelines.decode import COLOUR, Reading, read
from ...pipelines.errors import UsageError, refuse
from ...pipelines.watch import hash_of
from ..checkpoint import Checkpoint, find, load_network, match_classes
from ..data import judged_again, moved, prepare_manifest, same_place, tell
from ..device import (
    Precision,
    as_started,
    free_memory_of,
    out_of_memory,
    precision_as_trained,
    resolve_device,
    resolve_precision,
)
from ..disk import create_folder, whole
from ..events import Event, Listener, progress_of, silent
from ..models import Network, encoder_of, evaluating
from ..pictures import coloured, overlay
from ..protocol import Protocol
from ..run import Run
from .confidence import FILE, Confidence, clear_csv, write_csv
from .protocols import confidence, full_logits, memory_of
from .scores import evaluate_each, finite, normalised

LONGEST_NAME = 255
"""Bytes of a file's name that file systems take."""


class Predictions(NamedTuple):
    """What `predict` has done."""

    out: Path
    """The folder of masks/, colours/, overlays/ and confidence.csv."""
    images: int
    """Those that were predicted."""
    failed: dict[Path, str]
    """Files that could not be read, and why."""
    confidences: Sequence[Confidence] = ()
    """Of all others, the least sure first, as in confidence.csv."""

    @property
    def table(self) -> Path:
        """confidence.csv."""
        return self.out / FILE


@as_started()
def evaluate(
    checkpoint: Path | str,
    data: Path | str | None = None,
    *,
    layout: str | None = None,
    files: dict[str, Any] | None = None,
    protocol: Sequence[str] | None = None,
    device: str = "auto",
    precision: str | None = None,
    on_event: Listener = silent,
    **settings: Any,
) -> dict[str, Any]:
    """Scores of a checkpoint on a validation set: {"miou", "iou", "pixel_accuracy", "protocol", "images"}, shares in
    [0, 1], None where nothing was judged.

    checkpoint: as `load_network` takes it. data, layout, files: as `find_dataset` takes them (default: those of the
    training, each by itself; of other data, what lay below the root of the training's lies below its own; of the
    training's without a list, those images are judged that the run held out). protocol:
    names of PROTOCOLS; of several, all from one pass over the data, the document is the first one's and has all under
    "protocols", by name. precision: as for training (default: what that asked for, where the device has it). settings:
    other fields of `Protocol`; what is None is as in training.
    Classes are matched by name. Raises UsageError where those of the data are others than the checkpoint's.
    """
    loaded, computing = _ready(checkpoint, layout, device, precision)
    header = loaded.header
    said = _said(files)
    if layout in (None, header.layout):
        trained = {name: value for name, value in header.files.items() if name not in said}
        said |= moved(trained, header.data, data)
    try:
        dataset = find_dataset(layout or header.layout, data or header.data, **said)
    except UsageError as error:
        own = {name: value for name, value in _said(said).items() if name not in _said(files)}
        told = ", ".join(f"--files.{name.replace('_', '-')} {value}" for name, value in own.items())
        elsewhere = told and not same_place(data, header.data)
        raise UsageError(
            f"{error} (the training had {told}; say what it is here)" if elsewhere else f"{error}"
        ) from None
    places = match_classes(header, dataset.classes, f"{checkpoint} on {dataset.root}")
    names = tuple(dict.fromkeys(protocol or [header.evaluation.name]))
    protocols = [protocol_of(loaded, name=name, **settings) for name in names]
    tell("data", dataset.notes, on_event)
    run = home_of(find(checkpoint))
    if same_place(data, header.data) and (run / "split.json").exists():
        dataset = judged_again(dataset, Run(run).split, on_event)
    manifest = prepare_manifest(dataset, on_event)
    uses = _uses(find(checkpoint))
    taught = [sample.id for sample in dataset.val if uses.get(manifest.picture(sample)) == "labels"]
    if taught and not same_place(data, header.data):
        note = (
            f"warning: {len(taught)} of {len(dataset.val)} images, {taught[0]} for one, were labelled in the training"
        )
        tell("data", [note], on_event)
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


@as_started()
def predict(
    checkpoint: Path | str,
    images: Path | str,
    out: Path | str | None = None,
    *,
    layout: str | None = None,
    protocol: str | None = None,
    files: Mapping[str, Any] | None = None,
    device: str = "auto",
    precision: str | None = None,
    on_event: Listener = silent,
    **settings: Any,
) -> Predictions:
    """Writes masks/ (indices), colours/, with the class list, and overlays/ for every image below `images`, or for that
    one image, into `out`
    (default: predictions/ beside the checkpoint's run), and at last confidence.csv: a `Confidence` a row, the least
    sure image first. Of several, a file that cannot be read does not stop the others. Pictures are found as for
    training; masks among them, and what was predicted into `out` before, are passed over. Masks of an earlier
    prediction that this one does not replace stay, and a note says so.

    checkpoint, layout: as `load_network` takes them. protocol, precision, settings: as in `evaluate`. files:
    `orientation` and `max_megapixels` of `find_dataset` where they are not to be as in training.
    """
    loaded, computing = _ready(checkpoint, layout, device, precision)
    images, file = Path(images), find(checkpoint)
    out = home_of(file) / "predictions" if out is None else Path(out)
    chosen = protocol_of(loaded, name=protocol, **settings)
    taught = {"orientation": "ignore"} if loaded.header.as_stored else {}
    reading = Reading.of(taught | _said(loaded.header.files) | _said(files))
    sources = _images(images, out, on_event)
    if images.is_file():
        read(images, COLOUR, reading=reading)  # what is no picture is refused, and nothing begun
    home = images if images.is_dir() else images.parent
    names = _names([source.relative_to(home) for source in sources])
    _check_out(out, names)
    clear_csv(out / FILE)
    for kind in sorted(PREDICTED):
        create_folder(out / kind)
    tell("predictions", _of_earlier(out, names), on_event)
    colours = zip(loaded.header.classes, loaded.header.palette, strict=True)
    with whole(out / "colours" / "classes.txt") as draft:
        lines = (f"{name}\t#{bytes(colour).hex()}\n" for name, colour in colours)
        draft.write_text("".join(lines), encoding="utf-8")
    failed: dict[Path, str] = {}
    rows, uses = [], _uses(file)
    for done, (source, name) in enumerate(zip(sources, names, strict=True), 1):
        try:
            image = read(source, COLOUR, reading=reading)
            mask, sure = segmented(source, loaded, image, chosen, computing)
        except UsageError as error:
            failed[source] = str(error)
            for kind in PREDICTED:  # one of another picture that was called so
                (out / kind / name).unlink(missing_ok=True)
        else:
            pictures = {
                "masks": mask,
                "colours": coloured(mask, loaded.header.palette),
                "overlays": overlay(image, mask, loaded.header.palette),
            }
            for kind, picture in pictures.items():
                path = out / kind / name
                create_folder(path.parent)
                with whole(path) as draft:
                    Image.fromarray(picture).save(draft, "PNG")
            shown = source.relative_to(home).as_posix()
            use = uses.get(hash_of(source.read_bytes()), "") if uses else ""
            rows.append(Confidence.of(shown, mask, sure, loaded.header.classes, use))
        on_event(Event("progress", "predicting", done, len(sources)))
    return Predictions(out, len(sources) - len(failed), failed, write_csv(out / FILE, rows))


def _uses(checkpoint: Path) -> dict[str, str]:
    """What the run that a checkpoint lies in had the masks of pictures for, by the hashes of these."""
    with suppress(UsageError):  # a file alone, a run of an older version, or one whose split.json is damaged
        uses = Run(home_of(checkpoint)).split.get("pictures", {})
        return {name: use for use, names in uses.items() for name in names}
    return {}


def _said(files: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of a data set that are given."""
    return {name: value for name, value in (files or {}).items() if value is not None}


def segmented(
    source: Path, loaded: Checkpoint, image: np.ndarray, protocol: Protocol, precision: Precision
) -> tuple[np.ndarray, np.ndarray]:
    """As `segment`. Raises UsageError where the image is too large for the memory that is free."""
    (height, width), classes = image.shape[:2], len(loaded.header.classes)
    needed, free = memory_of(protocol, height, width, classes), free_memory_of(precision.device)
    if free is None or needed <= free:
        try:
            return segment(loaded.network, image, protocol, precision)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
    slide = replace(protocol, name="slide")
    helps = not protocol.convention.windows and memory_of(slide, height, width, classes) <= (free or 0)
    cure = f"pass --protocol slide --window {protocol.window}, or " if helps else ""
    room = "" if free is None else f" where {free / 2**30:.1f} are free"
    raise UsageError(
        f"{source}: is {width}x{height}, for which {protocol} needs more than {needed / 2**30:.1f} GiB of memory"
        f"{room}; {cure}cut it into tiles"
    )


def segment(
    network: Network, image: np.ndarray, protocol: Protocol, precision: Precision
) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 RGB -> (H, W) uint8 class indices, and (H, W) the probability of each, as `confidence` has it."""
    with evaluating(network), precision.autocast():
        images = normalised(network, image[None], precision.device)
        said = full_logits(network, images, protocol)
        mask = said[0].argmax(0).to(torch.uint8).cpu()
        return mask.numpy(), confidence(said, images, protocol)[0].cpu().numpy()


def home_of(checkpoint: Path) -> Path:
    """Where what is made of a checkpoint's file goes: the folder of its run, else its own."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def _ready(path: Path | str, layout: str | None, device: str, precision: str | None) -> tuple[Checkpoint, Precision]:
    place = resolve_device(device)
    asked = precision and resolve_precision(precision, place)
    checkpoint = load_network(path, layout)
    computing = asked or precision_as_trained(checkpoint.header.precision, place)
    computing.allow_tf32()
    if not all(bool(value.isfinite().all()) for value in checkpoint.network.state_dict().values()):
        raise UsageError(f"{path}: holds weights that are no numbers; take an earlier checkpoint, or train again")
    checkpoint.network.to(computing.device, memory_format=torch.channels_last)
    return checkpoint, computing


def protocol_of(checkpoint: Checkpoint, **settings: Any) -> Protocol:
    """The protocol of the training, but for the settings that are given. Raises UsageError for those without sense."""
    given = {name: value for name, value in settings.items() if value is not None}
    if "scale" in given:  # whoever asks for a scale wants it instead of the training's long side
        given = {"long_side": None, "longest": None} | given
    protocol = replace(checkpoint.header.evaluation, **given)
    encoder = encoder_of(checkpoint.header.backbone)
    refuse(protocol.faults(least=encoder.least, multiple=encoder.multiple))
    return protocol


def _names(images: Sequence[Path]) -> list[Path]:
    """A name for the pictures of each image, all different: its own as a PNG; with its extension too where it is
    shared, and everywhere where even that would give a name to two."""
    short = [image.with_name(f"{image.stem}.png") for image in images]
    long = [_shortened(image.with_name(f"{image.name}.png")) for image in images]
    shared = Counter(short)
    names = [one if shared[one] == 1 else other for one, other in zip(short, long, strict=True)]
    return names if len(set(names)) == len(names) else long


def _shortened(path: Path) -> Path:
    """A path whose name is too long for file systems, with a checksum for its end."""
    name = os.fsencode(path.name)
    if len(name) <= LONGEST_NAME:
        return path
    checksum = hashlib.blake2b(name, digest_size=6).hexdigest()
    return path.with_name(f"{name[: LONGEST_NAME - 20].decode(errors='ignore')}-{checksum}.png")


def _check_out(out: Path, names: Sequence[Path]) -> None:
    """Raises UsageError where predictions would come between or over files that no prediction has written."""
    for kind in sorted(PREDICTED):
        folders = {out / kind, *(out / kind / parent for name in names for parent in name.parents)}
        for folder in sorted(folders):
            if folder.is_symlink():
                raise UsageError(f"--out: {folder} is a link to another folder: remove it, or choose another folder")
    there = {kind for kind in PREDICTED if (out / kind).exists()}
    strange = sorted(kind for kind in there if any((out / kind).iterdir()))
    if strange and there != PREDICTED:  # which a prediction makes before its first picture
        raise UsageError(f"--out: {out / strange[0]} holds what no prediction wrote: choose another folder")


def _of_earlier(out: Path, names: Collection[Path]) -> Iterator[str]:
    """A note where an earlier prediction left masks that this one does not replace."""
    masks, ours = out / "masks", set(names)
    if others := sorted(path for path in masks.rglob("*.png") if path.relative_to(masks) not in ours):
        yield (
            f"{len(others)} masks of an earlier one stay, {others[0]} for one, and may be of another network: pass "
            "another --out, or remove the folder, to keep these apart"
        )


def _images(path: Path, out: Path, on_event: Listener) -> list[Path]:
    """The pictures to predict: all below a folder but masks and what is in `out`, or the one."""
    check_name(str(path))
    if path.is_file():
        return [path]
    if not path.exists():
        raise UsageError(f"{path} does not exist: pass a folder of images or one image")
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is neither a folder nor a file: pass a folder of images or one image")
    known = ", ".join(sorted(IMAGE_SUFFIXES))
    if not path.is_dir():
        raise UsageError(f"{path}: no images there ({known}); pass a folder of images or one image")
    # A folder of results is one of pictures, too, for who wants these predicted; but not those in `out`.
    found = find_pictures(path, apart=[out / kind for kind in PREDICTED], results=True)
    masks = masks_among(found.names)
    notes = list(found.notes())
    if masks:
        notes.append(f"{len(masks)} pictures in {path} are masks or drawings of some, and passed over: {min(masks)}, …")
    for note in notes:
        on_event(Event("note", f"images: {note}"))
    sources = [path / name for name in found.names if name not in masks]
    if not sources:
        more = f"; {notes[0]}" if notes else ""
        raise UsageError(f"{path}: no images there ({known}){more}; pass a folder of images or one image")
    return sources
