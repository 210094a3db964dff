"""Supervised baseline on Cityscapes with the numbers of CAC: DeepLabv3+, crop 720."""

from dataclasses import replace

from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes.schedule import SPLIT
from semiseg.recipes.supervised_voc import recipe as voc


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    return replace(
        voc(SPLIT, backbone),
        name="supervised_cityscapes",
        layout="cityscapes",
        split=split,
        crop=720,
        lr=0.1,
        labeled=Augmentation(base=2048 / 720, range=(0.5, 2.0), jitter=1.0),
        evaluation=Evaluation(native_crop=720),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
