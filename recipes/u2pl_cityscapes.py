"""U2PL on Cityscapes with the numbers of its program: crop 769, batch 16, OHEM, one lr, no supervised epoch."""

from dataclasses import replace

from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.recipes.schedule import SPLIT
from semiseg.recipes.u2pl_voc import published

OHEM = 100_000 / (2 * 769**2)
"""Share of the pixels that are kept, of two windows a process."""


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    return replace(
        published("cityscapes", split, backbone, supervised_epochs=0, ohem=OHEM),
        backbone_lr=1.0,
        weight_decay=5e-4,
        evaluation=Evaluation(protocol="slide"),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
