"""CPS with CutMix on the embedded data set: the supervised recipe with another method."""

from dataclasses import replace

from semiseg.engine.recipe import Recipe
from semiseg.recipes import own
from semiseg.recipes.supervised_shapes import recipe as supervised


def recipe() -> Recipe:
    return replace(supervised(), name="cutmix_cps_shapes", method=own.cutmix_cps())


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
