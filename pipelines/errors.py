"""Exceptions for what a user can cause and mend, and how several faults become one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class UsageError(ValueError):
    """Says in one line what is wrong, where, and the way out. The command line prints it and exits with code 2."""


class MissingPackages(ImportError):
    """Says what a part of the library needs that is not installed, and how it is. Exit code 2, as for UsageError."""


def flag(setting: str, prefix: str = "--") -> str:
    """A setting in the command line's words: `files.max_megapixels` is `--files.max-megapixels`."""
    return prefix + setting.replace("_", "-")


def fault_unless(holds: bool, field: str, rule: str, value: Any) -> list[str]:
    """The fault of a field whose rule does not hold: none, or one."""
    return [] if holds else [f"{field}: {rule}, is {value}"]


def some_of(
    values: Sequence[Any] | np.ndarray, shown: int, form: Callable[[Any], str] = str, more: str = "more"
) -> str:
    """The first few, and how many more there are: "a, b and 3 more"."""
    rest = len(values) - shown
    return ", ".join(map(form, values[:shown])) + (f" and {rest} {more}" if rest > 0 else "")


def raise_faults(faults: Iterable[str]) -> None:
    """Raises UsageError with all faults, if there are any."""
    faults = list(faults)
    if len(faults) == 1:
        raise UsageError(faults[0])
    if faults:
        listed = " ".join(f"({number}) {fault}" for number, fault in enumerate(faults, 1))
        raise UsageError(f"{len(faults)} faults: {listed}")
