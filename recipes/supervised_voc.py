"""Supervised baseline on Pascal VOC with the numbers of CAC: DeepLabv3+, crop 320."""

from semiseg.engine.methods.programs import CAC_EPOCH_STEPS, CAC_EPOCHS, PROGRAMS
from semiseg.engine.methods.supervised import SupervisedConfig
from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes.schedule import SPLIT


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    return Recipe(
        name="supervised_voc",
        layout="voc",
        split=split,
        backbone=backbone,
        method=SupervisedConfig(),
        published=PROGRAMS["cac"].source,
        crop=320,
        steps=CAC_EPOCHS * CAC_EPOCH_STEPS,
        lr=0.01,
        labeled=Augmentation(base=400 / 320, range=(0.5, 2.0)),
        evaluation=Evaluation(native_crop=320),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
