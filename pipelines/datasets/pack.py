"""The pack of a data set: its pictures and masks decoded once, as raw uint8 in one file of the cache that all processes
map and share, and an index of it.

A file is known by path, how it is turned, size and times of change. New and changed ones are appended, under a lock;
the index is replaced when all of them are on disk, so what a crash leaves behind it is not read. A pack that is not as
the index left it is checked against its checksums before it is used.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..cache import cache_root, write_atomically
from ..cores import cores
from ..decode import COLOUR, LABEL, UPRIGHT, unreadable
from ..documents import read_sealed, sealed
from ..errors import UsageError
from ..memory import gib
from ..progress import Progress, Say, say_nothing, show_nothing
from ..watch import Mark, Stamp, Watch, stamp_of
from .manifest import Record, watch_of

VERSION = 3
INDEX, LOCK, PIXELS = "index.json", "lock", "pixels-"
SPARE = 64 << 20
"""Bytes of the disk that packing leaves to others."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to be had decoded."""

    path: Path
    shape: tuple[int, ...]
    """(H, W, 3) of a picture, (H, W) of a mask."""
    key: str
    stamp: Stamp

    @property
    def bytes(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Entry:
    """A decoded file in the pack."""

    shape: tuple[int, ...]
    stamp: Stamp
    """Size and times of change of the file, when it was decoded."""
    offset: int
    crc: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        return self.offset + self.bytes


@dataclass(frozen=True, slots=True)
class Index:
    """What lies where in the pixels' file, which was as `stamp` says when it was done."""

    pixels: str
    stamp: Stamp
    entries: dict[str, Entry]

    @property
    def end(self) -> int:
        """Bytes of the file, which never gets shorter: others may have it mapped."""
        return self.stamp[0]


class Pack:
    """Decoded files, mapped: pixels are read from disk when they are touched, and kept by the system as it sees fit."""

    def __init__(self, folder: Path, index: Index):
        self.folder, self._entries = folder, index.entries
        # Copy on write, so that arrays count as writable for torch; nobody writes.
        self._pixels = (
            np.memmap(folder / index.pixels, np.uint8, "c", shape=index.end) if index.end else np.empty(0, np.uint8)
        )

    def image(self, record: Record) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a record."""
        return self._view(_key(3, record.image, record.image_mark))

    def mask(self, record: Record) -> np.ndarray:
        """(H, W) uint8 of a record that has a mask."""
        assert record.mask is not None, f"{record.id} has no mask"
        return self._view(_key(2, record.mask, record.mask_mark))

    def _view(self, key: str) -> np.ndarray:
        entry = self._entries[key]
        return self._pixels[entry.offset : entry.end].view(np.ndarray).reshape(entry.shape)


def pack_folder(folder: Path | None = None) -> Path:
    """Where a pack lies: in its data set's folder of the cache, or, without one, where data sets share a pack."""
    return (folder or cache_root()) / "pack"


def packed_bytes(records: Iterable[Record]) -> int:
    """What the records take, decoded."""
    return sum(record.height * record.width * (4 if record.mask else 3) for record in records)


def is_packed(records: Iterable[Record], folder: Path | None = None) -> bool:
    """Whether nothing has to be decoded for `open_pack`."""
    home = pack_folder(folder)
    index = _load(home)
    return index is not None and _is_whole(home, index) and not _missing(index.entries, _wanted(records))


def open_pack(
    records: Iterable[Record],
    folder: Path | None = None,
    *,
    threads: int = 0,
    say: Say = say_nothing,
    on_progress: Progress = show_nothing,
) -> Pack:
    """The pack with these records, in which what is missing or changed is packed first.

    folder: the data set's, in the cache. threads: 0 for one a core. say: is told in one line what takes time.
    Raises UsageError where a file is not what it was prepared as, or the pack cannot be written.
    """
    records = list(records)
    home, wanted = pack_folder(folder), _wanted(records)
    watch = watch_of(records)
    for one in wanted:  # what is packed may be what another process has seen there since
        watch.check(one.path, one.stamp)
    index = _load(home)
    if index and _is_whole(home, index) and not _missing(index.entries, wanted):
        with suppress(FileNotFoundError):  # replaced by another process in this moment
            return Pack(home, index)
    with _written(home), _locked(home, say):
        index = _checked(home, _load(home), say)
        if _missing(index.entries, wanted):
            write = partial(_write, watch=watch, threads=threads or cores(), on_progress=on_progress)
            index = _packed(home, index, wanted, write, say)
        return Pack(home, index)


def _wanted(records: Iterable[Record]) -> list[Wanted]:
    """Every file of the records once."""
    files = {}
    for record in records:
        size = record.size
        used = ((record.image, (*size, 3), record.image_mark), (record.mask, size, record.mask_mark))
        for path, shape, mark in used:
            if path is not None:
                key = _key(len(shape), path, mark)
                files[key] = Wanted(path, shape, key, _stamp(path))
    return list(files.values())


def _key(dimensions: int, path: Path, mark: Mark | None) -> str:
    """The same file may be a picture and a mask, turned or as it is stored."""
    orientation = mark.orientation if mark else UPRIGHT
    return f"{dimensions}/{orientation} {path}"


def _stamp(path: Path) -> Stamp:
    try:
        return stamp_of(os.stat(path))
    except OSError as error:
        raise unreadable(path, error) from None


def _missing(entries: Mapping[str, Entry], wanted: Iterable[Wanted]) -> list[Wanted]:
    def known(one: Wanted) -> bool:
        entry = entries.get(one.key)
        return entry is not None and (entry.shape, entry.stamp) == (one.shape, one.stamp)

    return [one for one in wanted if not known(one)]


def _load(home: Path) -> Index | None:
    """The index; None where it is missing, broken or of another version."""
    try:
        content = read_sealed(home / INDEX)
        if content["version"] != VERSION or not str(content["pixels"]).startswith(PIXELS):
            return None
        entries = {
            key: Entry(tuple(map(int, shape)), _as_stamp(stamp), int(offset), int(crc))
            for key, (shape, stamp, offset, crc) in content["entries"].items()
        }
        return Index(content["pixels"], _as_stamp(content["stamp"]), entries)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _as_stamp(numbers: Iterable[Any]) -> Stamp:
    size, mtime_ns, ctime_ns = map(int, numbers)
    return size, mtime_ns, ctime_ns


def _save(home: Path, pixels: str, entries: dict[str, Entry]) -> Index:
    """Makes the entries those of the pack."""
    index = Index(pixels, stamp_of(os.stat(home / pixels)), entries)
    content = {
        "version": VERSION,
        "pixels": pixels,
        "stamp": index.stamp,
        "entries": {key: astuple(entry) for key, entry in entries.items()},
    }
    write_atomically(home / INDEX, sealed(content))
    return index


def _is_whole(home: Path, index: Index) -> bool:
    """Whether nobody has touched the pixels since they were packed."""
    try:
        return stamp_of(os.stat(home / index.pixels)) == index.stamp
    except OSError:
        return False


def _checked(home: Path, index: Index | None, say: Say) -> Index:
    """What of a pack is as it was packed: of one that was touched, the entries with the right checksum. Files that
    belong to no pack are removed."""
    for path in home.glob(f"{PIXELS}*"):
        if index is None or path.name != index.pixels:
            path.unlink()
    if index is None or not (home / index.pixels).is_file():
        return Index("", (0, 0, 0), {})
    if _is_whole(home, index):
        return index
    say(f"the pack {home} is not as it was left: checking it")
    with open(home / index.pixels, "r+b") as file:
        if os.fstat(file.fileno()).st_size > index.end:  # packing was interrupted
            file.truncate(index.end)
        entries = {key: entry for key, entry in index.entries.items() if _crc_of(file, entry) == entry.crc}
    return _save(home, index.pixels, entries)


def _crc_of(file, entry: Entry) -> int | None:
    """The checksum of what lies where an entry should; None where nothing does."""
    if entry.offset < 0 or entry.bytes < 0:
        return None
    file.seek(entry.offset)
    data = file.read(entry.bytes)
    return zlib.crc32(data) if len(data) == entry.bytes else None


def _packed(
    home: Path,
    index: Index,
    wanted: list[Wanted],
    write: Callable[[int, list[Wanted], list[int]], dict[str, Entry]],
    say: Say,
) -> Index:
    """The index after what is missing of `wanted` was packed by `write`. A pack of which most is of files that changed
    is made anew."""
    alive = {key: entry for key, entry in index.entries.items() if _is_alive(key, entry)}
    end = index.end
    if sum(entry.bytes for entry in alive.values()) * 2 < end or not end:
        alive, end = {}, 0
    missing = _missing(alive, wanted)  # of those alive now: a converted copy may have been written anew meanwhile
    offsets = np.cumsum([end, *(one.bytes for one in missing)]).tolist()
    need, free = offsets[-1] - end, shutil.disk_usage(home).free
    images = sum(len(one.shape) == 3 for one in missing)
    if need + SPARE > free:
        raise UsageError(
            f"packing {images:,} images takes {gib(need)} and {home} has {gib(free)} free: free space there, "
            "set SEMISEG_CACHE elsewhere, or take --backend host"
        )
    say(f"packing {images:,} images: {gib(need)} into {home}")

    # The file of the old index is appended to; readers of it map no more than it tells them.
    pixels = home / index.pixels if alive else _new_file(home)
    try:
        with open(pixels, "r+b") as file:
            entries = alive | write(file.fileno(), missing, offsets)
            os.fsync(file.fileno())
        done = _save(home, pixels.name, entries)
    except BaseException:
        if alive:
            os.truncate(pixels, end)
            with suppress(UsageError):
                _save(home, pixels.name, index.entries)
        else:
            pixels.unlink()
        raise
    if not alive and index.pixels:
        (home / index.pixels).unlink(missing_ok=True)
    return done


def _new_file(home: Path) -> Path:
    path = home / f"{PIXELS}{uuid.uuid4().hex}"  # not tempfile's, which nobody else could read
    path.touch(exist_ok=False)
    return path


def _is_alive(key: str, entry: Entry) -> bool:
    try:
        return stamp_of(os.stat(key.partition(" ")[2])) == entry.stamp
    except OSError:
        return False


def _write(
    file: int,
    missing: list[Wanted],
    offsets: list[int],
    *,
    watch: Watch,
    threads: int,
    on_progress: Progress,
) -> dict[str, Entry]:
    """Decodes files to their places; those that the watch knows are the ones that were prepared."""

    def write(one: Wanted, offset: int) -> Entry:
        height, width, *channels = one.shape
        pixels = watch.pixels(one.path, COLOUR if channels else LABEL, (height, width))
        data = np.ascontiguousarray(pixels).data.cast("B")
        done = 0
        while done < len(data):
            done += os.pwrite(file, data[done:], offset + done)
        return Entry(one.shape, one.stamp, offset, zlib.crc32(data))

    entries = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="pack") as pool:
        try:
            for done, (one, entry) in enumerate(zip(missing, pool.map(write, missing, offsets)), 1):
                entries[one.key] = entry
                on_progress(done, len(missing))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return entries


@contextmanager
def _locked(home: Path, say: Say) -> Iterator[None]:
    """One process packs at a time; the lock goes with the process that holds it."""
    home.mkdir(parents=True, exist_ok=True)
    with open(home / LOCK, "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process, which packs into {home}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _written(home: Path) -> Iterator[None]:
    """What is written inside raises UsageError where it cannot be."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write the pack {home} ({error.strerror or error}): free space there, set SEMISEG_CACHE elsewhere, "
            "or take --backend host"
        ) from None
