"""UniMatch V2 on COCO with the numbers of the released runs: DINOv2, AdamW, crop 518, batch 16."""

from dataclasses import replace

from semiseg.engine.recipe import Recipe
from semiseg.recipes.schedule import UNIMATCH_V2_EPOCHS, unimatch_steps
from semiseg.recipes.unimatch_v2_voc import BATCH
from semiseg.recipes.unimatch_v2_voc import recipe as voc


def recipe(split: str = "draw:1/32@0", backbone: str = "dinov2_base") -> Recipe:
    return replace(
        voc(backbone=backbone),
        name="unimatch_v2_coco",
        layout="coco",
        split=split,
        steps=unimatch_steps("coco", split, UNIMATCH_V2_EPOCHS, BATCH),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
