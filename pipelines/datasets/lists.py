"""List files, in the formats that were published: a bare id; `image label` separated by a space, a tab, a comma or a
semicolon, in quotes or not, with or without a leading slash and folders; Windows line ends.

A list only *names* samples, the files are found by the layout. So a list that says `labelTrainIds` fits a disk that
holds `labelIds`, and the names of a re-packed tree fit the official one.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from .dataset import IMAGE_SUFFIXES, Sample
from .files import composed, read_lines

_CITYSCAPES_TAIL = re.compile(r"_(leftImg8bit|gtFine(_label(Train)?Ids)?|gtCoarse(_label(Train)?Ids)?)$")
_END = rf"(?:{'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES, key=len, reverse=True)))})"
_QUOTED = re.compile(r"""(["'])(?P<image>.+?)\1(?:\s*[\s,;]\s*(["']?)(?P<label>.*)\3)?""")
_PAIR = re.compile(rf"(?P<image>.+?{_END})\s*[\s,;]\s*(?P<label>\S.*)", re.IGNORECASE)
_HEADER = re.compile(
    r"(image|img|file|photo|picture)s?([ _]?(name|path|file|id)s?)?\s*[\t,;]\s*"
    r"(mask|label|annotation|segmentation|target|gt)s?([ _]?(name|path|file|id)s?)?",
    re.IGNORECASE,
)
"""Names of two columns."""
SHOWN = 120
"""Signs of a line that a message shows."""


class Entry(NamedTuple):
    """One line of a list: its number, what it says of the image (path or id) and of the label."""

    line: int
    image: str
    label: str | None


def read_list(path: Path) -> list[Entry]:
    """The entries of a list file, without empty lines and without a header of two columns. Raises UsageError if it
    cannot be read or names nothing."""
    lines = [(number, line.strip()) for number, line in enumerate(read_lines(path, "list"), 1)]
    lines = [(number, line) for number, line in lines if line]
    if lines and _HEADER.fullmatch(lines[0][1].replace('"', "")):
        del lines[0]
    entries = []
    for number, line in lines:
        entry = Entry(number, *split_line(line))
        if entry.label and _PAIR.fullmatch(entry.label):
            raise UsageError(f"{path}, line {number}: {shown(line)} names more than an image and its mask: keep two")
        entries.append(entry)
    if not entries:
        raise UsageError(f"the list {path} is empty: write one image a line")
    return entries


def shown(text: str) -> str:
    """Text for a message, its middle left out where it is long."""
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 2 :]} ({len(text):,} signs)"


def split_line(line: str) -> tuple[str, str | None]:
    """Image and label of a line. A space or comma separates them only behind an image's extension: names may hold
    both."""
    if "\t" in line:
        image, _, label = line.partition("\t")
    else:
        pair = _QUOTED.fullmatch(line) or _PAIR.fullmatch(line)
        image, label = (pair["image"], pair["label"]) if pair else (line, None)
    return _bare(image), (label and _bare(label)) or None


