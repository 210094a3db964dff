"""What a person sees: messages, tables and progress. Bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table


def _open(*, stderr: bool) -> Console:
    # Into a file or a pipe, tables are as wide as they are.
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, soft_wrap=True, width=None if terminal else 160)


_console = _open(stderr=False)


def use(*, stderr: bool) -> None:
    """Standard error keeps standard output free for the one JSON document of `--json`."""
    global _console
    _console = _open(stderr=stderr)


def say(text: str) -> None:
    _console.print(text, markup=False)


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Columns after the first are aligned to the right."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        grid.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    _console.print(grid)


@contextmanager
def progress(title: str, total: int) -> Iterator[Bar]:
    """A bar that `bar(done, total)` moves, `bar(done, total, note)` annotates; nothing at all without a terminal."""
    if not _console.is_terminal:
        yield Bar(None, 0)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=_console, transient=True) as bars:
        yield Bar(bars, bars.add_task(title, total=total, note=""))


class Bar:
    def __init__(self, bars: Progress | None, task: int):
        self._bars, self._task = bars, task

    @property
    def visible(self) -> bool:
        return self._bars is not None

    def __call__(self, done: int, total: int | None = None, note: str | None = None) -> None:
        if self._bars:
            changed = {"total": total} if total is not None else {}
            changed |= {"note": note} if note is not None else {}
            self._bars.update(self._task, completed=done, **changed)
