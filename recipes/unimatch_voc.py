"""UniMatch on Pascal VOC with the numbers of the released runs: crop 321, batch 8, threshold 0.95."""

from dataclasses import replace

from semiseg.engine.methods.programs import PROGRAMS
from semiseg.engine.methods.unimatch import UniMatchConfig
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes import colours
from semiseg.recipes.schedule import SPLIT, UNIMATCH_EPOCHS, unimatch_steps

WINDOWS = Augmentation(scale="own", range=(0.5, 2.0), filter="antialiased", fill="black")


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    return Recipe(
        name="unimatch_voc",
        layout="voc",
        split=split,
        backbone=backbone,
        method=UniMatchConfig(),
        published=PROGRAMS["unimatch"].source,
        crop=321,
        steps=unimatch_steps("voc", split, UNIMATCH_EPOCHS),
        lr=0.01,
        backbone_lr=0.1,
        weight_decay=1e-4,
        labeled=WINDOWS,
        unlabeled=replace(WINDOWS, **colours.UNIMATCH),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
