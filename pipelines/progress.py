"""What a long call is given to tell by while it works. Nothing is printed here."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], object]
"""Is told in a line what was decided or done."""
Progress = Callable[[int, int], object]
"""Is told how many of how many are done."""


def say_nothing(text: str) -> None:
    """The `Say` of a caller who does not want to know."""


def show_nothing(done: int, total: int) -> None:
    """The `Progress` of a caller who does not want to know."""
