"""A user's own images: a folder of images, a folder of masks for some of them, a class list, and lists if they like."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ..errors import UsageError
from .dataset import IMAGE_SUFFIXES, Dataset, Layout, Sample
from .files import files_by_stem, read_classes, stated_colours
from .lists import Entry, Names, read_ids_present, read_list

IMAGE_FOLDERS = ("images", "JPEGImages", "imgs", "image", "img")
MASK_FOLDERS = ("masks", "labels", "annotations", "mask", "label", "SegmentationClass")
PARTS = {
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What folders directly below the images' mean; any other is part of the training pool."""
HELD_OUT = 10
"""One in so many masked images is held out where no list says what validation is."""


def find(
    root: Path,
    *,
    images: str | None = None,
    masks: str | None = None,
    classes: Path | None = None,
    train_list: Path | None = None,
    val_list: Path | None = None,
) -> Dataset:
    """The data set in a folder: `images/`, `masks/` (same relative name, for some of the images), `classes.txt`.

    `train.txt` names the training pool (otherwise every image that is not for validation), `val.txt` the validation
    images, `test.txt` images to leave alone; a list may also give the mask of an image, then any name will do. Without
    a validation list the folder `images/val` is it, and without either a tenth of the masked images is held out, the
    same in every run. What lies in `images/test` is left alone, unless a list names it.
    """
    image_folder = _folder(root, images, IMAGE_FOLDERS)
    mask_folder = _folder(root, masks, MASK_FOLDERS)
    train_list = train_list or _existing(root / "train.txt")
    val_list = val_list or _existing(root / "val.txt")
    if image_folder is None and train_list is None:
        raise UsageError(f"{root} has no images: put them in {root / IMAGE_FOLDERS[0]} or pass --files.images FOLDER")
    class_list = classes or root / "classes.txt"
    if not class_list.is_file():
        raise UsageError(f"the class list {class_list} does not exist: write it, one class name a line, value 0 first")
    names, palette = read_classes(class_list)

    samples = _Samples(root, image_folder, mask_folder)
    val = samples.from_list(val_list) if val_list else {}
    for id, sample in val.items():
        if sample.mask is None:
            raise UsageError(f"the validation image {id} of {val_list} has no mask: add it or take the line out")
    parts = {id: PARTS.get(id.partition("/")[0].lower()) for id in samples.all if "/" in id}
    if not val_list:
        val = {id: samples.all[id] for id, part in parts.items() if part == "val" and samples.all[id].mask}
    by_folder = bool(val) and not val_list
    if train_list:
        pool = samples.from_list(train_list)
        if both := pool.keys() & val.keys():
            other = val_list or f"the validation folder of {image_folder}"
            raise UsageError(f"{min(both)} is in {train_list} and in {other}: take it out of one of them")
    else:
        pool = {id: sample for id, sample in samples.all.items() if id not in val}
    orphans = samples.orphans()
    notes = [f"{len(val)} images of {image_folder}/val are for validation"] if by_folder else []
    # Images of the validation folder without a mask are no training data either.
    apart = ("test", "val") if by_folder else ("test",)
    aside = {id for id, part in parts.items() if part in apart} - val.keys()
    if left := len(aside - pool.keys() if train_list else aside):
        notes.append(f"{left} images of folders for testing or validation are left alone")
    if (root / "test.txt").is_file():
        aside |= read_ids_present(root / "test.txt", samples.names) - val.keys()
    for id in aside - pool.keys() if train_list else aside:
        pool.pop(id, None)
        samples.all.pop(id)

    masked = sorted(id for id, sample in pool.items() if sample.mask)
    if not masked:
        raise UsageError(_no_masks(root, image_folder, mask_folder, orphans, samples))
    if not val:
        count = max(2, len(masked) // HELD_OUT)
        if len(masked) <= count:
            raise UsageError(f"{root} has {len(masked)} images with masks and no val.txt: add masks, or write val.txt")
        # The smallest hashes, not a shuffle: adding or deleting masks elsewhere leaves the choice nearly as it was.
        val = {id: pool.pop(id) for id in sorted(masked, key=_hash)[:count]}
        notes.append(f"no val.txt in {root}: {count} of {len(masked)} images with masks are held out for validation")
    if orphans:
        notes.append(f"{len(orphans)} masks belong to no image, {min(orphans)} for one: they are not used")
    return Dataset(
        layout="folder",
        root=root,
        classes=names,
        palette=palette,
        train=tuple(pool[id] for id in sorted(pool)),
        val=tuple(val[id] for id in sorted(val)),
        extra=tuple(samples.all[id] for id in sorted(samples.all.keys() - pool.keys() - val.keys())),
        stated=stated_colours(class_list),
        pool_listed=train_list is not None,
        held_out=not val_list and not by_folder,
        notes=tuple(notes),
    )


LAYOUT = Layout(find=find)


class _Samples:
    """Everything under the two folders, and what lists add to it."""

    def __init__(self, root: Path, images: Path | None, masks: Path | None):
        self.root, self.images = root, images
        found = files_by_stem(images) if images else {}
        self.masks = files_by_stem(masks) if masks else {}
        self.all = {id: Sample(id, path, self.masks.get(id)) for id, path in found.items()}
        self.names = Names(self.all)

    def from_list(self, path: Path) -> dict[str, Sample]:
        """The samples that a list names, by id. A named mask that is not on disk is no mask; an image must be there."""
        chosen: dict[str, Sample] = {}
        missing: list[Entry] = []
        for entry in read_list(path):
            id = self.names.match(entry.image)
            sample = self.all[id] if id is not None else self._from_path(entry.image, path)
            if sample is None:
                missing.append(entry)
                continue
            if entry.label is not None:
                sample = Sample(sample.id, sample.image, self._resolve(entry.label, path) or sample.mask)
            chosen[sample.id] = self.all[sample.id] = sample
        if missing:
            more = f" ({len(missing) - 1} more are missing too)" if len(missing) > 1 else ""
            raise UsageError(
                f"{path}, line {missing[0].line}: {missing[0].image} is not in {self.images or self.root}{more}: "
                "add the missing files or correct the list"
            )
        self.names = Names(self.all)
        return chosen

    def orphans(self) -> set[str]:
        """The masks that belong to no image, by their relative path without extension."""
        used = {sample.mask for sample in self.all.values()}
        return {id for id, path in self.masks.items() if path not in used}

    def _from_path(self, text: str, listed_in: Path) -> Sample | None:
        image = self._resolve(text, listed_in)
        if image is None or image.suffix.lower() not in IMAGE_SUFFIXES:
            return None
        inside = image.is_relative_to(self.root)
        id = (image.relative_to(self.root) if inside else image.relative_to(image.anchor)).with_suffix("").as_posix()
        return Sample(id, image, None)

    def _resolve(self, text: str, listed_in: Path) -> Path | None:
        """A file that a list names: below the root or the list's folder, leading slash or not, or absolute."""
        relative = text.replace("\\", "/").lstrip("/")
        for path in (self.root / relative, listed_in.parent / relative, Path(text)):
            if path.is_file():
                return Path(os.path.normpath(path))
        return None


def _folder(root: Path, chosen: str | None, usual: tuple[str, ...]) -> Path | None:
    if chosen is not None:
        if not (root / chosen).is_dir():
            raise UsageError(f"the folder {root / chosen} does not exist: correct --files.images or --files.masks")
        return root / chosen
    return next((root / name for name in usual if (root / name).is_dir()), None)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _hash(id: str) -> bytes:
    return hashlib.blake2b(id.encode(), digest_size=8).digest()


def _no_masks(root: Path, images: Path | None, masks: Path | None, orphans: set[str], samples: _Samples) -> str:
    if masks is None:
        return f"{root} has no masks: put them in {root / MASK_FOLDERS[0]} or pass --files.masks FOLDER"
    if orphans and samples.all:
        return (
            f"no mask in {masks} has the name of a training image ({min(orphans)} beside {min(samples.all)}): "
            "name each mask like its image, or write train.txt with lines 'image mask'"
        )
    return f"no training image in {images or root} has a mask in {masks}: add masks named like their images"
