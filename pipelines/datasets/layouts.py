"""The layouts of data sets on disk, by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..decode import READING_OPTIONS, Reading
from ..errors import UsageError, flag
from . import ade20k, cityscapes, coco, folder, shapes, voc
from .dataset import Dataset, Layout
from .files import check_name
from .unlabeled import with_unlabeled

LAYOUTS: dict[str, Layout] = {
    "voc": voc.LAYOUT,
    "cityscapes": cityscapes.LAYOUT,
    "ade20k": ade20k.LAYOUT,
    "coco": coco.LAYOUT,
    "folder": folder.LAYOUT,
    "shapes": shapes.LAYOUT,
}
PLACES = ("images", "masks", "classes", "train_list", "val_list", "test_list", "unlabeled")
"""Options that name a file or a folder."""
UNLABELED = "unlabeled"
"""The option of every layout that needs a root."""


def find_dataset(layout: str, root: Path | None, **options: str | Path | float | None) -> Dataset:
    """Find a data set by its layout, one of LAYOUTS, under `root`.

    Of the options, `images` and `masks` name folders under the root (`masks` also picks another mask folder of VOC),
    `classes` is a class list, `train_list` the training pool, `val_list` the validation images and `test_list` those to
    leave alone, each in any published list format; `unlabeled` is a folder of further images, all of them unlabelled.
    What is given relative is looked for below the root, and then below
    the working folder. `orientation` and `max_megapixels` are those of `Reading`. None means not given.
    Raises UsageError where something is missing, nothing could be trained, or the options do not belong to the layout.
    """
    dataset = find_judged(layout, root, **options)
    if dataset.untrainable:
        raise UsageError(dataset.untrainable)
    return dataset


def find_judged(layout: str, root: Path | None, **options: str | Path | float | None) -> Dataset:
    """As `find_dataset`, of data that may be there to judge by alone, of which nothing can be trained."""
    check_layout(layout)
    given = {name: value for name, value in options.items() if value is not None}
    own = {name: value for name, value in given.items() if name not in READING_OPTIONS}
    return replace(_find(layout, root, own), reading=Reading.of(given))


def check_layout(layout: str) -> None:
    """Raises UsageError unless there is one of that name."""
    if layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")


def _find(layout: str, root: Path | None, given: dict[str, Any]) -> Dataset:
    known = LAYOUTS[layout]
    for name in given:
        if name not in known.options and not (name == UNLABELED and known.needs_root):
            raise UsageError(f"{flag('files.' + name)} has no meaning for the layout {layout}: leave it out")
    if not known.needs_root:
        return known.find(root and Path(root), **given)
    if root is None:
        raise UsageError(f"the layout {layout} needs the folder of the data set: pass --data ROOT")
    root = Path(root).expanduser().absolute()
    check_name(str(root))
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder: pass the root of the data set with --data ROOT")
    placed = given | absolute(layout, root, given)
    found = known.find(root, **{name: value for name, value in placed.items() if name != UNLABELED})
    if UNLABELED in placed:
        found = with_unlabeled(found, placed[UNLABELED])
    return replace(found, notes=(*found.notes, *_twofold(placed, given)))


def absolute(layout: str, root: Path, options: Mapping[str, Any]) -> dict[str, Path]:
    """The options of a data set that name a file or a folder, wherever they are said from: below the root, or
    else below the working folder; what is in neither, below the root."""
    homes = [root / level for level in LAYOUTS[layout].levels]
    places = {}
    for name in PLACES:
        if options.get(name) is not None:
            given = Path(options[name]).expanduser()
            known = (home / given for home in (*homes, Path.cwd()) if os.path.exists(home / given))
            places[name] = Path(os.path.normpath(next(known, root / given)))
    return places


def _twofold(placed: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    """A note for each option that means one thing in the data set and another in the working folder."""
    for name in given.keys() & set(PLACES):
        here = Path(given[name]).absolute()
        if Path(given[name]) != Path() and here.exists() and placed[name].exists() and not here.samefile(placed[name]):
            yield f"{flag('files.' + name)}: {placed[name]} is taken, and not {here}"
