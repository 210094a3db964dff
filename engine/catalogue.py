"""The recipes that are installed, by name: the one place that knows recipes, and knows them by name alone."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from ..pipelines.errors import UsageError
from .recipe import Recipe


def recipes() -> list[str]:
    """Names of the recipes that are installed. They depend on the engine, so it knows them by name alone."""
    folder = importlib.import_module("semiseg.recipes").__path__
    return sorted(m.name for m in pkgutil.iter_modules(folder) if "_" in m.name)


def find_recipe(name: str) -> Callable[..., Recipe]:
    """The function that builds a recipe. Raises UsageError for an unknown name."""
    if name not in recipes():
        raise UsageError(f"train: no recipe is called {name!r}; there are {', '.join(recipes())}")
    return importlib.import_module(f"semiseg.recipes.{name}").recipe


def load_recipe(name: str) -> Recipe:
    """The recipe as its file states it. Raises UsageError for an unknown name."""
    return find_recipe(name)()
