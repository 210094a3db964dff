"""Data sets: found on disk, split, verified and prepared."""

from .layouts import find_dataset
from .manifest import prepare, seen
from .splits import resolve_split

__all__ = ["find_dataset", "prepare", "resolve_split", "seen"]
