"""How settings look as flags."""

from __future__ import annotations

from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")


def _hint(default: str) -> str:
    return "" if default in ("None", "False") else f"(here: {default})"


Told = Annotated[T, tyro.conf.arg(help_behavior_hint=_hint)]
"""A setting whose text says what holds without it, so that the default's value need not stand behind: None, or False.
Where a recipe sets another, it does."""
