"""Where a recipe's files are: absolute, from the root of the data, or moved with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..pipelines.datasets.layouts import PLACES, absolute
from ..pipelines.datasets.splits import absolute_spec
from ..pipelines.errors import UsageError, flag
from .recipe import Files, Recipe
from .serial import plain, typed


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths to all that it reads, so that it means the same in any working folder."""
    data = recipe.runtime.data and Path(recipe.runtime.data).expanduser().absolute()
    placed = absolute(recipe.layout, data, asdict(recipe.files)) if data else {}
    files = plain(recipe.files) | {name: str(path) for name, path in placed.items()}
    init, lists = (path and Path(path).expanduser().absolute() for path in (recipe.init, recipe.runtime.lists))
    named = recipe.weights in ("imagenet", "none")
    weights = recipe.weights if named else str(Path(recipe.weights).expanduser().absolute())
    split = absolute_spec(recipe.split)
    return recipe.replace(data=data, split=split, files=typed(Files, files), init=init, lists=lists, weights=weights)


def portable(recipe: Recipe) -> Recipe:
    """An anchored recipe with paths that stay the same where its data is moved: those of files from the root, and list
    files by name; what is in them is compared by itself."""
    files = from_root(plain(recipe.files), recipe.runtime.data)
    split = ",".join(os.path.basename(part) if os.path.isabs(part) else part for part in recipe.split.split(","))
    return recipe.replace(split=split, files=typed(Files, files))


def from_root(files: Mapping[str, Any], root: Path | str | None) -> dict[str, Any]:
    """Options of `find_dataset`, in which what lies below a root is named from there."""
    return {
        name: os.path.relpath(value, root) if root and _below(value, root) else value for name, value in files.items()
    }


def moved(files: Mapping[str, Any], before: Path | str | None, now: Path | str | None) -> dict[str, Any]:
    """Options of `find_dataset` for data that lies elsewhere now, or for other data of the same kind: places below the
    root are below the new one. Raises UsageError for one that lay outside, of which nobody knows whether it still
    holds."""
    if not before or same_place(now, before):
        return dict(files)
    found = from_root(files, before)
    for name in PLACES:
        if (place := found.get(name)) and os.path.isabs(place):
            raise UsageError(f"{flag('files.' + name)}: was {place}, outside of {before}; say what it is for {now}")
    return found


def same_place(now: Path | str | None, before: Path | str | None) -> bool:
    """Whether data is where it was in the training: nothing else is said, or the same."""
    return not now or (before is not None and Path(now).resolve() == Path(before).resolve())


def _below(place: Any, root: Path | str) -> bool:
    return isinstance(place, (str, Path)) and os.path.isabs(place) and Path(place).is_relative_to(root)
