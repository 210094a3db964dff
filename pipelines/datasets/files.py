"""What layouts find files with: pictures by name, text of lists."""

from __future__ import annotations

import codecs
import errno
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError, some_of
from .dataset import IMAGE_SUFFIXES, USUAL_SUFFIXES

_PART = re.compile(
    r"(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:at(?:ion|ing))?)?|eval(?:uation)?|dev|hold[-_]?out)|(?P<test>test(?:s|ing)?))"
    r"(?:[-_ ]?(?:set|split|data|images?|imgs?))?[-_ ]?\d*",
    re.IGNORECASE,
)
"""What folders of a part are called: `val/`, `Validation/`, `val2017/`, `test_images/`."""
UNREAD = {
    ".heic", ".heif", ".jxl", ".psd", ".xcf", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".exr",
    ".hdr", ".pfm", ".svg", ".eps", ".tga", ".ico", ".pcx", ".npy", ".npz", ".mat", ".dcm", ".nii", ".nii.gz", ".nrrd",
    ".mha", ".h5",
}  # fmt: skip
"""Extensions of pictures, and of arrays that hold some, that are not read."""
LEFT_BEHIND = {
    "__macosx", "@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "lost+found", "thumbs.db",
    "desktop.ini", "system volume information",
}  # fmt: skip
"""What operating systems and network disks put among a user's files."""
SHOWN = 4
"""Folders that a message names."""
PREDICTED = ("masks", "colours", "overlays")
"""The folders that a prediction writes, by which its results are known."""
RUN = "recipe.json"
RUN_FILES = {"environment.json", "split.json", "log.jsonl", "checkpoints"}
"""What the folder of a run holds, by which it is known: its recipe and any of the others."""


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file in UTF-8, with a byte order mark or without.

    `what` names its kind in messages. Raises UsageError where it is missing, in another encoding or no file.
    """
    path = Path(path)
    try:
        if not path.exists():  # nor can it under a name with a zero byte
            raise UsageError(f"the {what} {path} does not exist: check the path")
        if not path.is_file():  # a pipe would never end
            raise UsageError(f"the {what} {path} is no file: pass a text file")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the {what} {path} cannot be read ({error.strerror}): make it readable") from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = "it is UTF-16" if wide else f"line {line} is not UTF-8"
        raise UsageError(f"the {what} {path} cannot be read ({reason}): save it as UTF-8 text") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UsageError(
            f"the {what} {path}, line {line}, holds zero bytes (UTF-16, or no text): save it as UTF-8 text"
        )
    return re.split(r"\r\n|\n|\r", text)


@dataclass(slots=True)
class Pictures:
    """The pictures below a folder, and what else lies there."""

    folder: Path
    names: list[str] = field(default_factory=list)
    """Relative to the folder, with `/` between."""
    others: Counter[str] = field(default_factory=Counter)
    """How many files there are of each other extension."""
    odd: list[str] = field(default_factory=list)
    """What is called like a picture and is no file: empty folders, pipes, devices, links to nothing."""
    results: list[str] = field(default_factory=list)
    """Folders that a training or a prediction has written."""

    twins: list[str] = field(default_factory=list)
    """Pictures that gave way to one of the same name and a more usual extension."""
    eclipsed: list[str] = field(default_factory=list)
    """Pictures whose whole name is what another is known by: `a.jpg` beside `a.jpg.png`."""

    def by_stem(self) -> dict[str, Path]:
        """The pictures by their relative name without extension, in Unicode's composed form whatever the disk has.

        Raises UsageError where two differ in nothing but the extension, both of them usual, or the form.
        """
        found: dict[str, str] = {}
        for name in self.names:
            stem = stem_of(name)
            other = found.get(stem)
            if other is None:
                found[stem] = name
            elif (usual := _suffix(name) in USUAL_SUFFIXES) != (_suffix(other) in USUAL_SUFFIXES):
                self.twins.append(other if usual else name)
                found[stem] = name if usual else other
            else:
                both = f"both {os.path.basename(other)} and {os.path.basename(name)}"
                if composed(other) == composed(name):
                    both = f"{composed(name)} in two Unicode forms, a Mac's and another"
                raise UsageError(f"{self.folder} holds {both}: keep one of them")
        self.eclipsed = [name for name in self.names if composed(name) in found]
        return {stem: self.folder / name for stem, name in found.items()}

    def unread(self) -> str:
        """The pictures in formats that are not read, by extension, in words; nothing where there are none."""
        return ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.others.items()) if suffix in UNREAD)

    def notes(self, format: str = "PNG or JPEG") -> Iterator[str]:
        """What was passed over, one line each. `format`: what pictures that cannot be read are to be saved as."""
        if unread := self.unread():
            yield f"{self.folder} holds files that are not read ({unread}): save them as {format} to use them"
        if self.odd:
            yield f"{len(self.odd)} names in {self.folder} are of no files and are passed over, {self.odd[0]} for one"
        if self.twins:
            yield f"{self.folder} holds {self.twins[0]} beside one of a more usual extension, which is used instead"
        if self.eclipsed:
            name = self.eclipsed[0]
            yield f"{self.folder} holds {name} and a picture with one more extension, which lists mean by {name}"
        if self.results:
            yield f"{self.folder} holds results of semiseg, which are passed over: {', '.join(self.results[:3])}"


def orphan_notes(masks: Collection[str]) -> Iterator[str]:
    """A note about masks, by their ids, that belong to no image, where there are any."""
    if masks:
        yield f"{len(masks)} masks belong to no image, {min(masks)} for one: they are not used"


def holds_pictures(folder: Path) -> bool:
    """Whether a picture is called so at any depth of a folder, links to folders included; it ends with the first."""
    return any(_suffix(name) in IMAGE_SUFFIXES for _, names in walked(folder) for name in names)


def walked(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The folders at any depth of one, links to folders included, and the sorted names of the files in each; nothing
    that is hidden, and what systems leave behind. A folder that several links lead to comes once."""
    entered = {_identity(folder)}
    for home, folders, names in os.walk(folder, followlinks=True):
        inside = []
        for name in sorted(folders):
            if not name.startswith(".") and name.casefold() not in LEFT_BEHIND:
                identity = _identity(os.path.join(home, name))
                if identity not in entered:
                    entered.add(identity)
                    inside.append(name)
        folders[:] = inside
        yield home, sorted(name for name in names if not name.startswith("."))