def _bare(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text


def parts_of(text: str) -> list[str]:
    """The folders and the name without extension of a path or id of a list."""
    path = composed(text.replace("\\", "/"))
    stem, suffix = os.path.splitext(path)
    return [part for part in (stem if suffix.lower() in IMAGE_SUFFIXES else path).split("/") if part not in ("", ".")]


class Names:
    """Finds which of the known ids a list means.

    A list may leave out the first folders of an id, where it means one alone, and may write the way to the images
    before them, on whatever disk. What folders it names of the id must be its own.
    """

    def __init__(self, ids: Iterable[str] | Mapping[str, Path]):
        """ids: the known ones; with the paths of their images, what a list writes behind the images' folder must be the
        whole id."""
        self.ids = {composed(id): id for id in ids}
        self.depth = max((id.count("/") for id in self.ids), default=0) + 1
        self.by_last_part: dict[str, list[str]] = defaultdict(list)
        for id in self.ids.values():
            if "/" in id:
                self.by_last_part[composed(id.rpartition("/")[2])].append(id)
        self.homes = (
            {home for id, image in ids.items() if (home := _home(id, image))} if isinstance(ids, Mapping) else set()
        )

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Names:
        """The names of samples."""
        return cls({sample.id: sample.image for sample in samples})

    def match(self, text: str) -> str | None:
        """The id that is meant, or None if there is none or more than one."""
        parts = parts_of(text)
        for first in range(max(len(parts) - self.depth, 0), len(parts)):
            name = "/".join(parts[first:])
            for spelling in (name, _CITYSCAPES_TAIL.sub("", name)):
                id = self.ids.get(spelling)
                if id is not None and self._leads_to(parts[:first], id):
                    return id
        fitting = self.meant(text)
        return fitting[0] if len(fitting) == 1 else None

    def meant(self, text: str) -> list[str]:
        """The ids that end as a list says, sorted."""
        parts = parts_of(text)
        if not parts:
            return []
        for name in (parts[-1], _CITYSCAPES_TAIL.sub("", parts[-1])):
            end = "/" + "/".join((*parts[:-1], name))
            if fitting := [id for id in self.by_last_part.get(name, ()) if composed(id).endswith(end)]:
                return sorted(fitting)
        return []

    def doubt(self, text: str) -> str:
        """For a message about a name that is not found: why, if it may mean several."""
        fitting = self.meant(text)
        return f" (it may be {' or '.join(fitting[:3])}: write its folder)" if len(fitting) > 1 else ""

    def _leads_to(self, folders: list[str], id: str) -> bool:
        """Whether the folders before an id do not contradict it."""
        if not folders or folders[-1] in self.homes:
            return True
        if self.homes.intersection(folders):
            return False
        # Without the images' folder in the list, another image may be meant whose folders end so.
        return not any(other.endswith(f"/{id}") for other in self.by_last_part.get(id.rpartition("/")[2], ()))


def _home(id: str, image: Path) -> str | None:
    """The name of the folder that an id starts from; None where ids are not paths."""
    stem = os.path.splitext(composed(str(image)))[0]
    return os.path.basename(stem[: -len(id) - 1]) if stem.endswith(f"/{id}") else None


def read_entries(path: Path, names: Names, where: str) -> list[tuple[str, Entry]]:
    """The ids that a list names, line by line, each with its line.

    `where` says, for the message, where the known ids were looked for. Raises UsageError for a name that is not known
    and for a line that pairs an image with the label of another.
    """
    found: list[tuple[str, Entry]] = []
    missing: list[Entry] = []
    for entry in read_list(path):
        id = names.match(entry.image)
        if id is None:
            missing.append(entry)
            continue
        if entry.label is not None and (other := names.match(entry.label)) not in (None, id):
            raise UsageError(f"{path}, line {entry.line}: pairs the image {id} with the label of {other}: correct it")
        found.append((id, entry))
    if missing:
        raise UsageError(unknown(path, missing, names, f"among {where}"))
    return found


def unknown(path: Path, missing: list[Entry], names: Names, where: str) -> str:
    """The message about entries that name nothing that is known."""
    more = f" (nor are {len(missing) - 1} more)" if len(missing) > 1 else ""
    first = missing[0]
    return (
        f"{path}, line {first.line}: {shown(first.image)} is not {where}{names.doubt(first.image)}{more}: "
        "add the missing files or correct the list"
    )


def read_ids(path: Path, ids: Iterable[str] | Names, where: str) -> tuple[str, ...]:
    """The ids that a list names, in its order, each once. `ids` are the known ones; else as `read_entries`."""
    names = ids if isinstance(ids, Names) else Names(ids)
    return tuple(dict.fromkeys(id for id, _ in read_entries(path, names, where)))


def plain_id(text: str) -> str:
    """The id of a path in a published list: the file name without extension and Cityscapes' endings."""
    parts = parts_of(text)
    return _CITYSCAPES_TAIL.sub("", parts[-1]) if parts else ""


def plain_ids(path: Path) -> tuple[str, ...]:
    """The ids of a published list, line by line. No data set is needed, folders do not count. Raises as `read_list`."""
    return tuple(plain_id(entry.image) for entry in read_list(path))


def read_ids_present(path: Path, names: Names) -> tuple[set[str], list[str]]:
    """The ids that a list names and that are known, and a note about whatever else it names."""
    entries = read_list(path)
    matched = [names.match(entry.image) for entry in entries]
    lost = [entry for entry, id in zip(entries, matched, strict=True) if id is None]
    first = lost and f"{shown(lost[0].image)} for one{names.doubt(lost[0].image)}"
    notes = [f"{len(lost)} of {len(entries)} lines of {path} name no image, {first}"] if lost else []
    return {id for id in matched if id is not None}, notes
