"""U2PL on the embedded data set: the supervised recipe with another method."""

from dataclasses import replace

from semiseg.engine.recipe import Recipe
from semiseg.recipes import own
from semiseg.recipes.supervised_shapes import recipe as supervised


def recipe() -> Recipe:
    return replace(supervised(), name="u2pl_shapes", method=own.u2pl())


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
