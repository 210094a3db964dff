"""The rows of results/: read for tables and plots, and added to by what measures."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semiseg.pipelines.errors import UsageError

RESULTS = Path(__file__).parent / "results"
Row = dict[str, str]


def appendable(path: Path | None) -> None:
    """For before a measurement that takes long. Raises UsageError where no row can be added to a CSV file."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--results: {path} cannot be added to ({error}): choose another file") from None
    if text and (not text.endswith("\n") or not text.partition("\n")[0].strip()):
        raise UsageError(f"--results: {path} has no header, or ends within a row: mend it, or choose another file")


def append(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Add rows to a CSV file, which gets a header if it is new. Raises UsageError where it has other columns."""
    appendable(path)
    try:
        _append(rows, path)
    except OSError as error:
        raise UsageError(f"--results: {path} cannot be added to ({error}): choose another file") from None


def _append(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    with path.open("a+", newline="") as file:
        file.seek(0)
        columns = next(csv.reader(file), None)
        writer = csv.DictWriter(file, columns or list(rows[0]))
        if missing := {name for row in rows for name in set(writer.fieldnames) ^ row.keys()}:
            raise UsageError(f"--results: {path} has other columns ({', '.join(sorted(missing))}); choose another file")
        if columns is None:
            writer.writeheader()
        writer.writerows(rows)


def rows_of(path: Path) -> list[Row]:
    """All rows of a CSV file; none of one that is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def committed(name: str) -> list[Row]:
    """All rows of results/NAME.csv."""
    return rows_of(RESULTS / f"{name}.csv")


def newest(name: str, *keys: str) -> list[Row]:
    """Of the committed rows that agree in `keys` the last."""
    return list({tuple(row[key] for key in keys): row for row in committed(name)}.values())
