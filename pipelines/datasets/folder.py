"""A user's own images: a folder of images, a folder of masks for some of them, a class list, and lists if they like."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path

from ..errors import UsageError, some_of
from .classes import FILES, IGNORED, find_classes, read_classes, value_notes
from .dataset import NO_CLASS, Dataset, Layout, Sample
from .files import PREDICTED, entries_of, holds_pictures, is_folder, orphan_notes, part_of, where_pictures_lie
from .lists import left_alone, read_ids_present, taught_too
from .pairs import IMAGE_FOLDERS, MASK_FOLDERS
from .samples import Samples, called_otherwise

LISTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What lists are called, in lower case, by the part that they are of."""
LIST_FOLDERS = "", "ImageSets/Segmentation"
"""Where they lie below the root."""
HELD_OUT = 10
"""One in so many masked images is held out where no list says what validation is."""
LIST_HOMES = re.compile(r"(data)?(split|list|set|imageset)s?")
"""Folders in which lists may lie that are not found there, in lower case."""
NAMED = 3
"""Folders or files that a note names."""


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
    unless a list names it. Other spellings will do: see `LISTS` and `part_of`.

    A file that a list names and that is there, wherever it lies, is the one that is used, but for a copy of one of this
    data set, which stands for that. A path to nothing counts by its name, as in lists of a data set that was moved;
    that of a mask only if its folders are those of the image's own.

    Masks may lie among the images: in a folder there, beside them (`p_mask.png` and `p.jpg`), or where a list says so.
    They are no images.
    """
    usual = _usual_lists(root)
    given = {"train": train_list, "val": val_list, "test": test_list}
    train_list, val_list, test_list = (given[part] or usual.get(part) for part in ("train", "val", "test"))
    image_folder, mask_folder = _image_folder(root, images, train_list), _folder(root, masks, MASK_FOLDERS)
    class_list = _class_list(root, classes)
    listed_classes = read_classes(class_list)

    samples = Samples(root, image_folder, mask_folder)
    val = _listed_for_validation(samples, val_list) if val_list else {}
    listed = samples.from_list(train_list, "training") if train_list else None
    notes = [*samples.settled(), *_found(root, usual, given, class_list)]
    notes += _predicted(root) if masks is None and image_folder != root else ()
    notes += [*_ignored_classes(class_list, listed_classes.classes), *value_notes(class_list, listed_classes)]
    if not val_list:
        val, about = _of_folders_for_validation(samples, image_folder)
        notes += about
    if listed is not None and (both := listed.keys() & val.keys()):
        other = val_list or f"the validation folder of {image_folder}"
        raise UsageError(f"{min(both)} is in {train_list} and in {other}: take it out of one of them")
    orphans = samples.orphans()
    aside, about = _left_alone(test_list, samples, val.keys(), (listed or {}).keys())
    notes += about
    rest = {id: sample for id, sample in samples.all.items() if id not in aside}
    pool = listed if listed is not None else {id: sample for id, sample in rest.items() if id not in val}

    notes += _not_for_validation(root, pool.keys() - val.keys()) if not val_list else ()
    untrainable = ""
    if held_out := not val:
        val, told, few = _hold_out(root, pool)
        notes += told
        untrainable = few or ("" if val else _no_masks(root, image_folder, mask_folder, orphans, samples, rest))
    notes += orphan_notes(orphans)
    return Dataset(
        layout="folder",
        root=root,
        classes=tuple(listed_classes.classes),
        palette=tuple(listed_classes.classes.values()),
        train=tuple(pool[id] for id in sorted(pool)),
        val=tuple(val[id] for id in sorted(val)),
        extra=tuple(rest[id] for id in sorted(rest.keys() - pool.keys() - val.keys())),
        lists_name_files=True,
        test=tuple(samples.all[id] for id in sorted(aside & _for_testing(samples, test_list))),
        test_list=test_list,
        class_list=listed_classes,
        pool_listed=train_list is not None,
        untrainable=untrainable,
        held_out=held_out,
        notes=tuple(notes),
    )


def _ignored_classes(class_list: Path, names: Iterable[str]) -> list[str]:
    """A note about a class whose name says that it is none."""
    found = [name for name in names if name.lower() in IGNORED]
    return [
        f"{name} of {class_list} is a class like any other, learnt and judged: what is to be ignored is 255 in masks "
        f"of indices, or called {NO_CLASS} in a list of values ('0: {NO_CLASS}'), and of masks in colour the line "
        f"'255, {name}, #rrggbb'"
        for name in found
    ]


def _image_folder(root: Path, chosen: str | None, train_list: Path | None) -> Path | None:
    """The root itself where pictures lie in folders of parts there; none where a list names the images."""
    folder = _folder(root, chosen, IMAGE_FOLDERS)
    if folder is not None or train_list is not None:
        return folder
    if _has_parts(root):
        return root
    put = f"put them in {root / IMAGE_FOLDERS[0]} or pass --files.images FOLDER"
    raise UsageError(f"{root} has no images: {put}{where_pictures_lie(root)}")


def _class_list(root: Path, chosen: Path | None) -> Path:
    file = chosen or find_classes(root) or root / FILES[0]
    if not file.is_file():
        raise UsageError(
            f"the class list {file} does not exist: write it, one class name a line, value 0 first, or pass one with "
            "--files.classes FILE"
        )
    return file


def _found(root: Path, usual: Mapping[str, Path], given: Mapping[str, Path | None], class_list: Path) -> Iterator[str]:
    """Notes about files that are taken for lists, where none are given, without being called as ours are."""
    lists = {part: path for part, path in usual.items() if not given[part]}
    if strange := [path for part, path in lists.items() if path != root / f"{part}.txt"]:
        yield f"lists of the data set: {', '.join(map(str, strange))}"
    if class_list.name != FILES[0]:
        yield f"the classes are those of {class_list}"


def _predicted(root: Path) -> Iterator[str]:
    """A note about what a prediction has written among the folders of a data set."""
    if _holds_predictions(root):
        yield (
            f"{root} holds results of semiseg, which are passed over unless a list names them: masks/, colours/, "
            "overlays/; --files.masks masks takes them for labels"
        )


def _holds_predictions(root: Path) -> bool:
    """Whether what lies in the root's folder of masks is what a prediction wrote, which writes its classes, too."""
    there = {entry.name for entry in entries_of(root) if is_folder(entry)}
    return there.issuperset(PREDICTED) and (root / "colours" / "classes.txt").is_file()


