"""U2PL on Pascal VOC with the numbers of its program: crop 513, batch 16, teacher 0.99, the first epoch supervised."""

from dataclasses import replace

from semiseg.engine.methods.programs import PROGRAMS
from semiseg.engine.methods.u2pl import U2plConfig
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes.schedule import SPLIT, U2PL_EPOCHS, steps_of_passes

BATCH = 16


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    return published("voc", split, backbone, supervised_epochs=1)


def published(layout: str, split: str, backbone: str, *, supervised_epochs: int, ohem: float = 0.0) -> Recipe:
    """What both data sets have in common. The contrastive term is divided by the number of processes in the program,
    whose gradients are means over these; for one epoch after the supervised ones the teacher is the student."""
    program, epochs = PROGRAMS["u2pl"], U2PL_EPOCHS[layout]
    processes = program.processes_on(layout)
    method = U2plConfig(
        contrastive_weight=1 / processes,
        start=supervised_epochs / epochs,
        teacher_start=(supervised_epochs + 1) / epochs,
        ohem=ohem,
    )
    windows = Augmentation(scale="own", range=(0.5, 2.0), even_odds=True, filter="linear")
    return Recipe(
        name=f"u2pl_{layout}",
        layout=layout,
        split=split,
        backbone=backbone,
        method=method,
        published=program.source,
        crop=program.crops[layout],
        batch=BATCH,
        steps=steps_of_passes(layout, split, epochs, BATCH, processes),
        lr=0.01,
        backbone_lr=0.1,
        weight_decay=1e-4,
        labeled=windows,
        unlabeled=replace(windows),
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
