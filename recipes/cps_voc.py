"""CPS on Pascal VOC with the numbers of the released runs: crop 512, lr and decay on the mean gradient."""

from semiseg.engine.methods.cps import CpsConfig
from semiseg.engine.methods.programs import PROGRAMS
from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes.schedule import SPLIT, cps_steps


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    scaled = Augmentation(scale="factors", filter="linear", native_crop=512)
    return Recipe(
        name="cps_voc",
        layout="voc",
        split=split,
        backbone=backbone,
        method=CpsConfig(weight=1.5),
        published=PROGRAMS["cps"].source,
        crop=512,
        steps=cps_steps("voc", split),
        lr=0.0025,
        backbone_lr=1.0,
        weight_decay=4e-4,
        decay="weights",
        labeled=scaled,
        unlabeled=scaled,
        evaluation=Evaluation(protocol="slide", native_crop=512),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