def _usual_lists(root: Path) -> dict[str, Path]:
    """The lists of a data set, by the part that they are of. Raises UsageError where two may be."""
    lists: dict[str, Path] = {}
    for home in (root / folder for folder in LIST_FOLDERS):
        here: dict[str, list[str]] = defaultdict(list)
        for entry in entries_of(home) if home.is_dir() else ():
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() == ".txt" and (part := LISTS.get(stem.lower())):
                here[part].append(entry.name)
        for part, found in here.items():
            chosen = [f"{part}.txt"] if f"{part}.txt" in found else found
            if part not in lists and len(chosen) > 1:
                raise UsageError(f"{home} holds {chosen[0]} and {chosen[1]}: say with --files.{part}-list which counts")
            lists.setdefault(part, home / chosen[0])
    return lists


def _listed_for_validation(samples: Samples, val_list: Path) -> dict[str, Sample]:
    """Raises UsageError where one has no mask."""
    val = samples.from_list(val_list, "validation")
    for id, sample in val.items():
        if sample.mask is None:
            reason = f"the validation image {id} of {val_list} has no mask: add it or take the line out"
            raise UsageError(samples.unread_masks() or samples.masks_of_other_names() or reason)
    return val


def _of_folders_for_validation(samples: Samples, images: Path | None) -> tuple[dict[str, Sample], list[str]]:
    """Those with masks, with a note about them."""
    val = {id: samples.all[id] for id, part in samples.parts().items() if part == "val" and samples.all[id].mask}
    folders = ", ".join(sorted({id.partition("/")[0] for id in val}))
    return val, [f"{len(val)} images of {images}/{folders} are for validation"] if val else []


def _left_alone(
    test_list: Path | None, samples: Samples, val: Set[str], listed: Set[str]
) -> tuple[set[str], list[str]]:
    """Images that are neither trained nor validated on, with notes about them: those of folders for testing or
    validation and those of the list for testing, unless other lists name them as well."""
    named, parts = val | listed, samples.parts()
    aside = {id for id, part in parts.items() if part in ("test", "val")} - named
    # Where all masks lie in a folder for validation, its name tells nothing.
    if not any(sample.mask for id, sample in samples.all.items() if id not in aside | val):
        aside = {id for id in aside if parts[id] == "test"}
    folders = ", ".join(sorted({id.partition("/")[0] for id in aside}))
    notes = [f"{len(aside)} images of folders for testing or validation ({folders}) are left alone"] if aside else []
    if test_list:
        test, lost = read_ids_present(test_list, samples.names)
        notes += lost
        tested = (test & samples.all.keys()) - named
        notes += [*left_alone(tested, test_list), *taught_too(test & listed, test_list)]
        aside |= tested
    return aside, notes


