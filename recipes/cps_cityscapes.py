"""CPS on Cityscapes with the numbers of the released 1/8 run: crop 800, OHEM, lr on the mean gradient."""

from dataclasses import replace

from semiseg.engine.cli import main
from semiseg.engine.methods.cps import CpsConfig
from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.recipes.cps_voc import recipe as voc


def recipe() -> Recipe:
    scaled = replace(voc().labeled, native_crop=800)
    return replace(
        voc(),
        name="cps_cityscapes",
        layout="cityscapes",
        method=CpsConfig(weight=6.0, ohem=50_000 / 800**2),
        crop=800,
        steps=137 * 325,
        weight_decay=8e-4,
        labeled=scaled,
        unlabeled=scaled,
        evaluation=Evaluation(protocol="slide", native_crop=800),
    )


if __name__ == "__main__":
    main(recipe)
