"""What is known of files that were decoded, and how it is kept from one preparation to the next."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from ..cache import write_atomically
from ..decode import UPRIGHT, turned_size
from ..documents import read_sealed, sealed
from ..watch import Mark, Stamp, hash_of

VERSION = 9
IMAGES, MASKS, RECOLOURED, MERGED = "images", "masks", "recoloured", "merged"
"""What a file was decoded as. Converted files lie in folders of these names, but for masks whose values were mapped:
theirs is named by the `Remap`."""
ROLES = IMAGES, MASKS, RECOLOURED, MERGED
Key = tuple[str, str]
"""What a file was decoded as, and its path: the same file may be a picture and a mask."""

_TYPES = (int,) * 6 + (str, bool, bool, bool, dict, dict)
_VALUES = {str(value) for value in range(256)}
_COLOUR = re.compile("[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class Copy:
    """A converted file."""

    name: str
    """Relative to the cache folder. It has the hash of what it was made from, so that it is never taken for the copy
    of another file."""
    size: int
    """In bytes."""
    hash: str

    def lies_in(self, folder: Path) -> bool:
        """Whether it is there to be read and, as far as its size tells, whole."""
        path = f"{folder}/{self.name}"
        try:
            return os.stat(path).st_size == self.size and os.access(path, os.R_OK)
        except OSError:
            return False

    def is_whole(self, folder: Path) -> bool:
        """Whether it holds what was written."""
        return self.lies_in(folder) and hash_of((folder / self.name).read_bytes()) == self.hash


@dataclass(slots=True)
class Facts:
    """What decoding one file told."""

    stamp: Stamp
    hash: str
    height: int = 0
    width: int = 0
    """Upright."""
    copy: Copy | None = None
    """The converted file, where there is one, upright."""
    stored: Copy | None = None
    """Of a turned file, the converted one as it is stored."""
    orientation: int = UPRIGHT
    """The tag."""
    first: bool = False
    """Whether a picture is the first of several pages or frames."""
    counts: dict[str, int] = field(default_factory=dict)
    """A mask's pixels of each class index."""
    colours: dict[str, str] = field(default_factory=dict)
    """The colour of each index that an indexed mask uses, as hex digits; of one in colour, of each place."""
    palette: str | None = None
    """A name for the palette of an indexed mask."""
    bits: bool = False
    """Whether the mask has a single bit, whose colours nobody chose."""
    coloured: bool = False
    """Whether the mask is in colour: what classes it shows, only a class list with colours can say."""

    def mark(self, as_stored: bool) -> Mark:
        """What is to be known of the file that is read: a copy, or itself."""
        if copy := self.used(as_stored):
            return Mark(None, copy.hash)
        return Mark(self.stamp, self.hash, UPRIGHT if as_stored else self.orientation)

    @property
    def copies(self) -> tuple[Copy, ...]:
        """In the cache."""
        return tuple(copy for copy in (self.copy, self.stored) if copy)

    @property
    def mapping(self) -> str | None:
        """The name of the `Remap` that a mask's values went through."""
        folder = self.copy.name.partition("/")[0] if self.copy else MASKS
        return None if folder in (IMAGES, MASKS) else folder

    def size(self, as_stored: bool) -> tuple[int, int]:
        """Height and width, upright or before the file is turned."""
        size = self.height, self.width
        return turned_size(size, self.orientation) if as_stored else size

    def used(self, as_stored: bool) -> Copy | None:
        """The converted file that is used, None for the file itself."""
        return self.stored if as_stored and self.orientation != UPRIGHT else self.copy


def load_facts(path: Path) -> dict[Key, Facts]:
    """The facts of the last manifest: none where it is missing, broken or of another version, and none of a file about
    which it says what cannot be."""
    try:
        content = read_sealed(path)
        if content["version"] != VERSION:
            return {}
        files = [(role, name, one) for role in ROLES for name, one in content["files"].get(role, {}).items()]
    except (ValueError, KeyError, AttributeError):
        return {}
    known = {}
    for role, name, one in files:
        try:
            known[role, name] = _facts(one)
        except (TypeError, ValueError):
            continue
    return known


def _facts(values: dict[str, Any]) -> Facts:
    """The facts that JSON holds. Raises TypeError or ValueError for what cannot be those of a file: the names of copies
    lead nowhere but into the cache."""
    facts = Facts(**values)
    facts.stamp = tuple(values["stamp"])
    if (copy := values.get("copy")) is not None:
        facts.copy = Copy(**copy)
    if (stored := values.get("stored")) is not None:
        facts.stored = Copy(**stored)
    sides, counts, colours = (facts.height, facts.width), facts.counts, facts.colours
    flags = facts.first, facts.bits, facts.coloured
    plain = (*facts.stamp, *sides, facts.orientation, facts.hash, *flags, counts, colours)
    good = (
        tuple(map(type, plain)) == _TYPES
        and all(0 < side < 2**31 for side in sides)
        and 1 <= facts.orientation <= 8
        and type(facts.palette) in (str, NoneType)
        and all(_is_plausible(copy) for copy in facts.copies)
        and _VALUES.issuperset(counts)
        and all(type(pixels) is int and pixels > 0 for pixels in counts.values())
        and (not counts or sum(counts.values()) == facts.height * facts.width)
        and _VALUES.issuperset(colours)
        and all(_COLOUR.fullmatch(colour) for colour in colours.values())
    )
    if not good:
        raise ValueError("not the facts of a file")
    return facts


def _is_plausible(copy: Copy) -> bool:
    name = copy.name
    typed = tuple(map(type, (name, copy.size, copy.hash))) == (str, int, str)
    return typed and os.path.normpath(name) == name and not name.startswith(("/", ".."))


def save_facts(path: Path, facts: dict[Key, Facts]) -> None:
    """Writes the file whole or not at all."""
    files: dict[str, dict[str, dict]] = {}
    for (role, name), fact in facts.items():
        files.setdefault(role, {})[name] = asdict(fact)
    content = sealed({"version": VERSION, "files": files})
    write_atomically(path, content)