def _for_testing(samples: Samples, test_list: Path | None) -> set[str]:
    """Images of folders for testing, and those of the list."""
    listed = read_ids_present(test_list, samples.names)[0] if test_list else set()
    return listed | {id for id, part in samples.parts().items() if part == "test"}


def _not_for_validation(root: Path, pool: Set[str]) -> Iterator[str]:
    """Notes about what seems to be for validation or testing, and is taken for training."""
    folders = (id.split("/")[:-1] for id in pool)
    deeper = {"/".join(names) for names in folders if any(part_of(name) in ("val", "test") for name in names[1:])}
    if deeper:
        yield (
            f"images in {some_of(sorted(deeper), NAMED)} are taken for training: only folders directly below those of "
            "images tell parts; pass --files.val-list and --files.test-list"
        )
    homes = [root / entry.name for entry in entries_of(root) if LIST_HOMES.fullmatch(entry.name.lower())]
    files = (file for home in (root, *homes) for file in sorted(home.glob("*")))  # which passes over what is closed
    of_val = (file for file in files if LISTS.get(file.stem.lower()) == "val")
    if lists := [str(file) for file in of_val if file.suffix.lower() in (".txt", ".csv")]:
        told = some_of(lists, NAMED)
        yield f"not read: {told}; lists are text and lie in {root}, or pass one with --files.val-list"


def _hold_out(root: Path, pool: dict[str, Sample]) -> tuple[dict[str, Sample], list[str], str]:
    """Takes a tenth of the masked images out of the pool, for validation; with a note. None where so few have masks
    that none would be left; then with a word about it."""
    masked = sorted(id for id, sample in pool.items() if sample.mask)
    count = max(2, len(masked) // HELD_OUT)
    if len(masked) <= count:
        few = f"{root} has {len(masked)} images with masks and no val.txt: add masks, or write val.txt"
        return {}, [], few if masked else ""
    # The smallest hashes, not a shuffle: adding or deleting masks elsewhere leaves the choice nearly as it was.
    val = {id: pool.pop(id) for id in sorted(masked, key=_hash)[:count]}
    return val, [f"no val.txt in {root}: {count} of {len(masked)} images with masks are held out for validation"], ""


LAYOUT = Layout(find=find)


def _folder(root: Path, chosen: str | None, usual: tuple[str, ...]) -> Path | None:
    """The one that is chosen, or the first usual one, in whatever letter case, that holds pictures."""
    if chosen is not None:
        if not (root / chosen).is_dir():
            raise UsageError(f"the folder {root / chosen} does not exist: correct --files.images or --files.masks")
        return root / chosen
    folders = {entry.name: root / entry.name for entry in entries_of(root) if is_folder(entry)}
    if _holds_predictions(root):  # what a network has said is no truth
        folders = {name: folder for name, folder in folders.items() if name not in PREDICTED}
    folded = {name.casefold(): path for name, path in folders.items()}
    named = [folders.get(name) or folded.get(name.casefold()) for name in usual]
    found = [folder for folder in named if folder]
    return next(filter(holds_pictures, found), found[0] if found else None)


def _has_parts(root: Path) -> bool:
    """Whether pictures lie in folders for training, validation or testing below the root."""
    parts = (root / entry.name for entry in entries_of(root) if part_of(entry.name) and is_folder(entry))
    return any(holds_pictures(folder) for folder in parts)


def _hash(id: str) -> bytes:
    return hashlib.blake2b(id.encode(), digest_size=8).digest()


def _no_masks(
    root: Path, images: Path | None, masks: Path | None, orphans: set[str], samples: Samples, rest: dict[str, Sample]
) -> str:
    if masks is None:
        ours = _holds_predictions(root)
        put = f"put them in {root / MASK_FOLDERS[1 if ours else 0]} or pass --files.masks FOLDER"
        put += "; what predict wrote is none unless --files.masks masks says so" if ours else ""
        return f"{root} has no masks: {put}{where_pictures_lie(root, images)}"
    if unread := samples.unread_masks() or samples.unread_images():
        return unread
    if orphans and rest:
        return called_otherwise(masks, orphans, rest)
    return f"no training image in {images or root} has a mask in {masks}: add masks named like their images"
