"""Supervised baseline on your own images: folders of images and masks, crop 320, weights that pip brings.

Windows are cut at 0.5 to 1.5 times the images' own size, and images are evaluated at it; of large images three crops
count as their long side, so that a window shows more than a texture.

With methods that have unlabelled images all of a step's are one batch to the normalisations. Of batches that are
normalised apart running statistics are those of either in turn; networks that are evaluated by them ended several
points lower on photographs.
"""

from dataclasses import replace

from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes.supervised_voc import recipe as voc

LONGEST = 3.0


def recipe() -> Recipe:
    return replace(
        voc(),
        name="supervised_folder",
        layout="folder",
        published="",
        split="all",
        backbone="efficientnet_lite0",
        steps=20_000,
        optimizer="adamw",
        lr=3e-3,
        scale_lr="none",
        backbone_lr=0.3,
        weight_decay=0.01,
        batch_statistics="joint",
        labeled=Augmentation(scale="own", range=(0.5, 1.5), longest=LONGEST),
        evaluation=Evaluation(longest=LONGEST),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
