"""Each file of a data set decoded once, as a picture or as a mask: what it holds, or why it cannot be used. What
decoders read differently is converted into the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image

from ..cache import write_atomically
from ..cores import cores
from ..decode import LARGE, UPRIGHT, Reading, Refusal, decode_picture, refusal
from ..documents import opened
from ..errors import UsageError
from ..progress import Progress
from ..watch import hash_of, stamp_of
from .dataset import IGNORE, Remap, Sample
from .facts import IMAGES, MASKS, Copy, Facts, Key
from .masks import decode_mask, of_gray_levels

LONGEST_NAME = 200
"""Bytes of a file's name to which an end may be added: file systems take 255."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that makes a file useless for training. `kind` groups like faults."""

    kind: str
    path: Path
    text: str
    cure: str

    def __str__(self) -> str:
        return f"{self.path} {self.text}: {self.cure}"


@dataclass(frozen=True, slots=True)
class Task:
    """A file to be decoded, and as what."""

    role: str
    path: Path
    inspect: Callable[..., Facts]
    """Makes facts of the file's stamp and hash, its bytes, the cache folder and how files are read."""
    mapping: str | None = None

    @property
    def key(self) -> Key:
        return self.role, str(self.path)


def tasks_of(sample: Sample) -> Iterator[Task]:
    """Its picture, and its mask as the layout says that it is read."""
    yield Task(IMAGES, sample.image, partial(_inspect_image, id=sample.id))
    if sample.mask:
        inspect = partial(_inspect_mask, id=sample.id, remap=sample.remap)
        yield Task(MASKS, sample.mask, inspect, sample.remap.name if sample.remap else None)


def remapping(role: str, id: str, mask: Path, remap: Remap) -> Task:
    """The mask of a sample, whose values are mapped."""
    return Task(role, mask, partial(_inspect_mask, id=id, remap=remap), remap.name)


def inspect_files(
    tasks: Iterable[Task],
    reading: Reading,
    known: dict[Key, Facts],
    folder: Path | None,
    threads: int,
    on_progress: Progress,
) -> tuple[dict[Key, Facts], list[Fault], int]:
    """The facts of files, the faults of those that cannot be used, and how many `known` did not vouch for. Converted
    copies are written below `folder`; without one nothing is written."""
    inspector = _Inspector(reading, known, folder)
    facts: dict[Key, Facts] = {}
    faults: list[Fault] = []
    pending: list[Task] = []

    def sort(task: Task, found: Facts | Fault) -> None:
        if isinstance(found, Fault):
            faults.append(found)
        else:
            facts[task.key] = found

    for task in tasks:
        if found := inspector.unopened(task):
            sort(task, found)
        else:
            pending.append(task)
    with ThreadPoolExecutor(threads or cores()) as pool:
        for done, (task, found) in enumerate(zip(pending, pool.map(inspector.opened, pending)), 1):
            sort(task, found)
            on_progress(done, len(pending))
    return facts, faults, len(pending)


class _Inspector:
    """What files hold, for several threads."""

    def __init__(self, reading: Reading, known: dict[Key, Facts], folder: Path | None):
        self.reading, self.known, self.folder = reading, known, folder
        self.alone = Lock()

    def unopened(self, task: Task) -> Facts | Fault | None:
        """What is known of a file whose stamp has not changed, or that it is not there; None where it must be read."""
        try:
            stat = os.stat(task.path)
        except OSError as error:
            return Fault("unreadable", task.path, f"cannot be read ({error.strerror})", "restore the file")
        old = self._vouched(task)
        return old if old and old.stamp == stamp_of(stat) else None

    def opened(self, task: Task) -> Facts | Fault:
        """From its bytes."""
        try:
            read, data = _read(task.path)
            old = self._vouched(task)
            if old and old.hash == read.hash:  # another date or owner changes no pixel
                return replace(old, stamp=read.stamp)
            try:
                return task.inspect(read, data, self.folder, reading=self.reading.at_most(LARGE))
            except Refusal as why:
                if why.kind != "large":
                    raise
            with self.alone:  # several of these at a time would not fit into the memory
                return task.inspect(read, data, self.folder, reading=self.reading)
        except UsageError:  # of the cache
            raise
        except Exception as error:
            refused = refusal(error)
            return Fault(refused.kind, task.path, refused.text, refused.cure)

    def _vouched(self, task: Task) -> Facts | None:
        """What is known of the file, if the cache has the copies that belong to it."""
        old = self.known.get(task.key)
        if old is None or old.mapping != task.mapping or self.reading.is_large(old.width, old.height):
            return None
        return old if self.folder is None or all(copy.lies_in(self.folder) for copy in old.copies) else None


