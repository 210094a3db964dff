"""CPS with CutMix on Pascal VOC with the numbers of the released 1/8 run."""

from dataclasses import replace

from semiseg.engine.cli import main
from semiseg.engine.methods.cutmix_cps import CutMixCpsConfig
from semiseg.engine.recipe import Recipe
from semiseg.recipes.cps_voc import recipe as cps


def recipe() -> Recipe:
    return replace(cps(), name="cutmix_cps_voc", method=CutMixCpsConfig(weight=1.0))


if __name__ == "__main__":
    main(recipe)
