"""List files, in the formats that were published: a bare id; `image label` separated by a space, a tab, a comma or a
semicolon, in quotes or not, with or without a leading slash and folders; Windows line ends.

Where a layout says which files there are, a list only *names* samples. So a list that says `labelTrainIds` fits a disk
that holds `labelIds`, and the names of a re-packed tree fit the official one. Among a user's own images, a file that a
list names and that is there is the one that is meant.
"""

from __future__ import annotations

import filecmp
import os
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Set
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


def read_list(path: Path, ids: Container[str] = ()) -> list[Entry]:
    """The entries of a list file, without empty lines and without a header of two columns. A line that is one of the
    known ids, with the blanks at its ends or without, is that, whatever else may be read in it. Raises UsageError if
    the file cannot be read or names nothing.
    """
    lines = [
        (number, line if composed(line) in ids else line.strip())
        for number, line in enumerate(read_lines(path, "list"), 1)
    ]
    lines = [(number, line) for number, line in lines if line]
    if lines and composed(lines[0][1]) not in ids and _HEADER.fullmatch(lines[0][1].replace('"', "")):
        del lines[0]
    entries = []
    for number, line in lines:
        entry = Entry(number, line, None) if composed(line) in ids else Entry(number, *split_line(line))
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
        image, label = (pair["image"], pair["label"] or "") if pair else (line, "")
    return _bare(image), _bare(label) or None


