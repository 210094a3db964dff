"""CAC on your own images: those with masks are labelled, all others are not."""

from dataclasses import replace

from semiseg.engine.methods.cac import CacConfig
from semiseg.engine.recipe import Recipe
from semiseg.recipes.cac_voc import recipe as voc
from semiseg.recipes.supervised_folder import recipe as supervised


def recipe() -> Recipe:
    pairs = replace(voc().unlabeled, scale="own", range=(0.8, 1.5), longest=supervised().labeled.longest)
    return replace(supervised(), name="cac_folder", method=CacConfig(), unlabeled=pairs)


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
