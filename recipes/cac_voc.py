"""CAC on Pascal VOC as published: DeepLabv3+, crop 320, 8 labelled images and 8 pairs a step; the bank holds the
negatives of two steps with ResNet-50 and of three with ResNet-101."""

from dataclasses import replace

from semiseg.engine.methods.cac import CacConfig
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes.schedule import SPLIT
from semiseg.recipes.supervised_voc import recipe as supervised


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    bank_steps = 3 if backbone == "resnet101" else 2
    return replace(
        supervised(split, backbone),
        name="cac_voc",
        method=CacConfig(weight=0.1, start=5 / 80, bank_steps=bank_steps),
        unlabeled=Augmentation(base=400 / 320, range=(0.8, 2.0), jitter=0.8, gray=0.2, blur=0.5),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
