"""CutMix-Seg on Pascal VOC with the numbers of its program: crop 321, batch 10, Adam, constant lr, teacher 0.99."""

from dataclasses import replace

from semiseg.engine.methods.cutmix_seg import CutMixSegConfig
from semiseg.engine.methods.programs import PROGRAMS
from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes import colours
from semiseg.recipes.schedule import SPLIT

STEPS, CROP = 40 * 1000, 321


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    windows = Augmentation(
        scale="factors",
        factors=tuple(tenths / 10 for tenths in range(5, 16)),
        native_crop=CROP,
        filter="linear",
        padding="centre",
    )
    return Recipe(
        name="cutmix_seg_voc",
        layout="voc",
        split=split,
        backbone=backbone,
        method=CutMixSegConfig(),
        published=PROGRAMS["cutmix_seg"].source,
        crop=CROP,
        batch=10,
        steps=STEPS,
        optimizer="adamw",  # without decay it is Adam
        lr=1e-5,  # the program's for DeepLabv3+; DeepLabv2 has 3e-5
        backbone_lr=0.1,
        weight_decay=0.0,
        schedule="constant",
        labeled=windows,
        unlabeled=replace(windows, **colours.CUTMIX_SEG),
        evaluation=Evaluation(native_crop=CROP),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
