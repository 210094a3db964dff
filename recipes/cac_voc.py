"""CAC on Pascal VOC as published: DeepLabv3+ R50, crop 320, 8 labelled images and 8 pairs a step."""

from dataclasses import replace

from semiseg.engine.cli import main
from semiseg.engine.methods.cac import CacConfig
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes.supervised_voc import recipe as supervised


def recipe() -> Recipe:
    return replace(
        supervised(),
        name="cac_voc",
        method=CacConfig(weight=0.1, start=5 / 80, bank_steps=2),
        unlabeled=Augmentation(base=400 / 320, range=(0.8, 2.0), jitter=0.8, gray=0.2, blur=0.5),
    )


if __name__ == "__main__":
    main(recipe)
