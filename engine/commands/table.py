"""The table of a run's settings, beside those of the published program."""

from __future__ import annotations

from .. import console
from ..hyperparameters import settings, shown, summary
from ..recipe import Recipe


def show_settings(recipe: Recipe, default: Recipe, classes: int | None) -> None:
    """The effective values beside those of the published program, a star where they differ; of what is no part of the
    summary those that differ from it or from the recipe's own."""
    ours, usual, theirs = settings(recipe, classes), settings(default, classes), {}
    columns = ["", "effective"]
    if default.published:
        # Parameters are counted on the run's network: that it is another one is said once.
        theirs = settings(default.as_published().replace(network=recipe.network), classes)
        theirs |= {"network": default.as_published().network}
        columns.append(f"published ({default.published})")
    rows = []
    listed = summary(recipe, classes)
    for name in (*listed, *(name for name in ours if name not in listed)):
        value = ours[name]
        if name not in listed and value == usual.get(name) == theirs.get(name, value):
            continue
        mark = " *" if theirs and theirs.get(name) != value else ""
        rows.append([name, f"{shown(value)}{mark}", shown(theirs[name]) if name in theirs else ""])
    console.table(f"{default.name}", columns, [row[: len(columns)] for row in rows])
    if recipe.batch != default.batch:
        console.say(scaling(recipe, default))


def scaling(recipe: Recipe, default: Recipe) -> str:
    """What another batch than the recipe's has changed, and what it has not."""
    ratio = f"{recipe.batch}/{default.batch}"
    steps = round(recipe.steps * default.batch / recipe.batch)
    shows = f" (--steps {steps} shows as many images as with {default.batch})" if steps else ""
    unchanged = f"steps and weight decay as they are{shows}"
    if recipe.lr == default.lr * recipe.batch / default.batch:
        return f"batch: {ratio} of the recipe's, lr scaled alike to {recipe.lr:g} (--scale-lr none: not), {unchanged}"
    return f"batch: {ratio} of the recipe's, lr {recipe.lr:g} not scaled with it, {unchanged}"
