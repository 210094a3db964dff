"""Supervised baseline on your own images: folders of images and masks, crop 320, weights that pip brings."""

from dataclasses import replace

from semiseg.engine.commands.main import main
from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.recipes.supervised_voc import recipe as voc


def recipe() -> Recipe:
    return replace(
        voc(),
        name="supervised_folder",
        layout="folder",
        published="",
        split="all",
        backbone="efficientnet_lite0",
        steps=20_000,
        lr=0.05,
        backbone_lr=0.2,
        evaluation=Evaluation(long_side=1.25),
    )


if __name__ == "__main__":
    main(recipe)
