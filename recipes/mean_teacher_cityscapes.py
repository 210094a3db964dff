"""Mean Teacher on Cityscapes: CPS's data, steps and OHEM with Mean Teacher's numbers on VOC."""

from dataclasses import replace

from semiseg.engine.methods.mean_teacher import MeanTeacherConfig
from semiseg.engine.recipe import Recipe
from semiseg.recipes import colours
from semiseg.recipes.cps_cityscapes import recipe as cps
from semiseg.recipes.schedule import SPLIT


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    same = cps(split, backbone)
    return replace(
        same,
        name="mean_teacher_cityscapes",
        method=MeanTeacherConfig(ohem=same.method.ohem),
        unlabeled=replace(same.unlabeled, **colours.CUTMIX_SEG),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
