"""The layouts of data sets on disk, by name."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..decode import Reading
from ..errors import UsageError
from . import cityscapes, folder, shapes, voc
from .dataset import Dataset, Layout

LAYOUTS: dict[str, Layout] = {
    "voc": voc.LAYOUT,
    "cityscapes": cityscapes.LAYOUT,
    "folder": folder.LAYOUT,
    "shapes": shapes.LAYOUT,
}
FILES = ("classes", "train_list", "val_list")
"""Options that name a file, which may lie below the root."""
READING = tuple(field.name for field in fields(Reading))
"""Options of every layout."""


def find_dataset(layout: str, root: Path | None, **options: str | Path | float | None) -> Dataset:
    """Find a data set by its layout, one of LAYOUTS, under `root`.

    Of the options, `images` and `masks` name folders under the root (`masks` also picks another mask folder of VOC),
    `classes` is a class list, `train_list` the training pool and `val_list` the validation images, each in any
    published list format; these three files may be given relative to the root. `orientation` and `max_megapixels` are
    those of `Reading`. None is as good as left out.
    Raises UsageError where something is missing or the options do not belong to the layout.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    given = {name: value for name, value in options.items() if value is not None}
    own = {name: value for name, value in given.items() if name not in READING}
    return replace(_find(layout, root, own), reading=Reading.of(given))


def _find(layout: str, root: Path | None, given: dict[str, Any]) -> Dataset:
    known = LAYOUTS[layout]
    for name in given:
        if name not in known.options:
            raise UsageError(f"--files.{name.replace('_', '-')} has no meaning for the layout {layout}: leave it out")
    if not known.needs_root:
        return known.find(root and Path(root), **given)
    if root is None:
        raise UsageError(f"the layout {layout} needs the folder of the data set: pass --data ROOT")
    root = Path(root).expanduser().absolute()
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder: pass the root of the data set with --data ROOT")
    for name in given.keys() & set(FILES):
        inside = root / given[name]
        given[name] = inside if inside.is_file() and not Path(given[name]).is_file() else Path(given[name])
    return known.find(root, **given)
