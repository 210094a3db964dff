"""List files, in the formats that were published: a bare id; `image label` separated by a space or a tab, with or
without a leading slash and folders; Windows line ends.

A list only *names* samples, the files are found by the layout. So a list that says `labelTrainIds` fits a disk that
holds `labelIds`, and the names of a re-packed tree fit the official one.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from .dataset import IMAGE_SUFFIXES

_CITYSCAPES_TAIL = re.compile(r"_(leftImg8bit|gtFine(_label(Train)?Ids)?|gtCoarse(_label(Train)?Ids)?)$")
_PAIR = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))}))\s+(\S.*)", re.IGNORECASE)


class Entry(NamedTuple):
    """One line of a list: its number, what it says of the image (path or id) and of the label."""

    line: int
    image: str
    label: str | None


def read_list(path: Path) -> list[Entry]:
    """The entries of a list file, without empty lines. Raises UsageError if it cannot be read or names nothing."""
    try:
        lines = Path(path).read_bytes().decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UsageError(f"the list {path} does not exist: check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the list {path} cannot be read ({error}): pass a text file, one image a line") from None
    entries = [Entry(number, *split_line(line.strip())) for number, line in enumerate(lines, 1) if line.strip()]
    if not entries:
        raise UsageError(f"the list {path} is empty: write one image a line")
    return entries


def split_line(line: str) -> tuple[str, str | None]:
    """Image and label of a line. A space separates them only behind an image's extension: names may hold spaces."""
    if "\t" in line:
        image, _, label = line.partition("\t")
        return image.strip(), label.strip() or None
    pair = _PAIR.fullmatch(line)
    return pair.groups() if pair else (line, None)


def spellings(text: str) -> Iterator[str]:
    """The ids that a path or id of a list may mean, the most specific first."""
    path = text.replace("\\", "/").lstrip("/")
    stem, suffix = os.path.splitext(path)
    parts = [part for part in (stem if suffix.lower() in IMAGE_SUFFIXES else path).split("/") if part not in ("", ".")]
    for first in range(len(parts)):
        name = "/".join(parts[first:])
        yield name
        if plain := _CITYSCAPES_TAIL.sub("", name):
            yield plain


class Names:
    """Finds which of the known ids a list means. Where no spelling fits, an id may be meant by its last part alone."""

    def __init__(self, ids: Iterable[str]):
        self.ids = frozenset(ids)
        self.by_last_part: dict[str, list[str]] = defaultdict(list)
        for id in self.ids:
            if "/" in id:
                self.by_last_part[id.rpartition("/")[2]].append(id)

    def match(self, text: str) -> str | None:
        """The id that is meant, or None if there is none or more than one."""
        last = None
        for last in spellings(text):
            if last in self.ids:
                return last
        fitting = self.by_last_part.get(last or "", ())
        return fitting[0] if len(fitting) == 1 else None


def read_ids(path: Path, ids: Iterable[str] | Names, where: str) -> tuple[str, ...]:
    """The ids that a list names, in its order, each once.

    `ids` are the known ones and `where` says, for the message, where they were looked for. Raises UsageError for a name
    that is not known and for a line that pairs an image with the label of another.
    """
    names = ids if isinstance(ids, Names) else Names(ids)
    found: dict[str, None] = {}
    missing: list[Entry] = []
    for entry in read_list(path):
        id = names.match(entry.image)
        if id is None:
            missing.append(entry)
            continue
        if entry.label is not None and (other := names.match(entry.label)) not in (None, id):
            raise UsageError(f"{path}, line {entry.line}: pairs the image {id} with the label of {other}: correct it")
        found[id] = None
    if missing:
        more = f" (nor are {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UsageError(
            f"{path}, line {missing[0].line}: {missing[0].image} is not among {where}{more}: "
            "add the missing files or correct the list"
        )
    return tuple(found)


def plain_id(text: str) -> str:
    """The id of a path in a published list: the file name without extension and Cityscapes' endings."""
    name = text.replace("\\", "/").rpartition("/")[2]
    stem, suffix = os.path.splitext(name)
    return _CITYSCAPES_TAIL.sub("", stem if suffix.lower() in IMAGE_SUFFIXES else name)


def plain_ids(path: Path) -> tuple[str, ...]:
    """The ids of a published list, line by line. No data set is needed, folders do not count. Raises as `read_list`."""
    return tuple(plain_id(entry.image) for entry in read_list(path))


def read_ids_present(path: Path, names: Names) -> set[str]:
    """The ids that a list names and that are known; whatever else it names is passed over."""
    return {id for entry in read_list(path) if (id := names.match(entry.image)) is not None}
