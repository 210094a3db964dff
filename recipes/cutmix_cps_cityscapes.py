"""CPS with CutMix on Cityscapes with the numbers of the released 1/8 run."""

from dataclasses import replace

from semiseg.engine.cli import main
from semiseg.engine.methods.cutmix_cps import CutMixCpsConfig
from semiseg.engine.recipe import Recipe
from semiseg.recipes.cps_cityscapes import recipe as cps


def recipe() -> Recipe:
    return replace(cps(), name="cutmix_cps_cityscapes", method=CutMixCpsConfig(weight=5.0, ohem=50_000 / 800**2))


if __name__ == "__main__":
    main(recipe)