def _bare(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text


def parts_of(text: str) -> list[str]:
    """The folders and the name without extension of a path or id of a list."""
    *folders, name = _split(text) or [""]
    return [*folders, _stem(name)] if name else []


def _split(text: str) -> list[str]:
    return [part for part in composed(text.replace("\\", "/")).split("/") if part not in ("", ".")]


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _readings(text: str) -> tuple[list[str], tuple[str, ...]]:
    """The folders of a path or id, and what its name may stand for: itself, since ids may end as files do (that of
    `a.jpg.png` is `a.jpg`), or what is left without extension and without Cityscapes' ending."""
    *folders, name = _split(text) or [""]
    stem = _stem(name)
    return folders, (name, stem, _CITYSCAPES_TAIL.sub("", stem))


def alike(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, or to files that hold the same."""
    try:
        return os.path.samefile(one, other) or filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


class Names:
    """Finds which of the known ids a list means.

    A list may leave out the first folders of an id, where it means one alone, and may write the way to the images
    before them, on whatever disk. What folders it names of the id must be its own.

    Where lists may name files, a path to a file that is there means that file: the image of an id, or what holds the
    same under the same name, as in a copy of the data set. Any other file is none of the known ids, whatever its name.
    """

    def __init__(self, ids: Iterable[str] | Mapping[str, Path], root: Path | None = None):
        """ids: the known ones; with the paths of their images, what a list writes behind the images' folder must be the
        whole id. root: that of a data set whose lists may name files; the paths of images are needed then."""
        self.root = root
        images: Mapping[str, Path] = ids if isinstance(ids, Mapping) else {}
        self.images = images if root else {}
        self.by_path = {composed(str(image)): id for id, image in self.images.items()}
        self.ids = {composed(id): id for id in ids}
        self.depth = max((id.count("/") for id in self.ids), default=0) + 1
        self.by_last_part: dict[str, list[str]] = defaultdict(list)
        for id in self.ids.values():
            if "/" in id:
                self.by_last_part[composed(id.rpartition("/")[2])].append(id)
        self.homes = {home for id, image in images.items() if (home := _home(id, image))}

    @classmethod
    def of(cls, samples: Iterable[Sample], root: Path | None = None) -> Names:
        """The names of samples. root: where lists may name files."""
        return cls({sample.id: sample.image for sample in samples}, root)

    def match(self, text: str, folder: Path | None = None) -> str | None:
        """The id that is meant, or None if there is none or more than one. folder: that of the list."""
        file = self.file(text, folder)
        if file and (id := self.by_path.get(composed(str(file)))):
            return self.ids.get(composed(text), id)  # `a.jpg` is the id of `a.jpg.png`, though a.jpg may be there, too
        id = self.called(text)
        if file is None or id is None or len(_split(text)) == 1:  # a name alone is no path
            return id
        return id if alike(file, self.images[id]) else None

    def file(self, text: str, folder: Path | None) -> Path | None:
        """The file that a list in `folder` names, if it is there and lists may: below the root or that folder, leading
        slash or not, or absolute."""
        if self.root is None or folder is None:
            return None
        relative = text.replace("\\", "/").lstrip("/")
        for path in (self.root / relative, folder.absolute() / relative, Path(text)):
            if path.is_absolute() and os.path.isfile(path):
                return Path(os.path.normpath(path))
        return None

    def called(self, text: str) -> str | None:
        """The id that is called so, whatever files there are; None if there is none or more than one."""
        if (id := self.ids.get(composed(text))) is not None:  # its backslashes are no folders
            return id
        folders, spellings = _readings(text)
        for first in range(max(len(folders) + 1 - self.depth, 0), len(folders) + 1):
            for name in spellings:
                id = self.ids.get("/".join((*folders[first:], name)))
                if id is not None and self._leads_to(folders[:first], id):
                    return id
        fitting = self.meant(text)
        return fitting[0] if len(fitting) == 1 else None

    def is_own_mask(self, entry: Entry, sample: Sample) -> bool:
        """Whether the label of a line, which is no file here, is the mask that the line's sample has: its path ends as
        the line says, or the line says nothing about this disk and gives image and label one name."""
        if entry.label is None or sample.mask is None:
            return False
        if self._ends_as(entry.label, sample.mask):
            return True
        return not self._ends_as(entry.image, sample.image) and self.called(entry.label) == sample.id

    def _ends_as(self, text: str, file: Path) -> bool:
        """Whether a path of a list may be that of a file, wherever the data set was: the shorter ends the longer."""
        place = file.relative_to(self.root) if self.root and file.is_relative_to(self.root) else file
        said, own = parts_of(text), parts_of(str(place))
        common = min(len(said), len(own))
        return said[-common:] == own[-common:]

    def meant(self, text: str) -> list[str]:
        """The ids that end as a list says, sorted."""
        folders, spellings = _readings(text)
        for name in spellings:
            end = "/" + "/".join((*folders, name))
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
    and, unless lists may name files, for a line that pairs an image with the label of another.
    """
    found: list[tuple[str, Entry]] = []
    missing: list[Entry] = []
    for entry in read_list(path, names.ids):
        id = names.match(entry.image, path.parent)
        if id is None:
            missing.append(entry)
            continue
        if other := of_another(entry, id, names):
            raise UsageError(f"{path}, line {entry.line}: pairs the image {id} with the label of {other}: correct it")
        found.append((id, entry))
    if missing:
        raise UsageError(unknown(path, missing, names, f"among {where}"))
    return found


def of_another(entry: Entry, id: str, names: Names | None) -> str | None:
    """The other id whose label a line gives the image of `id`; None where it gives its own, or lists may name files. Of
    no known names, ids are those of published lists."""
    if entry.label is None or (names and names.root):
        return None
    other = names.called(entry.label) if names else plain_id(entry.label)
    return other if other != id else None


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
    entries = read_list(path, names.ids)
    matched = [names.match(entry.image, path.parent) for entry in entries]
    lost = [entry for entry, id in zip(entries, matched, strict=True) if id is None]
    first = lost and f"{shown(lost[0].image)} for one{names.doubt(lost[0].image)}"
    notes = [f"{len(lost)} of {len(entries)} lines of {path} name no image, {first}"] if lost else []
    return {id for id in matched if id is not None}, notes


def taught_too(ids: Set[str], test_list: Path) -> list[str]:
    """A warning about images for testing that a list for training names as well."""
    if not ids:
        return []
    which = f"{len(ids)} images of {test_list}, {min(ids)} for one"
    return [f"warning: {which}, are trained on, as a list for training names them, too: a test on them tells nothing"]


def left_alone(ids: Set[str], test_list: Path) -> list[str]:
    """A note about images that are neither trained nor validated on, as a list for testing names them."""
    return [f"{len(ids)} images of {test_list}, {min(ids)} for one, are left alone"] if ids else []
