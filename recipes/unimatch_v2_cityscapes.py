"""UniMatch V2 on Cityscapes with the numbers of the released runs: DINOv2, AdamW, crop 798, batch 8, OHEM."""

from dataclasses import replace

from semiseg.engine.methods.unimatch_v2 import UniMatchV2Config
from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.recipes.schedule import SPLIT, UNIMATCH_V2_EPOCHS, unimatch_steps
from semiseg.recipes.unimatch_v2_voc import recipe as voc


def recipe(split: str = SPLIT, backbone: str = "dinov2_base") -> Recipe:
    return replace(
        voc(SPLIT, backbone),
        name="unimatch_v2_cityscapes",
        layout="cityscapes",
        split=split,
        method=UniMatchV2Config(ohem=200_000 / (2 * 798**2)),
        crop=798,
        batch=8,
        steps=unimatch_steps("cityscapes", split, UNIMATCH_V2_EPOCHS),
        evaluation=Evaluation(protocol="unimatch2-slide"),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
