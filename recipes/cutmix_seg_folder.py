"""CutMix-Seg on your own images: those with masks are labelled, all others are not."""

from dataclasses import replace

from semiseg.engine.recipe import Recipe
from semiseg.recipes import colours, own
from semiseg.recipes.supervised_folder import recipe as supervised


def recipe() -> Recipe:
    strong = replace(supervised().labeled, **colours.CUTMIX_SEG)
    return replace(supervised(), name="cutmix_seg_folder", method=own.cutmix_seg(), unlabeled=strong)


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
