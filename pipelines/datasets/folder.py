"""A user's own images: a folder of images, a folder of masks for some of them, a class list, and lists if they like."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Set
from pathlib import Path

from ..errors import UsageError
from .dataset import IMAGE_SUFFIXES, Dataset, Layout, Sample
from .files import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    Pictures,
    check_name,
    composed,
    find_pictures,
    masks_among,
    read_classes,
    stated_colours,
    stem_of,
)
from .lists import Entry, Names, read_ids_present, read_list, shown, unknown

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

    Masks may lie among the images: in a folder there, beside them (`p_mask.png` and `p.jpg`), or where a list says so.
    They are no images.
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
    val = _listed_for_validation(samples, val_list) if val_list else {}
    listed = samples.from_list(train_list, "training") if train_list else None
    notes = samples.settled()
    if not val_list:
        val = {id: samples.all[id] for id, part in samples.parts().items() if part == "val" and samples.all[id].mask}
    by_folder = bool(val) and not val_list
    if by_folder:
        notes.append(f"{len(val)} images of {image_folder}/val are for validation")
    if listed is not None and (both := listed.keys() & val.keys()):
        other = val_list or f"the validation folder of {image_folder}"
        raise UsageError(f"{min(both)} is in {train_list} and in {other}: take it out of one of them")
    orphans = samples.orphans()
    # Images of the validation folder without a mask are no training data either.
    apart = ("test", "val") if by_folder else ("test",)
    aside, about = _left_alone(root, samples, apart, val.keys() | (listed or {}).keys())
    notes += about
    rest = {id: sample for id, sample in samples.all.items() if id not in aside}
    pool = listed if listed is not None else {id: sample for id, sample in rest.items() if id not in val}

    if not any(sample.mask for sample in pool.values()):
        raise UsageError(_no_masks(root, image_folder, mask_folder, orphans, samples, rest))
    if held_out := not val:
        val, note = _hold_out(root, pool)
        notes.append(note)
    if orphans:
        notes.append(f"{len(orphans)} masks belong to no image, {min(orphans)} for one: they are not used")
    return Dataset(
        layout="folder",
        root=root,
        classes=names,
        palette=palette,
        train=tuple(pool[id] for id in sorted(pool)),
        val=tuple(val[id] for id in sorted(val)),
        extra=tuple(rest[id] for id in sorted(rest.keys() - pool.keys() - val.keys())),
        stated=stated_colours(class_list),
        pool_listed=train_list is not None,
        held_out=held_out,
        notes=tuple(notes),
    )


def _listed_for_validation(samples: _Samples, val_list: Path) -> dict[str, Sample]:
    """Raises UsageError where one has no mask."""
    val = samples.from_list(val_list, "validation")
    for id, sample in val.items():
        if sample.mask is None:
            reason = f"the validation image {id} of {val_list} has no mask: add it or take the line out"
            raise UsageError(samples.unread_masks() or reason)
    return val


def _left_alone(root: Path, samples: _Samples, apart: tuple[str, ...], named: Set[str]) -> tuple[set[str], list[str]]:
    """Images that are neither trained nor validated on, with notes about them: those of folders that are apart and
    those of `test.txt`, unless lists name them as well."""
    aside = {id for id, part in samples.parts().items() if part in apart} - named
    notes = [f"{len(aside)} images of folders for testing or validation are left alone"] if aside else []
    if test_list := _existing(root / "test.txt"):
        test, lost = read_ids_present(test_list, samples.names)
        notes += lost
        aside |= (test & samples.all.keys()) - named
    return aside, notes


def _hold_out(root: Path, pool: dict[str, Sample]) -> tuple[dict[str, Sample], str]:
    """Takes a tenth of the masked images out of the pool, for validation; with a note. Raises UsageError where too few
    have masks."""
    masked = sorted(id for id, sample in pool.items() if sample.mask)
    count = max(2, len(masked) // HELD_OUT)
    if len(masked) <= count:
        raise UsageError(f"{root} has {len(masked)} images with masks and no val.txt: add masks, or write val.txt")
    # The smallest hashes, not a shuffle: adding or deleting masks elsewhere leaves the choice nearly as it was.
    val = {id: pool.pop(id) for id in sorted(masked, key=_hash)[:count]}
    return val, f"no val.txt in {root}: {count} of {len(masked)} images with masks are held out for validation"


LAYOUT = Layout(find=find)


class _Samples:
    """Everything under the two folders, and what lists add to it."""

    def __init__(self, root: Path, images: Path | None, masks: Path | None):
        self.root, self.images = root, images
        if images and masks and images.samefile(masks):
            masks = None
        folders = [folder for folder in (images, masks) if folder]
        self.found = find_pictures(images, apart=folders[1:]) if images else Pictures(root)
        self.masks_found = find_pictures(masks, apart=folders[:-1]) if masks else None
        among = masks_among(self.found.names)
        self.doubtful: dict[str, tuple[str, str]] = {}
        """Two masks that lie beside an image, by its id."""
        if self.masks_found and (self.masks_found.names or self.masks_found.others):
            self.by_pairs = False
            self.masks = self.masks_found.by_stem()
            # What has a mask of its own is a picture, whatever it is called.
            among = {mask: image for mask, image in among.items() if stem_of(mask) not in self.masks}
        else:
            self.by_pairs = bool(among)
            self.masks = self._of_pairs(among)
        self.among = {stem_of(mask) for mask in among}
        """Ids of what seems to be a mask among the images."""
        found = self.found.by_stem()
        self.all = {id: Sample(id, path, self.masks.get(id)) for id, path in found.items()}
        self.ids = {composed(str(sample.image)): id for id, sample in self.all.items()}
        """By path, of all that was found."""
        self.names = Names.of(self.all.values())
        self.listed: set[str] = set()
        """Ids that lists name as images."""
        self.masks_listed: set[str] = set()
        self.lost: list[str] = []
        """Notes about masks that lists name and that are not there."""

    def from_list(self, path: Path, use: str) -> dict[str, Sample]:
        """The samples that a list names, by id. An image must be there; a mask that is not there is no mask in a list
        for training and a fault in one for validation."""
        chosen: dict[str, Sample] = {}
        missing: list[Entry] = []
        lost: list[Entry] = []
        for entry in read_list(path):
            sample = self._named(entry.image, path)
            if sample is None:
                missing.append(entry)
                continue
            if entry.label is not None:
                sample = Sample(sample.id, sample.image, self._mask(entry, sample, path))
                if sample.mask is None:
                    lost.append(entry)
                else:
                    self.masks_listed.add(composed(str(sample.mask)))
            chosen[sample.id] = self.all[sample.id] = sample
        if missing:
            reason = unknown(path, missing, self.names, f"in {self.images or self.root}")
            raise UsageError(self.unread_images() or reason)
        if lost:
            where = f"{path}, line {lost[0].line}: the mask {shown(lost[0].label)}"
            if use == "validation":
                raise UsageError(f"{where} is not there: add it or correct the list")
            self.lost.append(f"{where} is not there ({len(lost)} in all): the image counts as one without a mask")
        self.listed |= chosen.keys()
        self.names = Names.of(self.all.values())
        return chosen

    def settled(self) -> list[str]:
        """Takes the masks out of the images, when all lists were read. The notes about it and about the folders."""
        named = {id for path in self.masks_listed if (id := self.ids.get(path))}
        among = sorted(((self.among | named) - self.listed) & self.all.keys())
        if unclear := [id for id in self.doubtful if self.all[id].mask is None]:
            one, other = self.doubtful[min(unclear)]
            raise UsageError(
                f"{self.images / one} and {other} may both be the mask of {min(unclear)}: keep one of them, or "
                "name it in train.txt and val.txt with lines 'image mask'"
            )
        for id in among:
            del self.all[id]
        notes = [*self.found.notes(), *(self.masks_found.notes("PNG") if self.masks_found else ()), *self.lost]
        if among:
            used = "are the masks of others there" if self.by_pairs else "are masks, not images"
            notes.append(f"{len(among)} pictures in {self.images} {used}, {among[0]} for one")
        return notes

    def parts(self) -> dict[str, str | None]:
        """Of images in folders below the one for images, by id: which of PARTS they belong to."""
        inside = (id for id in self.ids.values() if id in self.all and "/" in id)
        return {id: PARTS.get(id.partition("/")[0].lower()) for id in inside}

    def orphans(self) -> set[str]:
        """The masks that belong to no image, by their relative path without extension."""
        used = {sample.mask for sample in self.all.values()}
        return {id for id, path in self.masks.items() if path not in used}

    def unread_images(self) -> str | None:
        """What to say where no image is in a format that is read."""
        if self.all or not (unread := self.found.unread()):
            return None
        return f"all images in {self.images} are in formats that are not read ({unread}): save them as PNG or JPEG"

    def unread_masks(self) -> str | None:
        """What to say where no mask is in a format that is read."""
        if self.masks or not self.masks_found or not (others := self.masks_found.others):
            return None
        kinds = ", ".join(suffix or "files without extension" for suffix, _ in others.most_common(3))
        return f"all masks in {self.masks_found.folder} are {kinds}: save them as PNG of class indices"

    def _of_pairs(self, among: dict[str, str | None]) -> dict[str, Path]:
        """The masks among the images, by the id of the image; where there are two for one, neither."""
        masks: dict[str, Path] = {}
        for mask, image in among.items():
            if image is None:
                continue
            id = stem_of(image)
            if id in masks or id in self.doubtful:
                self.doubtful.setdefault(id, (str(masks.pop(id).relative_to(self.found.folder)), mask))
            else:
                masks[id] = self.found.folder / mask
        return masks

    def _named(self, text: str, listed_in: Path) -> Sample | None:
        """The image that a list means: the very file where it names one, else one of that name."""
        relative = text.replace("\\", "/").lstrip("/")
        for place in (self.root / relative, listed_in.parent / relative, Path(text)):
            if id := self.ids.get(composed(os.path.normpath(place))):
                return self.all[id]
        # Before what is only called so; but of a path to another disk the name counts, be the file there or not.
        if "/" in relative and os.path.isfile(self.root / relative) and (sample := self._from_path(text, listed_in)):
            return sample
        if id := self.names.match(text):
            return self.all[id]
        return self._from_path(text, listed_in)

    def _mask(self, entry: Entry, sample: Sample, listed_in: Path) -> Path | None:
        """The mask that a list names: the file, or that of the image if it is called like the image."""
        found = self._resolve(entry.label, listed_in)
        return found or (sample.mask if self.names.match(entry.label) == sample.id else None)

    def _from_path(self, text: str, listed_in: Path) -> Sample | None:
        image = self._resolve(text, listed_in)
        if image is None or image.suffix.lower() not in IMAGE_SUFFIXES:
            return None
        inside = image.is_relative_to(self.root)
        name = (image.relative_to(self.root) if inside else image.relative_to(image.anchor)).as_posix()
        check_name(name)
        return Sample(stem_of(name), image, None)

    def _resolve(self, text: str, listed_in: Path) -> Path | None:
        """A file that a list names: below the root or the list's folder, leading slash or not, or absolute."""
        relative = text.replace("\\", "/").lstrip("/")
        for path in (self.root / relative, listed_in.parent / relative, Path(text)):
            if os.path.isfile(path):
                return Path(os.path.normpath(path))
        return None


def _folder(root: Path, chosen: str | None, usual: tuple[str, ...]) -> Path | None:
    if chosen is not None:
        if not (root / chosen).is_dir():
            raise UsageError(f"the folder {root / chosen} does not exist: correct --files.images or --files.masks")
        return root / chosen
    return next((root / name for name in usual if (root / name).is_dir()), None)


def _existing(path: Path) -> Path | None:
    return path if os.path.lexists(path) else None  # a link to nothing is to be read, and refused


def _hash(id: str) -> bytes:
    return hashlib.blake2b(id.encode(), digest_size=8).digest()


def _no_masks(
    root: Path, images: Path | None, masks: Path | None, orphans: set[str], samples: _Samples, rest: dict[str, Sample]
) -> str:
    if masks is None:
        return f"{root} has no masks: put them in {root / MASK_FOLDERS[0]} or pass --files.masks FOLDER"
    if unread := samples.unread_masks() or samples.unread_images():
        return unread
    if orphans and rest:
        return (
            f"no mask in {masks} has the name of a training image ({min(orphans)} beside {min(rest)}): "
            "name each mask like its image, or write train.txt with lines 'image mask'"
        )
    return f"no training image in {images or root} has a mask in {masks}: add masks named like their images"
