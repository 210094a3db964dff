"""From a checkpoint alone, ours or a published one: scores on a data set, and the class of each pixel of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from ...pipelines.datasets.dataset import Dataset
from ...pipelines.datasets.layouts import LAYOUTS, UNLABELED, find_judged
from ...pipelines.datasets.manifest import Record
from ...pipelines.errors import UsageError, fault_unless, flag, raise_faults
from ..checkpoint import Checkpoint, Header, checkpoint_file, load_network, match_classes, require_finite
from ..data import judged_faults, prepare_manifest, taught_before, unknown_uses
from ..device import Precision, as_started, precision_as_trained, resolve_device, resolve_precision
from ..disk import create_folder
from ..events import Listener, progress_of, silent, tell
from ..held_out import with_pictures_of_run, with_validation_of_run
from ..models import Network, encoder_of, evaluating
from ..places import moved, same_place
from ..processes import is_main
from ..protocol import Protocol
from ..run import Run, home_of, uses_of
from ..serial import require_types
from .memory import MemoryNeed, room_for
from .protocols import classified
from .scores import Scores, finite
from .tables import require_tables_own, write_tables
from .validation import evaluate_each, normalised

Part = Literal["val", "test", "all"]
"""Which images of a data set are judged."""
PARTS = get_args(Part)
LISTS_BESIDE: dict[Part, tuple[str, ...]] = {
    "val": (),
    "test": ("train_list", "val_list"),
    "all": ("train_list", "val_list", "test_list"),
}
"""The lists that do not say which these are."""


class Segmentation(NamedTuple):
    """What a network says of an image of (H, W) pixels."""

    labels: np.ndarray
    """(H, W) uint8: the class of each pixel, as its index."""
    confidence: np.ndarray
    """(H, W) float32 in [0, 1]: the label's probability; 0 where the network says what is no number."""
    probabilities: np.ndarray | None = None
    """(C, H, W) float32 in [0, 1], of which each pixel's sum to 1 and the label's is the largest; where they were asked
    for."""


@as_started()
def evaluate(
    checkpoint: Path | str,
    data: Path | str | None = None,
    *,
    layout: str | None = None,
    files: dict[str, Any] | None = None,
    part: Part = "val",
    protocol: str | Sequence[str] | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    precision: str | None = None,
    on_event: Listener = silent,
    **settings: Any,
) -> dict[str, Any]:
    """Scores of a checkpoint on a validation set, or another part of a data set: {"miou", "mdice", "pixel_accuracy", by
    class "iou", "class_precision", "recall" and "dice", "classes", "confusion" (pixels; rows are the truth, columns the
    prediction, both in the order of "classes"), "protocol", "precision" (what the network computed in), "images"}.
    Shares are in [0, 1], and None where `Scores` has none: of a class that no mask and no prediction holds, for one.

    checkpoint: as `load_network` takes it. data, layout, files: as `find_dataset` takes them (default: those of the
    training, each by itself; of other data, what lay below the root of the training's lies below its own; of the
    training's, moved or not, without a list, those images are judged that the run held out, and of other data without
    one all that have masks). part: which images: for validation, those that a list or folder for testing names, or all
    that have masks. protocol: a name of PROTOCOLS, or several; of several, all from one pass over the data, the
    document is the first one's and has all under "protocols", by name. out: a folder for the tables of `write_tables`,
    of several protocols for a folder of each, by name; those of an earlier evaluation are replaced. precision: as for
    training (default: what that asked for, where the device has it). settings: other fields of `Protocol`; what is None
    is as in training.
    Classes are matched by name. Raises UsageError where those of the data are others than the checkpoint's, where no
    pixel of the masks has a class, where memory does not do, and where `out` holds other files of these names.
    """
    loaded, computing = load_for_inference(checkpoint, layout, device, precision)
    header = loaded.header
    dataset = _evaluation_data(header, data, layout, without_none(files), part)
    places = match_classes(header, dataset.classes, f"{checkpoint} on {dataset.root}")
    asked = [protocol] if isinstance(protocol, str) else protocol or [header.evaluation.name]
    names = tuple(dict.fromkeys(asked))
    protocols = protocols_of(loaded, names, settings)
    folders = _folders_of_tables(out, names)
    records = _judged(dataset, checkpoint_file(checkpoint), on_event, elsewhere=not same_place(data, header.data))
    for folder in folders:
        create_folder(folder)
    scores = evaluate_each(
        loaded.network,
        records,
        tuple(dataset.classes[place] for place in places),
        protocols,
        precision=computing,
        places=places,
        by_image=out is not None,
        on_progress=progress_of("evaluating", on_event),
    )
    for folder, score in zip(folders, scores, strict=False):  # no folders without `out`
        write_tables(folder, score)
    what = {"precision": computing.name, "images": len(records)}
    documents = {
        name: _document(score) | {"protocol": str(described)} | what
        for name, score, described in zip(names, scores, protocols, strict=True)
    }
    return documents[names[0]] | ({"protocols": documents} if len(names) > 1 else {})


