"""CPS on Cityscapes with the numbers of the released runs: crop 800, OHEM, lr on the mean gradient."""

from dataclasses import replace

from semiseg.engine.methods.cps import CpsConfig
from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.recipes.cps_voc import recipe as voc
from semiseg.recipes.schedule import SPLIT, cps_steps


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    scaled = replace(voc().labeled, native_crop=800)
    return replace(
        voc(SPLIT, backbone),
        name="cps_cityscapes",
        layout="cityscapes",
        split=split,
        method=CpsConfig(weight=6.0, ohem=50_000 / 800**2),
        crop=800,
        steps=cps_steps("cityscapes", split),
        weight_decay=8e-4,
        labeled=scaled,
        unlabeled=scaled,
        evaluation=Evaluation(protocol="slide", native_crop=800),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
