"""COCO 2017 with masks of its 80 objects and the background: `train2017`, `val2017` and `masks` of both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import UsageError
from .dataset import Dataset, Layout, Sample, voc_colours
from .files import first_folder, orphan_notes
from .parts import Part, check_validation, parted, pictures_of

CLASSES = (
    "background", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep",
    "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""By label value: the background and the objects in the order of their category ids, of which some are left out."""
PALETTE = voc_colours(len(CLASSES))
TRAINING, VALIDATION = "train2017", "val2017"
LEVELS = ("", "COCO", "coco", "COCO2017", "coco2017")
MASKS_CURE = "put masks there that hold 0 for the background and 1 to 80, called as the images"


def find(root: Path, *, train_list: Path | None = None, val_list: Path | None = None) -> Dataset:
    """The data set under its root. Ids are COCO's file names: 000000000009."""
    home = first_folder((root / level for level in LEVELS), TRAINING)
    if home is None:
        raise UsageError(f"no COCO in {root} (looked for {TRAINING}): pass the folder that holds it")
    masks_found = pictures_of(home / "masks")
    masks = masks_found.by_stem()
    train, val = (_part(home / name, masks) for name in (TRAINING, VALIDATION))
    cure = f"unpack {TRAINING}.zip and {VALIDATION}.zip in {home}"
    pool, validation = parted(train, val, cure, train_list=train_list, val_list=val_list)
    check_validation(validation, f"mask in {masks_found.folder}", MASKS_CURE)
    used = {sample.mask for part in (train, val) for sample in part.samples.values()}
    orphans = [name for name, mask in masks.items() if mask not in used]
    return Dataset(
        layout="coco",
        root=home,
        classes=CLASSES,
        palette=PALETTE,
        train=pool,
        val=validation,
        notes=(*train.notes, *val.notes, *masks_found.notes("PNG"), *orphan_notes(orphans)),
    )


LAYOUT = Layout(find=find, classes=CLASSES, palette=PALETTE, levels=LEVELS)


def _part(folder: Path, masks: Mapping[str, Path]) -> Part:
    found = pictures_of(folder)
    samples = {
        id: Sample(id, image, masks.get(id) or masks.get(f"{folder.name}/{id}"))
        for id, image in found.by_stem().items()
    }
    return Part(folder, samples, [*found.notes()])