def _folders_of_tables(out: Path | str | None, names: Sequence[str]) -> list[Path]:
    """Where this process writes the tables of each protocol; none without `out`. Raises UsageError where something else
    is there."""
    if out is None or not is_main():
        return []
    folders = [Path(out) / name for name in names] if len(names) > 1 else [Path(out)]
    for folder in folders:
        require_tables_own(folder)
    return folders


def _judged(dataset: Dataset, checkpoint: Path, on_event: Listener, *, elsewhere: bool) -> list[Record]:
    """The validation images of the data set, prepared; those of the checkpoint's run, where it has one. elsewhere: it
    may be other data. Raises UsageError where no pixel of the masks has a class."""
    tell("data", dataset.notes, on_event)
    tell("data", unknown_uses(checkpoint, dataset), on_event)
    home = home_of(checkpoint)
    run = Run(home) if (home / "split.json").exists() else None
    if run and not elsewhere:
        dataset = with_validation_of_run(dataset, run.split, on_event)
    manifest = prepare_manifest(dataset, on_event)
    if run and elsewhere and dataset.held_out:
        manifest = replace(manifest, dataset=with_pictures_of_run(manifest, run.split, on_event))
    raise_faults([dataset.untrainable] if not manifest.dataset.val else judged_faults(manifest))
    if elsewhere:
        tell("data", taught_before(manifest, uses_of(checkpoint)), on_event)
    return [manifest.records[sample.id] for sample in manifest.dataset.val]


def _evaluation_data(
    header: Header, data: Path | str | None, layout: str | None, files: dict[str, Any], part: Part
) -> Dataset:
    """The data set of what is given, with its part for validation. What is not given is as in the training, where the
    layout is, but for unlabelled images, which nothing is judged on, and, of other data, for lists that the part does
    not ask for. Raises UsageError where there is none."""
    raise_faults(fault_unless(part in PARTS, "--part", f"must be one of {', '.join(PARTS)}", part))
    own: dict[str, Any] = {}
    if layout in (None, header.layout):
        lists = () if same_place(data, header.data) else LISTS_BESIDE[part]
        trained = {name: value for name, value in header.files.items() if name not in (*files, UNLABELED, *lists)}
        own = without_none(moved(trained, header.data, data))
    try:
        root = data or header.data
        return _of_part(find_judged(layout or header.layout, Path(root) if root else None, **files, **own), part)
    except UsageError as error:
        told = ", ".join(f"{flag('files.' + name)} {value}" for name, value in own.items())
        elsewhere = told and not same_place(data, header.data)
        raise UsageError(
            f"{error} (the training had {told}; say what it is here)" if elsewhere else f"{error}"
        ) from None


def _of_part(dataset: Dataset, part: Part) -> Dataset:
    """The data set with that part of it for validation. Raises UsageError where nothing of it has a mask."""
    if part == "val":
        if dataset.untrainable and not any(sample.mask for sample in dataset.samples):
            raise UsageError(dataset.untrainable)
        return dataset
    samples = dataset.test if part == "test" else (*dataset.samples, *dataset.test)
    masked = tuple(sorted((sample for sample in samples if sample.mask), key=attrgetter("id")))
    if not masked:
        listed = part == "test" and "test_list" in LAYOUTS[dataset.layout].options
        cure = "add masks, or list them in test.txt (--files.test-list)" if listed else "add masks"
        raise UsageError(dataset.untrainable or f"--part {part}: {dataset.root} has no such images with masks; {cure}")
    return replace(dataset, train=(), val=masked, extra=(), unlabeled=(), held_out=False)


