"""How settings look as flags."""

from __future__ import annotations

from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")
Told = Annotated[T, tyro.conf.arg(help_behavior_hint="")]
"""A setting whose text says what holds without it, so that the default's value need not stand behind."""
