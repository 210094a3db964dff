"""What a person sees: messages, tables and progress. Bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from .events import Event, Listener

NUMBER = re.compile(r"[+-]?\d[\d.,e +±()/%-]*|[+-]?(nan|inf)|-?")
"""A cell that is one, with its deviation or its share; or none."""
WIDEST = 1000
"""Columns of a table that is printed whole."""


def _open(*, stderr: bool) -> Console:
    # Into a file or a pipe, tables are as wide as they are.
    stream = sys.stderr if stderr else sys.stdout
    terminal = stream is not None and stream.isatty()  # None where it was closed from the start
    return Console(stderr=stderr, highlight=False, emoji=False, soft_wrap=True, width=None if terminal else 160)


_console = _open(stderr=False)


def use(*, stderr: bool) -> None:
    """Standard error keeps standard output free for the one JSON document of `--json`. What a stream's encoding does
    not have, as ASCII has no `…`, is escaped."""
    global _console
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            with suppress(ValueError, OSError):  # it is closed, or full
                stream.reconfigure(errors="backslashreplace")
    _console = _open(stderr=stderr)


def say(text: str) -> None:
    """A line, or several."""
    _console.print(text, markup=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, what others print is lost."""
    nowhere = io.StringIO()
    with redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Columns of numbers are aligned to the right, but for the first. Brackets in names are no markup. A terminal too
    narrow breaks the lines, and nothing is cut off."""
    grid = Table(box=None, pad_edge=False)
    for place, column in enumerate(columns):
        numbers = place > 0 and all(NUMBER.fullmatch(row[place]) for row in rows)
        grid.add_column(Text(column), justify="right" if numbers else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*map(Text, row))
    if title:
        _console.print(Text(title, style="bold"))
    _console.print(Segments(_console.render(grid, _console.options.update(width=WIDEST))))


@contextmanager
def listening() -> Iterator[Listener]:
    """A listener that shows events: on a terminal a bar for each work in progress, elsewhere the lines of the log."""
    if not _console.is_terminal:
        yield lambda event: None if event.kind == "progress" else say(event.text)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    tasks: dict[str, TaskID] = {}

    def move(work: str, done: int, total: int, note: str = "") -> None:
        if work not in tasks:
            tasks[work] = bars.add_task(work, total=total, note=note)
        bars.update(tasks[work], completed=done, total=total, note=note)
        if done >= total:
            bars.remove_task(tasks.pop(work))

    def show(event: Event) -> None:
        if event.kind == "log":
            move("training", event.done, event.total, f"loss {event.values['loss']:.3f}")
        elif event.kind == "progress":
            move(event.text, event.done, event.total)
        else:
            say(event.text)

    with Progress(*columns, console=_console, transient=True) as bars:
        yield show
