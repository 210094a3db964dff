"""Recipes by name, where they are installed, by their script or by a run: the one place that knows where they are."""

from __future__ import annotations

import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from ..pipelines.datasets.splits import check_spec
from ..pipelines.errors import UsageError
from .recipe import Recipe
from .run import Run

SCRIPTS: set[str] = set()
"""Folders of the recipe scripts that have run in this process."""


def recipes() -> list[str]:
    """Names of the recipes that are installed. They depend on the engine, so it knows them by name alone."""
    folder = importlib.import_module("semiseg.recipes").__path__
    return sorted(m.name for m in pkgutil.iter_modules(folder) if "_" in m.name)


def find_recipe(name: str) -> Callable[..., Recipe]:
    """The function that builds a recipe: of an installed one by its name, of another by its script, `mine/recipe.py`,
    of a run by its folder or its recipe.json. Raises UsageError for a name that is unknown and a script that is not
    there, or has no `recipe`."""
    if name.endswith(".py"):
        script = Path(name).expanduser().absolute()
        return _recipe_of(script, script.stat().st_mtime_ns if script.is_file() else 0)
    if name in recipes():
        return importlib.import_module(f"semiseg.recipes.{name}").recipe
    if run := run_called(name):
        return lambda: run.recipe.replace(out=None, resume=False)
    if Path(name).expanduser().exists():
        raise UsageError(f"{name}: not the folder of a run (no recipe.json), nor a recipe's script (.py)")
    near = get_close_matches(name, recipes(), 3)
    which = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(recipes())}"
    raise UsageError(f"no recipe is called {name!r}; {which}")


def run_called(name: str) -> Run | None:
    """The run whose folder, or recipe.json, a name is the path of, where it is not that of an installed recipe."""
    if name in recipes():
        return None
    path = Path(name).expanduser()
    folder = path.parent if path.name == "recipe.json" else path
    return Run(folder) if (folder / "recipe.json").is_file() else None


@cache
def _recipe_of(script: Path, changed: int) -> Callable[..., Recipe]:
    """What a script builds its recipe by; it runs once, and again when it has `changed`, as a module that finds those
    beside it."""
    if not script.is_file():
        raise UsageError(f"{script}: there is no such recipe script; pass its path, or the name of a recipe")
    folder = str(script.parent)
    for beside in script.parent.glob("*.py"):
        other = getattr(sys.modules.get(beside.stem), "__file__", None) or ""
        if os.path.dirname(other) in SCRIPTS - {folder}:
            raise UsageError(f"{script}: {beside.stem} is imported from {other}, of another recipe script; rename one")
    spec = importlib.util.spec_from_file_location(str(script), script)
    assert spec, script
    assert spec.loader, script
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where its dataclasses look it up
    if folder not in SCRIPTS:
        SCRIPTS.add(folder)
        sys.path.insert(0, folder)  # as of a script that python is given
    spec.loader.exec_module(module)
    build = getattr(module, "recipe", None)
    if not callable(build) or not isinstance(build(), Recipe):
        raise UsageError(f"{script}: has no function `recipe` that makes a Recipe (see docs/adding.md)")
    return build


def load_recipe(name: str, **settings: Any) -> Recipe:
    """The recipe of that name, script or run, as `find_recipe` knows them, with other settings, as with flags on the
    command line: what they leave open is derived from them, as there (see `adapted`; of a run, lr alone);
    `Recipe.replace` derives nothing.
    Settings of a part have its name before a dot: `**{"method.threshold": 0.9}`. Raises UsageError for an unknown name,
    and for values of another type."""
    build = find_recipe(name)
    return adapted(build, build().changed(settings))[0].changed(settings)


def adapted(build: Callable[..., Recipe], chosen: Recipe) -> tuple[Recipe, Recipe]:
    """The recipe that goes with a choice, and the one that it departs from. Published steps and weights hang on the
    split and on the backbone, lr on the batch (where `scale_lr` says so), switches on the fidelity. Raises UsageError
    for a split that cannot be."""
    check_spec(chosen.split, chosen.layout)
    known = inspect.signature(build).parameters
    original = build(**{name: getattr(chosen, name) for name in ("split", "backbone") if name in known})
    if chosen.fidelity != original.fidelity == "published":
        raise UsageError(
            f"--fidelity {chosen.fidelity}: this run is of the published program, with all its switches; start from "
            f"the recipe {original.name}"
        )
    recipe = original.as_published() if chosen.fidelity != original.fidelity else original
    if chosen.scale_lr == "linear" and chosen.batch != recipe.batch:
        recipe = recipe.replace(lr=recipe.lr * chosen.batch / recipe.batch)
    return recipe, original
