"""CutMix-Seg on Cityscapes at half size, batch 4; square windows of as many pixels as the published 256 x 512."""

from dataclasses import replace

from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes import colours
from semiseg.recipes.cutmix_seg_voc import recipe as voc
from semiseg.recipes.schedule import SPLIT

CROP = 362


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    windows = Augmentation(scale="factors", factors=(0.5,), native_crop=CROP, filter="linear")
    return replace(
        voc(SPLIT, backbone),
        name="cutmix_seg_cityscapes",
        layout="cityscapes",
        split=split,
        crop=CROP,
        batch=4,
        labeled=windows,
        unlabeled=replace(windows, **colours.CUTMIX_SEG),
        evaluation=Evaluation(native_crop=2 * CROP),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
