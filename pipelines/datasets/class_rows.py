"""The lines of a class list: what each says as a whole and, should it have columns, the numbers around a name."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from .dataset import Colour, colour_of
from .files import read_lines

_INT = r"[\"']?\d{1,9}[\"']?"
_STRONG = r"\s{0,9}[:=,;|\t]\s{0,9}"
_WEAK = r"(?:[.)]\s{1,9}|\s{1,9}-\s{1,9}|\s{1,9})"
_COLUMNS = tuple(
    re.compile(rf"(?P<before>(?:{_INT}{join}){{0,4}})(?P<name>[^\s#].*?)(?P<after>(?:{join}{_INT}){{0,4}})")
    for join in (_STRONG, _WEAK)
)
"""Lines of numbers around a name: what stands between them is a sign that no name has there, or may be part of one."""
VALUES = {(1, 0): 0, (0, 1): 0, (4, 0): 0, (1, 3): 0}
COLOURS = {(3, 0): 0, (0, 3): 0, (4, 0): 1, (1, 3): 1}
"""Where the label value, and red, green and blue, stand among so many numbers before and after the name."""
_TRIPLE = re.compile(
    r"(?P<text>.+?)(?:[,;|\t]\s*[\"']?(?P<blanks>\d{1,3} +\d{1,3} +\d{1,3})[\"']?"
    r"|[,;:|\t ]\s*[\"']?(?:rgb)?[(\[]\s*(?P<brackets>\d{1,3}(?:[,\s]\s*\d{1,3}){2})\s*[)\]][\"']?)",
    re.IGNORECASE,
)
"""A colour of three numbers in one column: `road,128 64 128`, `road,"rgb(128, 64, 128)"`."""
_HEX = re.compile(rf"(?P<text>.*?)(?:{_STRONG}|\s{{1,9}})(?P<colour>#[0-9a-fA-F]{{6}})")
_KEY = re.compile(r"[\"']?[A-Za-z_]\w*[\"']?\s*:(\s.*)?|---")
"""A line of YAML that names no class."""
_COLUMN_WORDS = frozenset({
    "pixel", "value", "values", "id", "ids", "index", "class", "classes", "name", "names", "label", "labels",
    "category", "trainid", "color", "colour", "colors", "colours", "hex", "rgb", "r", "g", "b", "red", "green", "blue",
    "categories", "supercategory", "group", "description", "code", "number",
})  # fmt: skip
"""All that the line over columns may say."""
_PAINTS = frozenset({"red", "green", "blue"})
"""Those of them that may belong to a name: `red label`."""
CHANNELS = _PAINTS | {"r", "g", "b"}
"""Those of them that say which column holds which part of a colour."""
STRANGE = {
    r"[{}\[\](),;:'\"]+$": "names no class: write one class name a line, value 0 first",  # of JSON
    r"//|[%;]": "seems to be a comment: begin comments with # and a blank",
    r"#(\d|[0-9a-fA-F]{6}\s)": "begins as comments do: write the name first, or put a blank behind #",
    r"[\"']?-\d|(?!#).*[\s:,;=|]-\d+[\"']?$": "has a value below 0, which no mask holds: leave the line out",
    r"\d+([\s,;:]+\d+)+$": "holds numbers alone: write the name of the class, too",
    r"[\"']?\d+\.\d+[\"']?\s*[,;:=|\t]": "begins with a number that is no whole one: write '0: road'",
}
"""Lines that are taken neither for a class nor for a comment, and what is said of them."""


class Row(NamedTuple):
    """A line of a class list: what it says as a whole and, should it have columns, the numbers around a name."""

    line: int
    text: str
    colour: Colour | None = None
    name: str = ""
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    certain: bool = False
    """Whether the numbers cannot be part of the name."""

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.before), len(self.after)

    @property
    def numbers(self) -> tuple[int, ...]:
        return (*self.before, *self.after)


def rows_of(path: Path) -> list[Row]:
    """The lines that name classes. Raises UsageError for JSON, and for a line that is neither a class nor a comment."""
    text = read_lines(path, "class list")
    if _is_json("\n".join(text)):
        raise UsageError(f"{path} is JSON, which is not read: write one class name a line, value 0 first")
    lines = [(number, re.sub(r"\s#\s.*", "", line).strip()) for number, line in enumerate(text, 1)]
    for number, line in lines:
        for pattern, fault in STRANGE.items():
            if re.match(pattern, line):
                raise UsageError(f"{path}, line {number}: {fault}")
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    return [_row(number, line) for number, line in _items(path, lines)]


def unquoted(text: str) -> str:
    """Text without the quotes around it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _row(number: int, line: str) -> Row:
    if cvat := re.fullmatch(r"(?P<name>.+):(?P<rgb>(\d+,\d+,\d+)?):[^:]*:[^:]*", line):
        rgb = colour_of(map(int, cvat["rgb"].split(","))) if cvat["rgb"] else None
        return Row(number, cvat["name"].strip(), rgb)
    triple = _TRIPLE.fullmatch(line)
    if triple and max(numbers := [int(n) for n in re.findall(r"\d+", triple["blanks"] or triple["brackets"])]) < 256:
        line = f"{triple['text']}\t#{bytes(numbers).hex()}"
    coloured = _HEX.fullmatch(line)
    text = coloured["text"] if coloured else line
    colour = colour_of(bytes.fromhex(coloured["colour"][1:])) if coloured else None
    for certain, columns in zip((True, False), _COLUMNS):
        found = columns.fullmatch(text)
        if found and (found["before"] or found["after"]):
            before, after = (tuple(map(int, re.findall(r"\d+", found[side]))) for side in ("before", "after"))
            return Row(number, text, colour, unquoted(found["name"]), before, after, certain)
    return Row(number, text, colour)


