"""A user's own images: a folder of images, a folder of masks for some of them, a class list, and lists if they like."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Set
from pathlib import Path

from ..errors import UsageError
from .classes import FILES, find_classes, read_classes
from .dataset import IMAGE_SUFFIXES, Dataset, Layout, Sample
from .files import Pictures, check_name, composed, find_pictures, stem_of
from .lists import Entry, Names, alike, read_ids_present, read_list, shown, unknown
from .pairs import IMAGE_FOLDERS, MASK_FOLDERS, called_after, masks_among, paired

_PART = re.compile(
    r"(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:at(?:ion|ing))?)?|eval(?:uation)?|dev|hold[-_]?out)|(?P<test>test(?:s|ing)?))"
    r"(?:[-_ ]?(?:set|split|data|images?|imgs?))?[-_ ]?\d*",
    re.IGNORECASE,
)
"""What lists and folders of a part are called: `val.txt`, `Validation.txt`, `val2017/`, `test_images/`."""
LIST_FOLDERS = "", "ImageSets/Segmentation"
"""Where lists lie below the root."""
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
    test_list: Path | None = None,
) -> Dataset:
    """The data set in a folder: `images/`, `masks/` (same relative name, for some of the images; `p_mask.png` and
    `p.jpg.png` will do for `p.jpg`), `classes.txt`.

    `train.txt` names the training pool (otherwise every image that is not for validation), `val.txt` the validation
    images, `test.txt` images to leave alone; a list may also give the mask of an image, then any name will do. Lists
    may lie in `ImageSets/Segmentation`, too. Without a validation list the folder `images/val` is it, and without
    either a tenth of the masked images is held out, the same in every run. What lies in `images/test` is left alone,
    unless a list names it. Other spellings will do: see `part_of`.

    A file that a list names and that is there, wherever it lies, is the one that is used, but for a copy of one of this
    data set, which stands for that. A path to nothing counts by its name, as in lists of a data set that was moved;
    that of a mask only if its folders are those of the image's own.

    Masks may lie among the images: in a folder there, beside them (`p_mask.png` and `p.jpg`), or where a list says so.
    They are no images.
    """
    image_folder = _folder(root, images, IMAGE_FOLDERS)
    mask_folder = _folder(root, masks, MASK_FOLDERS)
    usual = _usual_lists(root)
    train_list, val_list = train_list or usual.get("train"), val_list or usual.get("val")
    test_list = test_list or usual.get("test")
    if image_folder is None and train_list is None:
        raise UsageError(f"{root} has no images: put them in {root / IMAGE_FOLDERS[0]} or pass --files.images FOLDER")
    class_list = classes or find_classes(root) or root / FILES[0]
    if not class_list.is_file():
        raise UsageError(f"the class list {class_list} does not exist: write it, one class name a line, value 0 first")
    listed_classes = read_classes(class_list)

    samples = _Samples(root, image_folder, mask_folder)
    val = _listed_for_validation(samples, val_list) if val_list else {}
    listed = samples.from_list(train_list, "training") if train_list else None
    notes = samples.settled()
    if strange := [path for part, path in usual.items() if path != root / f"{part}.txt"]:
        notes.append(f"lists of the data set: {', '.join(map(str, strange))}")
    if class_list.name != FILES[0]:
        notes.append(f"the classes are those of {class_list}")
    if not val_list:
        val = {id: samples.all[id] for id, part in samples.parts().items() if part == "val" and samples.all[id].mask}
    by_folder = bool(val) and not val_list
    if by_folder:
        folders = ", ".join(sorted({id.partition("/")[0] for id in val}))
        notes.append(f"{len(val)} images of {image_folder}/{folders} are for validation")
    if listed is not None and (both := listed.keys() & val.keys()):
        other = val_list or f"the validation folder of {image_folder}"
        raise UsageError(f"{min(both)} is in {train_list} and in {other}: take it out of one of them")
    orphans = samples.orphans()
    # Images of the validation folder without a mask are no training data either.
    apart = ("test", "val") if by_folder else ("test",)
    aside, about = _left_alone(test_list, samples, apart, val.keys() | (listed or {}).keys())
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
        classes=listed_classes.names,
        palette=listed_classes.palette,
        train=tuple(pool[id] for id in sorted(pool)),
        val=tuple(val[id] for id in sorted(val)),
        extra=tuple(rest[id] for id in sorted(rest.keys() - pool.keys() - val.keys())),
        lists_name_files=True,
        stated=listed_classes.stated,
        void=listed_classes.void,
        pool_listed=train_list is not None,
        held_out=held_out,
        notes=tuple(notes),
    )


def part_of(name: str) -> str | None:
    """The part of a data set, train, val or test, that a list or a folder of a name is of; None where it is of none."""
    found = _PART.fullmatch(name)
    return found and found.lastgroup


def _usual_lists(root: Path) -> dict[str, Path]:
    """The lists of a data set, by the part that they are of. Raises UsageError where two may be."""
    lists: dict[str, Path] = {}
    for home in (root / folder for folder in LIST_FOLDERS):
        names = sorted(path.name for path in home.iterdir()) if home.is_dir() else []
        here: dict[str, list[str]] = defaultdict(list)
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() == ".txt" and (part := part_of(stem)):
                here[part].append(name)
        for part, found in here.items():
            chosen = [f"{part}.txt"] if f"{part}.txt" in found else found
            if part not in lists and len(chosen) > 1:
                raise UsageError(f"{home} holds {chosen[0]} and {chosen[1]}: say with --files.{part}-list which counts")
            lists.setdefault(part, home / chosen[0])
    return lists


def _listed_for_validation(samples: _Samples, val_list: Path) -> dict[str, Sample]:
    """Raises UsageError where one has no mask."""
    val = samples.from_list(val_list, "validation")
    for id, sample in val.items():
        if sample.mask is None:
            reason = f"the validation image {id} of {val_list} has no mask: add it or take the line out"
            raise UsageError(samples.unread_masks() or samples.masks_of_other_names() or reason)
    return val


def _left_alone(
    test_list: Path | None, samples: _Samples, apart: tuple[str, ...], named: Set[str]
) -> tuple[set[str], list[str]]:
    """Images that are neither trained nor validated on, with notes about them: those of folders that are apart and
    those of the list for testing, unless other lists name them as well."""
    aside = {id for id, part in samples.parts().items() if part in apart} - named
    notes = [f"{len(aside)} images of folders for testing or validation are left alone"] if aside else []
    if test_list:
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
        self.doubtful: dict[str, tuple[Path, Path]] = {}
        """Two masks that are called after an image, by its id."""
        self.strange: list[str] = []
        """Notes about files that nobody would expect."""
        found = self.found.by_stem()
        if self.masks_found and (self.masks_found.names or self.masks_found.others):
            self.by_pairs = False
            self.masks = self._called_after(self.masks_found.by_stem(), found)
            # What has a mask of its own is a picture, whatever it is called.
            among = {mask: image for mask, image in among.items() if stem_of(mask) not in self.masks}
        else:
            self.by_pairs = bool(among)
            self.masks = self._of_pairs(among)
        self.among = {stem_of(mask) for mask in among}
        """Ids of what seems to be a mask among the images."""
        self.all = {id: Sample(id, path, self.masks.get(id)) for id, path in found.items()}
        self.ids = {composed(str(sample.image)): id for id, sample in self.all.items()}
        """By path, of all that was found."""
        self.names = Names.of(self.all.values(), root)
        self.listed: set[str] = set()
        """Ids that lists name as images."""
        self.masks_listed: set[str] = set()

    def from_list(self, path: Path, use: str) -> dict[str, Sample]:
        """The samples that a list names, by id. An image must be there; a mask that is not there is no mask in a list
        for training and a fault in one for validation. Raises UsageError for these, and for an image with two masks."""
        chosen: dict[str, Sample] = {}
        missing: list[Entry] = []
        lost: list[Entry] = []
        given: dict[str, tuple[Entry, Path | None]] = {}
        for entry in read_list(path, self.names.ids):
            sample = self._named(entry.image, path.parent)
            if sample is None:
                missing.append(entry)
                continue
            if entry.label is not None:
                sample = Sample(sample.id, sample.image, self._mask(entry, sample, path))
                first, mask = given.setdefault(sample.id, (entry, sample.mask))
                if mask != sample.mask:
                    raise UsageError(
                        f"{path}, line {entry.line}: gives {sample.id} the mask {shown(entry.label)} and line "
                        f"{first.line} gives it {shown(first.label)}: keep one of them"
                    )
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
            self.strange.append(f"{where} is not there ({len(lost)} in all): the image counts as one without a mask")
        self.strange += self._surprises(path, chosen)
        self.listed |= chosen.keys()
        self.names = Names.of(self.all.values(), self.root)
        return chosen

    def _surprises(self, path: Path, chosen: dict[str, Sample]) -> Iterator[str]:
        """Notes about what a list chose, though something else here is called so."""
        owners = {mask: id for id, mask in self.masks.items() if id in self.all}
        if crossed := [sample for sample in chosen.values() if owners.get(sample.mask, sample.id) != sample.id]:
            sample = crossed[0]
            yield (
                f"{path} gives {len(crossed)} images masks that are called like other images, {sample.id} the one of "
                f"{owners[sample.mask]} for one: check that this is meant"
            )
        outside = [sample for sample in chosen.values() if sample.id not in self.names.images]
        if twins := [sample for sample in outside if self.names.called(str(sample.image))]:
            yield (
                f"{path} names {len(twins)} images outside {self.images or self.root} that are called like some there, "
                f"{twins[0].image} for one: those outside are used"
            )

    def settled(self) -> list[str]:
        """Takes the masks out of the images, when all lists were read. The notes about it and about the folders."""
        named = {id for path in self.masks_listed if (id := self.ids.get(path))}
        among = sorted(((self.among | named) - self.listed) & self.all.keys())
        if unclear := [id for id in self.doubtful if self.all[id].mask is None]:
            one, other = self.doubtful[min(unclear)]
            raise UsageError(
                f"{one} and {other.name} may both be the mask of {min(unclear)}: keep one of them, or "
                "name it in train.txt and val.txt with lines 'image mask'"
            )
        for id in among:
            del self.all[id]
        notes = [*self.found.notes(), *(self.masks_found.notes("PNG") if self.masks_found else ()), *self.strange]
        if among:
            used = "are the masks of others there" if self.by_pairs else "are masks, not images"
            notes.append(f"{len(among)} pictures in {self.images} {used}, {among[0]} for one")
        return notes

    def parts(self) -> dict[str, str | None]:
        """Of images in folders below the one for images, by id: the part that they belong to."""
        inside = (id for id in self.ids.values() if id in self.all and "/" in id)
        return {id: part_of(id.partition("/")[0]) for id in inside}

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

    def masks_of_other_names(self) -> str | None:
        """What to say where there are masks and none is called like an image."""
        orphans = self.orphans()
        if not orphans or len(orphans) < len(self.masks):
            return None
        return _called_otherwise(self.masks_found.folder if self.masks_found else self.images, orphans, self.all)

    def _called_after(self, masks: dict[str, Path], images: Mapping[str, Path]) -> dict[str, Path]:
        """The masks by the id of their image, also of those that are called after it and not as it is; where there are
        two such for one, neither. A mask of no image stays by its own."""
        pairs = [(id, after) for id, after in called_after(masks, images).items() if id not in masks]
        for id, (mask, *others) in pairs:
            if others:
                self.doubtful[id] = masks[mask], masks[others[0]]
            else:
                masks[id] = masks.pop(mask)
        if renamed := [masks[id] for id, after in pairs if id in masks]:
            self.strange.append(f"{len(renamed)} masks are called after their images, {renamed[0]} for one")
        if not pairs and masks.keys().isdisjoint(images) and (found := paired(masks, images)):
            image, mask = min(found.items())
            self.strange.append(
                f"{len(found)} masks are called otherwise than their images, and are paired by what differs in names: "
                f"{masks[mask]} is the mask of {images[image]}"
            )
            masks = {image: masks[mask] for image, mask in found.items()}
        return masks

    def _of_pairs(self, among: dict[str, str | None]) -> dict[str, Path]:
        """The masks among the images, by the id of the image; where there are two for one, neither."""
        masks: dict[str, Path] = {}
        for mask, image in among.items():
            if image is None:
                continue
            id = stem_of(image)
            if id in masks:
                self.doubtful[id] = masks.pop(id), self.found.folder / mask
            elif id not in self.doubtful:
                masks[id] = self.found.folder / mask
        return masks

    def _named(self, text: str, folder: Path) -> Sample | None:
        """The image that a list in a folder means: one of those that are known, or else the file that it names."""
        if id := self.names.match(text, folder):
            return self.all[id]
        image = self.names.file(text, folder)
        if image is None or image.suffix.lower() not in IMAGE_SUFFIXES:
            return None
        inside = image.is_relative_to(self.root)
        name = (image.relative_to(self.root) if inside else image.relative_to(image.anchor)).as_posix()
        check_name(name)
        id = stem_of(name)
        known = self.all.get(id, Sample(id, image, None))
        if known.image != image:
            raise UsageError(f"a list names {image}, which has the id of {known.image} ({id}): rename one of them")
        return known

    def _mask(self, entry: Entry, sample: Sample, path: Path) -> Path | None:
        """The mask that a line names: the file, or that of the image where the line may mean it. Raises UsageError
        where image and mask would be of two data sets."""
        named = self.names.file(entry.label, path.parent)
        if named is None:
            return sample.mask if self.names.is_own_mask(entry, sample) else None
        if sample.mask is None or named.is_relative_to(self.root) or self._is_here(entry.image, sample, path.parent):
            return named
        if not alike(named, sample.mask):
            raise UsageError(
                f"{path}, line {entry.line}: the image is {sample.image}, but its mask {shown(entry.label)} is another "
                f"than {sample.mask}: write paths from {self.root}"
            )
        return sample.mask

    def _is_here(self, text: str, sample: Sample, folder: Path) -> bool:
        """Whether what a list says of an image says nothing of another place."""
        file = self.names.file(text, folder)
        return os.path.samefile(file, sample.image) if file else "/" not in text.replace("\\", "/").strip("/")


def _folder(root: Path, chosen: str | None, usual: tuple[str, ...]) -> Path | None:
    if chosen is not None:
        if not (root / chosen).is_dir():
            raise UsageError(f"the folder {root / chosen} does not exist: correct --files.images or --files.masks")
        return root / chosen
    return next((root / name for name in usual if (root / name).is_dir()), None)


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
        return _called_otherwise(masks, orphans, rest)
    return f"no training image in {images or root} has a mask in {masks}: add masks named like their images"


def _called_otherwise(masks: Path, orphans: Collection[str], images: Collection[str]) -> str:
    return (
        f"no mask in {masks} has the name of a training image ({min(orphans)} beside {min(images)}): "
        "name each mask like its image, or write train.txt with lines 'image mask'"
    )
