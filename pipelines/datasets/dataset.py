"""What a data set is to the rest of the library: named samples, classes and colours. Each layout has a file that finds
one on disk; nothing is decoded here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..decode import READING, Reading

USUAL_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
IMAGE_SUFFIXES = (*USUAL_SUFFIXES, ".jfif", ".jpe", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k")
"""What pictures and masks are called; what a file is, its content says."""
IGNORE = 255
"""The value of pixels that count nowhere, in masks and targets."""

NO_CLASS = "__ignore__"
"""What labelme calls that which is no class: its pixels are ignored."""
NO_VALUE = ""
"""The name of a value that a class list passes over: no mask may hold it."""

Colour = tuple[int, int, int]


def colour_of(channels: Iterable[int]) -> Colour:
    """The colour of three numbers: red, green and blue."""
    red, green, blue = channels
    return red, green, blue


def voc_colours(count: int) -> tuple[Colour, ...]:
    """The colour map of the VOC devkit: bit i of the index goes to bit 7 - i // 3 of channel i % 3."""
    colours = []
    for index in range(count):
        rgb = [0, 0, 0]
        for bit in range(8):
            rgb[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colours.append(colour_of(rgb))
    return tuple(colours)


@dataclass(frozen=True, slots=True)
class Remap:
    """How the values of a mask on disk become class indices, where they are not."""

    name: str
    """Name of the cache's folder for converted masks."""
    table: bytes
    """256 of them: class index or IGNORE by value."""
    values: str
    """What such a mask holds, in words."""
    reason: str = ""
    """Why such masks are taken, where the layout takes them."""
    largest: int = IGNORE
    """No mask holds a larger value, but IGNORE where it may."""
    cure: str = ""
    """What to do about one that does."""
    ignores: bool = True
    """Whether masks may hold IGNORE."""
    of_colours: bool = False
    """Whether the values of a mask in colour are the places of its colours, sorted; else they are its gray levels."""


class ClassList(NamedTuple):
    """What label values mean: entries by value, from 0."""

    names: tuple[str, ...]
    """Values of one name are one class, those of NO_CLASS none, and those of NO_VALUE are not there."""
    palette: tuple[Colour, ...]
    """One colour a value."""
    stated: tuple[Colour | None, ...] = ()
    """The colours that the list gives, None for a value that it gives none; a mask's palette must not say otherwise."""
    void: tuple[Colour, ...] = ()
    """The colours of what is no class."""
    ignored: str = ""
    """What the list calls 255."""

    @property
    def given(self) -> list[int]:
        """The values that masks may hold, beside 255."""
        return [value for value, name in enumerate(self.names) if name != NO_VALUE]

    @property
    def of_classes(self) -> tuple[int, ...]:
        """The first value of each class."""
        return tuple(self.names.index(name) for name in self.classes)

    @property
    def classes(self) -> dict[str, Colour]:
        """The colour of each class, that of its first value, in the order of these."""
        first: dict[str, Colour] = {}
        for name, colour in zip(self.names, self.palette, strict=True):
            if name not in (NO_CLASS, NO_VALUE):
                first.setdefault(name, colour)
        return first

    @property
    def table(self) -> np.ndarray:
        """(256,) uint8: the class index or IGNORE by label value; values beyond the list stay what they are."""
        places = {name: place for place, name in enumerate(self.classes)}
        table = np.arange(256, dtype=np.uint8)
        table[: len(self.names)] = [places.get(name, IGNORE) for name in self.names]
        return table


@dataclass(frozen=True, slots=True)
class Sample:
    """One image; `mask` is None where there is none on disk, `remap` where the mask holds class indices already."""

    id: str
    image: Path
    mask: Path | None
    remap: Remap | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set as found on disk. Sample ids are unique over all of them."""

    layout: str
    root: Path
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    """One RGB colour a class."""
    train: tuple[Sample, ...]
    """The training pool, sorted by id; the split says which of it is labelled."""
    val: tuple[Sample, ...]
    """Sorted by id, all with masks."""
    extra: tuple[Sample, ...] = ()
    """Further images that lie beside the pool: the unlabelled ones where a labelled list uses up the whole pool."""
    unlabeled: tuple[Sample, ...] = ()
    """Images of a folder that holds no others: unlabelled in every split that does not say exactly which are. No draw
    is from them."""
    test: tuple[Sample, ...] = ()
    """Images that are left alone, to be judged at last; sorted by id, not part of `samples`."""
    test_list: Path | None = None
    """The list of the images that are left alone."""
    class_list: ClassList | None = None
    """The data set's own class list; None where values are those of `classes`."""
    pool_listed: bool = True
    """Whether a list or the official layout says what the pool is; if not, it is whatever lies in the image folder."""
    untrainable: str = ""
    """Why nothing can be trained here, as no image for training or none for validation has a mask; and the cure."""
    held_out: bool = False
    """Whether val was drawn from the masked images because no list says what it is."""
    lists_name_files: bool = False
    """Whether lists may name files, any of which may be the mask of an image; if not, they name samples alone, and the
    layout says where the files are."""
    reading: Reading = READING
    """How its files are read."""
    notes: tuple[str, ...] = ()
    """What was decided while looking, one line each, for the log."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def values(self) -> ClassList:
        """What the values of masks mean, as they are on disk."""
        return self.class_list or ClassList(self.classes, self.palette)

    @property
    def trainable(self) -> tuple[Sample, ...]:
        """All that a split may name."""
        return (*self.train, *self.extra, *self.unlabeled)

    @property
    def samples(self) -> tuple[Sample, ...]:
        return (*self.train, *self.val, *self.extra, *self.unlabeled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is known of a layout before a data set is looked at."""

    find: Callable[..., Dataset]
    """`find(root, **options)`. Raises UsageError where something is missing."""
    classes: tuple[str, ...] | None = None
    """None where each data set has its own."""
    palette: tuple[Colour, ...] | None = None
    """One RGB colour a class."""
    levels: tuple[str, ...] = ("",)
    """Where the data set may lie under the root that a user passes."""
    needs_root: bool = True
    """Whether the user has to say where the data set is; if not, it is made there."""

    @property
    def options(self) -> tuple[str, ...]:
        """What may be said of the data set besides its root: the keyword arguments of `find`."""
        parameters = inspect.signature(self.find).parameters.values()
        return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)