def where_pictures_lie(root: Path, *passed_over: Path | None) -> str:
    """The folders below a root that hold pictures, but for some, with their numbers, for a message; nothing where none
    does."""
    apart = [folder for folder in passed_over if folder and folder != root]
    counts = Counter(os.path.dirname(name) for name in find_pictures(root, apart=apart).names)
    told = some_of(counts.most_common(), SHOWN, lambda one: f"{one[0] or '.'} ({one[1]})", more="more folders")
    return f"; pictures lie in {told}" if told else ""


def find_pictures(folder: Path, *, apart: Iterable[Path] = (), results: bool = False) -> Pictures:
    """The pictures at any depth of a folder, links to folders included; `apart` are folders that are not entered.

    What is hidden, and what systems leave behind, is passed over; so are folders of runs and the pictures that a
    prediction has written, unless `results` says that those right in this folder are meant. Nothing is opened. Raises
    UsageError for links that lead in a circle, for folders that cannot be read, and for pictures whose names no list
    could hold.
    """
    folder, found = Path(folder), Pictures(Path(folder))
    closed = {_identity(path) for path in apart}

    def walk(place: str, prefix: str, above: frozenset[tuple[int, int] | None]) -> None:
        entries = entries_of(place)
        names = {entry.name for entry in entries}
        if prefix and RUN in names and names & RUN_FILES:
            found.results.append(prefix)
            return
        written = PREDICTED if names.issuperset(PREDICTED) and (prefix or not results) else ()
        for entry in entries:
            name, relative = entry.name, prefix + entry.name
            if name.startswith(".") or name.casefold() in LEFT_BEHIND:
                continue
            suffix = _suffix(name)
            if is_folder(entry):
                identity = _identity(entry.path)
                if identity in above:
                    raise UsageError(f"the link {entry.path} leads back to a folder above it: remove the link")
                if identity in closed:
                    continue
                if name in written:
                    found.results.append(f"{relative}/")
                    continue
                before = len(found.names)
                walk(entry.path, f"{relative}/", above | {identity})
                if suffix in IMAGE_SUFFIXES and len(found.names) == before:
                    found.odd.append(relative)
            elif suffix not in IMAGE_SUFFIXES:
                found.others[suffix] += 1
            elif not entry.is_file():
                found.odd.append(relative)
            else:
                check_name(entry.path)
                found.names.append(relative)

    home = folder.resolve()
    walk(str(folder), "", frozenset(_identity(path) for path in (home, *home.parents)))
    return found


def part_of(name: str) -> str | None:
    """The part of a data set, train, val or test, that a folder of a name is of; None where it is of none."""
    found = _PART.fullmatch(name)
    return found and found.lastgroup


def check_name(name: str) -> None:
    """Raises UsageError for a name on disk that is not UTF-8 or has a line break: no list could hold it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the name {os.fsencode(name)!r} is not UTF-8: rename the file or its folder") from None
    if "\n" in name or "\r" in name:
        raise UsageError(f"the name {name!r} holds a line break: rename the file or its folder")


def composed(text: str) -> str:
    """Text in Unicode's composed form: an umlaut is one sign, and not a letter and two dots."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def stem_of(name: str) -> str:
    """The name of a picture without extension, in composed form: what it is known by."""
    return composed(os.path.splitext(name)[0])


def _suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name.lower())
    return f".nii{suffix}" if suffix == ".gz" and stem.endswith(".nii") else suffix


def entries_of(folder: str | Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name. Raises UsageError where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be read ({error.strerror}): make it readable") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one. Raises UsageError where it cannot be told."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise UsageError(f"{entry.path} cannot be read ({error.strerror}): make it readable") from None
        raise UsageError(f"the link {entry.path} leads to itself: remove the link") from None


def _identity(path: str | Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def first_folder(candidates: Iterable[Path], has: str) -> Path | None:
    """The first candidate that has a folder of that name."""
    return next((folder for folder in candidates if (folder / has).is_dir()), None)
