"""CAC on Cityscapes as published: DeepLabv3+, crop 720, a bank of the current step alone."""

from dataclasses import replace

from semiseg.engine.methods.cac import CacConfig
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes.schedule import SPLIT
from semiseg.recipes.supervised_cityscapes import recipe as supervised


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    return replace(
        supervised(split, backbone),
        name="cac_cityscapes",
        method=CacConfig(weight=0.1, start=5 / 80, bank_steps=1),
        unlabeled=Augmentation(base=2048 / 720, range=(0.8, 2.0), jitter=0.8, gray=0.2, blur=0.5),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
