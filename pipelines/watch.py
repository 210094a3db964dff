"""Files as they were prepared: whether they are still the same, as a plan made for one must not cut from another, and
their pixels, turned as was decided then."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .decode import UPRIGHT, read, turned, turned_size, unreadable
from .documents import opened
from .errors import UsageError

Stamp = tuple[int, int, int]
"""Size, and the times when the content and the inode changed: the last one tells of a file that was changed and given
its old time again."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of a file that was prepared."""

    stamp: Stamp | None
    """None for a converted file: its bytes are looked at when it is used first."""
    hash: str
    """As `hash_of` makes it."""
    orientation: int = UPRIGHT
    """The tag by which its pixels are turned."""


class Watch:
    """Knows files by their marks; a file without one may change, and is not turned. May be called from several
    threads."""

    def __init__(self, marks: Mapping[Path, Mark]):
        self._stamps = {path: mark.stamp for path, mark in marks.items()}
        self._hashes = {path: mark.hash for path, mark in marks.items()}
        self._converted = {path for path, mark in marks.items() if mark.stamp is None}
        self._turned = {path: mark.orientation for path, mark in marks.items() if mark.orientation != UPRIGHT}

    def read(self, path: Path) -> bytes:
        """The file's bytes. Raises UsageError where it is gone or holds others than when it was marked. A new date or
        another name changes nothing.

        A converted file that is damaged is removed, so that preparing makes it anew.
        """
        try:
            with opened(path) as file:
                before = stamp_of(os.fstat(file.fileno()))
                data = file.read()
                after = stamp_of(os.fstat(file.fileno()))
        except OSError as error:
            raise unreadable(path, error) from None
        if path in self._hashes and not before == after == self._stamps[path]:
            self._compare(path, before, data)  # what was written since then has another stamp
        return data

    def pixels(self, path: Path, flags: int, size: tuple[int, int]) -> np.ndarray:
        """The decoded file as its mark says that it is turned: a picture (H, W, 3) uint8 RGB for `COLOUR`, a mask
        (H, W) uint8 of class indices for `LABEL`. size: its height and width, so turned, when it was prepared. Raises
        UsageError as `read` here and in decode do."""
        orientation = self.orientation(path)
        return turned(read(path, flags, turned_size(size, orientation), data=self.read(path)), orientation)

    def orientation(self, path: Path) -> int:
        """The tag by which the file's pixels are turned."""
        return self._turned.get(path, UPRIGHT)

    def check(self, path: Path, stamp: Stamp) -> None:
        """Reads a file that has another stamp than when it was marked, and raises as that does. A converted one is what
        its name says."""
        if path in self._hashes and path not in self._converted and stamp != self._stamps[path]:
            self.read(path)

    def _compare(self, path: Path, stamp: Stamp, data: bytes) -> None:
        if hash_of(data) == self._hashes[path]:
            self._stamps[path] = stamp
        elif path in self._converted:
            path.unlink(missing_ok=True)
            raise UsageError(f"{path}: was damaged and is removed; run `semiseg prepare`, which makes it anew")
        else:
            raise UsageError(f"{path}: changed since it was prepared; run `semiseg prepare` and start again")


def stamp_of(stat: os.stat_result) -> Stamp:
    """What a file is known by without reading it."""
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def hash_of(data: bytes | memoryview) -> str:
    """What a file is known by: 16 hex digits."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()
