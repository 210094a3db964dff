"""Cityscapes: `leftImg8bit/{train,val}/<city>` and `gtFine/{train,val}/<city>`, with train ids or raw label ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import UsageError
from .dataset import IGNORE, Dataset, Layout, Remap, Sample
from .files import Pictures, find_pictures, first_folder, orphan_notes
from .lists import Names, read_ids

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
    (train, notes), (val, more) = (_samples(home, part) for part in ("train", "val"))
    both = {**train, **val}
    names, where = Names(both), f"the images in {home / 'leftImg8bit'}"
    if val_list:
        val = {id: both[id] for id in read_ids(val_list, names, where)}
    if train_list:
        train = {id: both[id] for id in read_ids(train_list, names, where)}
        if shared := train.keys() & val.keys():
            raise UsageError(f"{min(shared)} is in {train_list} and in val: take it out of one of them")
    train = {id: sample for id, sample in train.items() if id not in val}
    for name, samples in (("train", train), ("val", val)):
        if not samples:
            raise UsageError(
                f"{home / 'leftImg8bit' / name} holds no *{IMAGE_TAIL}.png: unpack leftImg8bit_trainvaltest.zip"
            )
    for sample in val.values():
        if sample.mask is None:
            raise UsageError(
                f"the validation image {sample.image} has no {' or '.join(f'*{tail}.png' for tail in MASK_TAILS)} in "
                f"{home / 'gtFine'}: unpack gtFine_trainvaltest.zip there"
            )
    return Dataset(
        layout="cityscapes",
        root=home,
        classes=CLASSES,
        palette=PALETTE,
        train=tuple(train[id] for id in sorted(train)),
        val=tuple(val[id] for id in sorted(val)),
        notes=(*notes, *more),
    )


LAYOUT = Layout(find=find, classes=CLASSES, palette=PALETTE, levels=LEVELS)


def _samples(home: Path, part: str) -> tuple[dict[str, Sample], list[str]]:
    """The samples of a part by id, and notes about files that are not used."""
    found, masks_found = (_found(home / tree / part) for tree in ("leftImg8bit", "gtFine"))
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
    return samples, [*found.notes(), *masks_found.notes("PNG"), *orphan_notes(orphans)]


def _found(folder: Path) -> Pictures:
    return find_pictures(folder) if folder.is_dir() else Pictures(folder)
