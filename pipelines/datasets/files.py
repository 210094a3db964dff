"""What layouts find files with: images by name, class lists, colours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import UsageError
from .dataset import IGNORE, IMAGE_SUFFIXES, Colour


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
    """Names and colours from a class list: one name a line, in the order of the label values from 0, optionally
    followed by a tab and `#rrggbb`; classes without a colour get the one of the VOC colour map."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the class list {path} cannot be read ({error}): write one class name a line") from None
    names: list[str] = []
    colours: list[Colour | None] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, colour = (part.strip() for part in line.strip().partition("\t"))
        if name in names:
            raise UsageError(f"{path}, line {number}: the class {name!r} stands there twice: give each its own name")
        if colour and not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
            raise UsageError(f"{path}, line {number}: {colour!r} is not a colour: write it as #rrggbb after the tab")
        names.append(name)
        colours.append(tuple(bytes.fromhex(colour[1:])) if colour else None)
    if not 2 <= len(names) <= IGNORE:
        raise UsageError(f"{path} names {len(names)} classes: 2 to {IGNORE} are possible, background included")
    return tuple(names), tuple(own or default for own, default in zip(colours, voc_colours(len(names))))


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
