"""Class lists, of whatever program: names and colours by label value."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError, some_of
from .class_rows import CHANNELS, COLOURS, VALUES, Row, is_header, rows_of, shape_of, unquoted
from .dataset import IGNORE, IMAGE_SUFFIXES, NO_CLASS, NO_VALUE, ClassList, Colour, colour_of, voc_colours
from .files import composed

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
COUNTS = re.compile(r"nc|(n|num|number|numberof|count|countof|total)(classes|labels|categories)|version")
"""What has a number in lists of other programs and is no class, in small letters and without what stands between."""


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
    nothing = [entry for entry in entries if entry.name == NO_CLASS or entry.value == IGNORE]
    void = tuple(entry.colour for entry in nothing if entry.colour)
    unvalued = (entry for entry in entries if entry.value is None and entry.name != NO_CLASS)
    listed = {entry.value: entry for entry in entries if entry.value not in (None, IGNORE)} or dict(enumerate(unvalued))
    values = [listed.get(value, _Entry(0, NO_VALUE, None)) for value in range(max(listed, default=-1) + 1)]
    stated = tuple(entry.colour for entry in values)
    palette = tuple(colour or own for colour, own in zip(stated, voc_colours(len(values))))
    of_255 = next((entry for entry in nothing if entry.value == IGNORE), None)
    found = ClassList(tuple(entry.name for entry in values), palette, stated, void, of_255.name if of_255 else "")
    doubtful = NO_VALUE in found.names or len(found.classes) < 2
    if of_255 and doubtful and of_255.name.lower() not in {*IGNORED, NO_CLASS}:
        cure = f"call it void, or give the classes gray levels as colours, not values ('{of_255.name} #ffffff')"
        raise UsageError(f"{path}, line {of_255.line}: 255 means ignore and cannot be {of_255.name}: {cure}")
    count = len(found.classes) if len(listed) <= IGNORE else len(listed)
    if not 2 <= count <= IGNORE:
        raise UsageError(f"{path} names {count} classes: write one a line, 2 to {IGNORE}, background included")
    if both := next((entry.name for entry in values if entry.name != NO_CLASS and entry.colour in void), None):
        raise UsageError(f"{path}: {both} has the colour of what is no class: give it its own")
    return found


def value_notes(path: Path, listed: ClassList) -> Iterator[str]:
    """Notes about values that are not those of the classes in their order: several of a class, or of none, and gaps."""
    if NO_VALUE in listed.names:
        yield f"label values of {path}: {some_of(listed.given, 8)}; masks of indices that hold others are refused"
    if listed.ignored.lower() not in {"", *IGNORED, NO_CLASS}:
        yield f"{path} calls 255 {listed.ignored!r}: in masks of indices 255 means ignore, and counts nowhere"
    for name in dict.fromkeys(listed.names):
        values = [value for value, of in enumerate(listed.names) if of == name]
        if name == NO_VALUE:
            continue
        if name == NO_CLASS:
            yield f"{path} ignores pixels of value {some_of(values, 8)}"
        elif len(values) > 1:
            yield f"{name} stands in {len(values)} lines of {path}: values {some_of(values, 8)} are one class"


class _Entry(NamedTuple):
    """A class, or what is none: that is called NO_CLASS, or has the value 255."""

    line: int
    name: str
    colour: Colour | None
    value: int | None = None
    """The label value, where the line gives it."""


def _listed_classes(path: Path) -> list[_Entry]:
    """By label value."""
    rows = rows_of(path)
    headed, top = (is_header(rows[0]), rows[0].line) if rows else (False, 0)
    rows, void = _without_void(_below_header(path, rows))
    shape = shape_of(rows)
    found = [*(_by_columns(path, rows, shape) if shape else _by_lines(path, rows)), *void]
    quoted = {row.line for row in rows if re.search(r"[\"']", row.text)}
    for number, name, _, value in found:
        if headed and value != IGNORE and number not in quoted and re.search(r"[,;|\t]", name.rstrip(",; ")):
            raise UsageError(
                f"{path}, line {number}: {name!r} is in several columns: leave those of value, name and colour alone"
            )
    entries = [_Entry(line, _plain(name), colour, value) for line, name, colour, value in found]
    shown: dict[str, list[Colour | None]] = {}
    for number, name, colour, value in entries:
        if colour and max(colour) > 255:
            raise UsageError(f"{path}, line {number}: {colour} is not a colour: write red, green, blue up to 255")
        if value == IGNORE:
            continue
        others = shown.setdefault(name, [])
        if others and name != NO_CLASS and value is None and (None in (colour, *others) or colour in others):
            raise UsageError(
                f"{path}, line {number}: the class {name!r} stands there twice: give each its own name or, if they are "
                "to be one class, all lines values ('0: road') or these two colours of their own"
            )
        if name.lower().endswith(IMAGE_SUFFIXES):
            raise UsageError(f"{path}, line {number}: {name!r} is a file, not a class: is this a class list?")
        if not name or re.search(r"[(\[]\s*\d+\s*[,\s]\s*\d+|[,;|]\s*[\d.]+$|#[0-9a-fA-F]{6}\b", name):
            raise UsageError(f"{path}, line {number}: {name!r} is no name of a class: write name, tab and #rrggbb")
        others.append(colour)
    first = entries[0] if entries and shape not in VALUES else None
    # A class has a colour, or stands below a header.
    if first and first.line == top and not first.colour and _alone_is_header([entry.name for entry in entries]):
        raise _header_fault(path, first.line, first.name)
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


def _header_fault(path: Path, line: int, text: str) -> UsageError:
    cure = "take the line out or, if it is a class, write '0: NAME' and so on"
    return UsageError(f"{path}, line {line}: {text!r} looks like a header, not like a class: {cure}")


def _below_header(path: Path, rows: list[Row]) -> list[Row]:
    """The rows without a header, where all others give a colour. Raises UsageError for a first one that has columns as
    they have, and is no header that is known."""
    first, *others = rows or [Row(0, "")]
    if not others or first.colour or not all(row.colour for row in others):
        return rows
    if is_header(first):
        return others
    if re.search(r"[,;|\t]", first.text):
        raise UsageError(f"{path}, line {first.line}: gives no colour, as the other lines do: write name and colour")
    return rows


def _without_void(rows: list[Row]) -> tuple[list[Row], list[_Entry]]:
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
    return others, [_Entry(void.line, void.name, colour_of(void.after) if void.after else void.colour, IGNORE)]


def _plain(name: str) -> str:
    """A name without what stands around it."""
    name = composed(unquoted(name.rstrip(",; ")))
    return NO_CLASS if name.lower() == NO_CLASS else name


def _by_columns(path: Path, rows: list[Row], shape: tuple[int, int]) -> list[_Entry]:
    if shape not in VALUES | COLOURS:
        raise UsageError(f"{path}, line {rows[-1].line}: more numbers than a value or a colour: write value and name")
    headed = rows[0].shape != shape and is_header(rows[0])
    if headed:
        order = [word[0] for word in re.findall(r"[a-z]+", rows[0].text.lower()) if word in CHANNELS]
        if len(order) == 3 and order != ["r", "g", "b"]:
            raise UsageError(f"{path}, line {rows[0].line}: has colours in another order: write red, green, blue")
        rows = rows[1:]
    if odd := next((row for row in rows if row.shape != shape), None):
        what = "label value" if shape in VALUES else "colour"
        raise UsageError(f"{path}, line {odd.line}: gives no {what}, as the other lines do: write {what} and name")
    colours = [colour_of(row.numbers[COLOURS[shape] :]) if shape in COLOURS else row.colour for row in rows]
    if shape not in VALUES:
        return [_Entry(row.line, row.name, colour) for row, colour in zip(rows, colours)]
    values = [row.numbers[VALUES[shape]] for row in rows]
    if count := next(
        (row for row in rows if row.after and COUNTS.fullmatch(re.sub(r"[\W_]", "", row.name.lower()))), None
    ):
        raise _header_fault(path, count.line, count.text)
    _check_values(path, rows, values)
    entries = (_Entry(row.line, row.name, colour, value) for row, colour, value in zip(rows, colours, values))
    return [entry for _, entry in sorted(zip(values, entries))]


def _check_values(path: Path, rows: list[Row], values: list[int]) -> None:
    """Raises UsageError for values that no class can have, and for any but 0, 1, … where these may be part of names."""
    of_classes = sorted(value for value in values if value != IGNORE)
    usual = of_classes == list(range(len(of_classes)))
    for row, value in zip(rows, values):
        if value > IGNORE or values.count(value) > 1:
            fault = "is no value of a mask of 8 bits" if value > IGNORE else "stands in several lines"
            cure = f"give each label value, 0 to {IGNORE - 1}, one line"
            raise UsageError(f"{path}, line {row.line}: the label value {value} {fault}: {cure}")
        if not (row.certain or usual):
            cure = f"write '{value}: {row.name}' and so on if they are, or '0: NAME' where numbers are part of names"
            raise UsageError(f"{path}, line {row.line}: label values would not be 0, 1, 2 and so on: {cure}")


def _check_repeats(path: Path, rows: list[Row]) -> None:
    """Raises UsageError for lines that blanks alone set numbers apart in, where these may be label values of classes
    that have several, or of none."""
    valued = [row for row in rows if row.shape in VALUES]
    if row := next((row for row in valued if _plain(row.name) == NO_CLASS), None):
        raise UsageError(f"{path}, line {row.line}: {NO_CLASS} has a number: write label values as '0: {NO_CLASS}'")
    values = sorted(row.numbers[VALUES[row.shape]] for row in valued)
    names = {row.name for row in valued}
    if values == list(range(len(rows))) and 1 < len(names) < len(rows):
        name, _ = Counter(row.name for row in valued).most_common(1)[0]
        fault = f"several lines name {name!r}, with numbers that may be label values"
        raise UsageError(f"{path}: {fault}: write these as '0: {name}'")


def _by_lines(path: Path, rows: list[Row]) -> list[_Entry]:
    """The classes of lines that are names. Raises UsageError for a header, and where lines seem to give label values or
    colours in a form that is not read."""
    if rows and is_header(rows[0]):
        if re.search(r"[,;|\t]", rows[0].text):
            raise _header_fault(path, rows[0].line, rows[0].text)
        _check_repeats(path, rows[1:])
    else:
        _check_repeats(path, rows)
    _check_numbers_of_all(path, rows)
    _check_numbers_of_some(path, rows)
    for row in rows:
        short = re.search(r"[,;|\s](#[0-9a-fA-F]{1,8})$", row.text)
        colour = short[1] if short else row.text.partition("\t")[2].strip()
        if colour:
            raise UsageError(f"{path}, line {row.line}: {colour!r} is not a colour: write it as #rrggbb after the name")
    return [_Entry(row.line, row.text.strip(), row.colour) for row in rows]


def _check_numbers_of_all(path: Path, rows: list[Row]) -> None:
    """Raises UsageError for names that all hold a number, where these may be label values in another order than that
    of the lines."""
    count = len(rows)

    def reordered(values: list[int]) -> bool:
        return values != sorted(values) and sorted(values) == list(range(count))

    numbers = [re.findall(r"\b\d{1,9}\b", row.text) for row in rows]
    alone = [int(found[0]) for found in numbers if len(found) == 1]
    rests = {re.sub(r"\d+", "", row.text) for row in rows}
    begun = [re.match(r"(0[xX][0-9a-fA-F]+)[\s:,;=_-]|(\d{1,9})(?:_|\.0+[\s:,;=])", row.text) for row in rows]
    leading = [int(found[1], 16) if found[1] else int(found[2]) for found in begun if found]
    if (len(rests) == count and reordered(alone)) or reordered(leading):
        raise UsageError(f"{path}, line {rows[0].line}: seems to give a label value: write value and name, '0: road'")
    first = [row.before[0] for row in rows if row.before]
    names = {(row.before[1:], row.name, row.after) for row in rows if row.before}
    if count == len({*first}) == len(names) and first != list(range(count)):
        raise UsageError(
            f"{path}, line {rows[0].line}: every line begins with a number, which are not 0 to {count - 1} in this "
            "order: write label values as '0: road', and numbers that are part of names so, too ('0: 2 wheeler')"
        )


def _check_numbers_of_some(path: Path, rows: list[Row]) -> None:
    """Raises UsageError for label values that some lines give and others do not, and for NO_CLASS without one between
    classes."""
    given = {row.name: row.numbers[0] for row in rows if row.shape in ((1, 0), (0, 1))}
    seem = 2 * len(given) > len(rows) and len({*given.values()}) == len(given) and max(given.values()) < len(rows)
    for place, row in enumerate(rows):
        if row.certain or (seem and given.get(row.name, place) != place):
            raise UsageError(
                f"{path}, line {row.line}: gives a number, as other lines do not: give label values in all or in none"
            )
    if any(_plain(row.text) == NO_CLASS and not row.colour for row in rows[1:-1]):
        raise UsageError(f"{path}: {NO_CLASS} stands between classes, whose values it may shift: write value and name")
