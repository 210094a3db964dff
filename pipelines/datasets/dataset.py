"""What a data set is to the rest of the library: named samples, classes and colours. Each layout has a file that finds
one on disk; nothing is decoded here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
