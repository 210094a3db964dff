"""Supervised baseline on the embedded data set, sized for two cores without a GPU."""

from semiseg.engine.methods.supervised import SupervisedConfig
from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.pipelines.views import Augmentation

CROP = 80
WINDOWS = Augmentation(base=1.5, range=(0.75, 1.5))


def recipe() -> Recipe:
    return Recipe(
        name="supervised_shapes",
        layout="shapes",
        method=SupervisedConfig(),
        split="draw:1/16@0",
        backbone="efficientnet_lite0",
        head_width=64,
        crop=CROP,
        batch=4,
        steps=600,
        lr=0.05,
        backbone_lr=0.2,
        batch_statistics="joint",
        labeled=WINDOWS,
        unlabeled=WINDOWS,
        evaluation=Evaluation(native_crop=CROP),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
