"""FixMatch on the embedded data set: the supervised recipe with another method and strong colours."""

from dataclasses import replace

from semiseg.engine.recipe import Recipe
from semiseg.recipes import colours, own
from semiseg.recipes.supervised_shapes import recipe as supervised


def recipe() -> Recipe:
    strong = replace(supervised().unlabeled, **colours.SHAPES)
    return replace(supervised(), name="fixmatch_shapes", method=own.fixmatch(), unlabeled=strong)


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
