"""CPS with CutMix on Cityscapes with the numbers of the released runs."""

from dataclasses import replace

from semiseg.engine.methods.cutmix_cps import CutMixCpsConfig
from semiseg.engine.recipe import Recipe
from semiseg.recipes.cps_cityscapes import recipe as cps
from semiseg.recipes.schedule import SPLIT


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    method = CutMixCpsConfig(weight=5.0, ohem=50_000 / 800**2)
    return replace(cps(split, backbone), name="cutmix_cps_cityscapes", method=method)


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
