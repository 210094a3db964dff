"""CAC on Cityscapes as published: DeepLabv3+ R50, crop 720, a bank of the current step alone."""

from dataclasses import replace

from semiseg.engine.cli import main
from semiseg.engine.methods.cac import CacConfig
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes.supervised_cityscapes import recipe as supervised


def recipe() -> Recipe:
    return replace(
        supervised(),
        name="cac_cityscapes",
        method=CacConfig(weight=0.1, start=5 / 80, bank_steps=1),
        unlabeled=Augmentation(base=2048 / 720, range=(0.8, 2.0), jitter=0.8, gray=0.2, blur=0.5),
    )


if __name__ == "__main__":
    main(recipe)