def shape_of(rows: list[Row]) -> tuple[int, int] | None:
    """The numbers before and after the name in lines of columns; None where lines are names alone.

    Names may hold numbers (`2 wheeler`, `type 1`): where blanks alone set them apart, they are columns only if all
    lines have them, around names that differ, or are those of colours around more than one name.
    """
    certain = Counter(row.shape for row in rows if row.certain)
    for shape, count in certain.most_common(1):
        if count >= max((len(rows) - is_header(rows[0])) / 2, 2):
            return shape
    body = rows[1:] if rows and is_header(rows[0]) else rows
    shapes = {row.shape for row in body}
    names = {row.name for row in body}
    differ = len(names) == len(body) or shapes <= COLOURS.keys()
    return shapes.pop() if len(shapes) == 1 and len(names) > 1 and differ and body[0].name else None


def is_header(row: Row) -> bool:
    """Whether a line names columns: words that do, two at least, of which no colour need be a class's."""
    words = re.findall(r"[a-z]+", row.text.lower())
    named = not _PAINTS.issuperset(words) and not (len(words) == 2 and words[0] in _PAINTS)
    return len(words) > 1 and _COLUMN_WORDS.issuperset(words) and named


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), (dict, list))
    except (ValueError, RecursionError):
        return False


def _items(path: Path, lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The lines that name classes: of YAML those below `names:`, without dashes."""
    start = next((at for at, (_, line) in enumerate(lines) if re.match(r"[\"']?names[\"']?\s*:", line)), None)
    if start is not None and all(_KEY.fullmatch(line) or line.startswith("-") for _, line in lines[:start]):
        number, line = lines[start]
        if line.partition(":")[2].partition("#")[0].strip():
            raise UsageError(f"{path}, line {number}: names all classes at once: write one class name a line")
        below = lines[start + 1 :]
        end = next((at for at, (_, line) in enumerate(below) if _KEY.fullmatch(line)), len(below))
        lines = below[:end]
    if lines and all(line.startswith("- ") for _, line in lines):
        return [(number, unquoted(line[2:].partition(" #")[0].strip())) for number, line in lines]
    return lines
