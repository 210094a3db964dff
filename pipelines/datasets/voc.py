"""Pascal VOC 2012: `JPEGImages`, masks in `SegmentationClassAug` (with SBD) or else `SegmentationClass`, lists in
`ImageSets/Segmentation`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from ..errors import UsageError
from .classes import find_classes, read_classes, value_notes
from .dataset import NO_VALUE, ClassList, Dataset, Layout, Sample, voc_colours
from .files import find_pictures, first_folder, orphan_notes
from .lists import Names, left_alone, read_ids, read_ids_present, taught_too

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
PALETTE = voc_colours(len(CLASSES))
LEVELS = ("", "VOCdevkit/VOC2012", "VOC2012", "VOCtrainval_11-May-2012/VOCdevkit/VOC2012")
"""Where the folder with `JPEGImages` may lie under the root that a user passes."""
WITH_SBD, OFFICIAL = "SegmentationClassAug", "SegmentationClass"


def find(
    root: Path,
    *,
    masks: str | None = None,
    classes: Path | None = None,
    train_list: Path | None = None,
    val_list: Path | None = None,
    test_list: Path | None = None,
) -> Dataset:
    """The data set under any of its usual roots.

    The training pool is what has a mask, and what `train.txt` or `trainaug.txt` name (so it stays whole where the masks
    of unlabelled images were deleted), without the ids of `val.txt`; what `test.txt` alone names is left alone. Images
    outside of these are kept as `extra`.
    """
    home = _home(root)
    found = find_pictures(home / "JPEGImages")
    images = found.by_stem()
    if not images:
        raise UsageError(f"{home / 'JPEGImages'} holds no images: unpack VOCtrainval_11-May-2012.tar there")
    mask_folder = _mask_folder(home, masks)
    masks_found = find_pictures(mask_folder)
    train_masks = masks_found.by_stem()
    # SBD's masks may cover the training images alone: then the official masks serve for validation.
    official = home / OFFICIAL
    val_masks = {**(find_pictures(official).by_stem() if not masks and official.is_dir() else {}), **train_masks}

    known, where = Names(images), f"the images in {home / 'JPEGImages'}"
    lists = home / "ImageSets" / "Segmentation"
    val_file = val_list or lists / "val.txt"
    val = _validation(val_file, known, where, val_masks, mask_folder)
    notes = [*found.notes(), *masks_found.notes("PNG"), *orphan_notes(train_masks.keys() - images.keys())]
    tested = test_list or lists / "test.txt"
    test, lost = read_ids_present(tested, known) if test_list or tested.is_file() else (set(), [])
    notes += lost if test else ()  # the images for testing are an archive of their own
    if train_list:
        pool = set(read_ids(train_list, known, where))
        if both := pool.intersection(val):
            raise UsageError(f"{min(both)} is in {train_list} and in {val_file}: take it out of one of them")
    else:
        named = (id for path in _usual_pools(lists) for id in read_ids(path, known, where))
        pool = {*(train_masks.keys() & images.keys() - test), *named}.difference(val)
    if not pool:
        raise UsageError(f"no training images in {home}: none outside {val_file} has a mask in {mask_folder}")
    notes += [*left_alone(test.difference(pool, val), tested), *taught_too(test & pool, tested)]
    notes += _unused(pool.intersection(val_masks).difference(train_masks), mask_folder)
    class_list = classes or find_classes(home, root)
    own = _classes(class_list)
    notes += [f"the classes are those of {class_list}"] if class_list and not classes else []
    notes += value_notes(class_list, own) if class_list else ()
    return Dataset(
        layout="voc",
        root=home,
        classes=tuple(own.classes),
        palette=tuple(own.classes.values()),
        train=tuple(Sample(id, images[id], train_masks.get(id)) for id in sorted(pool)),
        val=tuple(Sample(id, images[id], val_masks[id]) for id in sorted(val)),
        extra=tuple(Sample(id, images[id], None) for id in sorted(images.keys() - pool.union(val, test))),
        test_list=tested if tested.is_file() else None,
        class_list=own,
        notes=tuple(notes),
    )


def _unused(ids: Set[str], mask_folder: Path) -> Iterator[str]:
    """A note about training images whose official masks are not used, where there are any."""
    if ids:
        yield (
            f"{len(ids)} training images have no mask in {mask_folder.name}, {min(ids)} for one, and one in "
            f"{OFFICIAL}, which is not used: copy those that are to be labels"
        )


def _home(root: Path) -> Path:
    """The folder with `JPEGImages`."""
    home = first_folder((root / level for level in LEVELS), "JPEGImages")
    if home is None:
        looked = ", ".join(str(Path(level) / "JPEGImages") for level in LEVELS)
        raise UsageError(f"no Pascal VOC data set in {root} (looked for {looked}): pass the folder with VOCdevkit")
    return home


def _usual_pools(lists: Path) -> list[Path]:
    """The lists of training images that are there."""
    return [lists / name for name in ("train.txt", "trainaug.txt", "train_aug.txt") if (lists / name).is_file()]


def _validation(
    val_list: Path, known: Names, where: str, masks: Mapping[str, Path], mask_folder: Path
) -> tuple[str, ...]:
    """The ids of the list. Raises UsageError where one has no mask."""
    if not val_list.is_file():
        raise UsageError(f"the validation list {val_list} does not exist: add it or pass --files.val-list FILE")
    val = read_ids(val_list, known, where)
    if unmasked := [id for id in val if id not in masks]:
        raise UsageError(f"the validation image {unmasked[0]} of {val_list} has no mask in {mask_folder}: add the mask")
    return val


def _classes(class_list: Path | None) -> ClassList:
    """Those of a list of the user's, or the published ones."""
    if class_list is None:
        return ClassList(CLASSES, PALETTE)
    own = read_classes(class_list)
    if [name.lower() for name in own.names if name != NO_VALUE] == list(CLASSES[1:]):
        raise UsageError(f"the class list {class_list} lacks background, which has the value 0: add it as first line")
    return own


def _mask_folder(home: Path, chosen: str | None) -> Path:
    if chosen and not (home / chosen).is_dir():
        raise UsageError(f"the mask folder {home / chosen} does not exist: leave out --files.masks or correct it")
    folder = next((home / name for name in (chosen, WITH_SBD, OFFICIAL) if name and (home / name).is_dir()), None)
    if folder is None:
        raise UsageError(f"{home} has neither {WITH_SBD} nor {OFFICIAL}: add the masks")
    return folder


LAYOUT = Layout(find=find, classes=CLASSES, palette=PALETTE, levels=LEVELS)
