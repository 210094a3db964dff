"""CAC on the embedded data set: the supervised recipe with another method and the colours CAC needs."""

from dataclasses import replace

from semiseg.engine.methods.cac import CacConfig
from semiseg.engine.recipe import Recipe
from semiseg.recipes import colours
from semiseg.recipes.supervised_shapes import recipe as supervised


def recipe() -> Recipe:
    return replace(
        supervised(), name="cac_shapes", method=CacConfig(), unlabeled=replace(supervised().unlabeled, **colours.SHAPES)
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
