"""UniMatch V2 on Pascal VOC with the numbers of the released runs: DINOv2, AdamW, crop 518, batch 16, teacher 0.996."""

from semiseg.engine.methods.programs import PROGRAMS
from semiseg.engine.methods.unimatch_v2 import UniMatchV2Config
from semiseg.engine.recipe import Evaluation, Recipe
from semiseg.recipes.schedule import SPLIT, UNIMATCH_V2_EPOCHS, unimatch_steps
from semiseg.recipes.unimatch_voc import recipe as unimatch

BATCH = 16


def recipe(split: str = SPLIT, backbone: str = "dinov2_base") -> Recipe:
    windows = unimatch()
    return Recipe(
        name="unimatch_v2_voc",
        layout="voc",
        split=split,
        network="dpt",
        backbone=backbone,
        method=UniMatchV2Config(),
        published=PROGRAMS["unimatch_v2"].source,
        crop=518,
        batch=BATCH,
        steps=unimatch_steps("voc", split, UNIMATCH_V2_EPOCHS, BATCH),
        optimizer="adamw",
        lr=2e-4,
        backbone_lr=1 / 40,
        weight_decay=0.01,
        labeled=windows.labeled,
        unlabeled=windows.unlabeled,
        evaluation=Evaluation(protocol="dino-whole"),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
