"""What layouts find files with: images by name, class lists, colours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import UsageError
from .dataset import IGNORE, IMAGE_SUFFIXES, Colour

VALUED = (
    re.compile(r"(?P<value>\d+)\s*[:,;\t]\s*(?P<name>[^\t#][^\t]*)"),
    re.compile(r"(?P<name>[^\t]+?)\s*[,;]\s*(?P<value>\d+)"),
)
"""Lines that give a label value and a name."""
HEADERS = {"name", "names", "class", "classes", "class name", "class names", "label", "labels", "label name"}
"""First lines that are no class."""


def voc_colours(count: int) -> tuple[Colour, ...]:
    """The colour map of the VOC devkit: bit i of the index goes to bit 7 - i // 3 of channel i % 3."""
    colours = []
    for index in range(count):
        rgb = [0, 0, 0]
        for bit in range(8):
            rgb[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colours.append(tuple(rgb))
    return tuple(colours)


def read_classes(path: Path) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
    """Names and colours from a class list, in the order of the label values from 0.

    One name a line, optionally followed by a tab and `#rrggbb`; or value and name in each line (`0: road`, `0, road`,
    `road, 0`), in any order, under a header or not (Roboflow's `_classes.csv`); or CVAT's labelmap
    (`road:128,64,128::`). Empty lines and comments (`# …`) do not count; classes without a colour get the one of the
    VOC colour map.
    Raises UsageError for anything else, naming the line: a header taken for a class would shift all names.
    """
    entries = _entries(path)
    default = voc_colours(len(entries))
    return tuple(entry[1] for entry in entries), tuple(entry[2] or own for entry, own in zip(entries, default))


def stated_colours(path: Path) -> tuple[Colour | None, ...]:
    """The colour that a class list gives each class, None where it gives none. Raises UsageError as `read_classes`."""
    return tuple(colour for _, _, colour in _entries(path))


def _entries(path: Path) -> list[tuple[int, str, Colour | None]]:
    """(line, name, colour) by label value."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the class list {path} cannot be read ({error}): write one class name a line") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    entries = _valued(path, lines) or [(number, *_name_and_colour(path, number, line)) for number, line in lines]
    seen: set[str] = set()
    for number, name, _ in entries:
        if name in seen:
            raise UsageError(f"{path}, line {number}: the class {name!r} stands there twice: give each its own name")
        seen.add(name)
    if entries and entries[0][1].lower().replace("_", " ") in HEADERS:
        number, name, _ = entries[0]
        raise UsageError(f"{path}, line {number}: {name!r} looks like a header, not like a class: take the line out")
    if not 2 <= len(entries) <= IGNORE:
        raise UsageError(f"{path} names {len(entries)} classes: 2 to {IGNORE} are possible, background included")
    return entries


def _valued(path: Path, lines: list[tuple[int, str]]) -> list[tuple[int, str, None]] | None:
    """(line, name, no colour) by label value, where lines give values; None where they do not."""
    for form in VALUED:
        found = [(number, form.fullmatch(line)) for number, line in lines]
        header = len(found) > 2 and not found[0][1]
        rows = found[1:] if header else found
        if not rows or sum(match is not None for _, match in rows) < max(len(rows) / 2, 2):
            continue
        odd = next((number for number, match in rows if match is None), None)
        if odd is not None:
            raise UsageError(f"{path}, line {odd}: gives no label value, as the other lines do: write value and name")
        values = {int(match["value"]): (number, match["name"].strip().strip("\"'"), None) for number, match in rows}
        if sorted(values) != list(range(len(rows))):
            wrong = next((n for n, m in rows if int(m["value"]) >= len(rows)), rows[0][0])
            raise UsageError(
                f"{path}, line {wrong}: the label values of {len(rows)} classes are 0 to {len(rows) - 1}, each once: "
                "correct the values, and those of the masks"
            )
        return [values[value] for value in range(len(rows))]
    return None


def _name_and_colour(path: Path, number: int, line: str) -> tuple[str, Colour | None]:
    if cvat := re.fullmatch(r"(?P<name>[^:]+):(?P<rgb>(\d+,\d+,\d+)?):[^:]*:[^:]*", line):
        rgb = tuple(int(value) for value in cvat["rgb"].split(",")) if cvat["rgb"] else None
        return cvat["name"].strip(), rgb
    name, _, colour = (part.strip() for part in line.partition("\t"))
    if colour and not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        raise UsageError(f"{path}, line {number}: {colour!r} is not a colour: write it as #rrggbb after the tab")
    return name, tuple(bytes.fromhex(colour[1:])) if colour else None


def files_by_stem(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Image files under a folder, at any depth, by their relative path without extension. Hidden ones are skipped.

    Raises UsageError where two files differ in nothing but the extension.
    """
    suffixes = tuple(suffixes)
    found: dict[str, Path] = {}
    for name in _walk(str(folder), ""):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in suffixes:
            continue
        if stem in found:
            raise UsageError(f"{folder} holds both {found[stem].name} and {os.path.basename(name)}: keep one of them")
        found[stem] = folder / name
    return found


def _walk(folder: str, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name


def first_folder(candidates: Iterable[Path], has: str) -> Path | None:
    """The first candidate that has a folder of that name."""
    return next((folder for folder in candidates if (folder / has).is_dir()), None)
