"""UniMatch V2 on ADE20K with the numbers of the released runs: DINOv2, AdamW, crop 518, batch 8."""

from dataclasses import replace

from semiseg.engine.recipe import Recipe
from semiseg.recipes.schedule import SPLIT, UNIMATCH_V2_EPOCHS, unimatch_steps
from semiseg.recipes.unimatch_v2_voc import recipe as voc


def recipe(split: str = SPLIT, backbone: str = "dinov2_base") -> Recipe:
    return replace(
        voc(SPLIT, backbone),
        name="unimatch_v2_ade20k",
        layout="ade20k",
        split=split,
        batch=8,
        steps=unimatch_steps("ade20k", split, UNIMATCH_V2_EPOCHS),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
