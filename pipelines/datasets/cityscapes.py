"""Cityscapes: `leftImg8bit/{train,val}/<city>` and `gtFine/{train,val}/<city>`, with train ids or raw label ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import UsageError
from .dataset import IGNORE, Dataset, Layout, Remap, Sample
from .files import first_folder, orphan_notes
from .parts import Part, check_validation, parted, pictures_of

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
PALETTE = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70),
    (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The raw ids of the 19 classes, in the order of their train ids; all other ids are ignored."""
TRAIN_ID = np.full(256, IGNORE, np.uint8)
"""Train id by raw id."""
TRAIN_ID[list(LABEL_IDS)] = np.arange(len(LABEL_IDS))
RAW_IDS = Remap(
    name="train_ids",
    table=TRAIN_ID.tobytes(),
    values="raw Cityscapes ids",
    reason="there is no labelTrainIds",
    largest=33,
    cure="restore the file from gtFine_trainvaltest.zip, or call it *_labelTrainIds.png if it holds train ids",
    ignores=False,
)

IMAGE_TAIL = "_leftImg8bit"
MASK_TAILS = {"_gtFine_labelTrainIds": None, "_gtFine_labelIds": RAW_IDS}
"""What masks hold, by the end of their name and in order of preference: the first needs no conversion."""
LEVELS = ("", "cityscapes", "Cityscapes", "city")


def find(root: Path, *, train_list: Path | None = None, val_list: Path | None = None) -> Dataset:
    """The data set under its root. Ids are file names without `_leftImg8bit.png`: they are unique over all cities."""
    home = first_folder((root / level for level in LEVELS), "leftImg8bit")
    if home is None:
        raise UsageError(f"no Cityscapes data set in {root} (looked for leftImg8bit): pass the folder that holds it")
    if not (home / "gtFine").is_dir():
        raise UsageError(f"{home} has no gtFine: unpack gtFine_trainvaltest.zip there")
    train, val = (_part(home, name) for name in ("train", "val"))
    cure = "unpack leftImg8bit_trainvaltest.zip"
    pool, validation = parted(train, val, cure, pictures=f"*{IMAGE_TAIL}.png", train_list=train_list, val_list=val_list)
    wanted = " or ".join(f"*{tail}.png" for tail in MASK_TAILS)
    check_validation(validation, f"{wanted} in {home / 'gtFine'}", "unpack gtFine_trainvaltest.zip there")
    return Dataset(
        layout="cityscapes",
        root=home,
        classes=CLASSES,
        palette=PALETTE,
        train=pool,
        val=validation,
        notes=(*train.notes, *val.notes),
    )


LAYOUT = Layout(find=find, classes=CLASSES, palette=PALETTE, levels=LEVELS)


def _part(home: Path, name: str) -> Part:
    found, masks_found = (pictures_of(home / tree / name) for tree in ("leftImg8bit", "gtFine"))
    masks = masks_found.by_stem()
    samples: dict[str, Sample] = {}
    used: set[str] = set()
    for stem, image in found.by_stem().items():
        if not stem.endswith(IMAGE_TAIL):
            continue
        place = stem.removesuffix(IMAGE_TAIL)
        tails = [tail for tail in MASK_TAILS if place + tail in masks]
        used.update(place + tail for tail in tails)
        mask, remap = next(((masks[place + tail], MASK_TAILS[tail]) for tail in tails), (None, None))
        id = place.rpartition("/")[2]
        samples[id] = Sample(id, image, mask, remap)
    orphans = {stem for stem in masks if stem.endswith(tuple(MASK_TAILS))} - used
    return Part(found.folder, samples, [*found.notes(), *masks_found.notes("PNG"), *orphan_notes(orphans)])
