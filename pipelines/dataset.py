"""What a data set is to the rest of the library: named samples, classes and colours. Each layout has a file that finds
one on disk; nothing is decoded here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import UsageError

LAYOUTS = ("voc", "cityscapes", "folder", "shapes")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
IGNORE = 255
"""The label value of pixels that count nowhere."""

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image; `mask` is None where there is none on disk."""

    id: str
    image: Path
    mask: Path | None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set as found on disk. Sample ids are unique over train, val and extra."""

    layout: str
    root: Path
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    """One RGB colour a class."""
    train: tuple[Sample, ...]
    """The training pool, sorted by id; the split says which of it is labelled."""
    val: tuple[Sample, ...]
    """Sorted by id, all with masks."""
    encoding: Literal["index", "label_ids"] = "index"
    """`label_ids` where some masks hold raw Cityscapes ids, which `prepare` maps to the 19 classes."""
    extra: tuple[Sample, ...] = ()
    """Further images that lie beside the pool: the unlabelled ones where a labelled list uses up the whole pool."""
    pool_listed: bool = True
    """Whether a list or the official layout says what the pool is; if not, it is whatever lies in the image folder."""
    held_out: bool = False
    """Whether val was drawn from the masked images because no list says what it is."""
    notes: tuple[str, ...] = ()
    """What was decided while looking, one line each, for the log."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)


def find_dataset(
    layout: str,
    root: Path | None,
    *,
    images: str | None = None,
    masks: str | None = None,
    classes: Path | None = None,
    train_list: Path | None = None,
    val_list: Path | None = None,
) -> Dataset:
    """Find a data set by its layout (`voc`, `cityscapes`, `folder`, `shapes`) under `root`.

    `images` and `masks` name folders under the root (`masks` also picks another mask folder of VOC), `classes` is a
    class list, `train_list` the training pool and `val_list` the validation images, each in any published list format;
    these three files may be given relative to the root.
    Raises UsageError where something is missing or the arguments do not belong to the layout.
    """
    from . import cityscapes, folder, voc

    options = {
        "images": images,
        "masks": masks,
        "classes": classes,
        "train_list": train_list,
        "val_list": val_list,
    }
    accepted = {
        "voc": ("masks", "classes", "train_list", "val_list"),
        "cityscapes": ("train_list", "val_list"),
        "folder": tuple(options),
        "shapes": (),
    }
    if layout not in accepted:
        raise UsageError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in accepted[layout]:
            raise UsageError(f"--files.{name.replace('_', '-')} has no meaning for the layout {layout}: leave it out")
    if layout == "shapes":
        from . import shapes

        return shapes.find(root and Path(root))
    if root is None:
        raise UsageError(f"the layout {layout} needs the folder of the data set: pass --data ROOT")
    root = Path(root).expanduser().absolute()
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder: pass the root of the data set with --data ROOT")
    for name in given.keys() & {"classes", "train_list", "val_list"}:
        inside = root / given[name]
        given[name] = inside if inside.is_file() and not Path(given[name]).is_file() else Path(given[name])
    return {"voc": voc, "cityscapes": cityscapes, "folder": folder}[layout].find(root, **given)


def voc_colours(count: int) -> tuple[Colour, ...]:
    """The colour map of the VOC devkit: bit i of the index goes to bit 7 - i // 3 of channel i % 3."""
    colours = []
    for index in range(count):
        rgb = [0, 0, 0]
        for bit in range(8):
            rgb[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colours.append(tuple(rgb))
    return tuple(colours)


def read_classes(path: Path) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
    """Names and colours from a class list: one name a line, in the order of the label values from 0, optionally
    followed by a tab and `#rrggbb`; classes without a colour get the one of the VOC colour map."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the class list {path} cannot be read ({error}): write one class name a line") from None
    names: list[str] = []
    colours: list[Colour | None] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, colour = (part.strip() for part in line.strip().partition("\t"))
        if name in names:
            raise UsageError(f"{path}, line {number}: the class {name!r} stands there twice: give each its own name")
        if colour and not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
            raise UsageError(f"{path}, line {number}: {colour!r} is not a colour: write it as #rrggbb after the tab")
        names.append(name)
        colours.append(tuple(bytes.fromhex(colour[1:])) if colour else None)
    if not 2 <= len(names) <= IGNORE:
        raise UsageError(f"{path} names {len(names)} classes: 2 to {IGNORE} are possible, background included")
    return tuple(names), tuple(own or default for own, default in zip(colours, voc_colours(len(names))))


def files_by_stem(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Image files under a folder, at any depth, by their relative path without extension. Hidden ones are skipped.

    Raises UsageError where two files differ in nothing but the extension.
    """
    suffixes = tuple(suffixes)
    found: dict[str, Path] = {}
    for name in _walk(str(folder), ""):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in suffixes:
            continue
        if stem in found:
            raise UsageError(f"{folder} holds both {found[stem].name} and {os.path.basename(name)}: keep one of them")
        found[stem] = folder / name
    return found


def _walk(folder: str, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name


def first_folder(candidates: Iterable[Path], has: str) -> Path | None:
    """The first candidate that has a folder of that name."""
    return next((folder for folder in candidates if (folder / has).is_dir()), None)
