"""Mean Teacher on Pascal VOC with the numbers of TorchSemiSeg: crop 512, batch 16, weight 100, teacher 0.99. The
views are not its: there, teacher and student see the same images."""

from dataclasses import replace

from semiseg.engine.methods.mean_teacher import MeanTeacherConfig
from semiseg.engine.recipe import Recipe
from semiseg.recipes import colours
from semiseg.recipes.cps_voc import recipe as cps
from semiseg.recipes.schedule import SPLIT, cps_steps

BATCH = 16


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    same = cps(split, backbone)
    return replace(
        same,
        name="mean_teacher_voc",
        method=MeanTeacherConfig(),
        batch=BATCH,
        steps=cps_steps("voc", split, BATCH),
        lr=0.005,
        unlabeled=replace(same.unlabeled, **colours.CUTMIX_SEG),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
