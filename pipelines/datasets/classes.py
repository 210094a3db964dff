"""Class lists, of whatever program: names and colours by label value."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError, some_of
from .dataset import IGNORE, IMAGE_SUFFIXES, NO_CLASS, ClassList, Colour, colour_of
from .files import composed, read_lines, voc_colours

_INT = r"[\"']?\d{1,9}[\"']?"
_STRONG = r"\s{0,9}[:=,;|\t]\s{0,9}"
_WEAK = r"(?:[.)]\s{1,9}|\s{1,9}-\s{1,9}|\s{1,9})"
_COLUMNS = tuple(
    re.compile(rf"(?P<before>(?:{_INT}{join}){{0,4}})(?P<name>[^\s#].*?)(?P<after>(?:{join}{_INT}){{0,4}})")
    for join in (_STRONG, _WEAK)
)
"""Lines of numbers around a name: what stands between them is a sign that no name has there, or may be part of one."""
_VALUES = {(1, 0): 0, (0, 1): 0, (4, 0): 0, (1, 3): 0}
_COLOURS = {(3, 0): 0, (0, 3): 0, (4, 0): 1, (1, 3): 1}
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
_CHANNELS = _PAINTS | {"r", "g", "b"}
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
FILES = (
    "classes.txt", "labelmap.txt", "class_names.txt", "_classes.csv", "train/_classes.csv", "class_dict.csv",
    "class_mapping.csv", "label_colors.txt", "labels.txt",
)  # fmt: skip
"""What class lists are called: ours, and those that other programs write beside the data."""
IGNORED = {"void", "ignore", "ignored", "unlabeled", "unlabelled"}
"""Names of what is no class, beside 255."""
HEADERS = re.compile(r"(class|category|label)?names?|class(es)?|categor(y|ies)|labels?")
"""First lines that are no class, in small letters and without what stands between words."""
HEADER_WORDS = frozenset({
    "class", "classes", "category", "categories", "label", "labels", "name", "names", "klasse", "klassen", "id", "ids",
    "trainid", "train", "index", "value", "number", "count", "type", "list", "object", "objects", "semantic",
    "segmentation", "my", "the", "of", "all",
})  # fmt: skip
"""What first lines of several words that are no class are made of."""
TITLES = frozenset({"klasse", "klassen"})
"""Those of them that say it as HEADERS do."""


def find_classes(*folders: Path) -> Path | None:
    """The class list in the first of some folders that has one; None where none has."""
    return next((file for folder in folders for name in FILES if (file := folder / name).is_file()), None)


def read_classes(path: Path) -> ClassList:
    """Names and colours from a class list, in the order of the label values from 0.

    One name a line, optionally followed by `#rrggbb` or red, green and blue; or value and name in each line (`0: road`,
    `0 road`, `road = 0`), in any order, under a header or not (Roboflow's `_classes.csv`); or CVAT's labelmap
    (`road:128,64,128::`); or the `names` of YOLO's `data.yaml`. Empty lines and comments (`# …`) do not count. What is
    called `__ignore__` or has the value 255 is no class. Lines of one name, each with a value or a colour of its own,
    are one class.
    Raises UsageError for anything else, naming the line: a header taken for a class would shift all names.
    """
    entries = _listed_classes(path)
    void = tuple(entry.colour for entry in entries if entry.name == NO_CLASS and entry.colour)
    listed = [entry for entry in entries if entry.name != NO_CLASS or entry.valued]
    stated = tuple(entry.colour for entry in listed)
    palette = tuple(colour or own for colour, own in zip(stated, voc_colours(len(listed))))
    found = ClassList(tuple(entry.name for entry in listed), palette, stated, void)
    count = len(found.classes) if len(listed) <= IGNORE else len(listed)
    if not 2 <= count <= IGNORE:
        raise UsageError(f"{path} names {count} classes: write one a line, 2 to {IGNORE}, background included")
    if both := next((entry.name for entry in listed if entry.name != NO_CLASS and entry.colour in void), None):
        raise UsageError(f"{path}: {both} has the colour of what is no class: give it its own")
    return found


def merging_notes(path: Path, listed: ClassList) -> Iterator[str]:
    """A note for each class of a list that stands for several values, or colours, and about values that are ignored."""
    for name in dict.fromkeys(listed.names):
        values = [value for value, of in enumerate(listed.names) if of == name]
        if name == NO_CLASS:
            yield f"{path} ignores pixels of value {some_of(values, 8)}"
        elif len(values) > 1:
            yield f"{name} stands in {len(values)} lines of {path}: values {some_of(values, 8)} are one class"


class _Row(NamedTuple):
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


class _Entry(NamedTuple):
    """A class, or what is none, which is called NO_CLASS."""

    line: int
    name: str
    colour: Colour | None
    valued: bool = False
    """Whether the line gives the label value."""


def _listed_classes(path: Path) -> list[_Entry]:
    """By label value; what is no class has none, unless its line gives one."""
    text = read_lines(path, "class list")
    if _is_json("\n".join(text)):
        raise UsageError(f"{path} is JSON, which is not read: write one class name a line, value 0 first")
    lines = [(number, re.sub(r"\s#\s.*", "", line).strip()) for number, line in enumerate(text, 1)]
    for number, line in lines:
        for pattern, fault in STRANGE.items():
            if re.match(pattern, line):
                raise UsageError(f"{path}, line {number}: {fault}")
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    rows = [_row(number, line) for number, line in _items(path, lines)]
    headed, top = (_is_header(rows[0]), rows[0].line) if rows else (False, 0)
    rows, void = _without_void(_below_header(path, rows))
    shape = _shape_of(rows)
    found = [*(_by_columns(path, rows, shape) if shape else _by_lines(path, rows)), *void]
    quoted = {row.line for row in rows if re.search(r"[\"']", row.text)}
    for number, name, *_ in found:
        if headed and number not in quoted and re.search(r"[,;|\t]", name.rstrip(",; ")):
            raise UsageError(
                f"{path}, line {number}: {name!r} is in several columns: leave those of value, name and colour alone"
            )
    entries = [_Entry(line, _plain(name), colour, valued) for line, name, colour, valued in found]
    shown: dict[str, list[Colour | None]] = {}
    for number, name, colour, valued in entries:
        if colour and max(colour) > 255:
            raise UsageError(f"{path}, line {number}: {colour} is not a colour: write red, green, blue up to 255")
        others = shown.setdefault(name, [])
        if others and name != NO_CLASS and not valued and (None in (colour, *others) or colour in others):
            raise UsageError(
                f"{path}, line {number}: the class {name!r} stands there twice: give each its own name or, if they are "
                "to be one class, all lines values ('0: road') or these two colours of their own"
            )
        if name.lower().endswith(IMAGE_SUFFIXES):
            raise UsageError(f"{path}, line {number}: {name!r} is a file, not a class: is this a class list?")
        if not name or re.search(r"[(\[]\s*\d+\s*[,\s]\s*\d+|[,;|]\s*[\d.]+$|#[0-9a-fA-F]{6}\b", name):
            raise UsageError(f"{path}, line {number}: {name!r} is no name of a class: write name, tab and #rrggbb")
        others.append(colour)
    first = entries[0] if entries and shape not in _VALUES else None
    # A class has a colour, or stands below a header.
    if first and first.line == top and not first.colour and _alone_is_header([entry.name for entry in entries]):
        raise _headed(path, first.line, first.name)
    return entries


def _alone_is_header(names: list[str]) -> bool:
    """Whether the first name is no class, but says what kind of list it is, or how long."""
    first, *others = names
    if HEADERS.fullmatch(re.sub(r"[\W_]", "", first.lower())):
        return True
    counted = first.isdigit() and int(first) == len(others) and not any(name.isdigit() for name in others)
    titled = first.endswith(":") and not any(name.endswith(":") for name in others)
    return counted or titled or (_says_header(first) and not any(map(_says_header, others)))


def _says_header(name: str) -> bool:
    words = re.findall(r"[^\W\d_]+", re.sub(r"\(\d+\)", "", name.lower()))
    numbered = re.search(r"\d", re.sub(r"\(\d+\)", "", name))
    titles = [word for word in words if HEADERS.fullmatch(word) or word in TITLES]
    return bool(titles) and not numbered and HEADER_WORDS.issuperset(words) and (len(words) > 1 or titles == words)


def _headed(path: Path, line: int, text: str) -> UsageError:
    cure = "take the line out or, if it is a class, write '0: NAME' and so on"
    return UsageError(f"{path}, line {line}: {text!r} looks like a header, not like a class: {cure}")


def _below_header(path: Path, rows: list[_Row]) -> list[_Row]:
    """The rows without a header, where all others give a colour. Raises UsageError for a first one that has columns as
    they have, and is no header that is known."""
    first, *others = rows or [_Row(0, "")]
    if not others or first.colour or not all(row.colour for row in others):
        return rows
    if _is_header(first):
        return others
    if re.search(r"[,;|\t]", first.text):
        raise UsageError(f"{path}, line {first.line}: gives no colour, as the other lines do: write name and colour")
    return rows


def _without_void(rows: list[_Row]) -> tuple[list[_Row], list[_Entry]]:
    """The rows of classes and, by itself, the one that says what is ignored, `255,void,0,0,0`; all rows where those
    have the columns that it has."""
    places = [
        place
        for place, row in enumerate(rows)
        if row.before == (IGNORE,) and len(row.after) in (0, 3) and (row.certain or row.name.lower() in IGNORED)
    ]
    if len(places) != 1:
        return rows, []
    void = rows[places[0]]
    others = [row for row in rows if row is not void]
    if any(row.shape == void.shape for row in others):
        return rows, []
    colour = colour_of(void.after) if void.after else void.colour
    return others, [_Entry(void.line, NO_CLASS, colour)]


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
        return [(number, _unquoted(line[2:].partition(" #")[0].strip())) for number, line in lines]
    return lines


def _plain(name: str) -> str:
    """A name without what stands around it."""
    name = composed(_unquoted(name.rstrip(",; ")))
    return NO_CLASS if name.lower() == NO_CLASS else name


def _unquoted(text: str) -> str:
    """Text without the quotes around it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _row(number: int, line: str) -> _Row:
    if cvat := re.fullmatch(r"(?P<name>.+):(?P<rgb>(\d+,\d+,\d+)?):[^:]*:[^:]*", line):
        rgb = colour_of(map(int, cvat["rgb"].split(","))) if cvat["rgb"] else None
        return _Row(number, cvat["name"].strip(), rgb)
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
            return _Row(number, text, colour, _unquoted(found["name"]), before, after, certain)
    return _Row(number, text, colour)


def _shape_of(rows: list[_Row]) -> tuple[int, int] | None:
    """The numbers before and after the name in lines of columns; None where lines are names alone.

    Names may hold numbers (`2 wheeler`, `type 1`): where blanks alone set them apart, they are columns only if all
    lines have them, around names that differ, or are those of colours around more than one name.
    """
    certain = Counter(row.shape for row in rows if row.certain)
    for shape, count in certain.most_common(1):
        if count >= max((len(rows) - _is_header(rows[0])) / 2, 2):
            return shape
    body = rows[1:] if rows and _is_header(rows[0]) else rows
    shapes = {row.shape for row in body}
    names = {row.name for row in body}
    differ = len(names) == len(body) or shapes <= _COLOURS.keys()
    return shapes.pop() if len(shapes) == 1 and len(names) > 1 and differ and body[0].name else None


def _is_header(row: _Row) -> bool:
    words = re.findall(r"[a-z]+", row.text.lower())
    named = not _PAINTS.issuperset(words) and not (len(words) == 2 and words[0] in _PAINTS)
    return len(words) > 1 and _COLUMN_WORDS.issuperset(words) and named


def _by_columns(path: Path, rows: list[_Row], shape: tuple[int, int]) -> list[_Entry]:
    if shape not in _VALUES | _COLOURS:
        raise UsageError(f"{path}, line {rows[-1].line}: more numbers than a value or a colour: write value and name")
    headed = rows[0].shape != shape and _is_header(rows[0])
    if headed:
        order = [word[0] for word in re.findall(r"[a-z]+", rows[0].text.lower()) if word in _CHANNELS]
        if len(order) == 3 and order != ["r", "g", "b"]:
            raise UsageError(f"{path}, line {rows[0].line}: has colours in another order: write red, green, blue")
    rows = rows[headed:]
    if odd := next((row for row in rows if row.shape != shape), None):
        what = "label value" if shape in _VALUES else "colour"
        raise UsageError(f"{path}, line {odd.line}: gives no {what}, as the other lines do: write {what} and name")
    entries = []
    for row in rows:
        numbers = (*row.before, *row.after)
        colour = colour_of(numbers[_COLOURS[shape] :]) if shape in _COLOURS else row.colour
        entries.append(_Entry(row.line, row.name, colour, shape in _VALUES))
    if shape not in _VALUES:
        return entries
    values = [(*row.before, *row.after)[_VALUES[shape]] for row in rows]
    void = []
    if values.count(IGNORE) == 1 and len(values) <= IGNORE + 1:
        place = values.index(IGNORE)
        own, _, _ = entries.pop(place), rows.pop(place), values.pop(place)
        void = [_Entry(own.line, NO_CLASS, own.colour)]
    if sorted(values) != list(range(len(rows))):
        wrong = next((row for row, value in zip(rows, values) if value >= len(rows)), rows[0])
        belongs = "" if wrong.certain else ", or write '0, NAME' and so on where numbers are part of names"
        raise UsageError(
            f"{path}, line {wrong.line}: the label values of {len(rows)} classes are 0 to {len(rows) - 1}, each once: "
            f"correct the values, and those of the masks{belongs}"
        )
    return [entry for _, entry in sorted(zip(values, entries))] + void


def _check_repeats(path: Path, rows: list[_Row]) -> None:
    """Raises UsageError for lines that blanks alone set numbers apart in, where these may be label values of classes
    that have several, or of none."""
    valued = [row for row in rows if row.shape in _VALUES]
    if row := next((row for row in valued if _plain(row.name) == NO_CLASS), None):
        raise UsageError(f"{path}, line {row.line}: {NO_CLASS} has a number: write label values as '0: {NO_CLASS}'")
    values = sorted((*row.before, *row.after)[_VALUES[row.shape]] for row in valued)
    names = {row.name for row in valued}
    if values == list(range(len(rows))) and 1 < len(names) < len(rows):
        name, _ = Counter(row.name for row in valued).most_common(1)[0]
        fault = f"several lines name {name!r}, with numbers that may be label values"
        raise UsageError(f"{path}: {fault}: write these as '0: {name}'")


def _by_lines(path: Path, rows: list[_Row]) -> list[_Entry]:
    """The classes of lines that are names. Raises UsageError for a header, and where they seem to give values all the
    same, or what is no colour."""
    if rows and _is_header(rows[0]) and re.search(r"[,;|\t]", rows[0].text):
        raise _headed(path, rows[0].line, rows[0].text)
    _check_repeats(path, rows[_is_header(rows[0]) :] if rows else [])
    numbers = [re.findall(r"\b\d{1,9}\b", row.text) for row in rows]
    if all(len(found) == 1 for found in numbers):
        values = [int(value) for (value,) in numbers]
        rests = {re.sub(r"\d+", "", row.text) for row in rows}
        if values != sorted(values) and sorted(values) == list(range(len(rows))) and len(rests) == len(rows):
            raise UsageError(
                f"{path}, line {rows[0].line}: seems to give a label value: write value and name, '0: road'"
            )
    first = [row.before[0] for row in rows if row.before]
    names = {(row.before[1:], row.name, row.after) for row in rows if row.before}
    if len(rows) == len({*first}) == len(names) and first != list(range(len(rows))):
        raise UsageError(
            f"{path}, line {rows[0].line}: every line begins with a number, which are not 0 to {len(rows) - 1} in this "
            "order: write label values as '0: road', and numbers that are part of names so, too ('0: 2 wheeler')"
        )
    begun = [re.match(r"(0[xX][0-9a-fA-F]+)[\s:,;=_-]|(\d{1,9})(?:_|\.0+[\s:,;=])", row.text) for row in rows]
    led = [int(found[1], 16) if found[1] else int(found[2]) for found in begun if found]
    if len(led) == len(rows) and led != sorted(led) and sorted(led) == list(range(len(rows))):
        raise UsageError(f"{path}, line {rows[0].line}: seems to give a label value: write value and name, '0: road'")
    given = {row.name: (*row.before, *row.after)[0] for row in rows if row.shape in ((1, 0), (0, 1))}
    seem = 2 * len(given) > len(rows) and len({*given.values()}) == len(given) and max(given.values()) < len(rows)
    for place, row in enumerate(rows):
        if row.certain or (seem and given.get(row.name, place) != place):
            raise UsageError(
                f"{path}, line {row.line}: gives a number, as other lines do not: give label values in all or in none"
            )
    if any(_plain(row.text) == NO_CLASS and not row.colour for row in rows[1:-1]):
        raise UsageError(f"{path}: {NO_CLASS} stands between classes, whose values it may shift: write value and name")
    for row in rows:
        short = re.search(r"[,;|\s](#[0-9a-fA-F]{1,8})$", row.text)
        colour = short[1] if short else row.text.partition("\t")[2].strip()
        if colour:
            raise UsageError(f"{path}, line {row.line}: {colour!r} is not a colour: write it as #rrggbb after the name")
    return [_Entry(row.line, row.text.strip(), row.colour) for row in rows]
