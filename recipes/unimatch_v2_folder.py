"""UniMatch V2 on your own images: those with masks are labelled, all others are not."""

from dataclasses import replace

from semiseg.engine.recipe import Recipe
from semiseg.recipes import colours, own
from semiseg.recipes.supervised_folder import recipe as supervised
from semiseg.recipes.unimatch_v2_voc import recipe as voc


def recipe() -> Recipe:
    folder, published = supervised(), voc()
    return replace(
        published,
        name="unimatch_v2_folder",
        layout="folder",
        published="",
        split=folder.split,
        backbone="dinov2_small",
        method=own.unimatch_v2(),
        steps=folder.steps,
        scale_lr=folder.scale_lr,
        batch_statistics=folder.batch_statistics,
        labeled=folder.labeled,
        unlabeled=replace(folder.labeled, **colours.UNIMATCH),
        evaluation=folder.evaluation,
    )


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
