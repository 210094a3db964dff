"""U2PL on your own images: those with masks are labelled, all others are not."""

from dataclasses import replace

from semiseg.engine.recipe import Recipe
from semiseg.recipes import own
from semiseg.recipes.supervised_folder import recipe as supervised


def recipe() -> Recipe:
    return replace(supervised(), name="u2pl_folder", method=own.u2pl(), unlabeled=supervised().labeled)


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
