"""UniMatch on Cityscapes with the numbers of the released runs: crop 801, OHEM, one lr, every label counts."""

from dataclasses import replace

from semiseg.engine.methods.unimatch import UniMatchConfig
from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.recipes.schedule import SPLIT, UNIMATCH_EPOCHS, unimatch_steps
from semiseg.recipes.unimatch_voc import recipe as voc

OHEM = 200_000 / (2 * 801**2)
"""Share of the pixels that are kept, of two windows a process."""


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    return replace(
        voc(SPLIT, backbone),
        name="unimatch_cityscapes",
        layout="cityscapes",
        split=split,
        method=UniMatchConfig(ohem=OHEM, threshold=0.0),
        crop=801,
        steps=unimatch_steps("cityscapes", split, UNIMATCH_EPOCHS),
        lr=0.005,
        backbone_lr=1.0,
        evaluation=Evaluation(protocol="slide"),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