def _document(scores: Scores) -> dict[str, Any]:
    """For JSON, which has no NaN."""
    # What the network computed in has the name of precision.
    by_class = {"iou": scores.iou, "class_precision": scores.precision, "recall": scores.recall, "dice": scores.dice}
    return {
        "miou": finite(scores.miou),
        "mdice": finite(scores.mdice),
        "pixel_accuracy": finite(scores.pixel_accuracy),
        **{key: {name: finite(share) for name, share in shares.items()} for key, shares in by_class.items()},
        "classes": list(scores.classes),
        "confusion": scores.confusion.tolist(),
    }


def segment_within_memory(
    name: Path | str,
    network: Network,
    image: np.ndarray,
    protocol: Protocol,
    precision: Precision,
    *,
    probabilities: bool = False,
) -> Segmentation:
    """As `segment`. Raises UsageError, which begins with the name, where the image is too large for the memory that is
    free."""
    height, width = image.shape[:2]
    need = MemoryNeed(
        height=height,
        width=width,
        classes=network.num_classes,
        head_width=network.head_width,
        precision=precision,
        full=probabilities,
    )
    with room_for(need, protocol, f"{name}: is {width}x{height}, for which", "cut it into tiles"):
        return segment(network, image, protocol, precision, probabilities=probabilities)


def segment(
    network: Network, image: np.ndarray, protocol: Protocol, precision: Precision, *, probabilities: bool = False
) -> Segmentation:
    """What a network, which lies on the precision's device, says of an image (H, W, 3) uint8 RGB."""
    with evaluating(network), precision.autocast():
        images = normalised(network, image[None], precision.device)
        label, sure, shares = classified(network, images, protocol, probabilities=probabilities)
        return Segmentation(_array(label), _array(sure), None if shares is None else _array(shares))


def _array(maps: Tensor) -> np.ndarray:
    """What is said of the one image, (1, ...), on the host."""
    return maps[0].contiguous().cpu().numpy()


def load_for_inference(
    path: Path | str, layout: str | None, device: str, precision: str | None
) -> tuple[Checkpoint, Precision]:
    """A checkpoint on the device, and what it computes in (None: as in training). Raises UsageError where either does
    not fit, and for weights that are no numbers."""
    place = resolve_device(device)
    asked = precision and resolve_precision(precision, place)
    checkpoint = load_network(path, layout)
    computing = asked or precision_as_trained(checkpoint.header.precision, place)
    computing.allow_tf32()
    require_finite(checkpoint, path)
    checkpoint.network.to(computing.device).to(memory_format=torch.channels_last)
    return checkpoint, computing


def protocols_of(checkpoint: Checkpoint, names: Sequence[str | None], settings: Mapping[str, Any]) -> list[Protocol]:
    """The protocols of these names (None: that of the training), as they were in the training but for the settings that
    are given. Raises UsageError for those that there are not, of another type or without sense, and for windows where
    no protocol has any."""
    changes, known = without_none(settings), [field.name for field in fields(Protocol) if field.name != "name"]
    if unknown := [name for name in changes if name not in known]:
        raise UsageError(f"{unknown[0]}: a protocol has no such setting; it has {', '.join(known)}")
    if "scale" in changes:  # whoever asks for a scale wants it instead of the training's long side
        changes = {"long_side": None, "longest": None} | changes
    trained, encoder = checkpoint.header.evaluation, encoder_of(checkpoint.header.backbone)
    protocols = [replace(trained, **changes, name=name or trained.name) for name in names]
    for protocol in protocols:
        try:
            require_types(protocol, "protocol")
        except ValueError as error:
            place, _, fault = str(error).partition(": ")
            name = place.removeprefix("protocol.").partition("[")[0]
            raise UsageError(f"{flag('protocol' if name == 'name' else name)}: {fault}") from None
        raise_faults(protocol.faults(least=encoder.least, multiple=encoder.multiple))
    if "window" in changes and not any(protocol.convention.windows for protocol in protocols):
        raise UsageError(
            f"--window: {protocols[0].name} sees images in one piece; pass --protocol slide, or leave it out"
        )
    return protocols


def without_none(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Those that have a value."""
    return {name: value for name, value in (options or {}).items() if value is not None}
