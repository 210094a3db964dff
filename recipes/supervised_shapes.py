"""Supervised baseline on the embedded data set, sized for two cores without a GPU."""

from semiseg.engine.methods.supervised import SupervisedConfig
from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes.unimatch_voc import COLOURS as STRONG

CROP = 80
WINDOWS = Augmentation(base=1.5, range=(0.75, 1.5))
COLOURS = STRONG | {"hue": 15 / 360, "gray": 0.0}
"""Of strong views. A class's hue is no accident here: figures are painted within 15 degrees or so of it, and the next
class's is 60 degrees off; so strong views neither turn hues further nor lose them in grey."""


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
        labeled=WINDOWS,
        unlabeled=WINDOWS,
        evaluation=Evaluation(native_crop=CROP),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
