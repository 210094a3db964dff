"""Kinds of files that people bring: each a tiny data set, and what must become of it. No picture is downloaded."""

from __future__ import annotations

from pathlib import Path

from . import damage, lists, masks, names, pictures
from .kind import Kind, sound

KINDS: dict[str, Kind] = pictures.KINDS | damage.KINDS | masks.KINDS | names.KINDS | lists.KINDS


def make(folder: Path, name: str) -> Path:
    """The data set of a kind, in a folder of its own; its root."""
    root = sound(folder / "own")
    KINDS[name].make(root)
    return root
