"""What a long call tells its caller while it works. The library prints nothing; the command line shows events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from ..pipelines.progress import Progress, Say


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    note: `text` says what was decided or done; of an evaluation `values` is the log line with its scores. ready: a run
    is about to start, `values` has its facts. progress: `done` of `total` of the work that `text` names. log: `values`
    is a log line of the run, `text` the same for a person.
    """

    kind: Literal["note", "ready", "progress", "log"]
    text: str
    done: int = 0
    total: int = 0
    values: dict[str, Any] = field(default_factory=dict)


WARNING = "warning: "
"""How the text of a note begins that is more than a note."""

Listener = Callable[[Event], object]
"""What it returns is nobody's concern."""


def silent(event: Event) -> None:
    """The listener that shows nothing."""


def note(text: str, on_event: Listener) -> None:
    """Tells the listener a note."""
    on_event(Event("note", text))


def notes_to(listener: Listener) -> Say:
    """`say(text)`, told to the listener as a note."""
    return partial(note, on_event=listener)


def progress_of(work: str, listener: Listener) -> Progress:
    """`progress(done, total)`, told to the listener as progress of `work`."""

    def progress(done: int, total: int) -> None:
        listener(Event("progress", work, done, total))

    return progress


def tell(what: str, notes: Iterable[str], on_event: Listener) -> None:
    """Says each note, and what it is about: of a warning behind the word."""
    for text in notes:
        mark = WARNING if text.startswith(WARNING) else ""
        note(f"{mark}{what}: {text.removeprefix(mark)}", on_event)