def _read(path: Path) -> tuple[Facts, bytes]:
    with opened(path) as file:
        stat = os.fstat(file.fileno())
        data = file.read()
    return Facts(stamp_of(stat), hash_of(data)), data


def _inspect_image(facts: Facts, data: bytes, folder: Path | None, *, id: str, reading: Reading) -> Facts:
    """Decode an image. What all decoders read alike stays: 8-bit RGB in JPEG or PNG. The rest becomes an RGB PNG."""
    picture = decode_picture(data, reading)
    facts.height, facts.width = picture.pixels.shape[:2]
    facts.orientation, facts.first = picture.orientation, picture.first
    _convert(facts, folder, f"{IMAGES}/{id}", picture.pixels, None if picture.plain else picture.stored)
    return facts


def _inspect_mask(
    facts: Facts, data: bytes, folder: Path | None, *, id: str, remap: Remap | None, reading: Reading
) -> Facts:
    """Decode a mask to class indices. An 8-bit gray PNG stays; palettes, other depths and other values become one. Of
    one in colour without a `remap`, the size and the colours are all that is known."""
    mask = decode_mask(data, reading)
    if mask.coloured and remap and not remap.of_colours:
        gray = of_gray_levels(mask)
        if gray is None:
            raise Refusal("colours", f"is in colour where it should hold {remap.values}", remap.cure)
        mask = gray
    values, stored = mask.values, None if mask.plain else mask.stored
    facts.height, facts.width = values.shape
    facts.orientation = mask.orientation
    if mask.palette and not remap:
        used = [value for value in np.unique(values).tolist() if value < len(mask.palette)]
        facts.colours = {str(value): bytes(mask.palette[value]).hex() for value in used}
        facts.palette = hash_of(bytes(sum(mask.palette, ())))
        facts.bits, facts.coloured = mask.bits, mask.coloured
        if mask.coloured:
            return facts
    if remap:
        largest = int(values[values != IGNORE].max(initial=0) if remap.ignores else values.max())
        if largest > remap.largest:
            text = f"has the value {largest} but {remap.values} end at {remap.largest}"
            raise Refusal("values", text, remap.cure)
        table = np.frombuffer(remap.table, np.uint8)
        values, stored = table[values], table[mask.stored]
    _convert(facts, folder, f"{remap.name if remap else MASKS}/{id}", values, stored)
    pixels = np.bincount(values.ravel(), minlength=256)
    facts.counts = {str(value): int(pixels[value]) for value in np.flatnonzero(pixels)}
    return facts


def _convert(facts: Facts, folder: Path | None, name: str, upright: np.ndarray, stored: np.ndarray | None) -> None:
    """Copies of a file that decoders read differently, as it is upright and, if that is another, as it is stored; no
    `stored` where the file itself will do."""
    if stored is None:
        return
    facts.copy = _write_png(folder, _copy_of(name, f"{facts.hash}.png"), upright)
    if facts.orientation != UPRIGHT:
        facts.stored = _write_png(folder, _copy_of(name, f"{facts.hash}-stored.png"), stored)


def _copy_of(path: str, end: str) -> str:
    """The name of a converted file; names too long for file systems with an end become their checksum."""
    place, _, name = path.rpartition("/")
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()
    return f"{place}/{name}-{end}"


def _write_png(folder: Path | None, name: str, pixels: np.ndarray) -> Copy:
    encoded = BytesIO()
    if folder:
        Image.fromarray(pixels).save(encoded, "PNG", compress_level=1)
        write_atomically(folder / name, encoded.getbuffer())
    return Copy(name, encoded.tell(), hash_of(encoded.getbuffer()))
